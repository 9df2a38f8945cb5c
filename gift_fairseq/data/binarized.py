"""Binarized data folders: read as fairseq's task has them, and written text by text."""

import contextlib
from pathlib import Path
from typing import Iterator

from fairseq.data import indexed_dataset
from fairseq.data.data_utils import infer_language_pair
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from gift_fairseq.errors import UserError, check_data
from gift_fairseq.io import quiet


@contextlib.contextmanager
def split_is_read(option: str, data: str, split: str) -> Iterator[None]:
    """:class:`UserError` naming ``option`` if fairseq, inside, finds no ``split`` in ``data``, or no sentence in it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{option} is {data}, which has no split '{split}'") from None
    except ValueError as error:
        if "empty file" not in str(error):
            raise
        raise UserError(f"{option} is {data}, whose split '{split}' is empty") from None


def task_of(data: Path) -> TranslationTask:
    """fairseq's task over a data folder, its training set loaded; :class:`UserError` if it is none."""
    source, target = infer_language_pair(str(check_data(data)))
    # those that follow from other parts of fairseq's configuration, which there is none of here
    rest = dict(train_subset="train", dataset_impl=None, required_seq_len_multiple=1, upsample_primary=1)
    cfg = TranslationConfig(data=str(data), source_lang=source, target_lang=target, **rest)
    with quiet():
        task = TranslationTask.setup_task(cfg)
        with split_is_read("--data", str(data), "train"):
            task.load_dataset("train")
    return task


class TextWriter:
    """Writes one side of a text, sentence by sentence: ``prefix``.bin and .idx. Its dictionary has ``words`` words."""

    def __init__(self, prefix: Path, words: int):
        self.prefix, self.builder = prefix, indexed_dataset.make_builder(f"{prefix}.bin", "mmap", words)
        self.add_item = self.builder.add_item

    def end(self) -> None:
        self.builder.finalize(f"{self.prefix}.idx")
