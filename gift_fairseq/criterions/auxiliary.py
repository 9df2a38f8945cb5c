"""auxiliary: first-token prediction beside the maximum-likelihood objective."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig

from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.objectives.gold import FirstTokenFlags, FirstTokenTargets


@dataclass
class AuxiliaryConfig(FirstTokenFlags, LabelSmoothedCrossEntropyCriterionConfig):
    pass


@register_criterion("gift_auxiliary", dataclass=AuxiliaryConfig)
class AuxiliaryCriterion(GiftCriterion):
    """``(1 - a) sum_t l(x)[b, t] + a n_b l(x)[b, 0]`` per sentence b: gold prefixes, first-token targets.

    The decoder is causal: the loss of the first token from the start symbol alone *is* position 0 of the same pass.
    Where the original paid a second decoder pass, this pays none.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.objective = FirstTokenTargets(
            cfg, cfg.label_smoothing, self.symbols, cfg.report_accuracy, cfg.sentence_avg
        )
