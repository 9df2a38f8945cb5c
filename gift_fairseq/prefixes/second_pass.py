"""The prefixes of a second pass beside the gold one: gold again, or with some of the model's own tokens."""

from dataclasses import dataclass, field

from gift_fairseq.errors import UserError, check_ratio
from gift_fairseq.prefixes.scheduled import ScheduledFlags, ScheduledPrefixes
from gift_fairseq.prefixes.source import Decoding, Prefixes, SamplingFlags, Symbols, generation_of
from gift_fairseq.schedules import parse_schedule


@dataclass
class SecondPassFlags(SamplingFlags):
    own_ratio: float = field(
        default=0.0,
        metadata={
            "help": "probability that an input of the second pass is the model's own token, a ratio from 0 (R-Drop) to "
            "1 (all are); default: 0"
        },
    )
    consistency_weight: str = field(
        default="1",
        metadata={
            "help": "weight of the symmetric divergence of the two passes, from 0 (off, without --own-ratio) to 100; "
            "or a schedule over the updates, linear:0:2.5:1000 for example; default: 1"
        },
    )
    consistency_ratio: str = field(
        default="1",
        metadata={
            "help": "share of the optimizer updates that have a second pass, a ratio from 0 (off) to 1 (every update); "
            "or a schedule over the updates; default: 1"
        },
    )


class SecondPass:
    """``x'``: the gold inputs, each by chance ``--own-ratio`` replaced as :class:`ScheduledPrefixes` replaces it."""

    def __init__(self, cfg: SecondPassFlags, symbols: Symbols):
        own_ratio = check_ratio("--own-ratio", cfg.own_ratio)
        self.weight = parse_schedule("--consistency-weight", cfg.consistency_weight, most=100)
        self.ratio = parse_schedule("--consistency-ratio", cfg.consistency_ratio)
        own = ScheduledPrefixes(ScheduledFlags(gold_ratio=str(1 - own_ratio)), symbols, generation_of(cfg))
        self.own = own if own_ratio > 0 else None
        generating = (("--choose", cfg.choose, "argmax"), ("--rollout-dtype", cfg.rollout_dtype, "model"))
        for option, value, default in generating:
            if self.own is None and value != default:
                raise UserError(f"{option} is {value}, but no token is generated: give --own-ratio a value above 0")

    def due(self, update_num: int) -> bool:
        return (self.own is not None or self.weight.ratio(update_num) > 0) and self.ratio.falls_on(update_num)

    def read(self, decoding: Decoding) -> Prefixes:
        if self.own is not None:
            return self.own.read(decoding)
        return Prefixes(decoding.gold_inputs, decoding.target, None, {"n_replaced": 0})
