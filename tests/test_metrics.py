"""What is logged: ratios of sums over micro-batches and workers, memory by epoch."""

import shutil
import time
from types import SimpleNamespace

import fairseq.utils
import pytest
import torch
from conftest import STRATEGIES, TRANSFORMER, batch_of, fairseq_train
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from torch.optim.optimizer import register_optimizer_step_post_hook

from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.evaluation.gpu_checks import memory_as_the_allocator_has_it
from gift_fairseq.metrics import OTHERS, RATIOS
from gift_fairseq.own_translations.origin import Origin


def reduced(logs):
    with metrics.aggregate(new_root=True) as meters:
        GiftCriterion.reduce_metrics(logs)
    return {key: float(value) for key, value in meters.get_smoothed_values().items()}


def test_shares_by_hand():
    common = {"loss": 6.0, "nll_loss": 4.0, "ntokens": 2, "nsentences": 1, "sample_size": 2, "n_readings": 1}
    one = {**common, "gold_nll_loss": 2.0, "gold_ntokens": 2, "n_first": 4, "n_first_right": 1, "n_replaced": 3}
    one |= {"n_inputs": 4, "n_chosen": 5, "n_chosen_right": 5, "mem_in_use": 100.0, "rollout_seconds": 0.25}
    other = {**one, "gold_nll_loss": 8.0, "gold_ntokens": 6, "n_first": 1, "n_first_right": 1, "n_replaced": 0}
    other |= {"n_inputs": 12, "n_chosen": 15, "n_chosen_right": 0, "mem_in_use": 300.0, "rollout_seconds": 0.5}
    values = reduced([one, other])
    assert values["gold_nll_loss"] == pytest.approx(10 / 8 / 0.6931471805599453, abs=1e-3)  # bits, as fairseq's nll
    assert values["first_token_accuracy"] == 40.0
    assert values["replaced"] == 18.75
    assert values["choosing_accuracy"] == 25.0
    assert values["mem_mib"] == 200.0
    assert values["rollout_seconds"] == 0.75  # of the update's two micro-batches


def test_the_distance_from_the_initial_model_is_logged_where_there_is_one():
    """An update on gold prefixes has none, which is not a distance of 0, and counts nothing in the average."""
    common = {"loss": 6.0, "nll_loss": 4.0, "ntokens": 2, "nsentences": 1, "sample_size": 2, "n_readings": 1}
    assert "anchor" not in reduced([common, common])
    assert reduced([{**common, "anchor": 0.0, "anchor_size": 2}])["anchor"] == 0
    logs = [{**common, "anchor": distance, "anchor_size": size} for distance, size in ((3.0, 1), (5.0, 3))]
    assert reduced(logs)["anchor"] == reduced([*logs, common])["anchor"] == 2


def test_one_sum_logs_what_the_parts_log():
    """fairseq sums the logs of micro-batches and workers before they are reduced."""
    assert GiftCriterion.logging_outputs_can_be_summed()
    common = {"loss": 1.0, "nll_loss": 1.0, "ntokens": 3, "sample_size": 3, "n_first": 2, "n_readings": 1}
    parts = [{**common, "n_first_right": n} for n in (0, 1, 2)]
    summed = {key: sum(part[key] for part in parts) for key in parts[0]}
    for key in ("loss", "nll_loss", "first_token_accuracy"):
        assert reduced(parts)[key] == reduced([summed])[key]


@pytest.mark.parametrize("strategy", ["standard", "auxiliary"])  # the others do not train on gold inputs here
def test_gold_nll_is_that_of_gold_inputs(build, strategy):
    built = build(f"{TRANSFORMER} {STRATEGIES[strategy]}")
    sample = batch_of(built)
    _, _, log = built.criterion(built.model, sample)
    _, _, plain = built.task.valid_step(sample, built.model, built.criterion)
    assert float(log["gold_nll_loss"]) == pytest.approx(float(plain["nll_loss"]), rel=1e-6)
    assert float(log["nll_loss"]) == pytest.approx(float(plain["nll_loss"]), rel=1e-6)


