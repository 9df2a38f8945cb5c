"""A margin for the model's own hypotheses: each of their tokens is to be the greedy choice, and no more than that."""

from dataclasses import dataclass, field
from typing import Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from gift_fairseq import metrics
from gift_fairseq.errors import UserError, check_above, check_at_least
from gift_fairseq.objectives.gold import GoldTargets
from gift_fairseq.objectives.objective import Terms
from gift_fairseq.prefixes.source import Prefixes, Symbols

MARGIN_WEIGHT = 2.0
metrics.ratio("lacking_margin", "margin_lacking", "n_margin", "mean shortfall of own tokens from --margin, nats")


@dataclass
class MarginFlags(FairseqDataclass):
    margin: float = field(
        default=1.0,
        metadata={
            "help": "required margin between the log-probability of a token of an own translation and that of the best "
            "other token, nats, 0 or more; the loss is the shortfall; 0: cross-entropy instead; default: 1"
        },
    )
    margin_weight: float = field(
        default=MARGIN_WEIGHT, metadata={"help": "factor of the losses of --margin, above 0; default: 2"}
    )


@dataclass
class MarginConfig(MarginFlags, LabelSmoothedCrossEntropyCriterionConfig):
    pass


def checked(cfg: MarginFlags) -> Tuple[float, float]:
    """Margin and weight; :class:`~gift_fairseq.errors.UserError` if one has no meaning."""
    margin, weight = check_at_least("--margin", cfg.margin, 0), check_above("--margin-weight", cfg.margin_weight, 0)
    if margin == 0 and weight != MARGIN_WEIGHT:
        raise UserError(f"--margin-weight is {weight:g}, but with --margin 0 there is no margin: leave it out")
    return margin, weight


def lacking(lprobs: Tensor, tokens: Tensor, rows: Tensor, margin: float) -> Tensor:
    """``max(0, margin + log p(v) - log p(y))`` (B, T), nats, v the most probable token but y.

    ``lprobs`` (B, T, V); ``tokens`` (B, T) are the y. Log-probabilities or logits: the difference is the same. Without
    meaning where ``rows`` (B,) is False: there no v is looked for.
    """
    rivals = torch.zeros_like(tokens)
    others = lprobs.detach()[rows].scatter_(2, tokens[rows].unsqueeze(2), -torch.inf)
    rivals[rows] = others.max(dim=2).indices  # faster than argmax on a CPU
    own, other = lprobs.gather(2, torch.stack([tokens, rivals], dim=2)).unbind(2)
    return (margin + other - own).clamp(min=0)


class MarginTargets(GoldTargets):
    """``sum_t l[b, t]`` in gold rows, ``w sum_t max(0, m - log p(c_t) + max_v log p(v))`` in rows of hypotheses c.

    m is ``--margin``, w ``--margin-weight``, and v is any token but ``c_t``. So a hypothesis is trained on only where
    greedy search would leave it, or nearly: where its tokens are the choice by the margin they have no gradient, and
    the distribution is not sharpened further. It is the multiclass hinge loss (Crammer and Singer 2001, On the
    Algorithmic Implementation of Multiclass Kernel-based Vector Machines) of each token after its own prefix. That the
    target is the best hypothesis in reach, not the reference, is the local update of Liang et al. (2006, An End-to-End
    Discriminative Approach to Machine Translation), who update a perceptron by whole sentences.
    """

    def __init__(self, cfg: MarginConfig, symbols: Symbols):
        super().__init__(cfg, symbols)
        self.margin, self.weight = checked(cfg)

    def __call__(
        self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor, reduce: bool = True
    ) -> Terms:
        if self.margin == 0 or prefixes.own is None:
            return super().__call__(lprobs, prefixes, gold_lprobs, target, reduce)
        loss, nll, log, *_ = super().__call__(lprobs, prefixes, gold_lprobs, target, reduce=False)
        ignored = self.symbols.ignored
        tokens = prefixes.next_tokens[:, ignored:]
        own = prefixes.own.unsqueeze(1) & tokens.ne(self.symbols.pad)
        lacks = lacking(lprobs[:, ignored:], tokens, prefixes.own, self.margin)
        loss = torch.where(own, self.weight * lacks, loss.view_as(lacks))
        log.update(margin_lacking=lacks.detach()[own].sum(), n_margin=own.sum())
        return Terms(loss.sum(), nll.sum(), log) if reduce else Terms(loss.view_as(nll), nll, log)
