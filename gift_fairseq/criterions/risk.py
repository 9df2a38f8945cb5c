"""risk: the expected cost of whole hypotheses, by a sentence-level score."""

from dataclasses import dataclass, field
from typing import List, Optional, Tuple

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from gift_fairseq import prefixes, rollout
from gift_fairseq.criterions.free_running import FreeRunning, FreeRunningConfig
from gift_fairseq.criterions.own_prefixes import OwnPrefixCriterion, Reading, refuse_drawing
from gift_fairseq.evaluation.sentence_costs import METRICS, SentenceCost
from gift_fairseq.options import check_above, check_at_least, check_choice
from gift_fairseq.substitution import encoder_rows, unwrapped

SOURCES = ("sample", "beam")


@dataclass
class RiskConfig(FreeRunningConfig):
    candidates: int = field(
        default=4, metadata={"help": "hypotheses of each sentence that are weighed, 2 or more; default: 4"}
    )
    candidates_from: str = field(
        default="sample",
        metadata={
            "help": "where they come from: sample (drawn from the model; equal ones count once) or beam (the best of "
            "fairseq's beam search); default: sample"
        },
    )
    risk_gold: bool = field(default=False, metadata={"help": "the gold translation is one more of them; default: off"})
    risk_cost: str = field(
        default="bleu",
        metadata={
            "help": "what a hypothesis costs: 1 minus sacreBLEU's sentence-level bleu (smoothed) or chrf; default: bleu"
        },
    )
    risk_alpha: float = field(
        default=0.005,
        metadata={
            "help": "exponent of the probabilities by which the hypotheses of a sentence are weighed, above 0; near 0 "
            "all count alike, 1 is the model's own distribution over them; default: 0.005"
        },
    )


