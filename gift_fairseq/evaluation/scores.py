"""BLEU of what fairseq-generate wrote for a run: detokenized text against the raw references, by sacreBLEU.

``python -m gift_fairseq.evaluation.scores --text DIR --target-lang de RUN...`` reads every
``RUN/generate/TESTSET.SEARCH.txt`` and the references ``DIR/TESTSET.de``, and writes ``RUN/scores.json``.
"""

import argparse
import json
from pathlib import Path
from typing import Dict, List

from sacrebleu.metrics import BLEU

from gift_fairseq.files import write_whole
from gift_fairseq.options import UserError


def read_lines_of(path: Path, kind: str) -> List[str]:
    """What ``path`` has behind ``KIND-number`` and score, in the order of the test set; the best of each sentence.

    fairseq-generate writes sentences by length, the best hypothesis first, as pieces (``H``) and detokenized (``D``).
    :class:`UserError` where a sentence is missing.
    """
    best: Dict[int, str] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith(f"{kind}-"):
            number, _, text = line.split("\t", 2)
            best.setdefault(int(number[2:]), text)
    if sorted(best) != list(range(len(best))) or not best:
        raise UserError(f"{path} lacks sentences: run fairseq-generate again, on the whole test set")
    return [best[number] for number in range(len(best))]


def read_hypotheses(path: Path) -> List[str]:
    """The detokenized hypotheses in ``path``, as :func:`read_lines_of` finds them."""
    return read_lines_of(path, "D")


def bleu(hypotheses: List[str], references: List[str]) -> Dict[str, object]:
    """Corpus BLEU (0 to 100) with sacreBLEU's signature; :class:`UserError` if the line counts differ."""
    if len(hypotheses) != len(references):
        raise UserError(f"there are {len(hypotheses)} hypotheses, but {len(references)} references")
    metric = BLEU()
    score = metric.corpus_score(hypotheses, [references])
    return {"bleu": score.score, "signature": str(metric.get_signature()), "sentences": len(references)}


def score_run(run: Path, text: Path, target_lang: str) -> Dict[str, Dict[str, object]]:
    """``{"TESTSET.SEARCH": {"bleu", "signature", "sentences"}}`` of all that ``run`` generated."""
    scores = {}
    for generated in sorted((run / "generate").glob("*.txt")):
        testset = generated.stem.rsplit(".", 1)[0]
        reference = text / f"{testset}.{target_lang}"
        if not reference.is_file():
            raise UserError(f"--text is {text}, but it has no {reference.name}, which {generated} needs")
        scores[generated.stem] = bleu(
            read_hypotheses(generated), reference.read_text(encoding="utf-8").rstrip("\n").split("\n")
        )
    if not scores:
        raise UserError(f"RUN is {run}, but it has no generate/TESTSET.SEARCH.txt")
    return scores


def main(args=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m gift_fairseq.evaluation.scores", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--text", required=True, type=Path, metavar="DIR", help="raw references, TESTSET.LANG")
    parser.add_argument("--target-lang", required=True, metavar="LANG", help="language of the references, de say")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    options = parser.parse_args(args)
    for run in options.runs:
        scores = score_run(run, options.text, options.target_lang)
        write_whole(str(run / "scores.json"), json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
