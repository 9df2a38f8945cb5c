"""weighted: gold tokens weighted by the model's own probability of them."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig

from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.objectives.weighting import WeightedTargets, WeightingFlags


@dataclass
class WeightedConfig(WeightingFlags, LabelSmoothedCrossEntropyCriterionConfig):
    pass


@register_criterion("gift_weighted", dataclass=WeightedConfig)
class WeightedCriterion(GiftCriterion):
    """``sum w l(x) / sum w``: gold prefixes, :class:`WeightedTargets`; from the one pass that standard makes too."""

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.objective = WeightedTargets(cfg, cfg.label_smoothing, self.symbols, cfg.report_accuracy, cfg.sentence_avg)
