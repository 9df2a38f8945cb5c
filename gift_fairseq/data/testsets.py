"""The names and the raw text of validation and test sets, kept beside the data that was made of them.

``DATA/raw/NAME.LANG`` is the text as it came, ``NAME.LANG.1`` and so on further references; ``DATA/raw/testsets.txt``
names the test sets in the order of fairseq's subsets ``test``, ``test1``, ...
"""

import glob
from pathlib import Path
from typing import Dict, List, Sequence

from gift_fairseq.errors import UserError
from gift_fairseq.io import read_lines, write_whole, written_whole

VALID = "valid"  # how the validation set is called, whatever its file
FILE = "testsets.txt"


def subset(number: int) -> str:
    """fairseq's name of test set ``number``, 0 or more."""
    return f"test{number or ''}"


def check_names(names: Sequence[str]) -> None:
    """:class:`UserError` where two sets would be called the same."""
    for number, name in enumerate(names):
        if not name or name in (VALID, "train", *names[:number]):
            raise UserError(f"--test names a set '{name}', but each must have a name of its own, not {VALID} or train")


def write_names(folder: Path, names: Sequence[str]) -> None:
    write_whole(str(folder / "raw" / FILE), "".join(name + "\n" for name in names))


def names(data: Path) -> List[str]:
    """The test sets of a data folder, in order; :class:`UserError` if it was not made by ``gift prepare``."""
    try:
        return (data / "raw" / FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        raise UserError(f"--data is {data}, which has no raw/{FILE}: prepare the data with gift prepare") from None


def subset_of(data: Path, name: str) -> str:
    """fairseq's subset of the set ``name``; :class:`UserError` if the folder has none of that name."""
    if name == VALID:
        return VALID
    known = names(data)
    if name not in known:
        raise UserError(f"--testset is {name}, but must be one of {', '.join([*known, VALID])}")
    return subset(known.index(name))


def raw_file(folder: Path, name: str, language: str) -> Path:
    return folder / "raw" / f"{name}.{language}"


def further_references(folder: Path, name: str, language: str) -> List[Path]:
    """The files of the further references of a set, in order."""
    return sorted((folder / "raw").glob(f"{glob.escape(name)}.{language}.[1-9]"))


def text_of(folder: Path, name: str, language: str) -> Dict[str, bytes]:
    """One side of a set, with further references, by file name; empty if ``folder`` does not have it."""
    files = [raw_file(folder, name, language), *further_references(folder, name, language)]
    return {path.name: path.read_bytes() for path in files if path.is_file()}


def copy_raw(data: Path, folder: Path, name: str, language: str) -> None:
    """Makes :func:`text_of` in ``folder`` the one in ``data``."""
    raw, texts = folder / "raw", text_of(data, name, language)
    raw.mkdir(exist_ok=True)
    for file in text_of(folder, name, language).keys() - texts.keys():
        (raw / file).unlink()
    for file, text in texts.items():
        with written_whole(str(raw / file), binary=True) as (out,):
            out.write(text)


def raw_lines(data: Path, name: str, language: str) -> List[str]:
    """Line by line, without what ends the lines; :class:`UserError` where the file is missing."""
    path = raw_file(data, name, language)
    try:
        return read_lines(path)
    except OSError:
        raise UserError(f"{path} is missing: prepare the data with gift prepare") from None


def references(data: Path, name: str, language: str) -> List[List[str]]:
    """All references of a set, each a list of lines: the one of the pair first."""
    further = further_references(data, name, language)
    return [raw_lines(data, name, language), *(raw_lines(data, name, language + path.suffix) for path in further)]
