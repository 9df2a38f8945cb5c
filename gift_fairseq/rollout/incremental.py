"""Steps over fairseq's ``incremental_state``: slower, for every autoregressive decoder."""

from typing import Any, Dict

from torch import Tensor, nn

from gift_fairseq.rollout.sampling import Sampler, scores_of


class IncrementalSteps:
    """One rollout of any of fairseq's decoders; see :class:`~gift_fairseq.rollout.transformer.TransformerSteps`.

    Every row goes on to the end: rows cannot be taken out of every decoder's state.
    """

    retires_rows = False

    def __init__(self, decoder: nn.Module, encoder_out: Any, order: Tensor, length: int, sampler: Sampler, _rows=0):
        self.decoder, self.encoder_out, self.sampler = decoder, encoder_out, sampler
        self.incremental_state: Dict[str, Any] = {}

    def next_tokens(self, prefix: Tensor) -> Tensor:
        """The next tokens (B,) after ``prefix`` (B, t + 1); all but its last column was read before."""
        return self.sampler(self.logits(prefix))

    def logits(self, prefix: Tensor) -> Tensor:
        """The scores (B, V) by which :meth:`next_tokens` takes them."""
        output = self.decoder.forward(prefix, encoder_out=self.encoder_out, incremental_state=self.incremental_state)
        return scores_of(self.decoder, output)[:, -1]
