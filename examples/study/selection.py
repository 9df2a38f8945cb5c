"""Settings of the strategies, chosen on the validation set alone, for ``study.py`` beside this file.

A grid is a text file with a line ``NAME STRATEGY FLAGS...`` for every setting; ``#`` begins a comment. Each was
fine-tuned with one or more seeds in ``OUT/runs``, the control as the line ``standard``, and ``OUT/selection`` holds
their scores on the validation set, in folders of the same names. Of every strategy the line with the best BLEU there,
the mean of beam and greedy and of the seeds, is a *finalist* (of equal ones the line with the better chrF2, then the
first).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Dict, List, NamedTuple, Optional, Sequence

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY

from gift_fairseq.data.testsets import VALID
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation.scores import Score
from gift_fairseq.io import to_json, write_whole
from gift_fairseq.report.runs import CONTROL, LAST, read_run
from gift_fairseq.report.systems import training_cost
from gift_fairseq.report.table import Cell, Table, markdown, number, signatures
from gift_fairseq.runs import name_with_seed

COLUMNS = (f"{VALID}.beam5", f"{VALID}.greedy")
LEGEND = (
    "BLEU and chrF2 on the validation set, means over the seeds. Over the control: BLEU, the mean of beam and greedy; "
    "of each seed: against the control of that seed. Chosen: the line with the best mean of its strategy (of equal "
    "ones the better chrF2).",
    "NLL: of the validation set on gold prefixes, nats a token, after the last update. Time: seconds an update over "
    "the control's, as the logs say: where the machine does other work too, a rough measure. Rollout: its share of the "
    "line's own time.",
)


class Line(NamedTuple):
    """A line of the grid; ``setting`` is the strategy and its flags, as ``gift finetune --strategy`` takes them."""

    name: str
    setting: str

    @property
    def strategy(self) -> str:
        return self.setting.split()[0]


@dataclass
class Row:
    """What is known of a line after the seeds that choose, in ``selection.json`` and in the table. Means over them."""

    name: str
    strategy: str
    setting: str
    seeds: List[int]
    scores: List[Dict[str, Score]]  # of each seed, by COLUMNS
    nll: Optional[float]  # of the validation set on gold prefixes, nats a token; None if not logged
    seconds: Optional[float]  # an update
    choosing_seconds: Optional[float]  # of these, in rollouts; None for a strategy without
    over_control: List[float]  # of each seed: BLEU, the mean of beam and greedy; none for the control
    time_ratio: Optional[float]  # of ``seconds``, to the control's
    choosing_percent: Optional[float]  # of ``seconds``, in rollouts
    chosen: bool  # a finalist


STANDARD = Line(CONTROL.replace("gift_", "", 1), CONTROL.replace("gift_", "", 1))


def parse_grid(text: str, file: str) -> List[Line]:
    """The lines of a grid; :class:`UserError` names ``file`` and the number of a line that is wrong."""
    known: Dict[str, str] = {}  # by name, the setting
    for at, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        name, strategy, flags = words[0], "".join(words[1:2]), words[2:]
        reason = ""
        if not re.fullmatch(r"[A-Za-z0-9-]+", name):
            reason = f"NAME is {name}, but must be letters, digits and -"
        elif name in (STANDARD.name, "baseline") or re.search(r"-seed\d+$", name):
            reason = f"NAME is {name}, which the study itself calls a run"
        elif name in known:
            reason = f"NAME is {name}, as in a line before"
        elif not strategy:
            reason = f"{name} has no STRATEGY"
        elif strategy == STANDARD.name:
            reason = f"STRATEGY is {strategy}, the control, which is always in"
        elif f"gift_{strategy}" not in CRITERION_DATACLASS_REGISTRY:
            reason = f"STRATEGY is {strategy}, but gift_fairseq has no such criterion"
        elif flags and not flags[0].startswith("--"):
            reason = f"the flags of {name} begin with {flags[0]}, but must with --"
        elif " ".join(words[1:]) in known.values():
            reason = f"{name} is set as a line before: {' '.join(words[1:])}"
        if reason:
            raise UserError(f"{file}, line {at}: {reason}")
        known[name] = " ".join(words[1:])
    if not known:
        raise UserError(f"{file} has no line NAME STRATEGY FLAGS...")
    return [Line(name, setting) for name, setting in known.items()]


def read_grid(path: Path) -> List[Line]:
    """:func:`parse_grid` of a file; :class:`UserError` where it cannot be read."""
    try:
        return parse_grid(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeError) as error:
        raise UserError(f"--grid is {path}, which cannot be read: {getattr(error, 'strerror', error)}") from None


def read_line(out: Path, line: Line, seeds: Sequence[int], control: Optional[Row]) -> Row:
    """The row of ``line``, which is the control's own if ``control`` is None; nothing is chosen yet.

    :class:`UserError` if the line is not trained or not scored with one of ``seeds``.
    """
    runs, scores = [], []
    for seed in seeds:
        name = name_with_seed(line.name, seed, seeds)
        run, scored = read_run(out / "runs" / name), read_run(out / "selection" / name)
        if not run.trained:
            raise UserError(f"{run.folder} is not ready to be chosen from: {run.reason}")
        missing = [column for column in COLUMNS if column not in scored.scores]
        if missing:
            raise UserError(f"{scored.folder} lacks the scores of {' and '.join(missing)}: evaluate it again")
        runs.append(run)
        scores.append({column: scored.scores[column] for column in COLUMNS})
    seconds = _mean([training_cost(run, 1).epoch_seconds for run in runs])  # of an epoch of one update
    choosing_seconds = _mean([run.log.mean("train_rollout_seconds") for run in runs])
    share, controls = _ratio(choosing_seconds, seconds), control.scores if control else []
    return Row(
        name=line.name,
        strategy=line.strategy,
        setting=line.setting,
        seeds=list(seeds),
        scores=scores,
        nll=_mean([run.log.gold_nll(LAST) for run in runs]),
        seconds=seconds,
        choosing_seconds=choosing_seconds,
        over_control=[both([one], "bleu") - both([of], "bleu") for one, of in zip(scores, controls)],
        time_ratio=_ratio(seconds, control.seconds if control else seconds),
        choosing_percent=None if share is None else 100 * share,
        chosen=False,
    )


def both(scores: Sequence[Dict[str, Score]], metric: str) -> float:
    """The mean of beam and greedy, and of the seeds."""
    return fmean(mean_score(scores, column, metric) for column in COLUMNS)


def mean_score(scores: Sequence[Dict[str, Score]], column: str, metric: str) -> float:
    return fmean(getattr(one[column], metric) for one in scores)


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    """None where one is not known."""
    return None if None in values else fmean(values)


def finalists(rows: Sequence[Row]) -> List[str]:
    """The name of the best row of every strategy but the control, in the order of the strategies' first rows."""
    best: Dict[str, Row] = {}
    for row in rows:
        one, other = ([both(r.scores, m) for m in ("bleu", "chrf")] for r in (row, best.setdefault(row.strategy, row)))
        if one > other:
            best[row.strategy] = row
    return [row.name for strategy, row in best.items() if strategy != STANDARD.strategy]