def with_each_trainer(monkeypatch, begin):
    """fairseq-train calls ``begin`` with its trainer when it has made it."""
    make_trainer = Trainer.__init__

    def init(trainer, *args, **kwargs):
        make_trainer(trainer, *args, **kwargs)
        begin(trainer)

    monkeypatch.setattr(Trainer, "__init__", init)


GIB = 2**30


class Allocator:
    """Keeps the counts that torch's CUDA allocator keeps, of nothing: what is held, and the most that was, in bytes."""

    def __init__(self):
        self.held = self.peak = 0

    def hold(self, gib):
        self.held = int(gib * GIB)
        self.peak = max(self.peak, self.held)

    def reset(self):
        self.peak = self.held


@pytest.fixture
def cuda_of(monkeypatch):
    """``cuda_of(peaks)``: fairseq's trainer takes the CPU for CUDA, where update u holds ``peaks[u]`` GiB for a while.

    1 GiB is held between the steps, 2 at the loss, the peak in the backward pass. A validation step's peak is 50 GiB.
    The trainer itself is fairseq's: it reads the peak, resets it, logs what is free, and only then reduces metrics.
    """

    def pretend(peaks):
        allocator, updates = Allocator(), iter(peaks)

        def forward(model, _inputs, _output):
            for gib in (2,) if model.training else (50, 2):
                allocator.hold(gib)

        def backward(_gradient):
            for gib in (next(updates), 2):
                allocator.hold(gib)

        def begin(trainer):
            trainer.cuda, trainer.cuda_env = True, SimpleNamespace(total_memory_in_GB=80.0)
            trainer.get_model().register_forward_hook(forward)
            trainer.get_model().encoder.layers[0].fc1.bias.register_hook(backward)
            allocator.hold(1)

        hooks.append(register_optimizer_step_post_hook(lambda *_: allocator.hold(1)))
        with_each_trainer(monkeypatch, begin)
        monkeypatch.setattr(fairseq.utils, "move_to_cuda", lambda sample, device=None: sample)
        faked = {
            "is_initialized": lambda: True,
            "memory_allocated": lambda device=None: allocator.held,
            "max_memory_allocated": lambda device=None: allocator.peak,
            "reset_peak_memory_stats": lambda device=None: allocator.reset(),
            "get_device_properties": lambda device=None: SimpleNamespace(total_memory=80 * GIB),
            "current_device": lambda: 0,
            "get_device_capability": lambda device=None: (6, 0),
            "empty_cache": lambda: None,
            "synchronize": lambda device=None: None,
        }
        for name, function in faked.items():
            monkeypatch.setattr(torch.cuda, name, function)

    hooks = []
    yield pretend
    for hook in hooks:
        hook.remove()


THREE_UPDATES = "--criterion gift_standard --max-tokens 4000 --batch-size 24 --batch-size-valid 8"


@pytest.mark.cli
@pytest.mark.parametrize("task", ["gift_translation", "translation"])
def test_peak_memory_on_cuda_is_that_of_the_epochs_updates(binarized, tmp_path, cuda_of, task):
    """Not what is held after a step, nor the peak of the epoch before, nor of validation; average: at the loss."""
    cuda_of([3, 9, 4, 5, 2.5, 6])
    flags = f"{TRANSFORMER} --task {task} {THREE_UPDATES} --max-epoch 2 --no-save"
    lines = fairseq_train(binarized, tmp_path, flags)
    so_far = {line["num_updates"]: line["peak_mem_mib"] / 1024 for line in lines if "peak_mem_mib" in line}
    assert so_far == {1: 3, 2: 9, 3: 9, 4: 5, 5: 5, 6: 6}
    epochs = {line["epoch"]: line for line in lines if "train_loss" in line}
    assert {epoch: line["train_peak_mem_mib"] / 1024 for epoch, line in epochs.items()} == {1: 9, 2: 6}
    assert {epoch: line["train_mem_mib"] / 1024 for epoch, line in epochs.items()} == {1: 2, 2: 2}
    assert not any("valid_peak_mem_mib" in line or "train__peak_mem_mib" in line for line in lines)


