"""BLEU, chrF2 and TER of what a run generated: detokenized text against the raw references, by sacreBLEU.

The raw text is that which the command prepare kept beside the data. A run keeps the sources and references of the test
sets that it translated, so that a report needs the folders of the runs alone.
"""

import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import sacremoses
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from gift_fairseq.data import testsets
from gift_fairseq.data.segmentation import Segmentation
from gift_fairseq.errors import UserError
from gift_fairseq.io import read_json, say, to_json, write_whole
from gift_fairseq.runs import RunFolder

RESAMPLES = 1000  # of the test set, for the interval; sacreBLEU's own number
LENGTHS = (5, 10, 15, 20, 30, 40, 60)  # the longest source of each bucket but the last, words
REPETITION_ORDER = 4


@dataclass
class Metrics:
    """The numbers that say how good translations of a test set are."""

    bleu: float  # corpus BLEU, 0 to 100
    bleu_ci: float  # half the width of its 95% confidence interval
    chrf: float  # chrF2, 0 to 100
    ter: float  # edits per 100 reference words
    length_ratio: float  # hypothesis tokens to reference tokens
    repetition_rate: float  # of the hypotheses, %
    reference_repetition_rate: float  # of the first reference, %


@dataclass
class LengthBucket:
    """The sentences whose source has ``from_`` to ``to`` words (between blanks); the last bucket has no ``to``."""

    from_: int
    to: Optional[int]
    sentences: int
    bleu: float


@dataclass
class Score(Metrics):
    """What ``scores.json`` holds of a TESTSET.SEARCH."""

    signature: str  # of BLEU, by sacreBLEU, as the two others
    chrf_signature: str
    ter_signature: str
    sentences: int
    bleu_by_length: List[LengthBucket]
    src: str  # languages
    tgt: str
    compound_split_bleu: Optional[float] = None  # where it was asked for
    checkpoint: Optional[str] = None  # the name of its file; None: not known, in scores of an earlier version
    flags: Optional[str] = None  # of fairseq-generate, as they stood after --; None: not known either
    updates: Optional[int] = None  # of the checkpoint; None: not known either

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Score":
        """``KeyError`` or ``TypeError`` where something is missing."""
        known = {field.name: found[field.name] for field in fields(cls) if field.name in found}
        known["bleu_by_length"] = [
            LengthBucket(one["from"], one["to"], one["sentences"], one["bleu"]) for one in found["bleu_by_length"]
        ]
        return cls(**known)


def check_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """:class:`UserError` unless every list of references has as many lines as there are hypotheses."""
    if not hypotheses:
        raise UserError("there are no hypotheses")
    for reference in references:
        if len(hypotheses) != len(reference):
            raise UserError(f"there are {len(hypotheses)} hypotheses, but {len(reference)} references")


def corpus_scores(hypotheses: List[str], references: List[List[str]]) -> Dict[str, Any]:
    """BLEU and chrF2 (0 to 100, more is better) and TER (edits per 100 reference words), with sacreBLEU's signatures.

    Against one or more references. ``bleu_ci`` is half the width of sacreBLEU's 95% confidence interval, from bootstrap
    resampling of the sentences (Koehn 2004). ``length_ratio`` is the number of hypothesis tokens over that of the
    references closest in length.
    """
    check_counts(hypotheses, references)
    bleu, chrf, ter = BLEU(), CHRF(), TER()
    score = bleu.corpus_score(hypotheses, references, n_bootstrap=RESAMPLES)
    return {
        "bleu": score.score,
        "bleu_ci": score._ci,  # public only inside the text of score.format()
        "chrf": chrf.corpus_score(hypotheses, references).score,
        "ter": ter.corpus_score(hypotheses, references).score,
        "signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
        "ter_signature": str(ter.get_signature()),
        "length_ratio": score.ratio,
        "sentences": len(hypotheses),
    }


def repetition_rate(lines: Sequence[str]) -> float:
    """Share, %, of the 4-grams of 13a tokens that their own line had before: 0 without loops, near 100 in endless ones.

    seq-rep-4 of Welleck et al. (2020, Neural Text Generation with Unlikelihood Training, equation 10),
    ``1 - unique 4-grams / 4-grams`` of a line. Theirs is the mean over continuations of one length; lines are of many,
    so here 4-grams are summed over the lines before the division.
    """
    tokenize, total, unique = Tokenizer13a(), 0, 0
    for line in lines:
        tokens = tokenize(line).split()
        ngrams = [tuple(tokens[i : i + REPETITION_ORDER]) for i in range(len(tokens) - REPETITION_ORDER + 1)]
        total, unique = total + len(ngrams), unique + len(set(ngrams))
    return 100 * (1 - unique / total) if total else 0.0


