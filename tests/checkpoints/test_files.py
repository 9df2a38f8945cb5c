"""A checkpoint_last.pt that was cut off while fairseq copied it; one without the options of its model."""

import os

import pytest
import torch
from conftest import error_of, gift
from fairseq.data import Dictionary

from gift_fairseq.checkpoints.files import check_checkpoint, mend_last
from gift_fairseq.errors import UserError


def saved(folder, name, value, seconds):
    torch.save({"model": {"w": torch.tensor(value)}}, folder / name)
    os.utime(folder / name, (seconds, seconds))


def model(folder):
    return torch.load(folder / "checkpoint_last.pt")["model"]["w"].item()


@pytest.fixture()
def folder(tmp_path):
    """The last of three; the newest of the other two has neither the highest number nor the last name."""
    saved(tmp_path, "checkpoint_1_9.pt", 1.0, 100)
    saved(tmp_path, "checkpoint_1_10.pt", 2.0, 300)
    saved(tmp_path, "checkpoint_best.pt", 3.0, 200)
    saved(tmp_path, "checkpoint_last.pt", 4.0, 400)
    return tmp_path


def cut(path, share):
    os.truncate(path, int(share * path.stat().st_size))


def test_a_whole_one_stays(folder):
    assert mend_last(folder) is None and model(folder) == 4


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_the_newest_whole_one_takes_its_place(folder, share):
    cut(folder / "checkpoint_last.pt", share)
    assert mend_last(folder).endswith("the training goes on from checkpoint_1_10.pt") and model(folder) == 2
    assert len(list(folder.iterdir())) == 4
    cut(folder / "checkpoint_last.pt", share)
    cut(folder / "checkpoint_1_10.pt", share)
    assert mend_last(folder).endswith("the training goes on from checkpoint_best.pt") and model(folder) == 3


def test_without_another_it_is_removed(tmp_path):
    assert mend_last(tmp_path) is None
    saved(tmp_path, "checkpoint_last.pt", 1.0, 0)
    cut(tmp_path / "checkpoint_last.pt", 0.5)
    assert mend_last(tmp_path).endswith("the training starts again") and not list(tmp_path.iterdir())


def test_a_model_without_its_options(tmp_path):
    """As a snapshot is: its mean can be taken, but nothing else."""
    path = tmp_path / "snapshot_9.pt"
    torch.save({"model": {"w": torch.tensor(1.0)}, "args": None}, path)
    sentence = f"CHECKPOINT is {path}, which holds a model but no options: it must be a checkpoint of fairseq's"
    assert sentence in error_of("export", path, tmp_path / "out.pt")
    with pytest.raises(UserError, match="--from is .*snapshot_9.pt, which holds a model but no options"):
        check_checkpoint("--from", str(path), Dictionary(), Dictionary())
    gift("average", "--out", tmp_path / "mean.pt", path, path)
    assert torch.load(tmp_path / "mean.pt")["model"]["w"] == 1
