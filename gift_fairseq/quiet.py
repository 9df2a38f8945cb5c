"""fairseq logs every model, task and batch iterator that it makes; where output is the point, it is kept quiet."""

import contextlib
import logging
from typing import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing below a warning is logged inside; afterwards it is as before."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