@pytest.mark.cli
def test_peak_memory_of_an_epoch_goes_on_after_a_resume(binarized, tmp_path, cuda_of):
    """Saved after two updates of the first epoch; and at its end, after which a new peak begins."""
    cuda_of([9, 3, 4, 5, 6, 2.5])
    flags = f"{TRANSFORMER} --task gift_translation {THREE_UPDATES} --max-update"
    peaks = []
    for updates in (2, 3, 6):
        metrics.reset()  # as a new process has it
        lines = fairseq_train(binarized, tmp_path, f"{flags} {updates}")
        peaks.append([line["train_peak_mem_mib"] / 1024 for line in lines if "train_loss" in line][-1])
    assert peaks == [9, 9, 6]


@pytest.mark.cli
def test_peak_memory_on_cpu_is_that_of_the_epochs_updates(binarized, tmp_path, monkeypatch):
    """The second update and every validation step hold a block for a while; the epoch after does not show it."""
    forwards = iter(range(100))

    def forward(model, _inputs, _output):
        held_too = not model.training or next(forwards) == 1
        torch.ones((600 if held_too else 1) * 2**18)

    with_each_trainer(monkeypatch, lambda trainer: trainer.get_model().register_forward_hook(forward))
    flags = f"{TRANSFORMER} --task translation {THREE_UPDATES} --max-epoch 2 --no-save"
    lines = [line for line in fairseq_train(binarized, tmp_path, flags) if "train_loss" in line]
    found = {line["epoch"]: line["train_peak_mem_mib"] - line["train_mem_mib"] for line in lines}
    assert found[1] > 550 and found[2] < 300


@pytest.mark.parametrize("right", [True, False])
def test_the_check_of_memory_for_machines_with_a_gpu(cuda_of, monkeypatch, right):
    """Passes over the counts above, and fails where the peak that the trainer took is forgotten."""
    cuda_of([3, 4, 9, 5])
    if right:
        assert "peak 9216.0 MiB, read 9216.0; average 2048.0 MiB" in memory_as_the_allocator_has_it(torch.device("cpu"))
    else:
        monkeypatch.setattr("gift_fairseq.metrics._peak_taken_by_trainer", lambda: 0.0)
        with pytest.raises(AssertionError, match="read 9216.0"):
            memory_as_the_allocator_has_it(torch.device("cpu"))


@pytest.mark.cli
@pytest.mark.parametrize("task", ["gift_translation", "translation"])
def test_seconds_of_an_update_by_a_clock_that_only_work_moves(binarized, tmp_path, monkeypatch, task):
    """The n-th forward pass takes n ms, a step 1/4 s; validation and saving are not counted."""
    seconds, forwards = 0.0, 0

    def tick(more):
        nonlocal seconds
        seconds += more
        return seconds

    def forward(model, _inputs, _output):
        nonlocal forwards
        forwards += model.training
        tick(0.001 * forwards if model.training else 1000.0)

    with_each_trainer(monkeypatch, lambda trainer: trainer.get_model().register_forward_hook(forward))
    monkeypatch.setattr(time, "perf_counter", lambda: tick(1e-9))  # fairseq divides by times
    step = register_optimizer_step_post_hook(lambda *_: tick(0.25))
    flags = f"{TRANSFORMER} --task {task} {THREE_UPDATES} --update-freq 2 --max-epoch 2"
    lines = fairseq_train(binarized, tmp_path, flags)
    step.remove()
    # three micro-batches an epoch, two of them in its first update
    updates = {line["num_updates"]: line["update_seconds"] for line in lines if "update_seconds" in line}
    assert updates == pytest.approx({1: 0.253, 2: 0.253, 3: 0.259, 4: 0.256})
    epochs = {line["epoch"]: line["train_update_seconds"] for line in lines if "train_loss" in line}
    assert epochs == pytest.approx({1: 0.253, 2: 0.2575})
    assert not any("valid_update_seconds" in line for line in lines)