def _ratio(value: Optional[float], to: Optional[float]) -> Optional[float]:
    """None where one is not known, or the log's whole seconds say 0."""
    return value / to if value is not None and to else None


def table(rows: Sequence[Row]) -> Table:
    heads = ["Line", "Setting", "BLEU beam 5", "BLEU greedy", "Over the control", "Of each seed"]
    heads += ["chrF2 beam 5", "chrF2 greedy"]
    heads += ["NLL", "Time x control", "Rollout (%)", "Chosen"]
    cells = []
    for row in rows:
        bleu, chrf = ([number(mean_score(row.scores, column, it), 2) for column in COLUMNS] for it in ("bleu", "chrf"))
        over = number(fmean(row.over_control) if row.over_control else None, 2, "+")
        each = Cell(" ".join(f"{one:+.2f}" for one in row.over_control))
        line = [Cell(row.name), Cell(row.setting), *bleu, over, each, *chrf, number(row.nll, 3)]
        line += [number(row.time_ratio, 2), number(row.choosing_percent, 1), Cell("yes" if row.chosen else "")]
        cells.append(line)
    return Table("Selection", heads, cells, 2)


def choose(out: Path, lines: Sequence[Line], seeds: Sequence[int]) -> List[str]:
    """The names of the finalists by ``seeds``, the study's first ones, all of which every line was fine-tuned with.

    Writes ``OUT/selection.json`` and ``OUT/selection.md``, which say why.
    """
    control = read_line(out, STANDARD, seeds, None)
    rows = [control, *(read_line(out, line, seeds, control) for line in lines)]
    chosen = finalists(rows)
    for row in rows:
        row.chosen = row.name in chosen
    scores = [score for row in rows for of_seed in row.scores for score in of_seed.values()]
    write_whole(str(out / "selection.md"), markdown([table(rows)], LEGEND, signatures(scores, [])))
    found = json.dumps(to_json({"finalists": chosen, "lines": rows}), indent=1)
    write_whole(str(out / "selection.json"), found + "\n")
    return chosen
