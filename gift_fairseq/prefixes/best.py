"""Best of n: the hypothesis that is nearest to the gold translation, in place of it where it is near enough."""

from dataclasses import dataclass, field, fields
from typing import Callable, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from gift_fairseq import metrics, rollout
from gift_fairseq.errors import UserError, check_at_least, check_choice, check_ratio, option
from gift_fairseq.prefixes import tensors
from gift_fairseq.prefixes.candidates import NOTHING_SAMPLED, CandidateFlags, Hypotheses, is_beam
from gift_fairseq.prefixes.free_running import LENGTH_CAP, share_of
from gift_fairseq.prefixes.source import Decoding, Prefixes, Symbols, generation_of

metrics.ratio("own_targets", "n_own", "n_best", "best of n: share of sentences that train on a hypothesis, %", 100.0)
metrics.ratio(
    "own_score", "own_score", "n_own", "best of n: mean score of the hypotheses that are trained on, 0 to 100"
)
metrics.ratio("drawn_score", "drawn_score", "n_best", "best of n: mean score of all hypotheses, 0 to 100")

PICKS = ("best", "random", "first")
Cost = Callable[[Tensor, Tensor], Tensor]  # of tokens (R, L) against gold ones (R, T): (R,), 0 to 1


@dataclass
class ChoiceFlags(FairseqDataclass):
    min_score: float = field(
        default=40.0,
        metadata={
            "help": "best of n: lowest score of a hypothesis that is trained on, sacreBLEU's sentence-level BLEU, "
            "chrF or their mean as --risk-cost says, from 0 to 100; default: 40"
        },
    )
    length_tolerance: float = field(
        default=0.1,
        metadata={
            "help": "best of n: largest allowed difference from the gold length, as a fraction of it (tokens), from 0 "
            "to 1; default: 0.1"
        },
    )
    pick: str = field(
        default="best",
        metadata={
            "help": "best of n: which of the hypotheses that reach --min-score and have an allowed length is trained "
            "on: best (the highest score); as controls without that choice, random or first (the greedy one, or the "
            "most probable of a beam); default: best"
        },
    )


@dataclass
class BestFlags(CandidateFlags, ChoiceFlags):
    pass


def check_unused(cfg, flags: type) -> None:
    """:class:`UserError` if ``cfg`` has another value than the default for an option of ``flags``."""
    for each in fields(flags):
        if each.name != "_name" and getattr(cfg, each.name) != each.default:  # fairseq's name of the criterion
            raise UserError(
                f"{option(each.name)} is {getattr(cfg, each.name)}, but nothing is chosen: add --targets best"
            )


class Choice:
    """Which of several hypotheses of a sentence is near enough to its gold translation to be trained on."""

    def __init__(self, cfg: ChoiceFlags):
        self.min_score = check_at_least("--min-score", cfg.min_score, 0)
        if self.min_score > 100:
            raise UserError(f"--min-score is {cfg.min_score}, but no score is above 100")
        self.tolerance = check_ratio("--length-tolerance", cfg.length_tolerance)
        self.pick = check_choice("--pick", cfg.pick, PICKS)

    def longest(self, gold: Tensor, most: int) -> Tensor:
        """How many tokens (B,) a hypothesis may have, by those of the ``gold`` one (B,), never above ``most``."""
        return tensors.times(gold, 1 + self.tolerance).floor().long().clamp(max=most)

    def among(self, tokens: Tensor, scores: Tensor, gold: Tensor, symbols: Symbols) -> Tuple[Tensor, Tensor]:
        """Which one (B,) of the hypotheses ``tokens`` (B, N, L) with ``scores`` (B, N), and whether there is one (B,).

        A hypothesis without ``</s>`` was cut and is none. ``gold`` (B,): number of tokens of the gold translation.
        """
        near = scores.ge(self.min_score) & tokens.eq(symbols.eos).any(2)
        near &= tokens.ne(symbols.pad).sum(2).ge(tensors.times(gold, 1 - self.tolerance).unsqueeze(1))
        merit = scores
        if self.pick == "random":
            merit = torch.rand(scores.shape, generator=rollout.worker_generator(scores.device), device=scores.device)
        elif self.pick == "first":
            merit = torch.zeros_like(scores)
        return merit.masked_fill(~near, -1).argmax(dim=1), near.any(dim=1)


