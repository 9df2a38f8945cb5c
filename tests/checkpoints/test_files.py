"""Checkpoints that were cut off while fairseq copied them, that hold no options, or arrays of numpy."""

import os
import re
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import PLUGIN, TRANSFORMER, error_of, fairseq_train, gift
from fairseq.data import Dictionary

from gift_fairseq.checkpoints.files import check_checkpoint, mend_last, read_checkpoint
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


@pytest.mark.cli
def test_a_training_with_bleu_is_read_and_resumed(binarized, tmp_path):
    """By the commands of the plugin, and by fairseq-train in a process of its own, where --user-dir must allow it."""
    bleu = '--eval-bleu --eval-bleu-args {"beam":2} --best-checkpoint-metric bleu --maximize-best-checkpoint-metric'
    flags = f"{TRANSFORMER} --task translation --criterion gift_standard {bleu}"
    fairseq_train(binarized, tmp_path, f"{flags} --max-update 3")
    path, words = tmp_path / "checkpoint_last.pt", Dictionary.load(str(binarized / "dict.en.txt"))
    assert "_bleu_counts" in str(torch.load(path)["extra_state"]["metrics"])
    check_checkpoint("--from", str(path), words, words)
    gift("average", "--out", tmp_path / "mean.pt", path, tmp_path / "checkpoint_best.pt")
    more = f"{flags} --max-update 5 --cpu --optimizer adam --lr 1e-3 --max-tokens 200 --num-workers 0"
    resume = [sys.executable, "-c", "from fairseq_cli import train; train.cli_main()", binarized, *more.split()]
    resume += ["--user-dir", PLUGIN, "--save-dir", tmp_path, "--disable-validation"]
    done = subprocess.run(resume, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "checkpoint_last.pt (epoch 2 @ 3 updates)" in done.stdout


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
@pytest.mark.parametrize("counts", [np.array([3, 1]), np.array([3.0, 1.0])])
def test_arrays_of_numpy_1_and_2(tmp_path, module, counts):
    """Of one worker and of several."""
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {}, "args": Namespace(), "counts": counts}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(re.sub(rb"numpy\._?core\.multiarray", module, path.read_bytes()))
    found = read_checkpoint("--from", str(path))["counts"]
    assert found.dtype == counts.dtype and found.tolist() == counts.tolist()
