"""Raw parallel text to subwords: cleaned, tokenized, filtered, cut; fairseq-preprocess goes on from there.

Three stages, in the folder ``out`` of a :class:`Preparation`:

clean   ``clean/{train,valid,test,test1...}.LANG``: tokenized text; of the training pairs only those that the limits let
        through, with a count of each reason in ``clean/filtered.json``; ``raw``: the validation and test sets as they
        came
learn   ``subwords.*`` from the training split, joint, or those that were given; ``segmentation.json``
apply   ``pieces/``: the files of ``clean`` in subwords

Lines are streamed in chunks through several processes: memory does not grow with the corpus. The pairs seen before are
kept on disk.
"""

import contextlib
import errno
import glob
import gzip
import hashlib
import json
import shutil
import sqlite3
import sys
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from tqdm import tqdm

from gift_fairseq.data import testsets
from gift_fairseq.data.segmentation import (
    Segmentation,
    Subwords,
    Tokenizer,
    decode_line,
    has_control_characters,
    learn_bpe,
    learn_sentencepiece,
)
from gift_fairseq.data.workers import Submit, in_order, workers
from gift_fairseq.errors import UserError, check_at_least
from gift_fairseq.io import write_whole, written_whole

CHUNK = 1000  # lines that a worker takes at once
DICTIONARY = "dictionary.txt"  # in the folder, if one was given
LEARN_FROM = 2_000_000  # sentences that sentencepiece learns from, at most
Bar = partial(tqdm, unit=" lines", disable=None)


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


@dataclass(frozen=True)
class Preparation:
    """What is prepared, and how. Text is named by a PREFIX: the files are PREFIX.LANG, or PREFIX.LANG.gz.

    :class:`UserError` if a file is missing, two sets would have one name, the dictionary is of other subwords, or the
    subword model is of another kind.
    """

    train: Path
    valid: Path
    tests: Sequence[Path]
    out: Path
    segmentation: Segmentation
    limits: Limits = field(default_factory=Limits)
    vocab_size: int = 32000  # pieces of sentencepiece, or merge operations of bpe
    subword_model: Optional[Path] = None  # taken in place of learning one
    dictionary: Optional[Path] = None  # fairseq's, for both sides
    workers: int = 1  # processes

    def __post_init__(self):
        testsets.check_names([prefix.name for prefix in self.tests])
        for _, prefix, option in self.splits:
            for language in self.languages:
                find(prefix, language, option)
        for option, file in (("--subword-model", self.subword_model), ("--dictionary", self.dictionary)):
            if file and not file.is_file():
                raise UserError(f"{option} is {file}, but there is no such file")
        if self.dictionary and not self.subword_model:
            raise UserError(f"--dictionary is {self.dictionary}, but needs the --subword-model whose pieces it lists")
        if self.subword_model:
            Subwords(self.segmentation.subword, self.subword_model)  # or one sentence

    @property
    def splits(self) -> List[Tuple[str, Path, str]]:
        """fairseq's name of each split, its prefix, and the option that names it."""
        tests = [(testsets.subset(number), prefix, "--test") for number, prefix in enumerate(self.tests)]
        return [("train", self.train, "--train"), ("valid", self.valid, "--valid"), *tests]

    @property
    def languages(self) -> Tuple[str, str]:
        """Source and target."""
        return self.segmentation.src, self.segmentation.tgt


class Cleaned(NamedTuple):
    """A pair after cleaning, with the reason to leave it out and what was fixed in it."""

    source: str
    target: str
    reason: Optional[str]
    fixed: Tuple[Tuple[str, str], ...]  # where, what


def find(prefix: Path, language: str, option: str) -> Path:
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
    number = 0
    for number, (line, other) in enumerate(zip_longest(read_lines(source), read_lines(target)), 1):
        if line is None or other is None:
            shorter, longer = (source, target) if line is None else (target, source)
            raise UserError(f"{shorter} ends after line {number - 1}, but {longer} goes on")
        yield number, line, other
    if number == 0:
        raise UserError(f"{source} is empty")


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
        sides, fixed = [], []
        for tokenizer, path, line in zip(_tokenizers, paths, lines):
            where = f"{path}, line {number}"
            if line.endswith(b"\r"):
                line = line[:-1]
                fixed.append((where, "ends in a carriage return"))
            text = decode_line(line, where)
            if has_control_characters(text):
                fixed.append((where, "has control characters"))
            sides.append(tokenizer.tokenize(text))
        cleaned.append(Cleaned(*sides, limits.reason_against(*sides), tuple(fixed)))
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


def clean_split(submit: Submit, preparation: Preparation, name: str, prefix: Path, option: str) -> Counter:
    """Cleans one split into ``out/clean``. Only training pairs are filtered; an empty line elsewhere is an error.

    Returns how many pairs were read, kept and left out for each reason.
    """
    languages, out = preparation.languages, preparation.out
    paths = tuple(find(prefix, language, option) for language in languages)
    counts: Counter = Counter()
    told = set()
    is_train = name == "train"
    work = partial(_clean, preparation.limits, paths)
    outputs = [str(out / "clean" / f"{name}.{language}") for language in languages]
    with contextlib.closing(Seen(out)) as seen, written_whole(*outputs) as files, Bar(desc=f"cleaning {name}") as bar:
        for cleaned in in_order(submit, work, chunks(read_pairs(*paths)), 4 * preparation.workers):
            for source, target, reason, fixed in cleaned:
                counts["read"] += 1
                for where, what in fixed:
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
    print(f"{name}: {_list(counts)}", file=sys.stderr)
    return counts


