"""Each strategy's loss and gradient against naive loops, and what it is when switched off."""

import copy
import itertools

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    LENGTHS,
    SAMPLED,
    STRATEGIES,
    TRANSFORMER,
    assert_same_gradient,
    batch,
    batch_of,
    difference,
    in_batch_order,
    lengths_for,
    loss_and_gradient,
    of_each,
    often_ending,
    prefixes_of,
    production_softmax,
    sentences,
    watched,
)
from naive import EOS, PAD, encode, naive_gradient, next_logits, smoothed


def assert_equals_naive(built, strategy, pairs, **options):
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    naive_loss, naive = naive_gradient(strategy, built.model, pairs, **options)
    assert loss == pytest.approx(naive_loss, rel=1e-10)
    assert_same_gradient(gradient, naive, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_loss_and_gradient_equal_the_naive_loop(build, strategy, architecture):
    built = often_ending(build(f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]}"))
    assert_equals_naive(built, strategy, sentences(lengths_for(architecture)))


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "standard"])
def test_ignored_prefix_stays_gold_and_out_of_the_loss(build, strategy):
    """A sentence that is shorter than the prefix trains nothing, whatever else is in the batch."""
    built = often_ending(build(f"{TRANSFORMER} {STRATEGIES[strategy]} --ignore-prefix-size 2"))
    assert_equals_naive(built, strategy, sentences(LENGTHS), ignored=2)


SAMPLING = {f"{name}, sampled": flags for name, flags in SAMPLED.items()}


@pytest.mark.parametrize("name", [*STRATEGIES, *SAMPLING])
def test_float32_is_float64_but_for_its_rounding(build, name):
    """With the softmax that training has: fairseq's own, not the one that these tests keep in float64."""
    strategy, flags = name.split(",")[0], {**STRATEGIES, **SAMPLING}[name]
    built = often_ending(build(f"{TRANSFORMER} {flags}", dtype=torch.float32))
    pairs = in_batch_order(sentences(LENGTHS))
    torch.manual_seed(5)
    found = prefixes_of(built) if name == "risk, sampled" else []
    with production_softmax(), watched(built.model.decoder) as read:
        loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    given = None
    if found:
        given = of_each(found[0], len(pairs))
    elif name in SAMPLING:
        given = [[token for token in row[1:] if token != PAD] + [EOS] for row in read[-1].tolist()]
        assert given != [target.tolist() for _, target in pairs]
    assert {part.dtype for part in gradient.values()} == {torch.float32}
    naive_loss, naive = naive_gradient(strategy, copy.deepcopy(built.model).double(), pairs, given)
    assert loss == pytest.approx(naive_loss, rel=1e-6)
    gradient = {key: part.double() for key, part in gradient.items()}
    assert_same_gradient(gradient, naive, rtol=1e-4, atol=1e-5)
    assert difference(gradient, naive) < 1e-6 * sum(part.pow(2).sum().item() for part in naive.values()) ** 0.5


SHORT = {  # of source and target
    "all shorter": (3, [(6, 2), (5, 1), (4, 2)]),
    "all as long": (2, [(6, 2), (5, 2), (4, 2)]),
    "all empty": (1, [(5, 1), (4, 1)]),
    "mixed": (2, [(7, 1), (6, 5), (5, 2), (4, 3)]),
    "mixed with empty ones": (3, [(7, 1), (6, 6), (5, 3), (4, 2)]),
}


@pytest.mark.parametrize("architecture", ["transformer_wmt_en_de", "lstm"])
@pytest.mark.parametrize("lengths", SHORT)
@pytest.mark.parametrize("name", [*STRATEGIES, "risk, sampled"])
def test_sentences_within_the_ignored_prefix_train_nothing(build, name, lengths, architecture):
    """Also where the whole batch is no longer than the prefix: loss and gradient are 0 there, and no more is read."""
    prefix_size, pairs = SHORT[lengths][0], in_batch_order(sentences(SHORT[lengths][1]))
    flags = {**STRATEGIES, **SAMPLING}[name]
    built = often_ending(build(f"{ARCHITECTURES[architecture]} {flags} --ignore-prefix-size {prefix_size}"))
    found = prefixes_of(built) if name in SAMPLING else []
    sample = batch(built.task, pairs)
    torch.manual_seed(5)
    with watched(built.model.decoder) as read:
        loss, gradient = loss_and_gradient(built, sample)
    given = of_each(found[0], len(pairs)) if found else None
    naive_loss, naive = naive_gradient(name.split(",")[0], built.model, pairs, given, ignored=prefix_size)
    assert loss == pytest.approx(naive_loss, rel=1e-10)
    if naive:
        assert_same_gradient(gradient, naive, rtol=1e-6, atol=1e-8)
    else:
        assert loss == 0 and gradient and all(part.eq(0).all() for part in gradient.values())
    assert bool(naive) == lengths.startswith("mixed")
    # whatever the decoder reads begins as one of the sentences, as far as the prefix and what is not padding go
    inputs = [row[: 1 + prefix_size] for row in sample["net_input"]["prev_output_tokens"].tolist()]
    for row in read[-1].tolist():
        forced = [token for token in row[: 1 + prefix_size] if token != PAD]
        assert forced and any(begun[: len(forced)] == forced for begun in inputs)


