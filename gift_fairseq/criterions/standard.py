"""standard: teacher forcing, the control of every other strategy."""

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig

from gift_fairseq.criterions.base import GiftCriterion


@register_criterion("gift_standard", dataclass=LabelSmoothedCrossEntropyCriterionConfig)
class StandardCriterion(GiftCriterion):
    """Teacher forcing: ``sum l(x)``, label-smoothed cross-entropy on gold inputs ``x`` (Vaswani et al. 2017, 5.4).

    fairseq's ``label_smoothed_cross_entropy``, with the measurements of the other strategies.
    """
