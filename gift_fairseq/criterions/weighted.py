"""weighted: gold tokens weighted by the model's own probability of them."""

from fairseq.criterions import register_criterion

from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.objectives.weighting import WeightedTargets, WeightingFlags


@register_criterion("gift_weighted", dataclass=WeightingFlags)
class WeightedCriterion(GiftCriterion):
    """``sum w l(x) / sum w``: gold prefixes, :class:`WeightedTargets`; from the one pass that standard makes too."""

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.objective = WeightedTargets(cfg, self.symbols)