def _list(counts: Counter) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def clean(preparation: Preparation) -> None:
    folder = preparation.out / "clean"
    folder.mkdir(parents=True, exist_ok=True)
    with workers(preparation.workers, _start_cleaning, preparation.segmentation) as submit:
        counts = {split[0]: clean_split(submit, preparation, *split) for split in preparation.splits}
    keep_raw(preparation)
    write_whole(str(folder / "filtered.json"), json.dumps(counts, indent=1) + "\n")


def keep_raw(preparation: Preparation) -> None:
    """The text of validation and test sets as it came, further references (``PREFIX.LANG.1``, ...) too."""
    out, names = preparation.out, [prefix.name for prefix in preparation.tests]
    for name, prefix in zip([testsets.VALID, *names], [preparation.valid, *preparation.tests]):
        for language in preparation.languages:
            raw = find(prefix, language, "--test")
            length = keep_lines(raw, testsets.raw_file(out, name, language))
            for reference in sorted(raw.parent.glob(f"{glob.escape(prefix.name)}.{language}.[1-9]")):
                found = keep_lines(reference, testsets.raw_file(out, name, language + reference.suffix))
                if found != length:
                    raise UserError(f"{reference} has {found} lines, but {raw} has {length}")
    testsets.write_names(out, names)


def keep_lines(path: Path, kept: Path) -> int:
    """Copies a text, unpacked and without carriage returns; how many lines it has."""
    kept.parent.mkdir(exist_ok=True)
    lines = 0
    with written_whole(str(kept), binary=True) as (file,):
        for lines, line in enumerate(read_lines(path), 1):  # noqa: B007
            file.write((line[:-1] if line.endswith(b"\r") else line) + b"\n")
    return lines


# ---- learn and apply


def learn(preparation: Preparation) -> None:
    out, segmentation = preparation.out, preparation.segmentation
    files = [out / "clean" / f"train.{language}" for language in preparation.languages]
    file = segmentation.subword_file(out)
    if preparation.dictionary:
        keep_lines(preparation.dictionary, out / DICTIONARY)
    if preparation.subword_model:
        with written_whole(str(file), binary=True) as (copy,):
            copy.write(preparation.subword_model.read_bytes())
    elif segmentation.subword == "bpe":
        learn_bpe(files, file, preparation.vocab_size)
    else:
        learn_sentencepiece(files, file, preparation.vocab_size, LEARN_FROM)
    segmentation.write(out)


_subwords: Subwords  # of this worker


def _start_applying(segmentation: Segmentation, folder: Path) -> None:
    global _subwords
    _subwords = Subwords(segmentation.subword, segmentation.subword_file(folder))


def _apply(text: bytes) -> bytes:  # bytes, whole: what goes between processes costs the least so
    lines = text.decode("utf-8").split("\n")
    return ("\n".join(map(_subwords.encode, lines)) + "\n").encode("utf-8")


def apply(preparation: Preparation) -> None:
    out = preparation.out
    (out / "pieces").mkdir(parents=True, exist_ok=True)
    names = [path for path in sorted((out / "clean").iterdir()) if path.suffix != ".json"]
    with workers(preparation.workers, _start_applying, preparation.segmentation, out) as submit:
        for path in names:
            pieces = str(out / "pieces" / path.name)
            with written_whole(pieces, binary=True) as (file,), Bar(desc=f"subwords of {path.name}") as bar:
                texts = (b"\n".join(lines) for lines in chunks(read_lines(path)))
                for text in in_order(submit, _apply, texts, 4 * preparation.workers):
                    file.write(text)
                    bar.update(text.count(b"\n"))


# ---- binarize


def preprocess_words(preparation: Preparation, data: Path) -> List[str]:
    """The command of fairseq that binarizes the subwords into the folder ``data``."""
    pieces, (src, tgt) = preparation.out / "pieces", preparation.languages
    tests = ",".join(str(pieces / testsets.subset(number)) for number in range(len(preparation.tests)))
    words = ["fairseq-preprocess", "--source-lang", src, "--target-lang", tgt, "--joined-dictionary"]
    words += ["--workers", str(preparation.workers), "--destdir", str(data), "--trainpref", str(pieces / "train")]
    words += ["--validpref", str(pieces / "valid"), "--testpref", tests]
    return words + (["--srcdict", str(preparation.out / DICTIONARY)] if preparation.dictionary else [])


def put_beside(preparation: Preparation, data: Path) -> None:
    """Copies into ``data`` what inference and evaluation need of the preparation."""
    preparation.segmentation.write(data)
    shutil.copy(preparation.segmentation.subword_file(preparation.out), data)
    shutil.copytree(preparation.out / "raw", data / "raw")
