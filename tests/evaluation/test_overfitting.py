"""Overfitting: NLL on training and on validation text, and whether fine-tuning keeps its dropout."""

import argparse
import math
import shutil

import pytest
import torch
from conftest import MACHINE, TRANSFORMER, error_of, fairseq_train
from fairseq import checkpoint_utils

from gift_fairseq import runs
from gift_fairseq.cli import from_checkpoint
from gift_fairseq.data.binarized import TextWriter, task_of
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation import overfitting
from gift_fairseq.evaluation.overfitting import Overfitting


def trained(data, folder, updates):
    flags = (
        f"{TRANSFORMER} --share-all-embeddings --task gift_translation --criterion gift_standard --disable-validation"
    )
    fairseq_train(data, folder, f"{flags} --dropout 0.1 --lr 1e-2 --max-update {updates}")
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def checkpoint(binarized, tmp_path_factory):
    """A model that has learned its 60 sentences by heart."""
    return trained(binarized, tmp_path_factory.mktemp("trained"), 200)


def naive_nll(checkpoint, data, split):
    """Sentence by sentence, token by token, all of them."""
    task = task_of(data)
    task.load_dataset(split)
    (model,), _ = checkpoint_utils.load_model_ensemble([str(checkpoint)], task=task)
    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for pair in task.dataset(split):
            inputs = torch.cat([pair["target"][-1:], pair["target"][:-1]])
            logits = model(pair["source"][None], torch.tensor([len(pair["source"])]), inputs[None])[0][0]
            for token, step in zip(pair["target"], logits.double()):
                total -= float(step.log_softmax(0)[token])
                tokens += 1
    return total / tokens


def test_both_likelihoods_are_those_of_a_naive_loop(checkpoint, binarized):
    found = overfitting.measure(checkpoint, binarized)
    for split in ("train", "valid"):
        assert getattr(found, split) == pytest.approx(naive_nll(checkpoint, binarized, split), rel=1e-5)
    assert found.gap == found.valid - found.train
    assert overfitting.measure(checkpoint, binarized) == found  # and again


def test_a_thousand_sentences_at_random_stand_for_a_text(checkpoint, binarized, monkeypatch):
    """The longest are among them as the shortest are, and what the model does not read is not."""
    task, lengths = task_of(binarized), []
    dataset = task.dataset("train")

    class Model:
        limits = (100, 100)

        def max_positions(self):
            return self.limits

        def __call__(self, src_tokens, src_lengths, prev_output_tokens):
            lengths.extend(src_lengths.tolist())
            return torch.zeros(*prev_output_tokens.shape, 4 + len(task.target_dictionary))

        def get_normalized_probs(self, output, log_probs):
            return output.log_softmax(2)

    uniform = math.log(4 + len(task.target_dictionary))
    assert overfitting.nll(Model(), dataset) == pytest.approx(uniform, rel=1e-6)
    assert sorted(lengths) == sorted(dataset.src_sizes)
    monkeypatch.setattr(overfitting, "SENTENCES", 20)
    lengths.clear()
    overfitting.nll(Model(), dataset)
    assert len(lengths) == 20 and max(lengths) - min(lengths) >= 2
    longest = int(max(dataset.src_sizes))
    Model.limits, _ = (longest - 1, 100), lengths.clear()
    monkeypatch.setattr(overfitting, "SENTENCES", 1000)
    overfitting.nll(Model(), dataset)
    assert sorted(lengths) == sorted(size for size in dataset.src_sizes if size < longest)
    Model.limits = (0, 0)
    assert math.isnan(overfitting.nll(Model(), dataset))


def test_fine_tuning_tells_what_is_overfitted(checkpoint, binarized, tmp_path, capsys):
    assert (
        from_checkpoint.overfitting_of(checkpoint, binarized) == overfitting.measure(checkpoint, binarized).gap > 0.45
    )
    assert "the dropout is that of the checkpoint" in capsys.readouterr().err
    assert from_checkpoint.overfitting_of(trained(binarized, tmp_path / "fresh", 1), binarized) < 0.45
    assert "the dropout is 0" in capsys.readouterr().err


@pytest.fixture
def start(checkpoint, binarized, tmp_path, monkeypatch):
    """``start(*flags)`` of a fine-tuning into tmp_path; ``start.measured``: the models that were measured, 0.2 each."""
    measured = []
    monkeypatch.setattr(overfitting, "measure", lambda model, _: measured.append(model) or Overfitting(1.0, 1.2))

    def of(*flags, strategy=("standard",), model=checkpoint):
        options = argparse.Namespace(start=model, data=binarized, lr=None, updates=3)
        return from_checkpoint.Start.of(options, list(flags), tmp_path, list(strategy), MACHINE)

    of.measured = measured
    return of


def dropout_of(training):
    return training.record()["fairseq"]["dropout"]


@pytest.mark.parametrize("flags", [["--dropout", "0.2"], ["--dropout=0.2"]])
def test_a_dropout_after_the_dashes_is_not_decided_by_overfitting(start, tmp_path, flags):
    assert dropout_of(start(*flags).control(tmp_path, MACHINE)) == 0.2 and not start.measured
    assert dropout_of(start().control(tmp_path, MACHINE)) == 0 and start.measured


def test_overfitting_is_measured_once_and_after_mistakes(start, checkpoint, tmp_path):
    """A mistyped flag is named first. A run that was begun, from the same checkpoint, knows the measure."""
    with pytest.raises(UserError, match="--gold-rate"):
        start(strategy=["recurrent", "--gold-rate", "0.5"])
    assert not start.measured
    begun = start().control(tmp_path, MACHINE)
    with runs.begin(tmp_path, {**begun.record(), **begun.why}) as run:
        run.stamp("train").touch()
    assert start().overfitting == pytest.approx(0.2) and start.measured == [checkpoint]
    other = tmp_path / "other.pt"
    shutil.copy(checkpoint, other)
    start(model=other)
    assert start.measured == [checkpoint, other]
    flags = ["--data", begun.data, "--out", tmp_path, "--updates", "3"]
    said = error_of("finetune", "--strategy", "standard", "--from", other, *flags)
    assert f"--from was {checkpoint} and is now {other}" in said


def test_what_cannot_be_read_tells_nothing(start, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(overfitting, "measure", lambda *_: Overfitting(1.0, float("nan")))
    assert dropout_of(start().control(tmp_path, MACHINE)) == 0.1
    assert "the dropout is that of the checkpoint" in capsys.readouterr().err


def test_without_a_validation_set_the_dropout_stays(checkpoint, binarized, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(binarized, data, ignore=shutil.ignore_patterns("valid.*"))
    assert overfitting.measure(checkpoint, data) is None is from_checkpoint.overfitting_of(checkpoint, data)
    write_empty(data, "valid")
    assert overfitting.measure(checkpoint, data) is None


def write_empty(data, split):
    for language in ("en", "de"):
        TextWriter(data / f"{split}.en-de.{language}", 9).end()


def test_without_a_training_set_it_is_said_so(checkpoint, binarized, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(binarized, data, ignore=shutil.ignore_patterns("train.*"))
    given = ("--from", checkpoint, "--data", data, "--out")
    for sentence in ("which has no split 'train'", "whose split 'train' is empty"):
        for strategy in ("standard", "distillation"):
            said = error_of("finetune", "--strategy", strategy, *given, tmp_path / "new")
            assert f"--data is {data}, {sentence}" in said and not (tmp_path / "new").exists()
        assert f"--data is {data}, {sentence}" in error_of("candidates", *given, tmp_path / "own")
        write_empty(data, "train")
    assert not (tmp_path / "own" / "data").exists()
