"""A share of the updates generates: what the strategies share that let the decoder run freely."""

from dataclasses import dataclass, field

from torch import Tensor

from gift_fairseq.criterions.own_prefixes import OwnPrefixConfig
from gift_fairseq.options import check_at_least
from gift_fairseq.schedules import parse_schedule


@dataclass
class FreeRunningConfig(OwnPrefixConfig):
    generate_ratio: str = field(
        default="0.1",
        metadata={
            "help": "share of the optimizer updates that train on the decoder's own free-running output, a ratio from "
            "0 (off) to 1 (every update), 0.1 is every tenth; or a schedule over the updates, linear:0:0.2:1000 say; "
            "default: 0.1"
        },
    )
    length_cap: float = field(
        default=1.5,
        metadata={
            "help": "where the decoder ends its output itself: the longest it may get, in lengths of the gold one, 1 "
            "or more; default: 1.5"
        },
    )


class FreeRunning:
    """Beside a criterion: which updates generate, and how long an output may get."""

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.generate_ratio = parse_schedule("--generate-ratio", cfg.generate_ratio)
        self.length_cap = check_at_least("--length-cap", cfg.length_cap, 1)

    def reads_gold(self) -> bool:
        return not self.generate_ratio.falls_on(self.update_num())

    def longest(self, target: Tensor, decoder) -> Tensor:
        """The most tokens (B,) that may be generated for ``target`` (B, T)."""
        lengths = target.ne(self.padding_idx).sum(dim=1)
        most = (lengths.double() * self.length_cap).round(decimals=6).ceil()  # 25 * 1.2 is 30, not a little more
        return most.clamp(max=decoder.max_positions()).long()
