"""Files written whole: temporary ones beside the final ones, then a rename."""

import contextlib
import os
from typing import IO, Iterator, Sequence


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
