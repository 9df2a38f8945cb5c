"""Gold targets: label-smoothed cross-entropy of the gold token of each position, whatever the prefix."""

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.dataclass import FairseqDataclass
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


def accuracy_log(lprobs: Tensor, target: Tensor, padding_idx: int, all_tokens: bool) -> Dict[str, Any]:
    """How many first tokens there are and were predicted right; with ``all_tokens`` also of all.

    ``lprobs`` (B, T, V), ``target`` (B, T), both without the ignored prefix.
    """
    first = target[:, :1].ne(padding_idx)
    log = {"n_first": first.sum()}
    log["n_first_right"] = (lprobs[:, :1].argmax(-1).eq(target[:, :1]) & first).sum()
    if all_tokens:
        scored = target.ne(padding_idx)
        log["total"] = scored.sum()
        log["n_correct"] = (lprobs.argmax(-1).eq(target) & scored).sum()
    return log


class GoldTargets:
    """``sum_t l[b, t]``: :func:`label_smoothed` of the gold token at each position (Vaswani et al. 2017, 5.4)."""

    needs_gold = False

    def __init__(self, smoothing: float, symbols: Symbols, report_accuracy: bool):
        self.smoothing, self.symbols, self.report_accuracy = smoothing, symbols, report_accuracy

    def __call__(
        self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor, reduce: bool = True
    ) -> Terms:
        """``reduce`` is fairseq's: False leaves the losses of tokens apart."""
        ignored, pad = self.symbols.ignored, self.symbols.pad
        lprobs, tokens = lprobs[:, ignored:], prefixes.next_tokens[:, ignored:]
        log = accuracy_log(lprobs.detach(), tokens, pad, self.report_accuracy)
        return Terms(*self.losses(lprobs, tokens, reduce), log)

    def losses(self, lprobs: Tensor, tokens: Tensor, reduce: bool) -> Tuple[Tensor, Tensor]:
        """As :func:`label_smoothed`, without the ignored prefix."""
        return label_smoothed(lprobs, tokens, self.smoothing, self.symbols.pad, reduce)


@dataclass
class FirstTokenFlags(FairseqDataclass):
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

    def __init__(self, cfg: FirstTokenFlags, smoothing: float, symbols: Symbols, report_accuracy: bool, per_sentence):
        super().__init__(smoothing, symbols, report_accuracy)
        self.ratio = check_ratio("--auxiliary-ratio", cfg.auxiliary_ratio)
        self.per_sentence = per_sentence

    def losses(self, lprobs: Tensor, tokens: Tensor, reduce: bool) -> Tuple[Tensor, Tensor]:
        if self.ratio == 0:  # to the bit what the control descends
            return super().losses(lprobs, tokens, reduce)
        loss, nll = super().losses(lprobs, tokens, reduce=False)
        weights = first_token_weights(tokens, self.ratio, self.symbols.pad, self.per_sentence, loss.dtype)
        loss = loss * weights.view_as(loss)
        return (loss.sum(), nll.sum()) if reduce else (loss, nll)