@register_criterion("gift_risk", dataclass=RiskConfig)
class RiskCriterion(FreeRunning, OwnPrefixCriterion):
    """``sum_b n_b sum_c (Q(c) (cost(c) - risk)) log P(c)`` on the chosen updates, ``sum l(x)`` on the others.

    Minimum risk training (Shen et al. 2016, Minimum Risk Training for Neural Machine Translation, section 3): c are the
    distinct hypotheses of a set that is drawn anew every time, ``P(c)`` their probabilities by the model, ``Q(c) =
    P(c)^a / sum_c' P(c')^a`` with a ``--risk-alpha``, and ``risk = sum_c Q(c) cost(c)``. No gradient goes through what
    is in brackets, so the gradient is that of ``risk / a`` over the given set, exactly, at every alpha and temperature.
    Dividing by a, which is no more than a step size in theirs, keeps that size for every a. ``n_b``, the number of
    scored gold tokens, gives a sentence the weight that it has in the token loss averaged over tokens; it is 1 with
    ``--sentence-avg``. Mixed with the token loss by ``--mle-weight``, as Edunov et al. (2018, Classical Structured
    Prediction Losses for Sequence to Sequence Learning) do. Wang and Sennrich (2020, On Exposure Bias, Hallucination
    and Domain Shift in Neural Machine Translation) leave the gold translation out of the candidates, which is the
    default here.

    Over all sets that may be drawn, its mean is not in general the gradient of the expected cost under the whole model.
    The tests enumerate small distributions, with N = 4 draws; the scale is the part along that gradient:

    - With a near 0 and temperature 1, a set without equal draws gives REINFORCE with the mean cost as its baseline,
      whose mean is ``1 - 1/N`` times that gradient where equal draws count each. Here they count once, which changes
      the scale but hardly the direction: cosine 1.00, scale 0.83 (0.79 to 0.96) at a = 0.005.
    - At a temperature other than 1, or with ``--top-k``, the candidates come from another distribution and the estimate
      is biased: at temperature 0.5 cosine 0.96 (0.86 to 1.00), scale 0.56 (0.04 to 0.99), the smaller the more one
      hypothesis outweighs the others. Weighing draws by P over the probability of being drawn would mend that for many
      draws only: for four, cosine 0.97, scale 0.51.
    - A larger a trusts the probabilities within the set: at a = 1 and temperature 1 cosine 0.98, scale 0.62. A beam
      and ``--risk-gold`` are no samples at all.

    The cost is of the text without the forced tokens of ``--ignore-prefix-size``. ``loss`` is logged so that it
    compares with that of other updates: in place of the above, whose value means nothing, stands the mean negative
    log-likelihood of a sentence's candidates, as in ``nll_loss``, mixed with the gold loss by ``--mle-weight``.
    ``risk`` shows the expected cost.

    Where we differ: candidates come from the rollout engine, in one batch and without decoder dropout, over the encoder
    pass that is trained on; the cost is of whole words, by sacreBLEU.
    """

    value_is_logged = False

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.candidates = check_at_least("--candidates", cfg.candidates, 2)
        self.by_beam = check_choice("--candidates-from", cfg.candidates_from, SOURCES) == "beam"
        if self.by_beam:
            refuse_drawing(cfg, "a beam draws nothing: leave out --candidates-from beam")
        self.with_gold = cfg.risk_gold
        self.alpha = check_above("--risk-alpha", cfg.risk_alpha, 0)
        self.cost = SentenceCost(check_choice("--risk-cost", cfg.risk_cost, METRICS), task.target_dictionary)

    def reads_gold_too(self) -> bool:
        return self.with_gold or super().reads_gold_too()

    def reading(self, model, sample, gold_inputs, encoder_out, extra, log) -> Reading:
        target = sample["target"]
        sentences = torch.arange(len(target), device=target.device).repeat_interleave(self.candidates)
        find = self._best if self.by_beam else self._drawn
        tokens = find(model, sample, gold_inputs, encoder_out, sentences)
        kept = first_of_equals(tokens, self.candidates, target if self.with_gold else None, self.padding_idx)
        tokens, sentences = tokens[kept], sentences[kept]
        return self.reading_of(tokens, gold_inputs, log, sentences)

    def _drawn(self, model, sample, gold_inputs, encoder_out, sentences: Tensor) -> Tensor:
        """Candidates (B N, L), row r one of sentence ``sentences[r]``; ended by ``</s>`` or cut, then padding."""
        with torch.no_grad():
            encoder_out = encoder_rows(model, encoder_out, sentences)
        choose = rollout.random_choice(self.sampling._replace(forbidden=self.forbidden_but_end), gold_inputs.device)
        longest = self.longest(sample["target"], model.decoder)
        return self.to_its_end(model.decoder, gold_inputs[sentences], encoder_out, choose, longest[sentences])

    def _best(self, model, sample, gold_inputs, encoder_out, sentences: Tensor) -> Tensor:
        """As :meth:`_drawn`, the best that beam search finds; each ends in ``</s>``."""
        return rollout.beam(
            unwrapped(model),
            sample["net_input"],
            encoder_out,
            self.task.target_dictionary,
            self.candidates,
            self.longest(sample["target"], model.decoder),
            self.ignore_prefix_size,
            self.rollout_dtype,
        )

    def own_terms(self, lprobs, reading: Reading, gold_lprobs, target, log) -> Tuple[Tensor, Tensor]:
        sentences, tokens = reading.sentences, reading.tokens
        lengths = target[:, self.ignore_prefix_size :].ne(self.padding_idx).sum(dim=1)
        costs = torch.tensor(self._costs(tokens, target[sentences]), dtype=torch.float64, device=target.device)
        scores = self._log_probability(lprobs, tokens)
        if self.with_gold:
            everyone = torch.arange(len(target), device=target.device)
            scores = torch.cat([scores, self._log_probability(gold_lprobs, target)])
            costs, sentences = torch.cat([costs, costs.new_zeros(len(target))]), torch.cat([sentences, everyone])
        loss, risk = minimum_risk(scores, costs, sentences, len(target), self.alpha)
        scored = lengths > 0  # of the others all tokens are given
        log.update(risk=risk[scored].sum(), n_risk=scored.sum(), n_candidates=scored[sentences].sum())
        nll = expected_cost(torch.zeros_like(scores), -scores.detach(), sentences, len(target))  # all alike: the mean
        return (loss if self.sentence_avg else lengths * loss).sum(), nll.sum()

    def _costs(self, tokens: Tensor, target: Tensor) -> List[float]:
        """Of the text of each of ``tokens`` (R, L) against that of ``target`` (R, T), without the forced prefix."""
        return self.cost.costs(
            tokens[:, self.ignore_prefix_size :].tolist(), target[:, self.ignore_prefix_size :].tolist()
        )

    def _log_probability(self, lprobs: Tensor, tokens: Tensor) -> Tensor:
        """Of the whole ``tokens`` (R, L) without the ignored prefix, (R,), by ``lprobs`` (R, L, V)."""
        lprobs, tokens = self.scored(lprobs, tokens)
        each = lprobs.gather(2, tokens.unsqueeze(2)).squeeze(2)
        return each.masked_fill(tokens.eq(self.padding_idx), 0).sum(dim=1)


