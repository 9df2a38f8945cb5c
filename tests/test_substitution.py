"""The decoder reads other inputs, for other rows of the encoder's output, inside the one forward of the model."""

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    LENGTHS,
    STRATEGIES,
    TRANSFORMER,
    assert_equal,
    assert_same_gradient,
    batch,
    deep_copy,
    loss_and_gradient,
    sentences,
    watched,
)
from naive import EOS, encode

from gift_fairseq.substitution import decoder_reads, encoder_rows


def test_hook_is_gone_after_an_error(build):
    built = build(f"{TRANSFORMER} {STRATEGIES['standard']}")

    def broken(*_args):
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError), decoder_reads(built.model.decoder, broken):
        built.model(**batch(built.task, sentences(LENGTHS))["net_input"])
    assert not built.model.decoder._forward_pre_hooks


def test_full_context_alignment_reads_the_same_inputs_twice(build):
    built = build(f"{ARCHITECTURES['transformer_align']} {STRATEGIES['recurrent']} --full-context-alignment")
    with watched(built.model.decoder) as seen:
        loss_and_gradient(built, batch(built.task, sentences(LENGTHS)))
    assert len(seen) == 2 and torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encoder_rows_are_the_encoders_of_those_sentences(build, architecture, states):
    """Outputs and gradients are as if each sentence had been encoded as often as its rows are; again, too.

    fairseq's fconv overwrites what it reorders, and its Transformer the states between the layers.
    """
    if states and not architecture.startswith("transformer"):
        pytest.skip("has no states between its layers")
    built = build(f"{ARCHITECTURES[architecture]} --criterion gift_standard")
    model = built.model
    pairs = sentences([(6, 3), (6, 5), (6, 4)] if architecture == "lightconv" else [(6, 3), (4, 5), (2, 4)])
    rows, targets = torch.tensor([2, 0, 0, 1, 2]), torch.randint(4, 27, (5, 7))
    targets[:, 0] = EOS

    def gradient(output):
        model.zero_grad()
        output.pow(2).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    # a row at a time, nothing padded
    naive = torch.cat(
        [
            model.decoder(targets[number : number + 1], encoder_out=encode(model, pairs[row][0]))[0]
            for number, row in enumerate(rows.tolist())
        ]
    )
    naive_gradient = gradient(naive)
    net_input = batch(built.task, pairs)["net_input"]
    options = {"return_all_hiddens": True} if states else {}
    encoder_out = model.encoder(net_input["src_tokens"], net_input["src_lengths"], **options)
    before = deep_copy(encoder_out)
    with torch.no_grad():
        encoder_rows(model, encoder_out, torch.tensor([1, 1]))  # as a rollout does before
    output = model.decoder(targets, encoder_out=encoder_rows(model, encoder_out, rows))[0]
    assert_equal(deep_copy(encoder_out), before)
    torch.testing.assert_close(output, naive, rtol=1e-6, atol=1e-6)
    assert_same_gradient(gradient(output), naive_gradient, rtol=1e-5, atol=1e-5)
    assert any(name.startswith("encoder") for name in naive_gradient)
