"""``--eval-free-running``: validation's share of oracle-optimal tokens, as the exposure measurement defines it."""

import pytest
import torch
from conftest import ARCHITECTURES, TRANSFORMER, batch, batch_of, pair_dataset, sentences
from fairseq.dataclass.configs import GenerationConfig
from fairseq.logging import metrics
from naive import BOS, EOS, PAD, encode, naive_optimal, next_logits

from gift_fairseq import rollout
from gift_fairseq.evaluation import exposure

FLAGS = "--criterion gift_standard --eval-free-running"
# of the sources one length: fairseq's lightconv reads across source padding
LENGTHS = [(5, n) for n in (6, 4, 2, 7, 9, 5, 8, 3, 6, 4)]


def accuracies(built, *samples):
    """The two that are logged for ``samples``, % in full (0 to 100)."""
    logs = [built.task.valid_step(sample, built.model, built.criterion)[2] for sample in samples]
    with metrics.aggregate(new_root=True) as meters:
        built.task.reduce_metrics(logs, built.criterion)
    return {name: meters[f"{name}_accuracy"].avg for name in ("teacher_forced", "free_running")}


def learn(built, pairs, updates):
    optimizer = torch.optim.Adam(built.model.parameters(), lr=0.02)
    for _ in range(updates):
        optimizer.zero_grad()
        built.criterion(built.model.train(), batch(built.task, pairs))[0].backward()
        optimizer.step()
    return built


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_the_exposure_measurement(build, architecture):
    """A model that knows its sentences by heart, and so ends them; the references say their first token twice."""
    built = learn(build(f"{ARCHITECTURES[architecture]} {FLAGS}"), sentences(LENGTHS), updates=60)
    pairs = [(source, torch.cat([target[:1], target])) for source, target in sentences(LENGTHS)]
    generator = built.task.build_generator([built.model], GenerationConfig(beam=1, max_len_b=100))
    dataset = pair_dataset(built.task.target_dictionary, *zip(*pairs))
    both = exposure.read_both(built.task, [built.model], generator, dataset, 4000)
    assert both[1].counted.sum(1).max() < 14  # all ended before the limit of ours
    found = accuracies(built, batch(built.task, pairs[:6]), batch(built.task, pairs[6:]))
    for name, steps in zip(("teacher_forced", "free_running"), both):
        assert found[name] == pytest.approx(100 * exposure.overall(steps)["accuracy"], rel=1e-9)
        assert 10 < found[name] < 95


@torch.no_grad()
def naive(built, pairs, prefix_size):
    """The same two shares by a loop over sentences and tokens, one prefix at a time."""
    built.model.eval()
    gold, own, ends = [], [], set()
    for source, target in pairs:
        target, encoder_out = target.tolist(), encode(built.model, source)
        for t in range(prefix_size, len(target)):
            scores = next_logits(built.model, encoder_out, [EOS, *target[:t]])
            gold.append(scores.argmax().item() == target[t])
        inputs = [EOS, *target[:prefix_size]]
        while EOS not in inputs[1:] and len(inputs) - 1 < 2 * len(target) + 10:
            scores = next_logits(built.model, encoder_out, inputs)
            scores[[PAD, BOS]] = -torch.inf
            if len(inputs) == 1:
                scores[EOS] = -torch.inf  # as fairseq's generator, which the exposure measurement takes
            inputs.append(scores.argmax().item())
            own.append(inputs[-1] in naive_optimal(inputs[1:-1], target[:-1]))
        ends.add(inputs[-1] == EOS)
    return {"teacher_forced": 100 * sum(gold) / len(gold), "free_running": 100 * sum(own) / len(own)}, ends


@pytest.mark.parametrize("prefix_size", [0, 1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_a_naive_loop(build, architecture, prefix_size):
    """The ignored prefix is forced and not counted, outputs are cut at twice the gold length and 10 tokens."""
    pairs, met, shares = sentences([*LENGTHS[:7], (5, 1)]), set(), []
    for updates in (0, 8):
        built = build(f"{ARCHITECTURES[architecture]} {FLAGS} --ignore-prefix-size {prefix_size}")
        learn(built, pairs, updates)
        expected, ends = naive(built, pairs, prefix_size)
        assert accuracies(built, batch(built.task, pairs)) == pytest.approx(expected, rel=1e-9)
        met |= ends
        shares.append(expected["free_running"])
    assert met == {True, False} and any(5 < share < 100 for share in shares)


@pytest.mark.parametrize("prefix_size", [0, 1])
def test_no_output_is_empty(build, prefix_size):
    """A model that learnt to say nothing has to say a token first; a forced prefix is one."""
    pairs = sentences(LENGTHS)
    built = build(f"{TRANSFORMER} {FLAGS} --ignore-prefix-size {prefix_size}")
    learn(built, [(source, torch.cat([target[:prefix_size], torch.tensor([EOS])])) for source, target in pairs], 20)
    expected, _ = naive(built, pairs, prefix_size)
    _, _, log = built.task.valid_step(batch(built.task, pairs), built.model, built.criterion)
    assert log["n_free_running"] == len(pairs) * (1 if prefix_size else 2)
    assert accuracies(built, batch(built.task, pairs)) == pytest.approx(expected, rel=1e-9)


def test_nothing_is_counted_where_the_prefix_is_everything(build):
    built = build(f"{TRANSFORMER} {FLAGS} --ignore-prefix-size 4")
    short, whole = sentences([(5, 2), (3, 4)]), sentences(LENGTHS)
    _, _, log = built.task.valid_step(batch(built.task, short), built.model, built.criterion)
    assert log["n_free_running"] == log["n_teacher_forced"] == 0
    one, both = (accuracies(built, *(batch(built.task, b) for b in batches)) for batches in ([whole], [short, whole]))
    assert one == both


@pytest.mark.parametrize("criterion", ["gift_recurrent", "label_smoothed_cross_entropy"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_gold_pass_and_one_rollout(build, architecture, criterion, monkeypatch):
    """And nothing else changes: loss and log, training flags, random stream, hooks."""
    flags = f"{ARCHITECTURES[architecture]} --criterion {criterion}"
    built, plain = (build(f"{flags} {more}", dropout=0.3) for more in ("--eval-free-running", ""))
    sample, calls = batch_of(built, LENGTHS), []
    until_eos = rollout.until_eos
    monkeypatch.setattr(rollout, "until_eos", lambda *args, **kw: calls.append("rollout") or until_eos(*args, **kw))
    built.model.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    built.model.decoder.register_forward_hook(lambda *_: calls.append("decoder"))
    hooks = len(built.model.decoder._forward_pre_hooks), len(built.model.decoder._forward_hooks)
    stream = torch.random.get_rng_state()
    loss, _, log = built.task.valid_step(sample, built.model, built.criterion)
    assert sorted(calls) == ["decoder", "encoder", "rollout"]
    assert not any(module.training for module in built.model.modules())
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert hooks == (len(built.model.decoder._forward_pre_hooks), len(built.model.decoder._forward_hooks))
    plain_loss, _, plain_log = plain.task.valid_step(sample, plain.model, plain.criterion)
    assert torch.equal(loss, plain_loss)
    assert {key: log[key] for key in plain_log} == plain_log
    assert accuracies(built, sample)["free_running"] <= 100  # logged beside either criterion
