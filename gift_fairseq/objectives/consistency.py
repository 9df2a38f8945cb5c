"""Consistency: two passes over the same sentences are to predict alike."""

from typing import Callable, Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from torch import Tensor
from torch.autograd.function import once_differentiable

from gift_fairseq import metrics
from gift_fairseq.objectives.gold import GoldTargets
from gift_fairseq.objectives.objective import Terms
from gift_fairseq.prefixes.source import Prefixes, Symbols

CHUNK = 2**19  # numbers of a temporary: few enough MiB for a processor's cache
metrics.ratio(
    "divergence", "divergence", "n_divergence", "consistency: symmetric divergence of the two passes, nats a token"
)


class _SymmetricKL(torch.autograd.Function):
    """The gradient is made with the value, in chunks of rows: autograd would keep six tensors of the predictions' size,
    and take each exponential again."""

    @staticmethod
    def forward(ctx, one: Tensor, other: Tensor, rows: Tensor) -> Tensor:
        total, gradients = one.new_zeros(()), (torch.zeros_like(one), torch.zeros_like(other))
        for part in rows.split(max(1, CHUNK // one.size(-1))):
            p, q = one[part], other[part]
            log_ratio = p - q
            apart = p.exp_() - q.exp_()
            total += (apart * log_ratio).sum()
            gradients[0][part] = p.mul_(log_ratio).add_(apart)
            gradients[1][part] = q.mul_(log_ratio).add_(apart).neg_()
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tuple[Tensor, Tensor, None]:
        one, other = ctx.saved_tensors
        return one.mul_(gradient), other.mul_(gradient), None


def symmetric_kl(lprobs: Tensor, other: Tensor, scored: Tensor) -> Tensor:
    """``sum_t KL(p || q) + KL(q || p) = sum_t sum_v (p - q) (log p - log q)``, nats, where ``scored`` (B, T) is True.

    ``lprobs`` and ``other`` (B, T, V) are the log-probabilities of p and q; both get a gradient, once.
    """
    rows = scored.reshape(-1).nonzero().squeeze(1)
    return _SymmetricKL.apply(lprobs.flatten(0, 1), other.flatten(0, 1), rows)


class ConsistencyTargets(GoldTargets):
    """``sum_t l(x')[b, t] + w (KL(p || q) + KL(q || p))``: p after the prefixes ``x'``, q after gold ones.

    To be halved together with ``sum_t l(x)``. ``weight`` says w.
    """

    needs_gold = True

    def __init__(self, cfg: LabelSmoothedCrossEntropyCriterionConfig, symbols: Symbols, weight: Callable[[], float]):
        super().__init__(cfg, symbols)
        self.weight = weight

    def __call__(self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor) -> Terms:
        terms, ignored = super().__call__(lprobs, prefixes, None, target), self.symbols.ignored
        scored = target[:, ignored:].ne(self.symbols.pad)
        divergence = symmetric_kl(lprobs[:, ignored:], gold_lprobs[:, ignored:], scored)
        terms.log.update(divergence=divergence.detach(), n_divergence=scored.sum())
        return terms._replace(loss=terms.loss + self.weight() * divergence)
