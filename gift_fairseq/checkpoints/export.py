"""A checkpoint for programs that do not know this plugin.

What training added to the options (task, criterion, folders of the machine) is replaced by fairseq's own, and the
optimizer's state is left out. The options become an :class:`Options`, so that torch's safe unpickler loads the file
without being told of ``argparse.Namespace``, in fairseq as in CTranslate2's converter.
"""

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict

from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.tasks.translation import TranslationConfig
from omegaconf import OmegaConf

from gift_fairseq.checkpoints.files import read_checkpoint, write_checkpoint
from gift_fairseq.errors import UserError

# options that name files and machines of the training
FORGOTTEN = ("user_dir", "data", "save_dir", "log_file", "finetune_from_model", "tensorboard_logdir", "wandb_project")


def options_of(values: Dict[str, Any]) -> OrderedDict:
    """``values`` as items, which fairseq reads, and as attributes, which CTranslate2 reads.

    An ``OrderedDict`` is the one class with attributes that torch's safe unpickler restores by itself.
    """
    both = OrderedDict(values)
    both.__dict__.update(values)
    return both


def plain(section: Dict[str, Any], config: type, name: str) -> Dict[str, Any]:
    """The options of ``section`` that fairseq's own dataclass ``config`` has, under the name ``name``."""
    known = config.__dataclass_fields__
    return {**{key: value for key, value in section.items() if key in known}, "_name": name}


def export(state: Dict[str, Any]) -> Dict[str, Any]:
    """``state``, as fairseq's ``load_checkpoint_to_cpu`` gives it, without what only this plugin understands."""
    model = state["cfg"]["model"]
    model = dict(vars(model)) if isinstance(model, argparse.Namespace) else OmegaConf.to_container(model)
    cfg = {key: value for key, value in OmegaConf.to_container(state["cfg"]).items() if key != "model"}
    cfg["task"] = plain(cfg["task"], TranslationConfig, "translation")
    cfg["criterion"] = plain(cfg["criterion"], LabelSmoothedCrossEntropyCriterionConfig, "label_smoothed_cross_entropy")
    model["arch"] = model.get("arch") or model["_name"]
    model.update(task="translation", criterion="label_smoothed_cross_entropy")
    model.update({key: cfg["task"][key] for key in ("source_lang", "target_lang")})
    for section in (model, *(value for value in cfg.values() if isinstance(value, dict))):
        section.update({key: None for key in FORGOTTEN if key in section})
    cfg["checkpoint"]["save_dir"] = "checkpoints"
    kept = {key: state[key] for key in ("model", "optimizer_history")}
    epoch = state["extra_state"]["train_iterator"]["epoch"]
    extra = {"train_iterator": {"epoch": epoch, "iterations_in_epoch": 0, "shuffle": True}, "val_loss": None}
    return {**kept, "args": None, "cfg": {**cfg, "model": options_of(model)}, "extra_state": extra, "task_state": {}}


def write_export(checkpoint: Path, out: Path) -> None:
    """:func:`export` of the file ``checkpoint`` as another file ``out``; :class:`UserError` if it cannot be read."""
    read_checkpoint("CHECKPOINT", str(checkpoint))  # or one sentence
    if out.exists() and out.samefile(checkpoint):
        raise UserError(f"OUT is {out}, which is CHECKPOINT: an export lacks the optimizer's state, give another file")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(export(load_checkpoint_to_cpu(str(checkpoint))), str(out))