class BestOfN:
    """``--candidates`` hypotheses of every sentence, and how near each of them is to the gold translation.

    The greedy one is always the first of the drawn ones: N - 1 are drawn; a beam need not hold it.
    """

    def __init__(self, cfg: BestFlags, symbols: Symbols, vocabulary: Dictionary, cost: Cost):
        """:class:`UserError` if an option has no meaning."""
        self.choice = Choice(cfg)
        self.count, by_beam = check_at_least("--candidates", cfg.candidates, 1), is_beam(cfg)
        generation = generation_of(cfg)
        if by_beam and cfg.choose == "sample":
            raise UserError(f"--choose is sample, but {NOTHING_SAMPLED}")
        if not by_beam and (cfg.choose == "sample") != (self.count > 1):
            raise UserError(
                f"--choose is {cfg.choose} and --candidates {self.count}, but the first is the greedy hypothesis and "
                "all others are sampled: --choose sample for 2 or more, --choose argmax for 1"
            )
        self.hypotheses = Hypotheses(self.count, by_beam, generation, symbols, vocabulary, greedy=True)
        self.symbols, self.cost = symbols, cost

    def proposed(self, decoding: Decoding) -> Tuple[Tensor, Tensor]:
        """Hypotheses (B, N, L), and their scores (B, N) from 0 to 100."""
        target = decoding.target
        longest = self.choice.longest(target.ne(self.symbols.pad).sum(dim=1), decoding.decoder.max_positions())
        tokens = self.hypotheses.of(decoding, longest)
        scores = 100 * (1 - self.cost(tokens, target.repeat_interleave(self.count, dim=0)))
        return tokens.view(len(target), self.count, -1), scores.view(len(target), self.count)


class BestPrefixes:
    """In a share of the updates, each sentence's hypothesis ``c*`` nearest to the gold translation, or that itself.

    ``c*`` is the one with the highest score among those of :class:`BestOfN` that have ended, whose length is within
    ``--length-tolerance`` of the gold one, and whose score is at least ``--min-score``; of equal ones the first. It is
    decoder input and target. A sentence without such a hypothesis keeps its gold translation. Online, what
    sequence-level interpolation does once for all of the training text (Kim and Rush 2016, Sequence-Level Knowledge
    Distillation, section 3.3, with a beam); here the model is its own teacher.

    The loss of a sentence is the sum over the tokens of what it trains on, and fairseq divides the batch by its number
    of gold tokens: both are sums over sentences, so batch shape changes nothing, and each token weighs the same.
    """

    def __init__(self, cfg: BestFlags, symbols: Symbols, vocabulary: Dictionary, cost: Cost):
        self.due = share_of(cfg)
        if cfg.length_cap != LENGTH_CAP:
            raise UserError(f"--length-cap is {cfg.length_cap}, but --length-tolerance says it for --targets best")
        self.best, self.symbols = BestOfN(cfg, symbols, vocabulary, cost), symbols

    def read(self, decoding: Decoding) -> Prefixes:
        target, (pad, _, _, ignored) = decoding.target, self.symbols
        gold = target.ne(pad).sum(dim=1)
        tokens, scores = self.best.proposed(decoding)
        best, own = self.best.choice.among(tokens, scores, gold, self.symbols)
        scored = gold.gt(ignored)  # of the others all tokens are given
        own &= scored
        best = best.unsqueeze(1)
        chosen = tokens.gather(1, best.unsqueeze(2).expand(-1, -1, tokens.size(2))).squeeze(1)
        both = tensors.stack(chosen, target, pad)
        chosen = torch.where(own.unsqueeze(1), both[: len(target)], both[len(target) :])
        chosen = chosen[:, : chosen.ne(pad).sum(dim=1).max()]
        inputs = tensors.after(decoding.gold_inputs[:, 0], chosen, pad)
        log = {
            "n_replaced": tensors.replaceable(inputs, pad, ignored)[own].sum(),
            "n_inputs": inputs.ne(pad).sum(),
            "n_best": scored.sum(),
            "n_own": own.sum(),
            "own_score": scores.gather(1, best)[own].sum(),
            "drawn_score": scores[scored].mean(dim=1).sum(),
        }
        return Prefixes(inputs, chosen, None, log)
