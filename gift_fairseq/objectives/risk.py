"""Minimum risk: the expected cost of whole hypotheses."""

from dataclasses import dataclass, field
from typing import Optional, Tuple

import torch
from fairseq.data import Dictionary
from torch import Tensor

from gift_fairseq import metrics
from gift_fairseq.errors import check_above
from gift_fairseq.objectives.objective import Terms
from gift_fairseq.objectives.sentence_costs import CostFlags, SentenceCost
from gift_fairseq.prefixes.source import Prefixes, Symbols

metrics.ratio("risk", "risk", "n_risk", "minimum risk: expected cost of a sentence, 0 to 1")
metrics.ratio("candidates", "n_candidates", "n_risk", "minimum risk: distinct hypotheses of a sentence, on average")


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


@dataclass
class RiskFlags(CostFlags):
    risk_alpha: float = field(
        default=0.005,
        metadata={
            "help": "exponent of the probabilities by which the hypotheses of a sentence are weighed, above 0; near 0 "
            "all count alike, 1 is the model's own distribution over them; default: 0.005"
        },
    )
    risk_weight: float = field(
        default=1.0,
        metadata={
            "help": "factor of the risk, above 0; raise it if few updates train on it (--generate-ratio): Adam's step "
            "sizes otherwise follow the larger gradients of the other updates; default: 1"
        },
    )


class RiskObjective:
    """``w sum_b n_b`` :func:`minimum_risk` ``[b]``, the hypotheses being the rows of the prefixes, w ``--risk-weight``.

    ``n_b``, the number of scored gold tokens, gives a sentence the weight that it has in the token loss averaged over
    tokens; it is 1 if ``per_sentence``. With ``with_gold`` the gold translation is one more hypothesis. The cost is of
    the text without the ignored prefix.
    """

    def __init__(self, cfg: RiskFlags, with_gold: bool, per_sentence: bool, symbols: Symbols, vocabulary: Dictionary):
        self.needs_gold, self.per_sentence, self.symbols = with_gold, per_sentence, symbols
        self.alpha = check_above("--risk-alpha", cfg.risk_alpha, 0)
        self.weight = check_above("--risk-weight", cfg.risk_weight, 0)
        self.cost = SentenceCost(cfg.risk_cost, vocabulary)

    def __call__(self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor) -> Terms:
        sentences, tokens, count = prefixes.sentences, prefixes.next_tokens, len(target)
        lengths = target[:, self.symbols.ignored :].ne(self.symbols.pad).sum(dim=1)
        costs = self.cost.of(tokens, target[sentences], self.symbols.ignored)
        log_probs = self._log_probability(lprobs, tokens)
        if self.needs_gold:
            everyone = torch.arange(count, device=target.device)
            log_probs = torch.cat([log_probs, self._log_probability(gold_lprobs, target)])
            costs, sentences = torch.cat([costs, costs.new_zeros(count)]), torch.cat([sentences, everyone])
        loss, risk = minimum_risk(log_probs, costs, sentences, count, self.alpha)
        scored = lengths > 0  # of the others all tokens are given
        log = {"risk": risk[scored].sum(), "n_risk": scored.sum(), "n_candidates": scored[sentences].sum()}
        nll = expected_cost(torch.zeros_like(log_probs), -log_probs.detach(), sentences, count).sum()  # the mean
        return Terms(self.weight * (loss if self.per_sentence else lengths * loss).sum(), nll, log, shown=nll)

    def _log_probability(self, lprobs: Tensor, tokens: Tensor) -> Tensor:
        """Of the whole ``tokens`` (R, L), (R,), by ``lprobs`` (R, L, V)."""
        lprobs, tokens = lprobs[:, self.symbols.ignored :], tokens[:, self.symbols.ignored :]
        each = lprobs.gather(2, tokens.unsqueeze(2)).squeeze(2)
        return each.masked_fill(tokens.eq(self.symbols.pad), 0).sum(dim=1)
