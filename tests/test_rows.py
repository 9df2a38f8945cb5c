"""Rows of a batch: what the encoder said of a sentence given to several, and the padding of what is read and said."""

import pytest
import torch
from conftest import ARCHITECTURES, assert_same_gradient, batch, sentences
from test_beam import assert_equal, deep_copy

from gift_fairseq import prefixes
from gift_fairseq.substitution import encoder_rows

PAD, EOS = 1, 2


def test_behind_by_hand():
    """Every token is read behind the one before it; the last of a row, here </s> or what was cut, is not."""
    start = torch.tensor([2, 3, 2, 2])
    tokens = torch.tensor([[11, 12, 13, 2], [14, 2, 1, 1], [2, 1, 1, 1], [15, 16, 17, 1]])
    expected = [[2, 11, 12, 13], [3, 14, 1, 1], [2, 1, 1, 1], [2, 15, 16, 1]]
    assert prefixes.behind(start, tokens, PAD).tolist() == expected
    assert prefixes.behind(start[:1], tokens[:1, :1], PAD).tolist() == [[2]]


def test_behind_gold_tokens_are_the_gold_inputs(build):
    built = build(f"{ARCHITECTURES['lstm']} --criterion gift_standard")
    sample = batch(built.task, sentences([(3, 5), (2, 1), (4, 9)]))
    gold_inputs = sample["net_input"]["prev_output_tokens"]
    assert torch.equal(prefixes.behind(gold_inputs[:, 0], sample["target"], PAD), gold_inputs)


def test_stack_by_hand():
    one, other = torch.tensor([[5, 6, 7], [8, 2, 1]]), torch.tensor([[9, 2]])
    assert prefixes.stack(one, other, PAD).tolist() == [[5, 6, 7], [8, 2, 1], [9, 2, 1]]
    assert prefixes.stack(other, one, PAD).tolist() == [[9, 2, 1], [5, 6, 7], [8, 2, 1]]
    assert prefixes.stack(other, other, PAD).tolist() == [[9, 2], [9, 2]]


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
            model.decoder(
                targets[number : number + 1],
                encoder_out=model.encoder(pairs[row][0][None], torch.tensor([len(pairs[row][0])])),
            )[0]
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