@pytest.mark.parametrize("passes", [2, 3])
def test_more_passes_equal_the_naive_loop(build, passes):
    built = build(f"{TRANSFORMER} {STRATEGIES['recurrent']} --passes {passes}")
    assert_equals_naive(built, "recurrent", sentences(LENGTHS), passes=passes)


def test_as_many_passes_as_positions_are_the_free_running_output(build):
    recurrent = build(f"{TRANSFORMER} {STRATEGIES['recurrent']} --passes 9")
    generative = build(f"{TRANSFORMER} {STRATEGIES['generative']}")
    sample = batch_of(recurrent)
    (loss, gradient), (other_loss, other) = (loss_and_gradient(built, sample) for built in (recurrent, generative))
    assert loss == pytest.approx(other_loss, rel=1e-12)
    assert_same_gradient(gradient, other)


def test_auxiliary_weighs_the_first_token_once_with_sentence_avg(build):
    built = build(f"{TRANSFORMER} {STRATEGIES['auxiliary']} --sentence-avg")
    standard = build(f"{TRANSFORMER} {STRATEGIES['standard']} --sentence-avg")
    pairs = sentences(LENGTHS)
    loss, _ = loss_and_gradient(built, batch(built.task, pairs))
    whole, _ = loss_and_gradient(standard, batch(built.task, pairs))
    first = sum(
        smoothed(next_logits(built.model, encode(built.model, source), [EOS]), target[0].item()).item()
        for source, target in pairs
    )
    assert loss == pytest.approx(0.7 * whole + 0.3 * first, rel=1e-10)


def test_strategies_have_different_gradients(build):
    """A strategy wired to nothing would train standard, and so would sampling or an oracle wired to nothing."""
    flags = {**STRATEGIES, **SAMPLING, "recurrent, oracle": "--criterion gift_recurrent --targets oracle"}
    flags["recurrent, oracle by model"] = f"{flags['recurrent, oracle']} --oracle-weights model"
    gradients = {}
    for name in flags:
        built = build(f"{TRANSFORMER} {flags[name]}")
        torch.manual_seed(5)
        gradients[name] = loss_and_gradient(built, batch_of(built))[1]
    for one, other in itertools.combinations(gradients, 2):
        assert difference(gradients[one], gradients[other]) > 1e-2, (one, other)


@pytest.mark.parametrize("flags", ["", "--ignore-prefix-size 1 --sentence-avg"])
@pytest.mark.parametrize("strategy", ("recurrent", "generative", "oracle", "best", "risk"))
def test_mle_weight_mixes_both_losses_over_one_encoder_pass(build, strategy, flags):
    both, generated, gold = (
        often_ending(build(f"{TRANSFORMER} {flags} {criterion}"))
        for criterion in (f"{STRATEGIES[strategy]} --mle-weight 0.3", STRATEGIES[strategy], STRATEGIES["standard"])
    )
    passes = []
    both.model.encoder.register_forward_hook(lambda *_: passes.append("encoder"))
    both.model.decoder.register_forward_hook(lambda *_: passes.append("decoder"))
    sample = batch_of(both)
    loss, gradient = loss_and_gradient(both, sample)
    assert passes == ["encoder", "decoder"]
    generated_loss, generated_gradient = loss_and_gradient(generated, sample)
    gold_loss, gold_gradient = loss_and_gradient(gold, sample)
    assert loss == pytest.approx(0.7 * generated_loss + 0.3 * gold_loss, rel=1e-10)
    mixed = {name: 0.7 * generated_gradient[name] + 0.3 * gold_gradient[name] for name in gradient}
    assert_same_gradient(gradient, mixed)
    log, generated_log, gold_log = (built.criterion(built.model, sample)[2] for built in (both, generated, gold))
    assert float(log["gold_nll_loss"]) == pytest.approx(float(gold_log["nll_loss"]), rel=1e-6)
    for key in generated_log.keys() - {"loss", "gold_nll_loss", "gold_ntokens", "mem_in_use", "rollout_seconds"}:
        assert float(log[key]) == pytest.approx(float(generated_log[key]), rel=1e-9), key