def bleu_by_length(sources: List[str], hypotheses: List[str], references: List[List[str]]) -> List[LengthBucket]:
    """Corpus BLEU of each bucket of source length that has sentences."""
    check_counts(hypotheses, [sources, *references])
    lengths, found = [len(source.split()) for source in sources], []
    for low, high in zip((0, *LENGTHS), (*LENGTHS, None)):
        chosen = [i for i, length in enumerate(lengths) if length > low or not low]
        chosen = [i for i in chosen if high is None or lengths[i] <= high]
        if chosen:
            score = BLEU().corpus_score([hypotheses[i] for i in chosen], [[r[i] for i in chosen] for r in references])
            found.append(LengthBucket(low + 1, high, len(chosen), score.score))
    return found


def compound_split_bleu(hypotheses: List[str], references: List[List[str]], language: str) -> float:
    """BLEU (0 to 100) as Vaswani et al. (2017) and others report it for German: on tokens, compounds split.

    Both sides go through Moses' tokenizer, then every hyphen between two word characters becomes a token of its own
    (``##AT##-##AT##``), which raises the score by some points. Compare it with such scores only.
    """
    check_counts(hypotheses, references)
    tokenizer = sacremoses.MosesTokenizer(language)

    def split(lines: List[str]) -> List[str]:
        tokenized = (tokenizer.tokenize(line, return_str=True, escape=False) for line in lines)
        return [re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", line) for line in tokenized]

    metric = BLEU(tokenize="none", force=True)
    return metric.corpus_score(split(hypotheses), [split(reference) for reference in references]).score


def testset_of(column: str) -> str:
    """The test set in TESTSET.SEARCH."""
    return column.rsplit(".", 1)[0]


def search_of(column: str) -> str:
    """The search in TESTSET.SEARCH."""
    return column.rsplit(".", 1)[1]


def score_column(run: RunFolder, column: str, data: Path, compound_split: bool = False) -> Score:
    """Of the translations that ``run`` has for TESTSET.SEARCH, against the references in ``data``.

    :class:`UserError` if they do not fit the references.
    """
    languages = Segmentation.read(data)
    src, tgt = languages.src, languages.tgt
    hypotheses, name = run.hypotheses(column), testset_of(column)
    references = testsets.references(data, name, tgt)
    return Score(
        **corpus_scores(hypotheses, references),
        repetition_rate=repetition_rate(hypotheses),
        reference_repetition_rate=repetition_rate(references[0]),
        bleu_by_length=bleu_by_length(testsets.raw_lines(data, name, src), hypotheses, references),
        src=src,
        tgt=tgt,
        compound_split_bleu=compound_split_bleu(hypotheses, references, tgt) if compound_split else None,
    )


def write_score(
    run: RunFolder,
    column: str,
    data: Path,
    compound_split: bool = False,
    checkpoint: Optional[str] = None,
    flags: Optional[str] = None,
    updates: Optional[int] = None,
) -> Score:
    """Scores ``column``, which was just translated, into the ``scores.json`` of ``run``, and returns the score.

    ``checkpoint``, ``flags`` and ``updates`` are those of the score. The raw text of its test set is copied beside
    it. Scores of other columns stay, also those that another process writes meanwhile, except those on another text
    of the same name.
    """
    score, name = score_column(run, column, data, compound_split), testset_of(column)
    score = replace(score, checkpoint=checkpoint, flags=flags, updates=updates)
    with run.changing_scores():
        before = read_json(run.scores_file)
        kept = before if isinstance(before, dict) else {}
        sides = score.src, score.tgt
        if any(testsets.text_of(run.folder, name, side) != testsets.text_of(data, name, side) for side in sides):
            dropped = [other for other in kept if testset_of(other) == name]
            if set(dropped) - {column}:
                say(f"scores of {run.folder.name} on {name} are dropped: they were on another text of that name")
            kept = {other: found for other, found in kept.items() if other not in dropped}
            _write(run, kept)  # before the text changes
            for side in sides:
                testsets.copy_raw(data, run.folder, name, side)
        _write(run, {**kept, column: to_json(score)})
    return score


def _write(run: RunFolder, scores: Mapping[str, Any]) -> None:
    write_whole(str(run.scores_file), json.dumps(dict(sorted(scores.items())), indent=1) + "\n")
