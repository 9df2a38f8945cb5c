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
    less_size: Optional[Tensor] = None  # subtracted from the sample size, by which fairseq divides the gradient


class Objective(Protocol):
    needs_gold: bool  # whether it is to be given the predictions after gold prefixes too

    def __call__(self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor) -> Terms:
        """The terms of what the decoder predicts after ``prefixes``.

        An objective of a strategy without a source also takes fairseq's ``reduce``, as
        :class:`~gift_fairseq.objectives.gold.GoldTargets` does.

        ``lprobs`` (R, L, V) are log-probabilities after the prefixes' inputs (R, L), ``gold_lprobs`` (B, T, V) those
        after gold ones if :attr:`needs_gold` or another part of the loss asks for them. ``target`` (B, T) are the gold
        tokens. On the tokens of the ignored prefix and on padding nothing is taken.
        """
