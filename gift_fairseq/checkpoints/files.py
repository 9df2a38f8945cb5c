"""What a checkpoint may contain, and whether it fits the data, said before a long run starts."""

import argparse
import functools
import hashlib
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import torch
from fairseq.data import Dictionary

from gift_fairseq.errors import UserError
from gift_fairseq.io import written_whole
from gift_fairseq.runs import checkpoint_file

# A fairseq checkpoint holds two things outside the safe set of torch's unpickler: an argparse.Namespace of options and,
# trained with --eval-bleu, the counts of BLEU as numpy arrays. weights_only=False would load them too, and run whatever
# code a downloaded file carries. What is allowed here runs none: it makes arrays and the types of their elements, and
# fills them with bytes of the file or with objects that the unpickler has already let through.
_reconstruct = np.zeros(0).__reduce__()[0]
torch.serialization.add_safe_globals(
    [
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        type(np.dtype("int64")),
        type(np.dtype("float64")),  # of several workers, which add them up as such
        # numpy 2 renamed the module, and reads the files of numpy 1
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        (_reconstruct, "numpy._core.multiarray._reconstruct"),
    ]
)
# what torch.load raises, and asking for the names of the model's tensors
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError, ValueError, AttributeError)


def read_checkpoint(option: str, path: str, model_alone: bool = False) -> Dict[str, Any]:
    """What the fairseq checkpoint ``path`` holds, its tensors left on disk until they are used.

    :class:`UserError` naming ``option`` if there is no such file, it is not whole, it carries code, or it holds no
    options of the model, where ``model_alone`` does not suffice.
    """
    if not os.path.isfile(path):
        raise UserError(f"{option} is {path}, but there is no such file")
    try:
        # mmap: the tensors of a checkpoint (a zip file since torch 1.6) are not read for this
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        state["model"].keys()
    except UNREADABLE as error:
        reason = "is no whole fairseq checkpoint: it may have been cut off when it was written"
        if "Unsupported global" in str(error):
            reason = "carries code (torch's safe unpickler refused it): it may hold tensors and options only"
        raise UserError(f"{option} is {path}, which {reason}") from None
    if not model_alone and state.get("cfg") is None and state.get("args") is None:
        raise UserError(f"{option} is {path}, which holds a model but no options: it must be a checkpoint of fairseq's")
    return state


def check_checkpoint(option: str, path: str, source: Dictionary, target: Dictionary) -> None:
    """:class:`UserError` naming ``option`` unless ``path`` is a whole fairseq checkpoint over these dictionaries."""
    model = read_checkpoint(option, path)["model"]
    for side, dictionary in (("encoder", source), ("decoder", target)):
        embedding = model.get(f"{side}.embed_tokens.weight")
        if embedding is not None and embedding.size(0) != len(dictionary):
            raise UserError(
                f"{option} is {path}, whose {side} has a vocabulary of {embedding.size(0)}, but the data's dictionary "
                f"has {len(dictionary)}: binarize the data with the checkpoint's dictionaries (--srcdict, --tgtdict)"
            )


def digest_of(path: Path) -> str:
    """16 hexadecimal digits that tell what the file ``path`` holds; :class:`UserError` that names --from without it."""
    if not path.is_file():
        raise UserError(f"--from is {path}, but there is no such file")
    found = path.stat()
    return _digest_of(path, found.st_size, found.st_mtime_ns)


@functools.cache  # asked for by every training that starts from the file
def _digest_of(path: Path, _size: int, _modified: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def write_checkpoint(state: Dict[str, Any], path: str) -> None:
    """``state`` as the file ``path``, written whole; :class:`UserError` if it cannot be."""
    try:
        with written_whole(path, binary=True) as (file,):
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        # on a full disk torch.save ends in a RuntimeError of its own, raised while it handles the OSError
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise UserError(f"{cause.filename or path} cannot be written: {cause.strerror}") from None


def mend_last(folder: Path) -> Optional[str]:
    """Replaces a ``checkpoint_last.pt`` that is not whole by the newest whole checkpoint in ``folder``, or removes it.

    fairseq writes a checkpoint whole under its first name and copies it to the others, to ``checkpoint_last.pt`` at the
    end. Killed in that copy, it leaves a part, from which no training can go on. Returns what was done, or None.
    """
    last = folder / checkpoint_file("last")
    if not last.is_file() or zipfile.is_zipfile(last):
        return None
    others = sorted(folder.glob("checkpoint*.pt"), key=lambda path: path.stat().st_mtime, reverse=True)
    newest = next((path for path in others if zipfile.is_zipfile(path)), None)
    if newest is None:
        last.unlink()
        return f"{last} was cut off when it was written, and there is no other: the training starts again"
    with open(newest, "rb") as source, written_whole(str(last), binary=True) as (copy,):
        shutil.copyfileobj(source, copy)
    return f"{last} was cut off when it was written: the training goes on from {newest.name}"
