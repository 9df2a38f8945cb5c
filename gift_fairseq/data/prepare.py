"""Raw parallel text to subwords: cleaned, tokenized, filtered, cut; what fairseq-preprocess takes from there.

``python -m gift_fairseq.data.prepare --out DIR ...``, called by ``scripts/prepare.sh``. Its stages, each with a stamp
in ``DIR/done`` once it is finished:

clean   ``DIR/clean/{train,valid,test,test1...}.LANG``: tokenized text; of the training pairs only those that the limits
        let through, with a count of each reason in ``DIR/clean/filtered.json``; ``DIR/raw``: the raw test sets
learn   ``DIR/subwords.*`` from the training split, joint, or those that were given; ``DIR/segmentation.json``
apply   ``DIR/pieces/``: the same files in subwords

Lines are streamed in chunks through a pool of workers: memory does not grow with the corpus. The pairs seen before are
kept on disk.
"""

import argparse
import errno
import glob
import gzip
import hashlib
import json
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import zlib
from collections import Counter, deque
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from tqdm import tqdm

from gift_fairseq.data import testsets
from gift_fairseq.data.segmentation import (
    SUBWORDS,
    TOKENIZERS,
    Segmentation,
    Subwords,
    Tokenizer,
    decode_line,
    has_control_characters,
    learn_bpe,
    learn_sentencepiece,
)
from gift_fairseq.files import write_whole, written_whole
from gift_fairseq.options import UserError, check_at_least

CHUNK = 1000  # lines that a worker takes at once
LEARN_FROM = 2_000_000  # sentences that sentencepiece learns from, at most


@dataclass(frozen=True)
class Limits:
    """Which training pairs stay: tokens of each side, and how many times longer one side may be."""

    min_len: int = 1
    max_len: int = 250
    max_ratio: float = 3.0

    def __post_init__(self):
        check_at_least("--min-len", self.min_len, 1)
        check_at_least("--max-len", self.max_len, self.min_len)
        if not self.max_ratio >= 1:
            raise UserError(f"--max-ratio is {self.max_ratio}, but must be 1 or more")

    def reason_against(self, source: str, target: str) -> Optional[str]:
        """Why the pair goes; None if it stays."""
        lengths = sorted((len(source.split()), len(target.split())))
        if lengths[0] == 0:
            return "empty"
        if lengths[0] < self.min_len:
            return "too short"
        if lengths[1] > self.max_len:
            return "too long"
        if lengths[1] > self.max_ratio * lengths[0]:
            return "lengths too different"
        return None


class Cleaned(NamedTuple):
    """A pair after cleaning, with the reason to leave it out and what was mended in it."""

    source: str
    target: str
    reason: Optional[str]
    mended: Tuple[Tuple[str, str], ...]  # where, what


def find(prefix: str, language: str, option: str) -> Path:
    """The file ``prefix``.``language``, or the same with ``.gz``; :class:`UserError` if there is none."""
    for path in (Path(f"{prefix}.{language}"), Path(f"{prefix}.{language}.gz")):
        if path.is_file():
            return path
    raise UserError(f"{option} is {prefix}, but there is neither {prefix}.{language} nor {prefix}.{language}.gz")


