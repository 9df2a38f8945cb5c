"""auxiliary: first-token prediction beside the maximum-likelihood objective."""

from dataclasses import dataclass, field
from typing import Tuple

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from torch import Tensor

from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.options import check_ratio


@dataclass
class AuxiliaryConfig(LabelSmoothedCrossEntropyCriterionConfig):
    auxiliary_ratio: float = field(
        default=0.1,
        metadata={
            "help": "share of the loss given to predicting the first target token, a ratio from 0 (off) to 1; "
            "default: 0.1"
        },
    )


@register_criterion("gift_auxiliary", dataclass=AuxiliaryConfig)
class AuxiliaryCriterion(GiftCriterion):
    """``(1 - a) sum_t l(x)[b, t] + a w_b l(x)[b, 0]`` per sentence b, with a the auxiliary ratio.

    ``w_b`` is the number of scored tokens of the sentence, so that first tokens weigh as much as whole sentences when
    losses are averaged over tokens, and 1 with ``--sentence-avg``. The decoder is causal: the loss of the first token
    from the start symbol alone *is* position 0 of the same pass. Where the original paid a second decoder pass, this
    pays none. With ``--ignore-prefix-size N`` the first token is the first scored one, position N.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.auxiliary_ratio = check_ratio("--auxiliary-ratio", cfg.auxiliary_ratio)

    def loss_terms(self, lprobs: Tensor, target: Tensor, reduce: bool) -> Tuple[Tensor, Tensor]:
        if self.auxiliary_ratio == 0:
            return super().loss_terms(lprobs, target, reduce)
        loss, nll_loss = super().loss_terms(lprobs, target, reduce=False)
        lengths = target.ne(self.padding_idx).sum(dim=1, keepdim=True).to(loss.dtype)
        weights = loss.new_full(target.shape, 1 - self.auxiliary_ratio)
        # no column at all where no target is longer than the ignored prefix
        weights[:, :1] += self.auxiliary_ratio * (1 if self.sentence_avg else lengths)
        loss = loss * weights.view_as(loss)
        return (loss.sum(), nll_loss.sum()) if reduce else (loss, nll_loss)
