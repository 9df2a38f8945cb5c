"""The sentences on which systems differ most, with what differs from the reference."""

import difflib
from typing import List, NamedTuple, Sequence

from sacrebleu.metrics import CHRF

from gift_fairseq.report.systems import System

MOST = 20


class Piece(NamedTuple):
    """Words of an output. ``differs``: they are not in the reference at this place; without words, it has more here."""

    text: str
    differs: bool


class Output(NamedTuple):
    """What a system made of a sentence, with its sentence-level chrF2 (0 to 100)."""

    system: str
    chrf: float
    pieces: List[Piece]


class Sample(NamedTuple):
    """``number`` is the line in the test set, from 1; the languages are those of source and target."""

    number: int
    source: str
    references: List[str]
    outputs: List[Output]
    src: str
    tgt: str


def pieces(output: str, reference: str) -> List[Piece]:
    """``output`` in alternating pieces of words that are those of ``reference``, in order, and of others (difflib)."""
    words, other = output.split(), reference.split()
    steps = difflib.SequenceMatcher(None, other, words, autojunk=False).get_opcodes()
    return [Piece(" ".join(words[start:end]), kind != "equal") for kind, _, _, start, end in steps]


def most_different(systems: Sequence[System], column: str, most: int = MOST) -> List[Sample]:
    """Up to ``most`` sentences, those first in which the best and the worst system are furthest apart by chrF2.

    A system is represented by its first run, a sentence with several references is compared with the first one (its
    chrF2 with all). Sentences that all systems translate equally well are left out; empty if there are not two systems.
    """
    shown = [(system.name, system.scored(column)[0]) for system in systems if system.scored(column)]
    if len(shown) < 2:
        return []
    first = shown[0][1]
    sources, references, metric = first.source(column), first.references(column), CHRF()
    outputs = [run.hypotheses(column) for _, run in shown]
    found = []
    for index, (source, *texts) in enumerate(zip(sources, *outputs)):
        wanted = [reference[index] for reference in references]
        chrfs = [metric.sentence_score(text, wanted).score for text in texts]
        found.append((max(chrfs) - min(chrfs), index, source, wanted, texts, chrfs))
    found.sort(key=lambda one: (-one[0], one[1]))
    return [
        Sample(
            index + 1,
            source,
            wanted,
            [Output(name, chrf, pieces(text, wanted[0])) for (name, _), text, chrf in zip(shown, texts, chrfs)],
            first.scores[column].src,
            first.scores[column].tgt,
        )
        for spread, index, source, wanted, texts, chrfs in found[:most]
        if spread > 0
    ]
