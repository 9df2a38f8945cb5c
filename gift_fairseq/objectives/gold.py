"""Gold targets: label-smoothed cross-entropy of the gold token of each position, whatever the prefix."""

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterionConfig,
    label_smoothed_nll_loss,
)
from torch import Tensor

from gift_fairseq import metrics
from gift_fairseq.errors import check_ratio
from gift_fairseq.objectives.objective import Terms
from gift_fairseq.prefixes.source import Prefixes, Symbols

metrics.ratio("first_token_accuracy", "n_first_right", "n_first", "share of first tokens predicted right, %", 100.0)


def label_smoothed(
    lprobs: Tensor, target: Tensor, smoothing: float, padding_idx: int, reduce: bool = True
) -> Tuple[Tensor, Tensor]:
    """Label-smoothed cross-entropy and negative log-likelihood, nats; fairseq's definition (Szegedy et al. 2016).

    ``lprobs`` (B, T, V), ``target`` (B, T). Summed if ``reduce``, otherwise (B T, 1) with 0 for padding.
    """
    return label_smoothed_nll_loss(
        lprobs.reshape(-1, lprobs.size(-1)), target.reshape(-1), smoothing, ignore_index=padding_idx, reduce=reduce
    )


def first_token_weights(
    target: Tensor, ratio: float, padding_idx: int, per_sentence: bool, dtype: torch.dtype
) -> Tensor:
    """Weights (B, T) of token losses: ``1 - ratio`` for all of ``target`` (B, T), and ``ratio`` more for the first.

    That is times the sentence's number of tokens, unless ``per_sentence``: first tokens then weigh as much as whole
    sentences when losses are averaged over tokens.
    """
    lengths = target.ne(padding_idx).sum(dim=1, keepdim=True).to(dtype)
    weights = torch.full_like(target, 1 - ratio, dtype=dtype)
    # no column at all where no target is longer than the ignored prefix
    weights[:, :1] += ratio * (1 if per_sentence else lengths)
    return weights


def accuracy_log(lprobs: Tensor, right_lprobs: Tensor, scored: Tensor, all_tokens: bool) -> Dict[str, Any]:
    """How many first tokens there are and were predicted right; with ``all_tokens`` also of all.

    ``lprobs`` (B, T, V); ``right_lprobs`` (B, T) are those of the right token, or of the most probable right one;
    ``scored`` (B, T) is True where a loss is taken; all without the ignored prefix. The prediction is right if no token
    has more: fairseq takes the argmax, which takes longer on a CPU and decides ties by the order of the tokens.
    """
    looked_at = slice(None) if all_tokens else slice(1)
    scored = scored[:, looked_at]
    right = right_lprobs[:, looked_at].ge(lprobs[:, looked_at].amax(-1)) & scored
    log = {"n_first": scored[:, :1].sum(), "n_first_right": right[:, :1].sum()}
    if all_tokens:
        log.update(total=scored.sum(), n_correct=right.sum())
    return log


class GoldTargets:
    """``sum_t l[b, t]``: :func:`label_smoothed` of the gold token at each position (Vaswani et al. 2017, 5.4)."""

    needs_gold = False

    def __init__(self, cfg: LabelSmoothedCrossEntropyCriterionConfig, symbols: Symbols):
        self.smoothing, self.report_accuracy = cfg.label_smoothing, cfg.report_accuracy
        self.symbols = symbols

    def __call__(
        self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor, reduce: bool = True
    ) -> Terms:
        """``reduce`` is fairseq's: False leaves the losses of tokens apart."""
        ignored = self.symbols.ignored
        lprobs, tokens = lprobs[:, ignored:], prefixes.next_tokens[:, ignored:]
        found = lprobs.detach()
        right_lprobs = found.gather(2, tokens.unsqueeze(2)).squeeze(2)
        log = accuracy_log(found, right_lprobs, tokens.ne(self.symbols.pad), self.report_accuracy)
        return Terms(*self.losses(lprobs, tokens, reduce), log)

    def losses(self, lprobs: Tensor, tokens: Tensor, reduce: bool = True) -> Tuple[Tensor, Tensor]:
        """As :func:`label_smoothed`, without the ignored prefix."""
        return label_smoothed(lprobs, tokens, self.smoothing, self.symbols.pad, reduce)


@dataclass
class FirstTokenFlags(LabelSmoothedCrossEntropyCriterionConfig):
    auxiliary_ratio: float = field(
        default=0.1,
        metadata={
            "help": "share of the loss given to predicting the first target token, a ratio from 0 (off) to 1; "
            "default: 0.1"
        },
    )


class FirstTokenTargets(GoldTargets):
    """``(1 - a) sum_t l[b, t] + a w_b l[b, 0]`` per sentence b, with a the ``--auxiliary-ratio``.

    ``w_b`` and the weights are those of :func:`first_token_weights`. With an ignored prefix of N tokens the first token
    is the first scored one, position N.
    """

    def __init__(self, cfg: FirstTokenFlags, symbols: Symbols):
        super().__init__(cfg, symbols)
        self.ratio = check_ratio("--auxiliary-ratio", cfg.auxiliary_ratio)
        self.per_sentence = cfg.sentence_avg

    def losses(self, lprobs: Tensor, tokens: Tensor, reduce: bool = True) -> Tuple[Tensor, Tensor]:
        if self.ratio == 0:  # to the bit what the control descends
            return super().losses(lprobs, tokens, reduce)
        loss, nll = super().losses(lprobs, tokens, reduce=False)
        weights = first_token_weights(tokens, self.ratio, self.symbols.pad, self.per_sentence, loss.dtype)
        loss = loss * weights.view_as(loss)
        return (loss.sum(), nll.sum()) if reduce else (loss, nll)