def read_lines(path: Path) -> Iterator[bytes]:
    """Lines of a plain or gzipped file, without what ends them; :class:`UserError` where it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as lines:
            for line in lines:
                yield line[:-1] if line.endswith(b"\n") else line
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read to its end: {error}") from None


def read_pairs(source: Path, target: Path) -> Iterator[Tuple[int, bytes, bytes]]:
    """Numbered lines (1 is the first) of two files side by side; :class:`UserError` if one ends before the other."""
    sources, targets = read_lines(source), read_lines(target)
    number = 0
    for number, line in enumerate(sources, 1):
        other = next(targets, None)
        if other is None:
            raise UserError(f"{target} ends after line {number - 1}, but {source} goes on")
        yield number, line, other
    if next(targets, None) is not None:
        raise UserError(f"{source} ends after line {number}, but {target} goes on")
    if number == 0:
        raise UserError(f"{source} is empty")


def in_order(pool: Any, work: Callable, items: Iterable, ahead: int) -> Iterator:
    """``work(item)`` of every item, in order; at most ``ahead`` items are read before their results are taken.

    ``multiprocessing``'s own ``imap`` reads all items as fast as it can, which would hold a corpus in memory.
    """
    pending: deque = deque()
    try:
        for item in items:
            pending.append(pool.apply_async(work, (item,)))
            if len(pending) >= ahead:
                yield pending.popleft().get()
        while pending:
            yield pending.popleft().get()
    except ValueError as error:  # of a worker, which must not raise UserError: a SystemExit would only end the worker
        raise UserError(str(error)) from None


def chunks(items: Iterable) -> Iterator[List]:
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, CHUNK)), [])


# ---- clean

_tokenizers: Tuple[Tokenizer, Tokenizer]  # of this worker


def _start_cleaning(segmentation: Segmentation) -> None:
    global _tokenizers
    _tokenizers = Tokenizer(segmentation, segmentation.src), Tokenizer(segmentation, segmentation.tgt)


def _clean(limits: Limits, paths: Tuple[Path, Path], pairs: List[Tuple[int, bytes, bytes]]) -> List[Cleaned]:
    cleaned = []
    for number, *lines in pairs:
        sides, mended = [], []
        for tokenizer, path, line in zip(_tokenizers, paths, lines):
            where = f"{path}, line {number}"
            if line.endswith(b"\r"):
                line = line[:-1]
                mended.append((where, "ends in a carriage return"))
            text = decode_line(line, where)
            if has_control_characters(text):
                mended.append((where, "has control characters"))
            sides.append(tokenizer.tokenize(text))
        cleaned.append(Cleaned(*sides, limits.reason_against(*sides), tuple(mended)))
    return cleaned


class Seen:
    """Whether a pair was there before: 128-bit digests in a file, of which a bounded part is in memory."""

    def __init__(self, folder: Path):
        self.file = tempfile.NamedTemporaryFile(suffix=".partial", dir=folder)
        self.table = sqlite3.connect(self.file.name, isolation_level=None)
        self.table.execute("PRAGMA journal_mode = OFF")
        self.table.execute("PRAGMA synchronous = OFF")
        self.table.execute("PRAGMA cache_size = -65536")  # KiB
        self.table.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self.table.execute("BEGIN")

    def before(self, source: str, target: str) -> bool:
        digest = hashlib.blake2b(f"{source}\n{target}".encode(), digest_size=16).digest()
        try:
            return self.table.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 0
        except sqlite3.Error as error:
            raise OSError(errno.EIO, str(error), self.file.name) from None

    def close(self) -> None:
        self.table.close()
        self.file.close()


def clean_split(pool: Any, options: argparse.Namespace, name: str, prefix: str, option: str) -> Counter:
    """Cleans one split into ``OUT/clean``. Only training pairs are filtered; an empty line elsewhere is an error.

    Returns how many pairs were read, kept and left out for each reason.
    """
    languages = (options.src, options.tgt)
    paths = tuple(find(prefix, language, option) for language in languages)
    counts: Counter = Counter()
    told = set()
    is_train = name == "train"
    work = partial(_clean, options.limits, paths)
    outputs = [str(options.out / "clean" / f"{name}.{language}") for language in languages]
    seen = Seen(options.out) if is_train else None
    try:
        with written_whole(*outputs) as files, tqdm(desc=f"cleaning {name}", unit=" lines", disable=None) as bar:
            for cleaned in in_order(pool, work, chunks(read_pairs(*paths)), 4 * options.workers):
                for source, target, reason, mended in cleaned:
                    counts["read"] += 1
                    for where, what in mended:
                        if what not in told:
                            print(f"{where} {what}: taken out there and wherever else", file=sys.stderr)
                        told.add(what)
                    if is_train:
                        if reason is None and seen.before(source, target):
                            reason = "duplicate"
                        if reason is not None:
                            counts[reason] += 1
                            continue
                    elif reason == "empty":
                        path = paths[0] if not source else paths[1]
                        raise UserError(f"{path}, line {counts['read']} has no text")
                    counts["kept"] += 1
                    for file, text in zip(files, (source, target)):
                        file.write(text + "\n")
                bar.update(len(cleaned))
            if not counts["kept"]:
                raise UserError(f"{option} is {prefix}, of which no pair is left: {_list(counts)}")
    finally:
        if seen is not None:
            seen.close()
    print(f"{name}: {_list(counts)}", file=sys.stderr)
    return counts


def _list(counts: Counter) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def clean(options: argparse.Namespace) -> None:
    segmentation = _segmentation(options)
    splits = [("train", options.train, "--train"), ("valid", options.valid, "--valid")]
    splits += [(testsets.subset(number), prefix, "--test") for number, prefix in enumerate(options.tests)]
    for _, prefix, option in splits:  # before minutes of work
        for language in (options.src, options.tgt):
            find(prefix, language, option)
    (options.out / "clean").mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(options.workers, _start_cleaning, (segmentation,)) as pool:
        counts = {name: clean_split(pool, options, name, prefix, option) for name, prefix, option in splits}
    keep_raw(options)
    write_whole(str(options.out / "clean" / "filtered.json"), json.dumps(counts, indent=1) + "\n")


def keep_raw(options: argparse.Namespace) -> None:
    """The text of validation and test sets as it came, further references (``PREFIX.LANG.1``, ...) too."""
    names = [Path(prefix).name for prefix in options.tests]
    for name, prefix in zip([testsets.VALID, *names], [options.valid, *options.tests]):
        for language in (options.src, options.tgt):
            raw = find(prefix, language, "--test")
            length = keep_lines(raw, testsets.raw_file(options.out, name, language))
            for reference in sorted(raw.parent.glob(f"{glob.escape(Path(prefix).name)}.{language}.[1-9]")):
                found = keep_lines(reference, testsets.raw_file(options.out, name, language + reference.suffix))
                if found != length:
                    raise UserError(f"{reference} has {found} lines, but {raw} has {length}")
    testsets.write_names(options.out, names)


def keep_lines(path: Path, kept: Path) -> int:
    """Copies a text, unpacked and without carriage returns; how many lines it has."""
    kept.parent.mkdir(exist_ok=True)
    lines = 0
    with written_whole(str(kept), binary=True) as (file,):
        for lines, line in enumerate(read_lines(path), 1):  # noqa: B007
            file.write((line[:-1] if line.endswith(b"\r") else line) + b"\n")
    return lines


# ---- learn and apply


def learn(options: argparse.Namespace) -> None:
    segmentation = _segmentation(options)
    files = [options.out / "clean" / f"train.{language}" for language in (options.src, options.tgt)]
    file = segmentation.subword_file(options.out)
    if options.dictionary:
        keep_lines(options.dictionary, options.out / "dictionary.txt")
    if options.subword_model:
        with written_whole(str(file), binary=True) as (copy,):
            copy.write(options.subword_model.read_bytes())
    elif segmentation.subword == "bpe":
        learn_bpe(files, file, options.vocab_size)
    else:
        learn_sentencepiece(files, file, options.vocab_size, LEARN_FROM)
    segmentation.write(options.out)


_subwords: Subwords  # of this worker


def _start_applying(segmentation: Segmentation, folder: Path) -> None:
    global _subwords
    _subwords = Subwords(segmentation, folder)


def _apply(text: bytes) -> bytes:  # bytes, whole: what goes between processes costs the least so
    lines = text.decode("utf-8").split("\n")
    return ("\n".join(map(_subwords.encode, lines)) + "\n").encode("utf-8")


def apply(options: argparse.Namespace) -> None:
    (options.out / "pieces").mkdir(parents=True, exist_ok=True)
    names = [path for path in sorted((options.out / "clean").iterdir()) if path.suffix != ".json"]
    with multiprocessing.Pool(options.workers, _start_applying, (_segmentation(options), options.out)) as pool:
        for path in names:
            with (
                written_whole(str(options.out / "pieces" / path.name), binary=True) as (file,),
                tqdm(desc=f"subwords of {path.name}", unit=" lines", disable=None) as bar,
            ):
                texts = (b"\n".join(lines) for lines in chunks(read_lines(path)))
                for text in in_order(pool, _apply, texts, 4 * options.workers):
                    file.write(text)
                    bar.update(text.count(b"\n"))


def _segmentation(options: argparse.Namespace) -> Segmentation:
    return Segmentation(**{field.name: getattr(options, field.name) for field in fields(Segmentation)})


# ---- command line

STAGES = {"clean": clean, "learn": learn, "apply": apply}


def main(args=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gift_fairseq.data.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("--src", required=True, metavar="LANG", help="source language, en say")
    parser.add_argument("--tgt", required=True, metavar="LANG", help="target language, de say")
    for split in ("train", "valid", "test"):
        more = "; several, with commas between" if split == "test" else ""
        parser.add_argument(f"--{split}", required=True, metavar="PREFIX", help=f"PREFIX.LANG or PREFIX.LANG.gz{more}")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of all that is made")
    parser.add_argument("--subword", choices=SUBWORDS, default="sentencepiece", help="default: sentencepiece")
    parser.add_argument(
        "--vocab-size", type=int, default=32000, metavar="N", help="subwords, 1 or more; default: 32000"
    )
    parser.add_argument("--tokenizer", choices=TOKENIZERS, help="default: moses for bpe, none for sentencepiece")
    parser.add_argument("--lowercase", action="store_true", help="default: off")
    limits = Limits()
    parser.add_argument("--min-len", type=int, default=limits.min_len, metavar="N", help="tokens; default: 1")
    parser.add_argument("--max-len", type=int, default=limits.max_len, metavar="N", help="tokens; default: 250")
    parser.add_argument("--max-ratio", type=float, default=limits.max_ratio, metavar="X", help="default: 3, 1 or more")
    for option, what in (("subword-model", "subwords to take"), ("dictionary", "dictionary of fairseq's to take")):
        parser.add_argument(f"--{option}", type=Path, metavar="FILE", help=f"{what}, instead of learning from the text")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), metavar="N", help="processes; default: all cores"
    )
    options = parser.parse_args(args)
    check_at_least("--vocab-size", options.vocab_size, 1)
    check_at_least("--workers", options.workers, 1)
    options.limits = Limits(options.min_len, options.max_len, options.max_ratio)
    options.tests = options.test.split(",")
    testsets.check_names([Path(prefix).name for prefix in options.tests])
    for option, file in (("--subword-model", options.subword_model), ("--dictionary", options.dictionary)):
        if file and not file.is_file():
            raise UserError(f"{option} is {file}, but there is no such file")
    options.tokenizer = options.tokenizer or ("moses" if options.subword == "bpe" else "none")
    try:
        (options.out / "done").mkdir(parents=True, exist_ok=True)
        for name, stage in STAGES.items():
            stamp = options.out / "done" / name
            if not stamp.exists():
                print(f"prepare: {name}", file=sys.stderr)
                stage(options)
                stamp.touch()
    except OSError as error:
        raise UserError(f"{error.filename or options.out} cannot be written or read: {error.strerror}") from None


if __name__ == "__main__":
    main()
