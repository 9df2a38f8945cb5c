"""Files, read as JSON or written whole, and what is said at the terminal, quietly."""

import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import IO, Any, Iterator, List, Sequence

from tqdm import tqdm

DELAY = 2  # seconds: what is done before that shows no bar


@contextlib.contextmanager
def written_whole(*paths: str, binary: bool = False) -> Iterator[Sequence[IO]]:
    """UTF-8 (or ``binary``) files to write, one for each of ``paths``; all appear when the block ends, or none.

    Whoever reads one finds the old file or the new one, never a part. An ``OSError`` names the files.
    """
    partials = [f"{path}.partial" for path in paths]
    try:
        with contextlib.ExitStack() as stack:
            how = {"mode": "wb"} if binary else {"mode": "w", "encoding": "utf-8", "newline": "\n"}
            yield [stack.enter_context(open(partial, **how)) for partial in partials]
        for partial, path in zip(partials, paths):
            os.replace(partial, path)
    except OSError as error:
        if error.filename is None:  # a full disk, met while writing
            error.filename = " or ".join(paths)
        raise
    finally:
        for partial in partials:
            if os.path.isfile(partial):  # left only where something went wrong
                os.remove(partial)


def write_whole(path: str, text: str) -> None:
    """``text`` as the file ``path``."""
    with written_whole(path) as (out,):
        out.write(text)


def read_lines(path: Path) -> List[str]:
    """The lines of a UTF-8 file, each ended by a line feed: a line may hold a carriage return, or U+2028."""
    return path.read_bytes().decode("utf-8").split("\n")[:-1]


def read_json(path: Path) -> Any:
    """What ``path`` holds; None if it is missing or half-written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def to_json(value: Any) -> Any:
    """``value`` with dataclasses as JSON objects.

    A field that is None is left out if that is its default; one marked ``flat`` stands for the fields of its value.
    ``from_``, which Python reserves, becomes ``from``.
    """
    if dataclasses.is_dataclass(value):
        found = {}
        for field in dataclasses.fields(value):
            one = to_json(getattr(value, field.name))
            if field.metadata.get("flat"):
                found.update(one)
            elif one is not None or field.default is not None:
                found[field.name.rstrip("_")] = one
        return found
    if isinstance(value, dict):
        return {key: to_json(one) for key, one in value.items()}
    return [to_json(one) for one in value] if isinstance(value, list) else value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, nothing below a warning is logged: fairseq logs every model, task and batch iterator that it makes.

    Python's own warnings are off: hydra has many for fairseq's way of calling it.
    """
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def say(text: str) -> None:
    """A line of progress on stderr, with the time of day."""
    tqdm.write(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr)  # above the bars, if there are any
    sys.stderr.flush()


def progress(total: int, what: str, unit: str, done: int = 0) -> tqdm:
    """A bar on stderr with the time that is left, at a terminal only; its ``update(n)`` says that n more are done.

    ``done``: how many of the ``total`` were done before it began, which tell nothing of the rate.
    """
    how = dict(desc=what, unit=f" {unit}", disable=None, leave=False, delay=DELAY, dynamic_ncols=True)
    return tqdm(total=total, initial=done, **how)
