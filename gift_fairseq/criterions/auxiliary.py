"""auxiliary: first-token prediction beside the maximum-likelihood objective."""

from fairseq.criterions import register_criterion

from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.objectives.gold import FirstTokenFlags, FirstTokenTargets


@register_criterion("gift_auxiliary", dataclass=FirstTokenFlags)
class AuxiliaryCriterion(GiftCriterion):
    """``(1 - a) sum_t l(x)[b, t] + a n_b l(x)[b, 0]`` per sentence b: gold prefixes, first-token targets.

    The decoder is causal: the loss of the first token from the start symbol alone *is* position 0 of the same pass.
    Where the original paid a second decoder pass, this pays none.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.objective = FirstTokenTargets(cfg, self.symbols)
