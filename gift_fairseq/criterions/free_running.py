"""A share of the updates generates: what the strategies share that let the decoder run freely."""

from dataclasses import dataclass, field
from typing import Dict, Optional

from torch import Tensor
from torch.nn import functional

from gift_fairseq import prefixes, rollout
from gift_fairseq.criterions.own_prefixes import OwnPrefixConfig, Reading
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
    """Beside a criterion: which updates generate, how long an output may get, and how it is read."""

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.generate_ratio = parse_schedule("--generate-ratio", cfg.generate_ratio)
        self.length_cap = check_at_least("--length-cap", cfg.length_cap, 1)

    def reads_gold(self) -> bool:
        return not self.generate_ratio.falls_on(self.update_num())

    def to_its_end(self, decoder, gold_inputs: Tensor, encoder_out, choose: rollout.Choice, longest: Tensor) -> Tensor:
        """What the decoder writes (R, L) to the end of each row of ``encoder_out``; see :func:`rollout.to_its_end`.

        The start symbol and the ignored prefix are those of ``gold_inputs`` (R, T). Where no sentence is as long as
        the prefix, padding is forced behind it, as in a batch with a longer one.
        """
        forced = gold_inputs[:, : 1 + self.ignore_prefix_size]
        missing = 1 + self.ignore_prefix_size - forced.size(1)
        return rollout.to_its_end(
            decoder,
            functional.pad(forced, (0, missing), value=self.padding_idx),
            encoder_out,
            choose,
            self.eos,
            self.padding_idx,
            longest,
            self.rollout_dtype,
        )

    def reading_of(self, tokens: Tensor, gold_inputs: Tensor, log: Dict, sentences: Optional[Tensor] = None) -> Reading:
        """The decoder reads its own ``tokens`` (R, L), each behind the one before; fills ``log``.

        ``sentences`` (R,) as in :class:`Reading`.
        """
        start = gold_inputs[:, 0] if sentences is None else gold_inputs[sentences, 0]
        inputs = prefixes.behind(start, tokens, self.padding_idx)
        chosen = prefixes.replaceable(inputs, self.padding_idx, self.ignore_prefix_size).sum()
        log.update(n_replaced=chosen, n_inputs=inputs.ne(self.padding_idx).sum())
        return Reading(inputs, tokens, sentences)

    def longest(self, target: Tensor, decoder) -> Tensor:
        """The most tokens (B,) that may be generated for ``target`` (B, T)."""
        lengths = target.ne(self.padding_idx).sum(dim=1)
        most = (lengths.double() * self.length_cap).round(decimals=6).ceil()  # 25 * 1.2 is 30, not a little more
        return most.clamp(max=decoder.max_positions()).long()
