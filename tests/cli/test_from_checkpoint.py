"""What all fine-tunings of a comparison share: the learning rate, and how their processes keep memory."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import MACHINE
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim import build_optimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler

from gift_fairseq.cli import finetune, from_checkpoint
from gift_fairseq.errors import UserError
from gift_fairseq.own_translations.origin import Origin
from gift_fairseq.training import launch


def start_of(data, updates, flags=()):
    flags = [*"--arch transformer --lr 1 --max-tokens 100".split(), *flags]
    return from_checkpoint.Start(data / "x.pt", data, data, updates, flags)


def rates(data, updates, flags=()):
    """What fairseq's own scheduler gives to the updates 1, 2, ... of a fine-tuning at a peak of 1, and after them."""
    words = start_of(data, updates, flags).training(data / "out", ["standard"], MACHINE).fairseq_words()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words[1:]))
    optimizer = build_optimizer(cfg.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    scheduler = build_lr_scheduler(cfg.lr_scheduler, optimizer)
    return [scheduler.step_update(made) for made in range(updates + 1)]


@pytest.mark.parametrize("updates, warmup", [(136, 20), (100, 20), (60, 12), (5, 1), (4, 0), (1, 0)])
def test_the_rate_rises_to_its_peak_then_falls_to_zero(tmp_path, updates, warmup):
    """Linearly both times, and the last update still moves."""
    expected = [made / warmup for made in range(warmup)]
    expected += [1 - made / (updates - warmup) for made in range(updates - warmup + 1)]
    assert rates(tmp_path, updates) == pytest.approx(expected)
    assert max(expected) == 1 and expected[-2] > 0 == expected[-1]


def test_a_scheduler_after_the_dashes_replaces_it(tmp_path):
    assert set(rates(tmp_path, 30, ["--lr-scheduler=fixed"])) == {1.0}
    assert rates(tmp_path, 30, ["--end-learning-rate", "0.5"])[-1] == 0.5


def test_dropout_is_off_for_all_but_consistency(tmp_path):
    start = replace(start_of(tmp_path, 30, ["--dropout", "0.1"]), overfitting=0.2)
    trainings = [start.training(tmp_path / "x", [name], MACHINE) for name in ("standard", "risk", "consistency")]
    dropouts = [one.record()["fairseq"]["dropout"] for one in [*trainings, start.control(tmp_path / "x", MACHINE)]]
    assert dropouts == [0, 0, 0.1, 0]


@pytest.mark.parametrize("arch", ["transformer_wmt_en_de_big_t2t", "lightconv_wmt_en_de", "lstm", "fconv"])
def test_every_dropout_is_off(binarized, tmp_path, monkeypatch, arch):
    """Those of the architecture and of the checkpoint's flags; not one that was typed after --."""
    flags = ["--arch", arch, "--lr", "1", "--max-tokens", "9", "--dropout", "0.3"]
    monkeypatch.setattr("gift_fairseq.checkpoints.flags.flags_of", lambda *_, **__: flags)
    monkeypatch.setattr(from_checkpoint, "overfitting_of", lambda *_: 0.2)
    (tmp_path / "x.pt").touch()
    asked = SimpleNamespace(start=tmp_path / "x.pt", data=binarized, lr=None, updates=9)

    def dropouts(*typed):
        start = from_checkpoint.Start.of(asked, [*typed], tmp_path / "x", ["standard"], MACHINE)
        found = start.control(tmp_path / "x", MACHINE).record()["fairseq"]
        return {name: value for name, value in found.items() if "dropout" in name and value}

    assert not dropouts()
    assert dropouts("--dropout", "0.2")["dropout"] == 0.2
    if "big" in arch:
        assert dropouts("--attention-dropout", "0.2") == {"attention_dropout": 0.2}
        assert dropouts("--dropout", "0.2") == {"dropout": 0.2, "attention_dropout": 0.1, "activation_dropout": 0.1}


@pytest.mark.parametrize("gap, dropout", [(-0.1, 0), (0.449, 0), (0.451, 0.1), (float("nan"), 0.1), (None, 0.1)])
def test_dropout_is_off_where_the_model_hardly_overfits(tmp_path, gap, dropout):
    start = replace(start_of(tmp_path, 30, ["--dropout", "0.1"]), overfitting=gap)
    assert start.control(tmp_path / "x", MACHINE).record()["fairseq"]["dropout"] == dropout


def test_the_second_machine_trains_the_control_and_then_the_strategy(tmp_path, monkeypatch):
    """It ends early only where a training fails."""
    machine = replace(MACHINE, nodes=2, node_rank=1, master="127.0.0.1:1")
    started, statuses = [], iter([0, 3])
    monkeypatch.setattr(launch, "located", lambda words: started.append(words) or words)
    monkeypatch.setattr(subprocess, "call", lambda words, env: next(statuses))
    control, strategy = (start_of(tmp_path, 5).training(tmp_path / "x", [n], machine) for n in ("standard", "risk"))
    control.run()
    with pytest.raises(SystemExit, match="3"):
        strategy.run()
    assert ["gift_standard" in started[0], "gift_risk" in started[1]] == [True, True]


def test_a_control_of_the_same_time(tmp_path):
    """Two seeds of 100 updates: the strategy's take 150 and 170 s, the control's 1.0 and 1.2 s each, so that 145 of the
    control's take 160 s. Its rate falls to 0 at its own end; why is kept; resumed, it is the same."""
    start, pairs = start_of(tmp_path, 100), []
    for seed, seconds in (("", (1.5, 1.0)), ("-seed2", (1.7, 1.2))):
        pair = tuple(start.training(tmp_path / (name + seed), [name], MACHINE) for name in ("recurrent", "standard"))
        for training, each in zip(pair, seconds):
            training.out.mkdir()
            epochs = [{"epoch": 1, "train_num_updates": 40, "train_update_seconds": each + 0.3}]
            epochs.append({"epoch": 2, "train_num_updates": 100, "train_update_seconds": each - 0.2})
            (training.out / "train.log").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
        pairs.append(pair)
    controls = start.as_long_as(pairs)
    names = ["standard-as-long-as-recurrent", "standard-as-long-as-recurrent-seed2"]
    assert [(one.out.name, one.updates) for one in controls] == [(name, 145) for name in names]
    words = " ".join(controls[1].fairseq_words())
    assert "--max-update 145 " in words and "--total-num-update 145 " in words and "--criterion gift_standard " in words
    why = controls[1].why["same_time_as"]
    assert why == {"run": "recurrent-seed2", "seconds": pytest.approx(160), "seconds_of_an_update": pytest.approx(1.1)}
    assert start.as_long_as(pairs) == controls
    seconds = 44  # of all processes: 22 of each of two
    Origin(str(tmp_path), "x.pt", seconds, gold_pairs=1, settings={}).write(tmp_path)
    two = [(replace(one, machine=SimpleNamespace(gpus=2)), control) for one, control in pairs]
    assert [one.updates for one in start.as_long_as(two)] == [165, 165]
    with pytest.raises(UserError, match="--same-time needs a strategy and its control"):
        finetune.run(SimpleNamespace(strategy="standard", same_time=True, no_control=False), [])


MEMORY = """
import resource
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
def faults():
    for _ in range(5):
        [b"x" * 20_000_000 for _ in range(5)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-faults() + faults())
before, large, small = resident(), [], []
for _ in range(5):
    large.append(b"x" * 40_000_000)
    small.append([b"x" * 1000 for _ in range(1000)])
del large
print(resident() - before)
"""


def test_trainings_on_a_cpu_keep_memory_but_no_large_holes(monkeypatch):
    """20 MB cost nearly 5,000 faults of 4 KiB pages, unless they are made of what others left. 40 MB between what stays
    would be holes."""
    for name in (*launch.KEEPING_MEMORY, "MALLOC_MMAP_MAX_"):
        monkeypatch.delenv(name, raising=False)

    def measured(on_cpu):
        env = launch.environment(SimpleNamespace(on_cpu=on_cpu))
        output = subprocess.run([sys.executable, "-c", MEMORY], env=env, capture_output=True, check=True).stdout
        return [int(line) for line in output.split()]

    faults, kept = measured(on_cpu=True)
    assert faults < 100 and kept < 40_000_000
    faults, _ = measured(on_cpu=False)
    assert faults > 50_000
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000")
    assert launch.environment(SimpleNamespace(on_cpu=True))["MALLOC_MMAP_THRESHOLD_"] == "1000"
