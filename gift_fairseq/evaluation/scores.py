"""BLEU, chrF2 and TER of what a run generated: detokenized text against the raw references, by sacreBLEU.

``python -m gift_fairseq.evaluation.scores DATA RUN...`` reads every ``RUN/generate/TESTSET.SEARCH.txt`` (of
``scripts/evaluate.sh``) and the raw text that ``scripts/prepare.sh`` kept in ``DATA/raw``, and writes
``RUN/scores.json``. It leaves the sources and references of the test sets in ``RUN/raw``, as they are in ``DATA/raw``:
so that a report needs the folders of the runs alone.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Sequence

import sacremoses
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from gift_fairseq.data import testsets
from gift_fairseq.data.segmentation import Segmentation
from gift_fairseq.files import write_whole, written_whole
from gift_fairseq.options import UserError

RESAMPLES = 1000  # of the test set, for the interval; sacreBLEU's own number
LENGTHS = (5, 10, 15, 20, 30, 40, 60)  # the longest source of each bucket but the last, words
REPETITION_ORDER = 4


def check_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """:class:`UserError` unless every list of references has as many lines as there are hypotheses."""
    if not hypotheses:
        raise UserError("there are no hypotheses")
    for reference in references:
        if len(hypotheses) != len(reference):
            raise UserError(f"there are {len(hypotheses)} hypotheses, but {len(reference)} references")


def bleu(hypotheses: List[str], references: List[List[str]]) -> Dict[str, Any]:
    """Corpus BLEU (0 to 100) against one or more references, with sacreBLEU's signature.

    ``bleu_ci`` is half the width of sacreBLEU's 95% confidence interval, from bootstrap resampling of the sentences
    (Koehn 2004). ``length_ratio`` is the number of hypothesis tokens over that of the references closest in length.
    """
    check_counts(hypotheses, references)
    metric = BLEU()
    score = metric.corpus_score(hypotheses, references, n_bootstrap=RESAMPLES)
    return {
        "bleu": score.score,
        "bleu_ci": score._ci,  # public only inside the text of score.format()
        "signature": str(metric.get_signature()),
        "sentences": len(hypotheses),
        "length_ratio": score.ratio,
    }


def chrf_and_ter(hypotheses: List[str], references: List[List[str]]) -> Dict[str, Any]:
    """chrF2 (0 to 100, more is better) and TER (edits per 100 reference words, less is better), with signatures."""
    check_counts(hypotheses, references)
    found: Dict[str, Any] = {}
    for name, metric in (("chrf", CHRF()), ("ter", TER())):
        found[name] = metric.corpus_score(hypotheses, references).score
        found[f"{name}_signature"] = str(metric.get_signature())
    return found


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


def bleu_by_length(sources: List[str], hypotheses: List[str], references: List[List[str]]) -> List[Dict[str, Any]]:
    """Corpus BLEU of the sentences whose source has ``from`` to ``to`` words (between blanks), with their number.

    The last bucket has no ``to`` (None); buckets without sentences are left out.
    """
    check_counts(hypotheses, [sources, *references])
    lengths, found = [len(source.split()) for source in sources], []
    for low, high in zip((0, *LENGTHS), (*LENGTHS, None)):
        chosen = [i for i, length in enumerate(lengths) if length > low or not low]
        chosen = [i for i in chosen if high is None or lengths[i] <= high]
        if chosen:
            score = BLEU().corpus_score([hypotheses[i] for i in chosen], [[r[i] for i in chosen] for r in references])
            found.append({"from": low + 1, "to": high, "sentences": len(chosen), "bleu": score.score})
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


def hypotheses_of(run: Path, column: str) -> List[str]:
    """What ``run`` generated, ``column`` being TESTSET.SEARCH: a line for each of the test set."""
    return (run / "generate" / f"{column}.txt").read_text(encoding="utf-8").split("\n")[:-1]


def testset_of(column: str) -> str:
    """The test set in TESTSET.SEARCH."""
    return column.rsplit(".", 1)[0]


def score_run(run: Path, data: Path, compound_split: bool = False) -> Dict[str, Dict[str, Any]]:
    """All scores of all that ``run`` generated, by TESTSET.SEARCH, with the languages ``src`` and ``tgt``.

    :class:`UserError` if it generated nothing, or nothing that fits the references.
    """
    languages = Segmentation.read(data)
    scores = {}
    for generated in sorted((run / "generate").glob("*.txt")):
        hypotheses = hypotheses_of(run, generated.stem)
        name = testset_of(generated.stem)
        references = testsets.references(data, name, languages.tgt)
        scores[generated.stem] = {
            **bleu(hypotheses, references),
            **chrf_and_ter(hypotheses, references),
            "repetition_rate": repetition_rate(hypotheses),
            "reference_repetition_rate": repetition_rate(references[0]),
            "bleu_by_length": bleu_by_length(testsets.raw_lines(data, name, languages.src), hypotheses, references),
            "src": languages.src,
            "tgt": languages.tgt,
        }
        if compound_split:
            scores[generated.stem]["compound_split_bleu"] = compound_split_bleu(hypotheses, references, languages.tgt)
    if not scores:
        raise UserError(f"RUN is {run}, but it has no generate/TESTSET.SEARCH.txt")
    return scores


def keep_raw_text(run: Path, data: Path, scores: Dict[str, Dict[str, Any]]) -> None:
    """Copies sources and references of all test sets in ``scores`` to ``run``, where ``data.testsets`` reads them."""
    (run / "raw").mkdir(exist_ok=True)
    for column, score in scores.items():
        name = testset_of(column)
        source, reference = (testsets.raw_file(data, name, score[side]) for side in ("src", "tgt"))
        for path in (source, reference, *reference.parent.glob(f"{reference.name}.[1-9]")):
            with written_whole(str(run / "raw" / path.name), binary=True) as (out,):
                out.write(path.read_bytes())


def main(args=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m gift_fairseq.evaluation.scores", description=__doc__.split("\n")[0]
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="the data folder of scripts/prepare.sh")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--compound-split", action="store_true", help="also tokenized BLEU with compounds split; default: off"
    )
    options = parser.parse_args(args)
    for run in options.runs:
        scores = score_run(run, options.data, options.compound_split)
        try:
            keep_raw_text(run, options.data, scores)
            write_whole(str(run / "scores.json"), json.dumps(scores, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"{error.filename or run} cannot be written: {error.strerror}") from None
        for name, score in scores.items():
            split = f", compounds split {score['compound_split_bleu']:.2f}" if options.compound_split else ""
            print(f"{run.name}\t{name}\t{score['bleu']:.2f}{split}\t{score['signature']}")


if __name__ == "__main__":
    main()