COMMON = {"gold_nll_loss", "replaced", "first_token_accuracy"}
COMMON |= {"rollout_seconds", "mem_mib", "peak_mem_mib", "update_seconds"}
MEASURES = {  # what each strategy logs beside fairseq's criterion
    "standard": COMMON,
    "auxiliary": COMMON,
    "recurrent": COMMON - {"gold_nll_loss"} | {"choosing_accuracy"},
    "generative": COMMON - {"gold_nll_loss"} | {"choosing_accuracy"},
    "oracle": COMMON - {"gold_nll_loss"} | {"right_tokens"},
    "best": COMMON - {"gold_nll_loss"} | {"own_targets", "own_score", "drawn_score"},
    "risk": COMMON - {"gold_nll_loss", "first_token_accuracy"} | {"risk", "candidates"},
    "weighted": COMMON | {"token_weight"},
    "consistency": COMMON | {"choosing_accuracy", "divergence"},
    "anchored": COMMON - {"gold_nll_loss"} | {"choosing_accuracy", "anchor"},
    "margin": COMMON | {"lacking_margin"},
}
MORE = {
    "anchored": "--criterion gift_recurrent --anchor l2 --anchor-weight 1",
    "margin": "--criterion gift_distillation",
}
EVALUATED = {"teacher_forced_accuracy", "free_running_accuracy"}


def test_every_name_that_is_declared_is_logged_by_some_strategy():
    assert RATIOS.keys() | OTHERS.keys() == EVALUATED.union(*MEASURES.values())
    assert all(OTHERS.values()) and all(each.meaning for each in RATIOS.values())


@pytest.fixture(scope="module")
def plain(binarized, tmp_path_factory):
    """The names that fairseq's own criterion logs (``loss``, ``train_loss``, ``valid_loss``, ...), and a checkpoint."""
    folder = tmp_path_factory.mktemp("plain")
    flags = f"{TRANSFORMER} --task translation --criterion label_smoothed_cross_entropy --max-epoch 1"
    names = {"valid_best_loss"}.union(*fairseq_train(binarized, folder, flags))  # that one from a second run on
    return names, folder / "checkpoint_last.pt"


@pytest.mark.cli
@pytest.mark.parametrize("strategy", MEASURES)
def test_every_measure_is_in_the_log_of_updates_and_epochs(binarized, tmp_path, plain, strategy):
    """And nothing else is, beside what fairseq logs."""
    metrics.reset()
    if strategy == "margin":  # half of the pairs are own
        binarized = shutil.copytree(binarized, tmp_path / "data")
        Origin("gold", "x.pt", 0.0, gold_pairs=30, settings={}).write(binarized)
    flags = f"{TRANSFORMER} --task gift_translation {(STRATEGIES | MORE)[strategy]} --max-epoch 1 --no-save"
    more = ["--finetune-from-model", plain[1]] if strategy in MORE else ["--eval-free-running"]
    lines = fairseq_train(binarized, tmp_path, flags, *more)
    update, epoch, valid = (
        next(line for line in lines if key in line) for key in ("update", "train_loss", "valid_loss")
    )
    assert update.keys() - plain[0] == MEASURES[strategy]
    assert epoch.keys() - plain[0] == {f"train_{name}" for name in MEASURES[strategy]}
    evaluated = {"first_token_accuracy"} | (EVALUATED if strategy not in MORE else set())
    assert valid.keys() - plain[0] == {f"valid_{name}" for name in evaluated}
    assert (epoch["train_rollout_seconds"] > 0) == (strategy not in ("standard", "auxiliary", "weighted", "margin"))
    assert epoch["train_peak_mem_mib"] >= epoch["train_mem_mib"] - 1 > 50  # the system's two counts differ by pages
