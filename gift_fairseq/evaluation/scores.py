"""BLEU of what a run generated: detokenized text against the raw references, by sacreBLEU.

``python -m gift_fairseq.evaluation.scores DATA RUN...`` reads every ``RUN/generate/TESTSET.SEARCH.txt`` (of
``scripts/evaluate.sh``) and the references that ``scripts/prepare.sh`` kept in ``DATA/raw``, and writes
``RUN/scores.json``.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Dict, List, Sequence

import sacremoses
from sacrebleu.metrics import BLEU

from gift_fairseq.data import testsets
from gift_fairseq.data.segmentation import Segmentation
from gift_fairseq.files import write_whole
from gift_fairseq.options import UserError


def check_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """:class:`UserError` unless every list of references has as many lines as there are hypotheses."""
    for reference in references:
        if len(hypotheses) != len(reference):
            raise UserError(f"there are {len(hypotheses)} hypotheses, but {len(reference)} references")


def bleu(hypotheses: List[str], references: List[List[str]]) -> Dict[str, object]:
    """Corpus BLEU (0 to 100) against one or more references, with sacreBLEU's signature."""
    check_counts(hypotheses, references)
    metric = BLEU()
    score = metric.corpus_score(hypotheses, references)
    return {"bleu": score.score, "signature": str(metric.get_signature()), "sentences": len(hypotheses)}


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


def score_run(run: Path, data: Path, compound_split: bool = False) -> Dict[str, Dict[str, object]]:
    """``{"TESTSET.SEARCH": {"bleu", "signature", "sentences"}}`` of all that ``run`` generated."""
    language = Segmentation.read(data).tgt
    scores = {}
    for generated in sorted((run / "generate").glob("*.txt")):
        name = generated.stem.rsplit(".", 1)[0]
        hypotheses = generated.read_text(encoding="utf-8").split("\n")[:-1]
        references = testsets.references(data, name, language)
        scores[generated.stem] = bleu(hypotheses, references)
        if compound_split:
            scores[generated.stem]["compound_split_bleu"] = compound_split_bleu(hypotheses, references, language)
    if not scores:
        raise UserError(f"RUN is {run}, but it has no generate/TESTSET.SEARCH.txt")
    return scores


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
        write_whole(str(run / "scores.json"), json.dumps(scores, indent=1) + "\n")
        for name, score in scores.items():
            split = f", compounds split {score['compound_split_bleu']:.2f}" if options.compound_split else ""
            print(f"{run.name}\t{name}\t{score['bleu']:.2f}{split}\t{score['signature']}")


if __name__ == "__main__":
    main()