OFF = {  # the flags, and the update in which they are off
    "auxiliary": ("--criterion gift_auxiliary --auxiliary-ratio 0", 0),
    "recurrent": ("--criterion gift_recurrent --gold-ratio 1", 0),
    "generative": ("--criterion gift_generative --generate-ratio 0", 0),
    "oracle": ("--criterion gift_generative --generate-ratio 0 --targets oracle --mle-weight 0.5", 0),
    "best": ("--criterion gift_generative --generate-ratio 0 --targets best --choose sample --mle-weight 0.5", 0),
    "risk": ("--criterion gift_risk --generate-ratio 0 --risk-gold", 0),
    "weighted": ("--criterion gift_weighted --tailr-gamma 0", 0),
    "weighted as GOLD": ("--criterion gift_weighted --weighting gold --weight-floor 1", 0),
    "consistency": ("--criterion gift_consistency --consistency-weight 0", 0),
    "consistency in a share": ("--criterion gift_consistency --consistency-ratio 0.5 --own-ratio 0.5", 0),
    "consistency growing": ("--criterion gift_consistency --consistency-weight linear:0:2:10 --share-encoder", 0),
    "a schedule at its start": ("--criterion gift_recurrent --gold-ratio linear:1:0.5:10 --choose sample", 0),
    "a schedule at its end": ("--criterion gift_recurrent --gold-ratio linear:0.5:1:7", 7),
    "by sentence": ("--criterion gift_recurrent --gold-ratio exponential:1:0.3:10 --gold-mixed-by sentence", 0),
    "by confidence": ("--criterion gift_recurrent --gold-ratio linear:1:0:9 --passes 2 --confidence 0.2", 0),
    "distillation, whose own translations are in the data": ("--criterion gift_distillation --margin 0", 0),
    "fairseq's own": ("--criterion label_smoothed_cross_entropy", 0),
}


@pytest.mark.parametrize("name", OFF)
def test_switched_off_is_standard_bit_for_bit(build, name):
    """Same loss, same gradient and the same random stream afterwards, with dropout on; no longer where it is on."""

    def trained(flags, update):
        built = build(f"{TRANSFORMER} {flags} --attention-dropout 0.1", dropout=0.3)
        getattr(built.criterion, "set_num_updates", int)(update)
        torch.manual_seed(7)
        loss, sample_size, log = built.criterion(built.model, batch_of(built))
        loss.backward()
        assert log.get("n_replaced", 0) == 0 or update == 3
        gradient = {n: p.grad for n, p in built.model.named_parameters()}
        return {"loss": loss.detach(), "size": sample_size, "stream": torch.random.get_rng_state(), **gradient}

    flags, update = OFF[name]
    standard, found = trained(STRATEGIES["standard"], update), trained(flags, update)
    for key, value in standard.items():
        assert torch.equal(torch.as_tensor(found[key]), torch.as_tensor(value)), key
    if ":" in flags:
        assert not torch.equal(trained(flags, 3)["stream"], standard["stream"])  # chance decided


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_evaluation_is_the_plain_loss_on_gold_inputs(build, strategy):
    """Validation numbers compare across strategies, and with fairseq's own criterion."""
    logs = []
    for flags in (STRATEGIES[strategy], "--criterion label_smoothed_cross_entropy"):
        built = build(f"{TRANSFORMER} {flags} --report-accuracy", dropout=0.3)
        sample = batch_of(built)
        _, sample_size, log = built.task.valid_step(sample, built.model, built.criterion.eval())
        logs.append((sample_size, *(float(log[key]) for key in ("loss", "nll_loss", "n_correct", "total", "ntokens"))))
    assert logs[0] == logs[1]
