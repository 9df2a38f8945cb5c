"""The best of a beam, by fairseq's own generator over an encoder pass that is already made."""

from typing import Any, Dict, List, Optional

import torch
from fairseq.data import Dictionary
from fairseq.search import BeamSearch
from fairseq.sequence_generator import EnsembleModel, SequenceGenerator
from torch import Tensor, nn

from gift_fairseq.rollout.sampling import generating
from gift_fairseq.substitution import without_layer_states


class _Encoded(EnsembleModel):
    """One model, its encoder's output given."""

    def __init__(self, model: nn.Module, encoder_out: Any):
        super().__init__([model])
        self.encoder_out = encoder_out

    def forward_encoder(self, net_input: Dict[str, Tensor]):
        return [without_layer_states(self.encoder_out)]

    def set_decoder_beam_size(self, beam_size: int) -> None:
        """Nothing: a model that heeds it (BART) reads every ``beam_size``-th source only, in training too."""


class _EachToItsLength(BeamSearch):
    """Beam search that ends each sentence b at ``longest[b]`` tokens, ``</s>`` among them, and none before its first.

    fairseq has one length for all: what else is in the batch would change a translation that is cut there.
    """

    def __init__(self, vocabulary: Dictionary, longest: Tensor):
        super().__init__(vocabulary)
        self.longest = longest
        self.stop_on_max_len = True  # a sentence may have fewer translations than the beam has places

    def step(self, step, lprobs, scores, prev_output_tokens=None, original_batch_idxs=None, candidate_multiple=2):
        ends = self.longest[original_batch_idxs].le(step + 1)
        if step == 0:
            lprobs[~ends, :, self.eos] = float("-inf")
        if ends.any():
            of_eos = lprobs[ends, :, self.eos]
            lprobs[ends] = float("-inf")
            lprobs[ends, :, self.eos] = of_eos
        return super().step(step, lprobs, scores, prev_output_tokens, original_batch_idxs, candidate_multiple)


def beam(
    model: nn.Module,
    net_input: Dict[str, Any],
    encoder_out: Any,
    vocabulary: Dictionary,
    size: int,
    longest: Tensor,
    prefix_size: int = 0,
    dtype: Optional[torch.dtype] = None,
) -> Tensor:
    """The ``size`` best translations of each sentence (B size, L), best first, ``</s>`` at the end, then padding.

    ``model`` is not wrapped; ``encoder_out`` is of ``net_input``, whose first ``prefix_size`` gold inputs after the
    start symbol are forced; where they are all of a sentence, it ends after them. A translation has at most
    ``longest`` (B,) tokens. Where there are fewer than ``size``, the best one comes again. ``dtype`` is that of the
    arithmetic, None the model's own.
    """
    gold_inputs = net_input["prev_output_tokens"]
    prefix = gold_inputs[:, 1 : 1 + prefix_size] if prefix_size else None
    if prefix is not None:
        forced = prefix.ne(vocabulary.pad()).sum(dim=1)
        longest = torch.where(forced < prefix_size, forced + 1, longest)
    with generating(model, gold_inputs.device, dtype):
        generator = SequenceGenerator(
            _Encoded(model, encoder_out),
            vocabulary,
            beam_size=size,
            max_len_b=int(longest.max()) - 1,  # without </s>
            min_len=0,  # the search sees to it
            search_strategy=_EachToItsLength(vocabulary, longest),
            tokens_to_suppress=(vocabulary[vocabulary.bos()],),
        )
        found = generator.forward({"net_input": net_input}, prefix_tokens=prefix)
    rows: List[Tensor] = []
    for best in found:
        tokens = [hypothesis["tokens"].to(gold_inputs) for hypothesis in best[:size]]
        tokens = tokens or [gold_inputs.new_tensor([vocabulary.eos()])]  # all scores are NaN
        rows += tokens + tokens[:1] * (size - len(tokens))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=vocabulary.pad())
