"""The mean of checkpoints.

A model of averaged parameters translates often better than the last one (Vaswani et al. 2017 average five). The file is
the last of the checkpoints with the mean in place of its model and without the optimizer's state.
"""

import re
from pathlib import Path
from typing import Any, Dict, List

import torch

from gift_fairseq.checkpoints.files import read_checkpoint, write_checkpoint
from gift_fairseq.errors import UserError, check_at_least


def average(paths: List[Path]) -> Dict[str, Any]:
    """The state of the last of ``paths`` with the mean, taken in float64, of the floating-point tensors of all.

    :class:`UserError` unless all have the same tensors.
    """
    states = [read_checkpoint("CHECKPOINT", str(path), model_alone=True) for path in paths]
    models = [state["model"] for state in states]
    shapes = [{name: tensor.shape for name, tensor in model.items()} for model in models]
    for path, own in zip(paths, shapes):
        different = sorted(name for name, _ in own.items() ^ shapes[-1].items())
        if different:
            raise UserError(
                f"CHECKPOINT is {path}, but {paths[-1]} differs in {different[0]}: all must have the same tensors"
            )
    mean = type(models[-1])()
    for name, last in models[-1].items():
        mean[name] = last
        if last.is_floating_point():
            mean[name] = (sum(model[name].double() for model in models) / len(models)).to(last.dtype)
    kept = {key: value for key, value in states[-1].items() if key != "last_optimizer_state"}
    return {**kept, "model": mean, "last_optimizer_state": None}


def last_epochs(folder: Path, number: int, option: str = "--last") -> List[Path]:
    """The ``number`` newest of fairseq's epoch checkpoints (``checkpoint3.pt``) in ``folder``, the oldest first.

    Fewer if there are fewer; :class:`UserError`, which calls the number ``option``, if there is none.
    """
    check_at_least(option, number, 1)
    epochs = sorted(
        (int(match.group(1)), path)
        for path in folder.glob("checkpoint*.pt")
        if (match := re.fullmatch(r"checkpoint(\d+)\.pt", path.name))
    )
    if not epochs:
        raise UserError(f"{option} is {number}, but {folder} has no checkpoint of an epoch: train for longer")
    return [path for _, path in epochs[-number:]]


def second_half(updates: int, number: int) -> List[int]:
    """After which updates a model is kept that is kept ``number`` times, evenly over the second half of ``updates``.

    The last is ``updates`` itself. Fewer where the half has fewer.
    """
    return sorted({updates - i * updates // (2 * number) for i in range(number)})


def snapshot_file(folder: Path, update: int) -> Path:
    return folder / f"snapshot_{update}.pt"


def snapshots(folder: Path) -> List[Path]:
    """Those in ``folder`` by their update, of which :func:`second_half` says the numbers, all but the last."""
    return sorted(folder.glob("snapshot_*.pt"), key=lambda path: int(path.stem.split("_")[1]))


def write_average(paths: List[Path], out: Path) -> None:
    """The mean of ``paths`` as the checkpoint ``out``, another file; see :func:`average`."""
    if out.exists() and any(out.samefile(path) for path in paths if path.exists()):
        raise UserError(f"--out is {out}, which is one of the checkpoints that are averaged: give another file")
    with torch.no_grad():
        write_checkpoint(average(paths), str(out))
