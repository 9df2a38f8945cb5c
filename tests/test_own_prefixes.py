"""What mixes with the loss on own prefixes: the gold loss, and an anchor to the model that training started from."""

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    LENGTHS,
    STRATEGIES,
    TRANSFORMER,
    assert_same_gradient,
    batch,
    difference,
    fairseq_train,
    loss_and_gradient,
    often_ending,
    sentences,
)
from test_losses import next_logits

from gift_fairseq.anchors import StartingModel

OWN = ("recurrent", "generative", "oracle", "risk")


def starting_file(built, folder):
    """A checkpoint with the weights of ``built``, as far as an anchor reads it."""
    path = folder / "start.pt"
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


@pytest.mark.parametrize("flags", ["", "--ignore-prefix-size 1 --sentence-avg"])
@pytest.mark.parametrize("strategy", OWN)
def test_mle_weight_mixes_both_losses_over_one_encoder_pass(build, strategy, flags):
    both, own, gold = (
        often_ending(build(f"{TRANSFORMER} {flags} {criterion}"))
        for criterion in (f"{STRATEGIES[strategy]} --mle-weight 0.3", STRATEGIES[strategy], STRATEGIES["standard"])
    )
    passes = []
    both.model.encoder.register_forward_hook(lambda *_: passes.append("encoder"))
    both.model.decoder.register_forward_hook(lambda *_: passes.append("decoder"))
    sample = batch(both.task, sentences(LENGTHS))
    loss, gradient = loss_and_gradient(both, sample)
    assert passes == ["encoder", "decoder"]
    own_loss, own_gradient = loss_and_gradient(own, sample)
    gold_loss, gold_gradient = loss_and_gradient(gold, sample)
    assert loss == pytest.approx(0.7 * own_loss + 0.3 * gold_loss, rel=1e-10)
    assert_same_gradient(gradient, weighted([(0.7, own_gradient), (0.3, gold_gradient)]))
    log, own_log, gold_log = (built.criterion(built.model, sample)[2] for built in (both, own, gold))
    assert float(log["gold_nll_loss"]) == pytest.approx(float(gold_log["nll_loss"]), rel=1e-6)
    for key in own_log.keys() - {"loss", "gold_nll_loss", "gold_ntokens", "mem_in_use", "rollout_seconds"}:
        assert float(log[key]) == pytest.approx(float(own_log[key]), rel=1e-9), key


def naive_divergence(start, model, pairs, ignored=0):
    """``sum_t sum_v p_0 (log p_0 - log p)`` over gold prefixes, each in a forward of its own."""
    total = torch.tensor(0.0)
    for source, target in pairs:
        source, length = source[None], torch.tensor([len(source)])
        with torch.no_grad():
            theirs_out = start.encoder(source, length)
        ours_out = model.encoder(source, length)
        for t in range(ignored, len(target)):
            prefix = [2, *target[:t].tolist()]
            with torch.no_grad():
                theirs = torch.log_softmax(next_logits(start, theirs_out, prefix), -1)
            ours = torch.log_softmax(next_logits(model, ours_out, prefix), -1)
            total = total + (theirs.exp() * (theirs - ours)).sum()
    return total


@pytest.mark.parametrize(
    "architecture, strategy, flags",
    [(architecture, "generative", "") for architecture in ARCHITECTURES]
    + [(name, "risk", "--ignore-prefix-size 1 --mle-weight 0.3") for name in ("transformer_wmt_en_de", "fconv")],
)
def test_divergence_from_the_start_equals_the_naive_loop(build, tmp_path, architecture, strategy, flags):
    """In this direction, of gold prefixes only, without padding and ignored prefix; no gradient for the start."""
    flags = f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]} {flags}"
    start = build(flags, seed=2)
    anchor = f"--anchor kl --anchor-weight 0.5 --finetune-from-model {starting_file(start, tmp_path)}"
    built, without = build(f"{flags} {anchor}"), build(flags)
    pairs = sentences([(5, n) for _, n in LENGTHS] if architecture == "lightconv" else LENGTHS)
    sample = batch(built.task, pairs)
    loss, gradient = loss_and_gradient(built, sample)
    own_loss, own_gradient = loss_and_gradient(without, sample)
    divergence = naive_divergence(start.model, built.model, pairs, "--ignore" in flags)
    built.model.zero_grad()
    divergence.backward()
    naive = {name: p.grad if p.grad is not None else 0 * p for name, p in built.model.named_parameters()}
    assert loss == pytest.approx(own_loss + 0.5 * divergence.item(), rel=1e-9)
    assert_same_gradient(gradient, weighted([(1, own_gradient), (0.5, naive)]), rtol=1e-6, atol=1e-8)
    _, _, log = built.criterion(built.model, sample)
    assert float(log["anchor"]) == pytest.approx(divergence.item(), rel=1e-6) and divergence > 0.01


