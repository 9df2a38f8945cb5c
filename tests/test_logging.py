"""What is logged: ratios of sums over micro-batches and workers, memory by epoch."""

import pytest
import torch
from conftest import LENGTHS, STRATEGIES, TRANSFORMER, batch, fairseq_train, sentences
from fairseq.logging import metrics

from gift_fairseq import memory
from gift_fairseq.criterions.base import GiftCriterion


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


def test_an_anchor_is_logged_where_there_is_one():
    common = {"loss": 6.0, "nll_loss": 4.0, "ntokens": 2, "nsentences": 1, "sample_size": 2, "n_readings": 1}
    assert "anchor" not in reduced([common, common])
    assert reduced([{**common, "anchor": 0.0}])["anchor"] == 0
    assert reduced([{**common, "anchor": 3.0}, {**common, "anchor": 5.0}])["anchor"] == 2


def test_one_sum_logs_what_the_parts_log():
    """fairseq sums the logs of micro-batches and workers before they are reduced."""
    assert GiftCriterion.logging_outputs_can_be_summed()
    parts = [
        {
            "loss": 1.0,
            "nll_loss": 1.0,
            "ntokens": 3,
            "sample_size": 3,
            "n_first": 2,
            "n_first_right": n,
            "n_readings": 1,
        }
        for n in (0, 1, 2)
    ]
    summed = {key: sum(part[key] for part in parts) for key in parts[0]}
    for key in ("loss", "nll_loss", "first_token_accuracy"):
        assert reduced(parts)[key] == reduced([summed])[key]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gold_nll_is_that_of_gold_inputs(build, strategy):
    if strategy in ("generative", "oracle", "risk"):
        pytest.skip("a generating update never reads gold inputs")
    built = build(f"{TRANSFORMER} {STRATEGIES[strategy]}")
    sample = batch(built.task, sentences(LENGTHS))
    _, _, log = built.criterion(built.model, sample)
    _, _, plain = built.task.valid_step(sample, built.model, built.criterion)
    assert float(log["gold_nll_loss"]) == pytest.approx(float(plain["nll_loss"]), rel=1e-6)
    assert (float(log["nll_loss"]) == pytest.approx(float(plain["nll_loss"]), rel=1e-6)) == (strategy != "recurrent")


def test_peak_memory_sees_what_came_and_went():
    memory.take_peak()
    held = memory.in_use()
    block = torch.ones(512 * 2**18)  # 512 MiB: more than what a heap may have kept of earlier tests
    del block
    peak = memory.take_peak()
    assert peak > held + 450
    assert memory.take_peak() < peak - 400


@pytest.mark.cli
def test_peak_memory_is_reset_each_epoch(binarized, tmp_path, monkeypatch):
    """The peak of an epoch is not the peak of those before, nor of validation."""
    peaks = iter([100.0, 900.0, 200.0, 5000.0, 300.0, 250.0, 200.0, 5000.0])
    monkeypatch.setattr(memory, "take_peak", lambda: next(peaks))
    lines = fairseq_train(
        binarized,
        tmp_path,
        f"{TRANSFORMER} --task gift_translation --criterion gift_standard --max-tokens 4000 --batch-size 24 "
        "--max-epoch 2 --no-save --batch-size-valid 8 --log-interval 3",
    )
    epochs = {line["epoch"]: line["train_peak_mem_mib"] for line in lines if "train_peak_mem_mib" in line}
    # three updates (100, 900, 200), one validation step (5000), three updates (300, 250, 200), validation again
    assert epochs == {1: 900.0, 2: 300.0}


@pytest.mark.cli
def test_every_measure_is_in_the_log_of_updates_and_epochs(binarized, tmp_path):
    lines = fairseq_train(
        binarized,
        tmp_path,
        f"{TRANSFORMER} --task gift_translation --criterion gift_recurrent --eval-free-running --max-epoch 1 --no-save",
    )
    measures = {"loss", "nll_loss", "gold_nll_loss", "replaced", "choosing_accuracy", "first_token_accuracy"}
    measures |= {"rollout_seconds", "mem_mib", "peak_mem_mib"}
    update = next(line for line in lines if "update" in line)
    epoch = next(line for line in lines if "train_loss" in line)
    valid = next(line for line in lines if "valid_loss" in line)
    assert measures <= update.keys()
    assert {f"train_{measure}" for measure in measures} <= epoch.keys()
    assert {"valid_free_running_accuracy", "valid_teacher_forced_accuracy"} <= valid.keys()
    assert epoch["train_rollout_seconds"] > 0
    assert epoch["train_peak_mem_mib"] >= epoch["train_mem_mib"] - 1 > 50  # the system's two counts differ by pages
