"""The flags of fairseq-train that go on with a checkpoint as it was trained.

They are its architecture and the options of it, label smoothing, batch size and Adam's settings, and a part
of its peak learning rate.
"""

import argparse
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from fairseq.data import Dictionary
from fairseq.data.data_utils import infer_language_pair
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from omegaconf import DictConfig
from torch import Tensor, nn

from gift_fairseq.checkpoints.files import check_checkpoint, read_checkpoint
from gift_fairseq.errors import UserError, check_data, option

SETTINGS = {  # where fairseq keeps the settings of a training that fine-tuning takes over
    "label_smoothing": "criterion",
    "max_tokens": "dataset",
    "batch_size": "dataset",
    "update_freq": "optimization",
    "clip_norm": "optimization",
    "adam_betas": "optimizer",
    "adam_eps": "optimizer",
    "weight_decay": "optimizer",
    "max_source_positions": "task",
    "max_target_positions": "task",
}
ADAMS = ("adam", "cpu_adam")  # the optimizers whose learning rate is one for fine-tuning too
GROUPS = ("encoder", "decoder", "quant_noise")  # of a model's options, where fairseq-hydra-train made the checkpoint
# options of a model that change what it computes, but neither names nor shapes of its tensors
NOT_IN_TENSORS = (
    "encoder_attention_heads decoder_attention_heads activation_fn no_scale_embedding no_token_positional_embeddings "
    "weight_softmax"
).split()
PART_OF_PEAK = 0.3  # plain updates then keep a converged model's score; half took 0.8 BLEU: examples/general/README.md


