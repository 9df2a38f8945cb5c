"""What a checkpoint may contain, and whether it fits the data, said before a long run starts."""

import argparse
import os
import pickle
import zipfile

import torch
from fairseq.data import Dictionary

from gift_fairseq.options import UserError


def allow_fairseq_checkpoints() -> None:
    """Lets torch's safe unpickler load fairseq checkpoints, and refuse any code in them.

    A fairseq checkpoint holds one thing outside the unpickler's safe set: an ``argparse.Namespace`` of options.
    ``weights_only=False`` would load it too, and run whatever code a downloaded file carries.
    """
    torch.serialization.add_safe_globals([argparse.Namespace])


def check_checkpoint(option: str, path: str, source: Dictionary, target: Dictionary) -> None:
    """:class:`UserError` naming ``option`` unless ``path`` is a whole fairseq checkpoint over these dictionaries."""
    if not os.path.isfile(path):
        raise UserError(f"{option} is {path}, but there is no such file")
    try:
        # mmap: the tensors of a checkpoint (a zip file since torch 1.6) are not read for this
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        model = state["model"]
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise UserError(
                f"{option} is {path}, which carries code (torch's safe unpickler refused it): only checkpoints of "
                "tensors and options are loaded"
            ) from None
        raise UserError(_broken(option, path)) from None
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, ValueError):
        raise UserError(_broken(option, path)) from None
    for side, dictionary in (("encoder", source), ("decoder", target)):
        embedding = model.get(f"{side}.embed_tokens.weight")
        if embedding is not None and embedding.size(0) != len(dictionary):
            raise UserError(
                f"{option} is {path}, whose {side} has a vocabulary of {embedding.size(0)}, but the data's dictionary "
                f"has {len(dictionary)}: binarize the data with the checkpoint's dictionaries (--srcdict, --tgtdict)"
            )


def _broken(option: str, path: str) -> str:
    return f"{option} is {path}, which is no whole fairseq checkpoint: it may have been cut off when it was written"
