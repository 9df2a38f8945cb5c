"""What an objective is given, and what it gives."""

from typing import Any, Dict, NamedTuple, Optional, Protocol

from torch import Tensor

from gift_fairseq.prefixes.source import Prefixes


class Terms(NamedTuple):
    """The value of an objective on one batch, in nats, summed over what is scored."""

    loss: Tensor  # to descend
    nll: Tensor  # negative log-likelihood, logged as nll_loss
    log: Dict[str, Any]
    shown: Optional[Tensor] = None  # logged as loss where the value of ``loss`` has another unit
    less_size: Optional[Tensor] = None  # what the batch's sample size, which the gradient is divided by, is less here


class Objective(Protocol):
    needs_gold: bool  # whether it is to be given the predictions after gold prefixes too

    def __call__(self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor) -> Terms:
        """The terms of what the decoder predicts after ``prefixes``.

        ``lprobs`` (R, L, V) are log-probabilities after the prefixes' inputs (R, L), ``gold_lprobs`` (B, T, V) those
        after gold ones if :attr:`needs_gold` or another part of the loss asks for them. ``target`` (B, T) are the gold
        tokens. On the tokens of the ignored prefix and on padding nothing is taken.
        """