def model_flags(arch: str, values: Dict[str, Any]) -> Dict[str, List[str]]:
    """``--arch`` and those of the model's own options in ``values`` that ``arch`` would not set by itself, by name.

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

    flags = {"arch": ["--arch", arch]}
    for action in parser._actions:
        value = values.get(action.dest)
        if value is None or follows(action.dest):
            continue
        if action.nargs != 0:
            flags[action.dest] = [action.option_strings[-1], str(value)]
        elif value == action.const:
            flags[action.dest] = [action.option_strings[-1]]
    return flags


def training_flags(cfg: DictConfig, rate_is_given: bool = False) -> List[str]:
    """Batch size, loss and Adam's settings as in ``cfg``, and :data:`PART_OF_PEAK` of its peak learning rate.

    Without the rate if ``rate_is_given``.
    """
    flags = []
    for name, section in SETTINGS.items():
        value = getattr(cfg[section], name, None)
        if value is not None:
            flags += [option(name), str(value[-1] if name == "update_freq" else value)]  # of the last epoch
    return flags if rate_is_given else [*flags, "--lr", f"{max(cfg.optimization.lr) * PART_OF_PEAK:g}"]


def check_dictionaries(path: str, data: Path, before: Path, languages: List[str]) -> None:
    """:class:`UserError` if the data the checkpoint was trained on is still there and has other dictionaries."""
    for language in languages:
        now, then = (folder / f"dict.{language}.txt" for folder in (data, before))
        if then.is_file() and Dictionary.load(str(now)).symbols != Dictionary.load(str(then)).symbols:
            raise UserError(
                f"--from is {path}, which was trained with {then}, but {now} has other words or another order: "
                "binarize the data with the checkpoint's dictionaries (--dictionary of gift prepare)"
            )


def model_of(model_cfg: Any) -> Tuple[str, Dict[str, Any]]:
    """The architecture and the options of a model, of the part of fairseq's configuration that is the model's.

    fairseq-hydra-train keeps some options in groups; they get the names that they have on fairseq-train's command line.
    """
    values = dict(vars(model_cfg) if isinstance(model_cfg, argparse.Namespace) else model_cfg)
    for group in GROUPS:
        if isinstance(values.get(group), (dict, DictConfig)):
            values.update({f"{group}_{name}": value for name, value in values.pop(group).items()})
    return values.get("arch") or values["_name"], values


def check_model(option: str, path: str, model: nn.Module, model_cfg: Any) -> None:
    """:class:`UserError` unless ``model`` is just the one that the checkpoint ``path`` holds.

    Every tensor of one must be in the other, in the same shape. And both must share the same ones: where ``model`` has
    one matrix under two names and the checkpoint has two, fairseq loads one over the other and says nothing. The
    sentence names the tensors and, of the checkpoint's flags, those that ``model_cfg``, of which ``model`` was built,
    lacks. Options that no tensor shows must be the same too.
    """
    state = dict(read_checkpoint(option, path)["model"])
    model.upgrade_state_dict(state)  # as loading it would; names of earlier versions of fairseq become today's
    reason = next(_misfits(state, model.state_dict()), None)
    if reason is None:
        (_, then), (_, now) = model_of(load_checkpoint_to_cpu(path)["cfg"].model), model_of(model_cfg)
        other = [name for name in NOT_IN_TENSORS if name in then and name in now and then[name] != now[name]]
        if not other:
            return
        reason = " and ".join(f"where {name} is {then[name]}, but in the model {now[name]}" for name in other)
    raise UserError(f"{option} is {path}, {reason}{_advice(path, model_cfg)}")


def _advice(path: str, model_cfg: Any) -> str:
    """Which flags make the model of the checkpoint ``path``, where ``model_cfg`` makes another; empty if none do.

    Without what has no part in loading: dropout, which may be another one on purpose, and how a model is sharded.
    """
    wanted, given = model_of(load_checkpoint_to_cpu(path)["cfg"].model), model_of(model_cfg)
    if wanted[0] not in ARCH_MODEL_REGISTRY or given[0] not in ARCH_MODEL_REGISTRY:
        return ""
    wanted, given = (
        {name: words for name, words in model_flags(*one).items() if not re.search("drop|_wrap$", name)}
        for one in (wanted, given)
    )
    add = [word for name, words in wanted.items() if given.get(name) != words for word in words]
    leave_out = [words[0] for name, words in given.items() if name not in wanted]
    parts = [f"add {' '.join(add)}"] * bool(add) + [f"leave out {' '.join(leave_out)}"] * bool(leave_out)
    return f": {', '.join(parts)}" if parts else ""


def _misfits(saved: Dict[str, Tensor], own: Dict[str, Tensor]) -> Iterator[str]:
    """Why ``saved`` is not the state of the model whose state is ``own``; nothing if it is."""
    lacking, more = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    if lacking or more:
        parts = [f"lacks {_some(lacking)} of the model"] if lacking else []
        parts += [f"has {_some(more)} that the model lacks"] if more else []
        yield f"which {' and '.join(parts)}"
    for name in own:
        if own[name].shape != saved[name].shape:
            yield f"where {name} has the shape {tuple(saved[name].shape)}, but in the model {tuple(own[name].shape)}"
    shared = _names_of_one({name: own[name].data_ptr() for name in own if own[name].numel()})
    for names in shared:
        if any(not torch.equal(saved[names[0]], saved[name]) for name in names[1:]):
            yield f"where {_some(names)} are different, but in the model they are one"
    one = {name for names in shared for name in names}
    for names in _equal_matrices({name: tensor for name, tensor in saved.items() if name not in one}):
        yield f"where {_some(names)} are one, but in the model each is its own"


def _names_of_one(keys: Dict[str, Any]) -> List[List[str]]:
    """The names that have the same key, where several have."""
    found: Dict[Any, List[str]] = {}
    for name, key in keys.items():
        found.setdefault(key, []).append(name)
    return [names for names in found.values() if len(names) > 1]


def _equal_matrices(state: Dict[str, Tensor]) -> List[List[str]]:
    """The names of matrices that are equal, which in a trained model are those that were shared.

    A constant one, such as one of zeros to start from, says nothing; nor does a vector, which may be memory that
    fairseq never set (the biases of dynamic convolutions without bias).
    """
    matrices = {name: tensor for name, tensor in state.items() if sum(size > 1 for size in tensor.shape) > 1}
    alike = _names_of_one(
        {name: (tensor.shape, tuple(tensor.flatten()[:8].tolist())) for name, tensor in matrices.items()}
    )
    found = []
    for first, *others in alike:
        equal = [name for name in others if torch.equal(matrices[first], matrices[name])]
        if equal and matrices[first].ne(matrices[first].flatten()[0]).any():
            found.append([first, *equal])
    return found


def _some(names: List[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def flags_of(path: str, data: Path, rate_is_given: bool = False) -> List[str]:
    """The flags for the checkpoint ``path`` on ``data``; :class:`UserError` if they do not fit each other.

    Without a learning rate if ``rate_is_given``; it must be for a checkpoint of an optimizer that is not Adam.
    """
    languages = infer_language_pair(str(check_data(data)))
    check_checkpoint("--from", path, *(Dictionary.load(str(data / f"dict.{language}.txt")) for language in languages))
    cfg = load_checkpoint_to_cpu(path)["cfg"]
    if cfg.task.data:
        check_dictionaries(path, data, Path(cfg.task.data), languages)
    arch, values = model_of(cfg.model)
    if arch not in ARCH_MODEL_REGISTRY:
        raise UserError(f"--from is {path}, whose architecture {arch} is not fairseq's own: use fairseq-train itself")
    optimizer = getattr(cfg.optimizer, "_name", None)
    if optimizer not in ADAMS and not rate_is_given:
        raise UserError(
            f"--from is {path}, which {optimizer} trained, but fine-tuning is by Adam, to which that one's learning "
            "rate means nothing: give --lr, for instance 3e-4"
        )
    flags = [word for words in model_flags(arch, values).values() for word in words]
    return flags + training_flags(cfg, rate_is_given)
