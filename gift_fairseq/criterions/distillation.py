"""distillation: gold pairs and the model's own translations, as training text."""

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig

from gift_fairseq.criterions.base import GiftCriterion


@register_criterion("gift_distillation", dataclass=LabelSmoothedCrossEntropyCriterionConfig)
class DistillationCriterion(GiftCriterion):
    """``sum l(x) + sum l(c)``: teacher forcing on gold translations ``x`` and on hypotheses ``c`` of the model itself.

    The hypotheses are in the data: ``gift candidates`` puts them there (Kim and Rush 2016, Sequence-Level Knowledge
    Distillation, section 3.2; here the teacher is the checkpoint that is fine-tuned). So the loss is that of
    ``gift_standard``; the name of its own says in logs and reports what was trained on.
    """