@pytest.mark.parametrize("anchor", ["kl", "l2"])
def test_an_anchor_has_no_pull_at_the_start(build, tmp_path, anchor):
    flags = f"{TRANSFORMER} {STRATEGIES['recurrent']}"
    without = build(flags)
    path = starting_file(without, tmp_path)
    built = build(f"{flags} --anchor {anchor} --anchor-weight 10 --finetune-from-model {path}")
    sample = batch(built.task, sentences(LENGTHS))
    loss, gradient = loss_and_gradient(built, sample)
    own_loss, own_gradient = loss_and_gradient(without, sample)
    assert loss == pytest.approx(own_loss, rel=1e-12)
    assert_same_gradient(gradient, own_gradient)
    assert float(built.criterion(built.model, sample)[2]["anchor"]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("architecture", ["transformer_wmt_en_de", "fconv"])
@pytest.mark.parametrize("flags", ["", "--sentence-avg"])
def test_distance_of_the_weights_does_not_depend_on_the_batch(build, tmp_path, flags, architecture):
    """Divided by the sample size, as fairseq does: half the squared distance, whatever the batch; no gradient but
    that, from one batch and from two micro-batches."""
    flags = f"{ARCHITECTURES[architecture]} {STRATEGIES['recurrent']} {flags}"
    start = build(flags)
    anchor = f"--anchor l2 --anchor-weight 0.5 --finetune-from-model {starting_file(start, tmp_path)}"
    built, without = moved(build(f"{flags} {anchor}")), moved(build(flags))
    then = dict(start.model.named_parameters())
    difference_of = {name: now.detach() - then[name].detach() for name, now in built.model.named_parameters()}
    half = sum(part.pow(2).sum().item() for part in difference_of.values()) / 2
    assert half > 1
    pairs = sentences(LENGTHS)
    for samples in ([pairs], [pairs[:1], pairs[1:]]):
        samples = [batch(built.task, part) for part in samples]
        size = sum(built.criterion.sample_size(sample) for sample in samples)
        assert size == (4 if "--sentence-avg" in flags else sum(len(target) for _, target in pairs))
        loss, gradient = loss_and_gradient(built, *samples)
        own_loss, own_gradient = loss_and_gradient(without, *samples)
        assert loss - own_loss == pytest.approx(0.5 * size * half, rel=1e-9)
        assert_same_gradient(gradient, weighted([(1, own_gradient), (0.5 * size, difference_of)]))
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
    anchor = f"--anchor l2 --anchor-weight 0.5 --finetune-from-model {starting_file(start, tmp_path)}"
    built = moved(build(f"{flags} {anchor}", dtype=dtype), by=0.06)
    built.criterion.sample_size = lambda _sample: size
    log = {}
    (0.5 * built.criterion._anchor(built.model, {}, None, log)).backward()
    then, half = dict(start.model.named_parameters()), 0.0
    for name, now in built.model.named_parameters():
        moved_by = now.detach().double() - then[name].detach().double()
        half += moved_by.pow(2).sum().item() / 2
        assert now.grad.dtype == dtype
        smallest = 2.0**-24 if dtype == torch.float16 else 0.0  # its numbers are no closer to each other
        torch.testing.assert_close(now.grad.double(), 0.5 * size * moved_by, rtol=digits, atol=smallest)
    assert log["anchor"].dtype == torch.float32
    assert float(log["anchor"]) == pytest.approx(size * half, rel=1e-5)
    assert size == 1 or size * half > torch.finfo(torch.float16).max


@pytest.mark.parametrize("anchor", ["kl", "l2"])
def test_the_start_is_that_of_the_file_also_after_a_resume(build, tmp_path, anchor):
    """Copied from the running model instead, an anchor would begin anew wherever training is resumed."""
    flags = f"{TRANSFORMER} {STRATEGIES['recurrent']}"
    path = starting_file(build(flags), tmp_path)
    flags += f" --anchor {anchor} --anchor-weight 1 --finetune-from-model {path}"
    built = moved(build(flags))
    sample = batch(built.task, sentences(LENGTHS))
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


def test_the_start_is_seen_by_no_optimizer_and_no_checkpoint(build, tmp_path):
    flags = f"{TRANSFORMER} {STRATEGIES['recurrent']}"
    path = starting_file(build(flags), tmp_path)
    built = build(f"{flags} --anchor kl --anchor-weight 1 --finetune-from-model {path}")
    before = built.model.state_dict().keys()
    loss_and_gradient(built, batch(built.task, sentences(LENGTHS)))
    assert built.criterion._starting_model is not None
    assert list(built.criterion.parameters()) == [] and not built.criterion.state_dict()
    assert built.model.state_dict().keys() == before
    assert not any(parameter.requires_grad for parameter in built.criterion._starting_model.model.parameters())


def test_the_start_has_no_dropout_and_draws_nothing(build, tmp_path):
    """It says the same every time, and the running model's dropout is what it would be without it."""
    flags = f"{TRANSFORMER} {STRATEGIES['recurrent']} --decoder-layerdrop 0.3 --attention-dropout 0.3"
    flags += " --mle-weight 0.3"
    path = starting_file(build(flags, seed=2), tmp_path)
    built = build(flags, dropout=0.3)
    anchors = (f"--anchor {name} --anchor-weight 1 --finetune-from-model {path}" for name in ("l2", "kl"))
    sample, streams = batch(built.task, sentences(LENGTHS)), []
    for each in (built, *(build(f"{flags} {anchor}", dropout=0.3) for anchor in anchors)):
        torch.manual_seed(3)
        loss_and_gradient(each, sample)
        streams.append(torch.random.get_rng_state())
    assert torch.equal(streams[0], streams[1]) and torch.equal(streams[0], streams[2])
    start = StartingModel(str(path), built.model)
    assert torch.equal(start.lprobs(sample["net_input"]), start.lprobs(sample["net_input"]))
    assert built.model.training and not start.model.training


def test_the_anchor_pulls_only_where_own_prefixes_are_read(build, tmp_path):
    """An update on gold prefixes is standard, with any weight."""
    flags = "--criterion gift_generative --generate-ratio 0.5"
    path = starting_file(build(f"{TRANSFORMER} {flags}", seed=2), tmp_path)
    anchor = f"--mle-weight 0.3 --anchor l2 --anchor-weight 9 --finetune-from-model {path}"
    built, standard = build(f"{TRANSFORMER} {flags} {anchor}"), build(f"{TRANSFORMER} {STRATEGIES['standard']}")
    sample = batch(built.task, sentences(LENGTHS))
    plain = loss_and_gradient(standard, sample)
    loss, gradient = loss_and_gradient(built, sample, update_num=0)
    assert loss == plain[0] and difference(gradient, plain[1]) == 0
    assert loss_and_gradient(built, sample, update_num=1)[0] > loss + 100


@pytest.mark.cli
def test_resumed_with_an_anchor_equals_never_stopped(binarized, tmp_path):
    """The file is asked again after a resume; what is saved is an ordinary checkpoint."""
    flags = f"{TRANSFORMER} --dropout 0.3 --disable-validation --max-tokens 40 --task translation"
    fairseq_train(binarized, tmp_path / "start", f"{flags} --criterion gift_standard --max-update 2")
    start = tmp_path / "start" / "checkpoint_last.pt"
    flags += (
        f" --criterion gift_recurrent --gold-ratio 0.5 --anchor l2 --anchor-weight 0.1 --finetune-from-model {start}"
    )
    lines = fairseq_train(binarized, tmp_path / "whole", f"{flags} --max-update 4")
    fairseq_train(binarized, tmp_path / "parts", f"{flags} --max-update 2")
    fairseq_train(binarized, tmp_path / "parts", f"{flags} --max-update 4")
    whole, parts, begun = (
        torch.load(folder / "checkpoint_last.pt") for folder in (tmp_path / "whole", tmp_path / "parts", start.parent)
    )
    for name, weights in whole["model"].items():
        assert torch.equal(weights, parts["model"][name]), name
    assert whole["model"].keys() == begun["model"].keys() and not whole["criterion"]
    distances = [line["anchor"] for line in lines if "anchor" in line]
    assert distances[0] == 0 < distances[1] < distances[-1]
