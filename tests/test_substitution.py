"""The decoder reads other inputs, for other rows of the encoder's output, inside the one forward of the model."""

import pytest
import torch
from conftest import ARCHITECTURES, STRATEGIES, TRANSFORMER, batch_of, loss_and_gradient, watched

from gift_fairseq.substitution import decoder_reads


def test_hook_is_gone_after_an_error(build):
    built = build(f"{TRANSFORMER} {STRATEGIES['standard']}")

    def broken(*_args):
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError), decoder_reads(built.model.decoder, broken):
        built.model(**batch_of(built)["net_input"])
    assert not built.model.decoder._forward_pre_hooks


def test_full_context_alignment_reads_the_same_inputs_twice(build):
    built = build(f"{ARCHITECTURES['transformer_align']} {STRATEGIES['recurrent']} --full-context-alignment")
    with watched(built.model.decoder) as seen:
        loss_and_gradient(built, batch_of(built))
    assert len(seen) == 2 and torch.equal(seen[0], seen[1])
