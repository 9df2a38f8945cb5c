"""recurrent: the decoder's own outputs replace its inputs, in a second pass."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion

from gift_fairseq.criterions.base import GiftCriterion, MixFlags
from gift_fairseq.objectives.oracle import TargetFlags, token_targets
from gift_fairseq.prefixes.scheduled import ScheduledFlags, ScheduledPrefixes
from gift_fairseq.prefixes.source import SamplingFlags, generation_of


@dataclass
class RecurrentConfig(ScheduledFlags, SamplingFlags, MixFlags, TargetFlags):
    pass


@register_criterion("gift_recurrent", dataclass=RecurrentConfig)
class RecurrentCriterion(GiftCriterion):
    """``sum l(x')``: scheduled sampling for Transformers (Mihaylova and Martins 2019) with all inputs replaced.

    The last pass reads the replaced inputs ``x'`` of :class:`ScheduledPrefixes` and is the only one with a gradient.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        source = ScheduledPrefixes(cfg, self.symbols, generation_of(cfg))
        self.train_on(source, token_targets(cfg, self.symbols), cfg)
