"""Regularisation to the initial model (``--anchor``): KL divergence on gold prefixes, L2 distance of the weights."""

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    LENGTHS,
    STRATEGIES,
    TRANSFORMER,
    assert_same_gradient,
    batch,
    batch_of,
    difference,
    lengths_for,
    loss_and_gradient,
    sentences,
)
from naive import gradient_of, naive_divergence

from gift_fairseq.objectives.regularisation import InitialModel


def initial_file(built, folder):
    """A checkpoint with the weights of ``built``, as far as regularisation reads it."""
    path = folder / "initial.pt"
    torch.save({"model": built.model.state_dict()}, path)
    return path


def moved(built, by=0.05, seed=8):
    """``built`` with weights that were trained meanwhile."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
    return built


def weighted(parts):
    """The sum of gradients, each with its weight."""
    return {name: sum(weight * gradient[name] for weight, gradient in parts) for name in parts[0][1]}


@pytest.mark.parametrize(
    "architecture, strategy, flags",
    [(architecture, "generative", "") for architecture in ARCHITECTURES]
    + [(name, "risk", "--ignore-prefix-size 1 --mle-weight 0.3") for name in ("transformer_wmt_en_de", "fconv")],
)
def test_divergence_from_the_initial_model_equals_the_naive_loop(build, tmp_path, architecture, strategy, flags):
    """In this direction, of gold prefixes only, without padding and ignored prefix; none for the initial model."""
    flags = f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]} {flags}"
    start = build(flags, seed=2)
    anchor = f"--anchor kl --anchor-weight 0.5 --finetune-from-model {initial_file(start, tmp_path)}"
    built, without = build(f"{flags} {anchor}"), build(flags)
    pairs = sentences(lengths_for(architecture))
    sample = batch(built.task, pairs)
    loss, gradient = loss_and_gradient(built, sample)
    plain_loss, plain_gradient = loss_and_gradient(without, sample)
    divergence = naive_divergence(start.model, built.model, pairs, "--ignore" in flags)
    naive = gradient_of(built.model, divergence)
    naive = {name: naive.get(name, 0 * weight) for name, weight in built.model.named_parameters()}
    assert loss == pytest.approx(plain_loss + 0.5 * divergence.item(), rel=1e-9)
    assert_same_gradient(gradient, weighted([(1, plain_gradient), (0.5, naive)]), rtol=1e-6, atol=1e-8)
    _, _, log = built.criterion(built.model, sample)
    assert float(log["anchor"]) == pytest.approx(divergence.item(), rel=1e-6) and divergence > 0.01


@pytest.mark.parametrize("architecture", ["transformer_wmt_en_de", "fconv"])
@pytest.mark.parametrize("flags", ["", "--sentence-avg"])
def test_distance_of_the_weights_does_not_depend_on_the_batch(build, tmp_path, flags, architecture):
    """Divided by the sample size, as fairseq does: half the squared distance, whatever the batch; no gradient but
    that, from one batch and from two micro-batches."""
    flags = f"{ARCHITECTURES[architecture]} {STRATEGIES['recurrent']} {flags}"
    start = build(flags)
    anchor = f"--anchor l2 --anchor-weight 0.5 --finetune-from-model {initial_file(start, tmp_path)}"
    built, without = moved(build(f"{flags} {anchor}")), moved(build(flags))
    then = dict(start.model.named_parameters())
    difference_of = {name: now.detach() - then[name].detach() for name, now in built.model.named_parameters()}
    half = sum(part.pow(2).sum().item() for part in difference_of.values()) / 2
    assert half > 1
    pairs = sentences(LENGTHS)
    for samples in ([pairs], [pairs[:1], pairs[1:]]):
        samples = [batch(built.task, part) for part in samples]
        size = sum(built.criterion(built.model, sample)[1] for sample in samples)
        assert size == (4 if "--sentence-avg" in flags else sum(len(target) for _, target in pairs))
        loss, gradient = loss_and_gradient(built, *samples)
        plain_loss, plain_gradient = loss_and_gradient(without, *samples)
        assert loss - plain_loss == pytest.approx(0.5 * size * half, rel=1e-9)
        assert_same_gradient(gradient, weighted([(1, plain_gradient), (0.5 * size, difference_of)]))
        logs = [built.criterion(built.model, sample)[2] for sample in samples]
        assert sum(float(log["anchor"]) for log in logs) / size == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("dtype, digits", [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("size", [1, 4096, 30_000])
def test_distance_of_half_precision_weights_is_exact_but_for_their_rounding(build, tmp_path, dtype, digits, size):
    """Beside float64, of the same weights; for batches of many tokens, whose distance half precision does not hold.

    The gradient neither overflows nor loses small differences.
    """
    flags = f"{TRANSFORMER} {STRATEGIES['recurrent']}"
    start = build(flags, dtype=dtype)
    anchor = f"--anchor l2 --anchor-weight 0.5 --finetune-from-model {initial_file(start, tmp_path)}"
    built = moved(build(f"{flags} {anchor}", dtype=dtype), by=0.06)
    distance = built.criterion.regularisation.distance(built.model, {}, None, size)
    (0.5 * distance).backward()
    then, half = dict(start.model.named_parameters()), 0.0
    for name, now in built.model.named_parameters():
        moved_by = now.detach().double() - then[name].detach().double()
        half += moved_by.pow(2).sum().item() / 2
        assert now.grad.dtype == dtype
        smallest = 2.0**-24 if dtype == torch.float16 else 0.0  # its numbers are no closer to each other
        torch.testing.assert_close(now.grad.double(), 0.5 * size * moved_by, rtol=digits, atol=smallest)
    assert distance.dtype == torch.float32
    assert distance.item() == pytest.approx(size * half, rel=1e-5)
    assert size == 1 or size * half > torch.finfo(torch.float16).max


@pytest.mark.parametrize("anchor", ["kl", "l2"])
def test_the_initial_model_is_that_of_the_file_also_after_a_resume(build, tmp_path, anchor):
    """Copied from the running model instead, regularisation would begin anew wherever training is resumed."""
    flags = f"{TRANSFORMER} {STRATEGIES['recurrent']}"
    path = initial_file(build(flags), tmp_path)
    flags += f" --anchor {anchor} --anchor-weight 1 --finetune-from-model {path}"
    built = moved(build(flags))
    sample = batch_of(built)
    first, gradient = loss_and_gradient(built, sample)
    moved(built, seed=9)
    further, _ = loss_and_gradient(built, sample)
    moved(built, by=-0.05, seed=9)  # back
    again, _ = loss_and_gradient(built, sample)
    assert again == pytest.approx(first, rel=1e-9) and further > first + 1
    resumed = moved(build(flags))  # as in a new process, from the weights that were saved
    loss, other = loss_and_gradient(resumed, sample)
    assert loss == pytest.approx(first, rel=1e-12)
    assert_same_gradient(gradient, other)


def test_the_initial_model_is_seen_by_no_optimizer_and_no_checkpoint(build, tmp_path):
    flags = f"{TRANSFORMER} {STRATEGIES['recurrent']}"
    path = initial_file(build(flags), tmp_path)
    built = build(f"{flags} --anchor kl --anchor-weight 1 --finetune-from-model {path}")
    before = built.model.state_dict().keys()
    loss_and_gradient(built, batch_of(built))
    assert built.criterion.regularisation._initial is not None
    assert list(built.criterion.parameters()) == [] and not built.criterion.state_dict()
    assert built.model.state_dict().keys() == before
    assert not any(parameter.requires_grad for parameter in built.criterion.regularisation._initial.model.parameters())


def test_the_initial_model_has_no_dropout_and_draws_nothing(build, tmp_path):
    """It says the same every time, and the running model's dropout is what it would be without it."""
    flags = f"{TRANSFORMER} {STRATEGIES['recurrent']} --decoder-layerdrop 0.3 --attention-dropout 0.3"
    flags += " --mle-weight 0.3"
    path = initial_file(build(flags, seed=2), tmp_path)
    built = build(flags, dropout=0.3)
    anchors = (f"--anchor {name} --anchor-weight 1 --finetune-from-model {path}" for name in ("l2", "kl"))
    sample, streams = batch_of(built), []
    for each in (built, *(build(f"{flags} {anchor}", dropout=0.3) for anchor in anchors)):
        torch.manual_seed(3)
        loss_and_gradient(each, sample)
        streams.append(torch.random.get_rng_state())
    assert torch.equal(streams[0], streams[1]) and torch.equal(streams[0], streams[2])
    start = InitialModel(str(path), built.model)
    assert torch.equal(start.lprobs(sample["net_input"]), start.lprobs(sample["net_input"]))
    assert built.model.training and not start.model.training


def test_the_pull_is_only_where_generated_prefixes_are_read(build, tmp_path):
    """An update on gold prefixes is standard, with any weight."""
    flags = "--criterion gift_generative --generate-ratio 0.5"
    path = initial_file(build(f"{TRANSFORMER} {flags}", seed=2), tmp_path)
    anchor = f"--mle-weight 0.3 --anchor l2 --anchor-weight 9 --finetune-from-model {path}"
    built, standard = build(f"{TRANSFORMER} {flags} {anchor}"), build(f"{TRANSFORMER} {STRATEGIES['standard']}")
    sample = batch_of(built)
    plain = loss_and_gradient(standard, sample)
    loss, gradient = loss_and_gradient(built, sample, update_num=0)
    assert loss == plain[0] and difference(gradient, plain[1]) == 0
    assert loss_and_gradient(built, sample, update_num=1)[0] > loss + 100
