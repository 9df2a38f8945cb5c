"""The flags of fairseq-train that go on with a checkpoint as it was trained, for ``scripts/finetune.sh``.

``python -m gift_fairseq.finetune_flags --data DIR --from FILE`` prints them, a word a line: the checkpoint's
architecture and its options, label smoothing, batch size and Adam's settings, and half its peak learning rate.
"""

import argparse
from pathlib import Path
from typing import Any, Dict, List

from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from fairseq.data import Dictionary
from fairseq.data.data_utils import infer_language_pair
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from omegaconf import DictConfig

from gift_fairseq.checkpoints import check_checkpoint, read_checkpoint
from gift_fairseq.options import UserError

SETTINGS = {  # where fairseq keeps the settings of a training that fine-tuning takes over
    "label_smoothing": "criterion",
    "max_tokens": "dataset",
    "update_freq": "optimization",
    "clip_norm": "optimization",
    "adam_betas": "optimizer",
    "adam_eps": "optimizer",
    "weight_decay": "optimizer",
    "max_source_positions": "task",
    "max_target_positions": "task",
}


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def model_flags(arch: str, values: Dict[str, Any]) -> List[str]:
    """``--arch`` and those of the model's own options in ``values`` that ``arch`` would not set by itself.

    What follows from another option (the decoder's width from the encoder's) is left out.
    """
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS, add_help=False)
    ARCH_MODEL_REGISTRY[arch].add_args(parser)

    def follows(name: str) -> bool:
        others = argparse.Namespace(**{key: value for key, value in values.items() if key != name})
        try:
            ARCH_CONFIG_REGISTRY[arch](others)
        except AssertionError:  # lightconv wants as many kernel sizes as layers
            return False
        return getattr(others, name, False) == values[name]

    flags = ["--arch", arch]
    for action in parser._actions:
        value = values.get(action.dest)
        if value is None or follows(action.dest):
            continue
        if action.nargs != 0:
            flags += [action.option_strings[-1], str(value)]
        elif value == action.const:
            flags.append(action.option_strings[-1])
    return flags


def training_flags(cfg: DictConfig) -> List[str]:
    """Batch size, loss and optimizer as in ``cfg``, and half the peak learning rate of it."""
    flags = []
    for name, section in SETTINGS.items():
        value = getattr(cfg[section], name, None)
        if value is not None:
            flags += [option(name), ",".join(map(str, value)) if name == "update_freq" else str(value)]
    return [*flags, "--lr", f"{max(cfg.optimization.lr) / 2:g}"]


def check_dictionaries(path: str, data: Path, before: Path, languages: List[str]) -> None:
    """:class:`UserError` if the data the checkpoint was trained on is still there and has other dictionaries."""
    for language in languages:
        now, then = (folder / f"dict.{language}.txt" for folder in (data, before))
        if then.is_file() and Dictionary.load(str(now)).symbols != Dictionary.load(str(then)).symbols:
            raise UserError(
                f"--from is {path}, which was trained with {then}, but {now} has other words or another order: "
                "binarize the data with the checkpoint's dictionaries (--dictionary of scripts/prepare.sh)"
            )


def flags_of(path: str, data: Path) -> List[str]:
    """The flags for the checkpoint ``path`` on ``data``; :class:`UserError` if they do not fit each other."""
    languages = infer_language_pair(str(data)) if data.is_dir() else (None, None)
    if None in languages:
        raise UserError(f"--data is {data}, but that is no data folder: prepare one with scripts/prepare.sh")
    read_checkpoint("--from", path)
    check_checkpoint("--from", path, *(Dictionary.load(str(data / f"dict.{language}.txt")) for language in languages))
    cfg = load_checkpoint_to_cpu(path)["cfg"]
    if cfg.task.data:
        check_dictionaries(path, data, Path(cfg.task.data), languages)
    values = vars(cfg.model) if isinstance(cfg.model, argparse.Namespace) else dict(cfg.model)
    arch = values.get("arch") or values["_name"]
    if arch not in ARCH_MODEL_REGISTRY:
        raise UserError(f"--from is {path}, whose architecture {arch} is not fairseq's own: use fairseq-train itself")
    return [*model_flags(arch, values), *training_flags(cfg)]


def main(args=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gift_fairseq.finetune_flags", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="data folder of fairseq")
    parser.add_argument("--from", required=True, dest="checkpoint", metavar="FILE", help="the checkpoint to go on with")
    options = parser.parse_args(args)
    for word in flags_of(options.checkpoint, options.data):
        print(word)


if __name__ == "__main__":
    main()
