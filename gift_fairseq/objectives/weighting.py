"""Likelihood-weighted gold targets: tokens that the model finds unlikely after their prefix count less."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from torch import Tensor
from torch.nn import functional

from gift_fairseq import metrics
from gift_fairseq.errors import UserError, check_above, check_choice, check_ratio
from gift_fairseq.objectives.gold import GoldTargets
from gift_fairseq.objectives.objective import Terms
from gift_fairseq.prefixes.source import Prefixes, Symbols

WEIGHTINGS = ("tailr", "gold")
TAILR_GAMMA = 0.1
AHEAD = 5  # tokens after its own that a token's return looks at
metrics.ratio("token_weight", "token_weights", "n_weighted", "likelihood weighting: mean weight of a gold token")


@dataclass
class WeightingFlags(LabelSmoothedCrossEntropyCriterionConfig):
    weighting: str = field(
        default="tailr",
        metadata={
            "help": "weight of a gold token by its probability p: tailr, p / (g + (1 - g) p), or gold, p times the "
            "mean p of it and the five tokens after it; default: tailr"
        },
    )
    tailr_gamma: float = field(
        default=TAILR_GAMMA,
        metadata={
            "help": "g of --weighting tailr, a ratio from 0 (off: all weights are 1) to 1 (the weight is p); default: "
            "0.1"
        },
    )
    weight_floor: float = field(
        default=0.3,
        metadata={
            "help": "lower bound of the weight (--weighting tailr) or of each probability (--weighting gold), above 0, "
            "up to 1 (off: all weights are 1); default: 0.3"
        },
    )


def tailr_weights(p: Tensor, gamma: float, floor: float) -> Tensor:
    """``clamp(p / (g + (1 - g) p), floor, 1)`` of probabilities ``p`` of any shape; g, which is ``gamma``, above 0."""
    return (p / (gamma + (1 - gamma) * p)).clamp(floor, 1)


def gold_weights(p: Tensor, scored: Tensor, floor: float) -> Tensor:
    """Of each token c R: c is ``clamp(p, floor, 1)``, R the mean c of it and the :data:`AHEAD` tokens after it.

    ``p`` (B, T) are probabilities. R is over what ``scored`` (B, T) has of these; elsewhere the weight means nothing.
    """
    clamped = p.clamp(floor, 1)
    seen, count = (
        sum(functional.pad(part, (0, ahead))[:, ahead:] for ahead in range(AHEAD + 1))
        for part in (clamped * scored, scored.to(p))
    )
    return clamped * seen / count.clamp(min=1)


class WeightedTargets(GoldTargets):
    """``sum_t w[b, t] l[b, t]``, divided, once an update, by the sum of the weights in place of the number of tokens.

    ``l`` is the whole label-smoothed loss of a position. ``w`` is a function of the probability p that the pass which
    is trained on, with its dropout, gives the gold token; no gradient goes through it. ``--weighting tailr``:
    :func:`tailr_weights` (Ji et al. 2023, Tailoring Language Generation Models under Total Variation Distance).
    ``gold``: :func:`gold_weights` (Pang and He 2021, Text Generation by Learning from Demonstrations, GOLD-s).

    fairseq's trainer divides the gradient by the summed sample size of all workers and micro-batches. Here the sample
    size is ``n - sum (1 - w)``, where n is fairseq's. This divides the weights exactly by their mean over the update.
    Tokens without a loss (the ignored prefix) count as before. With ``--sentence-avg``, 1 - w is first averaged within
    each sentence, so the divisor is the mean of the sentences' mean weights.

    Where we differ: neither paper divides by the mean, which keeps the size of the step. Pang and He's p are of
    two frozen copies of the model, without dropout, the newer one renewed now and then; their return is a sum, in which
    what lies beyond the end counts as sure, and their smoothing term has no weight.
    """

    def __init__(self, cfg: WeightingFlags, symbols: Symbols):
        super().__init__(cfg, symbols)
        self.weighting = check_choice("--weighting", cfg.weighting, WEIGHTINGS)
        self.gamma = check_ratio("--tailr-gamma", cfg.tailr_gamma)
        self.floor = check_ratio("--weight-floor", check_above("--weight-floor", cfg.weight_floor, 0))
        self.per_sentence = cfg.sentence_avg
        if self.weighting == "gold" and self.gamma != TAILR_GAMMA:
            raise UserError(f"--tailr-gamma is {self.gamma}, but --weighting is gold: leave it out")

    def __call__(
        self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor, reduce: bool = True
    ) -> Terms:
        if self.floor == 1 or self.gamma == 0:  # to the bit what the control descends
            return super().__call__(lprobs, prefixes, gold_lprobs, target, reduce)
        loss, nll, log, *_ = super().__call__(lprobs, prefixes, gold_lprobs, target, reduce=False)
        scored = prefixes.next_tokens[:, self.symbols.ignored :].ne(self.symbols.pad)
        weights = self.weights(nll.detach().neg().exp().view(scored.shape), scored)
        missing = (1 - weights).masked_fill(~scored, 0)
        counts = scored.sum(dim=1)
        log.update(token_weights=counts.sum() - missing.sum(), n_weighted=counts.sum())
        less = (missing.sum(dim=1) / counts.clamp(min=1)).sum() if self.per_sentence else missing.sum()
        loss = loss * weights.view_as(loss)
        if reduce:
            loss, nll = loss.sum(), nll.sum()
        return Terms(loss, nll, log, less_size=less)

    def weights(self, p: Tensor, scored: Tensor) -> Tensor:
        """Of gold tokens (B, T) by their probabilities ``p``; ``scored`` (B, T) is False for padding."""
        if self.weighting == "gold":
            return gold_weights(p, scored, self.floor)
        return tailr_weights(p, self.gamma, self.floor)
