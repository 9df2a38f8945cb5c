"""The mean of checkpoints: ``python -m gift_fairseq.average --out FILE CHECKPOINT...``.

A model of averaged parameters translates often better than the last one (Vaswani et al. 2017 average five). The file is
the newest of the checkpoints with the mean in place of its model and without the optimizer's state.
"""

import argparse
import re
from pathlib import Path
from typing import Any, Dict, List

import torch

from gift_fairseq.checkpoints import read_checkpoint, write_checkpoint
from gift_fairseq.options import UserError, check_at_least


def average(paths: List[Path]) -> Dict[str, Any]:
    """The state of the last of ``paths`` with the mean, taken in float64, of the floating-point tensors of all.

    :class:`UserError` unless all have the same tensors.
    """
    states = [read_checkpoint("CHECKPOINT", str(path)) for path in paths]
    models = [state["model"] for state in states]
    mean = type(models[-1])()
    for name, last in models[-1].items():
        if any(name not in model or model[name].shape != last.shape for model in models):
            raise UserError(f"CHECKPOINT is {paths[-1]}, whose {name} the others have not or in another shape")
        if last.is_floating_point():
            mean[name] = (sum(model[name].double() for model in models) / len(models)).to(last.dtype)
        else:
            mean[name] = last
    kept = {key: value for key, value in states[-1].items() if key != "last_optimizer_state"}
    return {**kept, "model": mean, "last_optimizer_state": None}


def last_epochs(folder: Path, number: int) -> List[Path]:
    """The ``number`` newest of fairseq's epoch checkpoints (``checkpoint3.pt``) in ``folder``, the oldest first.

    Fewer if there are fewer; :class:`UserError` if there is none.
    """
    check_at_least("--last", number, 1)
    epochs = sorted(
        (int(match.group(1)), path)
        for path in folder.glob("checkpoint*.pt")
        if (match := re.fullmatch(r"checkpoint(\d+)\.pt", path.name))
    )
    if not epochs:
        raise UserError(f"--last is {number}, but {folder} has no checkpoint of an epoch: train for longer")
    return [path for _, path in epochs[-number:]]


def main(args=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gift_fairseq.average", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the checkpoint to write")
    parser.add_argument("--last", type=int, metavar="N", help="average the newest N epochs of the one folder given")
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="a file; with --last, a folder")
    options = parser.parse_args(args)
    paths = options.checkpoints
    if options.last is not None:
        if len(paths) > 1 or not paths[0].is_dir():
            raise UserError(f"CHECKPOINT is {' '.join(map(str, paths))}, but with --last it must be one folder")
        paths = last_epochs(paths[0], options.last)
    with torch.no_grad():
        write_checkpoint(average(paths), str(options.out))
    print(f"{options.out} is the mean of {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    main()
