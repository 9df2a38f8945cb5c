"""Steps over fairseq's ``incremental_state``: slower, for every autoregressive decoder."""

from typing import Any, Dict

from torch import Tensor, nn

from gift_fairseq.rollout.choosing import scores_of


class IncrementalSteps:
    """One rollout of any of fairseq's decoders; see :class:`~gift_fairseq.rollout.transformer.TransformerSteps`."""

    retires_rows = False

    def __init__(self, decoder: nn.Module, encoder_out: Any, order: Tensor, length: int):
        self.decoder, self.encoder_out = decoder, encoder_out
        self.incremental_state: Dict[str, Any] = {}

    def step(self, prefix: Tensor) -> Tensor:
        """Scores (B, V) of the token behind ``prefix`` (B, t + 1); all but its last column was read before."""
        output = self.decoder.forward(prefix, encoder_out=self.encoder_out, incremental_state=self.incremental_state)
        return scores_of(self.decoder, output)[:, -1]