def first_of_equals(tokens: Tensor, candidates: int, target: Optional[Tensor], padding_idx: int) -> Tensor:
    """Mask (B N,), True for the first of equal rows among the N ``candidates`` of a sentence, of ``tokens`` (B N, L).

    None that equals its ``target`` (B, T), if that is given.
    """
    each = tokens.view(-1, candidates, tokens.size(1))
    repeated = (each.unsqueeze(2) == each.unsqueeze(1)).all(-1).tril(diagonal=-1).any(2).flatten()
    if target is not None:
        rows = prefixes.stack(tokens, target.repeat_interleave(candidates, dim=0), padding_idx)
        repeated |= (rows[: len(tokens)] == rows[len(tokens) :]).all(-1)
    return ~repeated


def shares(scores: Tensor, sentences: Tensor, count: int) -> Tensor:
    """The softmax (R,) of ``scores`` (R,) over the rows of the same sentence.

    Rows belong to ``sentences`` (R,), numbers below ``count``.
    """
    highest = scores.new_full((count,), float("-inf")).scatter_reduce(0, sentences, scores.detach(), "amax")
    weights = (scores - highest[sentences]).exp()
    return weights / total(weights, sentences, count)[sentences]


def total(values: Tensor, sentences: Tensor, count: int) -> Tensor:
    """The sums (count,) of ``values`` (R,) over the rows of the same sentence."""
    return values.new_zeros(count).index_add(0, sentences, values)


def expected_cost(scores: Tensor, costs: Tensor, sentences: Tensor, count: int) -> Tensor:
    """For each of ``count`` sentences the mean cost (count,) of its rows, weighed by their :func:`shares`.

    ``scores`` and ``costs`` (R,) are of rows that belong to ``sentences`` (R,); every sentence has one at least.
    """
    return total(shares(scores, sentences, count) * costs, sentences, count)


def minimum_risk(
    log_probs: Tensor, costs: Tensor, sentences: Tensor, count: int, alpha: float
) -> Tuple[Tensor, Tensor]:
    """A loss (count,) whose gradient is ``1 / alpha`` times that of the risk; and the risk (count,), without gradient.

    The risk is :func:`expected_cost` with the scores ``alpha * log_probs``. The loss is
    ``sum_c (Q(c) (cost(c) - risk)) log P(c)``, with no gradient for what is in brackets; its value means nothing.
    """
    q = shares(alpha * log_probs.detach().double(), sentences, count)
    risk = total(q * costs, sentences, count)
    advantages = q * (costs - risk[sentences])  # in float64: a small difference of larger numbers
    return total(advantages.to(log_probs) * log_probs, sentences, count), risk
