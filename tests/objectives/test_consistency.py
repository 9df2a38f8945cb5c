"""Consistency: the divergence of two passes, their dropout, and what the two share."""

import math

import pytest
import torch
from conftest import LENGTHS, TRANSFORMER, assert_same_gradient, batch, loss_and_gradient, sentences
from naive import EPSILON, PAD, WORDS, gradient_of

from gift_fairseq.objectives import consistency
from gift_fairseq.objectives.gold import label_smoothed

R_DROP = f"{TRANSFORMER} --criterion gift_consistency --consistency-weight 3"


def test_symmetric_kl_by_hand():
    """Of (1/2, 1/2) and (1/4, 3/4), where a token is scored."""
    one, other = torch.tensor([0.5, 0.5]).log().expand(2, 3, 2), torch.tensor([0.25, 0.75]).log().expand(2, 3, 2)
    each = 0.25 * math.log(2) - 0.25 * math.log(2 / 3)
    for count in (0, 1, 5):
        scored = (torch.arange(6) < count).view(2, 3)
        assert consistency.symmetric_kl(one, other, scored).item() == pytest.approx(count * each)


def test_gradient_of_the_symmetric_kl_in_chunks(monkeypatch):
    """That of the plain expression, by both; two rows at a time, with padding between."""
    monkeypatch.setattr(consistency, "CHUNK", 18)
    draw = torch.Generator().manual_seed(1)
    logits = [torch.randn(2, 4, 9, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2)]
    scored = torch.tensor([[True, True, True, False], [True, True, False, False]])
    one, other = (each.log_softmax(-1) for each in logits)
    expected = (((one.exp() - other.exp()) * (one - other)).sum(-1) * scored).sum()
    found = consistency.symmetric_kl(one, other, scored)
    torch.testing.assert_close(found, expected)
    for part, plain in zip(
        *(torch.autograd.grad(0.7 * value, logits, retain_graph=True) for value in (found, expected))
    ):
        torch.testing.assert_close(part, plain)


@pytest.mark.parametrize("flags", ["", "--share-encoder", "--ignore-prefix-size 1"])
def test_r_drop_is_two_passes_with_dropout_of_their_own(build, flags):
    """By the definition, over a batch with each sentence twice, under the same chance."""
    built, ignored = build(f"{R_DROP} {flags} --attention-dropout 0.1", dropout=0.3), int("--ignore" in flags)
    sample = batch(built.task, sentences(LENGTHS))
    torch.manual_seed(5)
    loss, gradient = loss_and_gradient(built, sample)
    source, lengths, inputs = (sample["net_input"][key] for key in ("src_tokens", "src_lengths", "prev_output_tokens"))
    times, rows = (1, [0, 1, 2, 3] * 2) if "--share" in flags else (2, [0, 2, 4, 6, 1, 3, 5, 7])
    torch.manual_seed(5)
    encoder_out = built.model.encoder(source.repeat_interleave(times, dim=0), lengths.repeat_interleave(times))
    encoder_out = built.model.encoder.reorder_encoder_out(encoder_out, torch.tensor(rows))
    logits = built.model.decoder(torch.cat([inputs] * 2), encoder_out=encoder_out)[0]
    p, q = logits.log_softmax(-1)[:, ignored:].chunk(2)
    target = sample["target"][:, ignored:]
    losses = [label_smoothed(each, target, EPSILON, PAD)[0] for each in (p, q)]
    divergence = ((p.exp() - q.exp()) * (p - q))[target.ne(PAD)].sum()
    expected = sum(losses) / 2 + 3 / 2 * divergence
    assert loss == pytest.approx(expected.item(), rel=1e-10) and divergence > 0.1
    assert_same_gradient(gradient, gradient_of(built.model, expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("flags", ["", "--share-encoder"])
def test_r_drop_without_dropout_is_standard(build, flags):
    built, standard = build(f"{R_DROP} {flags}"), build(f"{TRANSFORMER} --criterion gift_standard")
    sample = batch(built.task, sentences(LENGTHS))
    (loss, gradient), (plain, plain_gradient) = (loss_and_gradient(each, sample) for each in (built, standard))
    assert loss == pytest.approx(plain, rel=1e-12)
    assert_same_gradient(gradient, plain_gradient)
    assert float(built.criterion(built.model, sample)[2]["divergence"]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("flags, rows", [("", 8), ("--share-encoder --own-ratio 0.5", 4), ("--own-ratio 0.5", 8)])
def test_one_call_of_encoder_and_decoder(build, flags, rows):
    """Other inputs are in the second pass only, as many as the ratio says, and no gold row changes."""
    built, seen = build(f"{R_DROP} {flags}"), []
    built.model.encoder.register_forward_hook(
        lambda _module, args, kwargs, _out: seen.append(args or [*kwargs.values()]), with_kwargs=True
    )
    built.model.decoder.register_forward_hook(lambda _module, args, _kwargs, _out: seen.append(args), with_kwargs=True)
    sample = batch(built.task, sentences(LENGTHS))
    _, _, log = built.criterion(built.model, sample)
    (sources, *_), (inputs,) = seen
    gold = sample["net_input"]["prev_output_tokens"]
    assert len(sources) == rows and torch.equal(inputs[4:], gold)
    assert 0 < int(log["n_replaced"]) < gold.ne(PAD).sum() - 4 if "own" in flags else torch.equal(inputs[:4], gold)


def test_weight_and_share_by_schedule(build):
    flags = f"{TRANSFORMER} --criterion gift_consistency --own-ratio 1 --consistency-weight"
    built = build(f"{flags} linear:0:2:10 --consistency-ratio 0.333333334")
    assert [number for number in range(12) if built.criterion.source.due(number)] == [2, 5, 8, 11]
    sample = batch(built.task, sentences(LENGTHS))
    for number, weight in ((2, 0.4), (5, 1)):
        constant = build(f"{flags} {weight}")
        loss, gradient = loss_and_gradient(built, sample, update_num=number)
        expected, constant_gradient = loss_and_gradient(constant, sample)
        assert loss == pytest.approx(expected, rel=1e-12)
        assert_same_gradient(gradient, constant_gradient)


def test_twice_the_memory_at_most(build):
    """Kept for the backward pass, beside the weights: two passes, and the gradient of the divergence by both."""

    def kept(flags):
        built, storages = build(f"{TRANSFORMER} {flags}", dropout=0.1), {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in built.model.parameters()}

        def keep(tensor):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _, _ = built.criterion(built.model, batch(built.task, sentences([(9, 9)] * 30)))
        return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in weights)

    standard, gradient = kept("--criterion gift_standard"), 2 * 30 * 9 * (WORDS + 4) * 8
    assert kept("--criterion gift_consistency") < 1.01 * (2 * standard + gradient)
    assert kept("--criterion gift_consistency --share-encoder") < 1.9 * standard + gradient
