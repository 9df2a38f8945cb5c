"""Settings of the strategies, chosen on the validation set alone, for ``examples/multi30k/study.sh``.

A grid is a text file with a line ``NAME STRATEGY FLAGS...`` for every setting; ``#`` begins a comment. Each was
fine-tuned in ``OUT/runs/NAME``, the control in ``OUT/runs/standard``, and ``OUT/selection/NAME`` holds their scores on
the validation set. Of every strategy the line with the best BLEU there, the mean of beam and greedy, is a *finalist*
(of equal ones the line with the better chrF, then the first).

``python -m gift_fairseq.report.selection --lines OUT GRID`` checks the grid, also against the runs that are there, and
prints ``NAME<TAB>STRATEGY FLAGS...``. Without ``--lines`` it writes ``OUT/selection.json`` and ``OUT/selection.md`` and
prints the names of the finalists.
"""

import argparse
import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY

from gift_fairseq.data.testsets import VALID
from gift_fairseq.files import write_whole
from gift_fairseq.options import UserError
from gift_fairseq.report.runs import CONTROL, Run, read_run, read_text
from gift_fairseq.report.systems import training
from gift_fairseq.report.table import Cell, Table, markdown, number, signatures

COLUMNS = (f"{VALID}.beam5", f"{VALID}.greedy")
LEGEND = (
    "BLEU and chrF2 on the validation set. Over the control: BLEU, the mean of beam and greedy. Chosen: the line with "
    "the best mean of its strategy (of equal ones the better chrF2).",
    "NLL: of the validation set on gold inputs, nats a token, after the last update. Time: seconds an update over the "
    "control's, as the logs say: where the machine does other work too, a rough measure. Choosing tokens: its share of "
    "the line's own time.",
)


class Line(NamedTuple):
    """A line of the grid; ``setting`` is the strategy and its flags, as ``finetune.sh --strategy`` takes them."""

    name: str
    setting: str

    @property
    def strategy(self) -> str:
        return self.setting.split()[0]


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


def setting_of(run: Path) -> Optional[str]:
    """The strategy and its flags of a run that finetune.sh began for study.sh or compare.sh, as its settings say.

    None where there is none yet, or they are of another kind: then train.sh itself compares them.
    """
    words = read_text(run / "settings").split("\n")
    try:
        criterion = words[words.index("--criterion") + 1]
        first = words.index("--finetune-from-model") + 2
        return " ".join([criterion.replace("gift_", "", 1), *words[first : words.index("--eval-free-running", first)]])
    except (ValueError, IndexError):
        return None


def check_runs(out: Path, lines: Sequence[Line], file: str) -> None:
    """:class:`UserError` where a run of a line's name was made with other flags."""
    for line in lines:
        run = out / "runs" / line.name
        before = setting_of(run)
        if before not in (None, line.setting):
            raise UserError(
                f"{file}: {line.name} is '{line.setting}', but {run} was made with '{before}': "
                "give the line another NAME"
            )


def read_line(out: Path, line: Line) -> Dict[str, Any]:
    """What is known of a line after its first seed; :class:`UserError` if it is not trained or not scored.

    BLEU and chrF2 from 0 to 100, ``nll`` in nats a token, ``seconds`` an update, and ``choosing_seconds`` of those
    (None where no tokens are chosen).
    """
    run: Run = read_run(out / "runs" / line.name)
    if not run.trained:
        raise UserError(f"{run.folder} is not ready to be chosen from: {run.reason}")
    scored = read_run(out / "selection" / line.name)
    missing = [column for column in COLUMNS if column not in scored.scores]
    if missing:
        raise UserError(f"{scored.folder} lacks the scores of {' and '.join(missing)}: run scripts/evaluate.sh again")
    return {
        "name": line.name,
        "strategy": line.strategy,
        "setting": line.setting,
        "seed": run.seed,
        "scores": {column: scored.scores[column] for column in COLUMNS},
        "nll": run.log.gold_nll("checkpoint_last.pt"),
        "seconds": training(run, 1)["epoch_seconds"],  # of an epoch of one update
        "choosing_seconds": run.log.mean("train_rollout_seconds"),
    }


def both(row: Dict[str, Any], metric: str) -> float:
    """The mean of beam and greedy."""
    return fmean(row["scores"][column][metric] for column in COLUMNS)


def finalists(rows: Sequence[Dict[str, Any]]) -> List[str]:
    """The name of the best row of every strategy but the control, in the order of the strategies' first rows."""
    best: Dict[str, Dict[str, Any]] = {}
    for row in rows:
        before = best.setdefault(row["strategy"], row)
        if (both(row, "bleu"), both(row, "chrf")) > (both(before, "bleu"), both(before, "chrf")):
            best[row["strategy"]] = row
    return [row["name"] for strategy, row in best.items() if strategy != STANDARD.strategy]


def _ratio(value: Optional[float], to: Optional[float]) -> Optional[float]:
    """None where one is not known, or the log's whole seconds say 0."""
    return value / to if value is not None and to else None


def table(rows: Sequence[Dict[str, Any]]) -> Table:
    """All rows, with what :func:`main` added to them."""
    heads = ["Line", "Setting", "BLEU beam 5", "BLEU greedy", "Over the control", "chrF2 beam 5", "chrF2 greedy"]
    heads += ["NLL", "Time x control", "Choosing tokens (%)", "Chosen"]
    cells = []
    for row in rows:
        bleu, chrf = ([number(row["scores"][column][m], 2) for column in COLUMNS] for m in ("bleu", "chrf"))
        line = [Cell(row["name"]), Cell(row["setting"]), *bleu, number(row["over_control"], 2, "+"), *chrf]
        line += [number(row["nll"], 3), number(row["time_ratio"], 2), number(row["choosing_percent"], 1)]
        cells.append([*line, Cell("yes" if row["chosen"] else "")])
    return Table("Selection", heads, cells, 2)


def main(args=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gift_fairseq.report.selection", description=__doc__.split("\n")[0])
    parser.add_argument("--lines", action="store_true", help="check the grid and print its lines, nothing else")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the study")
    parser.add_argument("grid", type=Path, metavar="GRID", help="file of lines NAME STRATEGY FLAGS...")
    options = parser.parse_args(args)
    lines = read_grid(options.grid)
    check_runs(options.out, lines, str(options.grid))
    if options.lines:
        print("".join(f"{line.name}\t{line.setting}\n" for line in lines), end="")
        return
    rows = [read_line(options.out, line) for line in (STANDARD, *lines)]
    chosen, control = finalists(rows), rows[0]
    for row in rows:
        share = _ratio(row["choosing_seconds"], row["seconds"])
        row["over_control"] = None if row is control else both(row, "bleu") - both(control, "bleu")
        row["time_ratio"] = _ratio(row["seconds"], control["seconds"])
        row["choosing_percent"] = None if share is None else 100 * share
        row["chosen"] = row["name"] in chosen
    try:
        write_whole(str(options.out / "selection.md"), markdown([table(rows)], LEGEND, signatures(rows, [])))
        found = json.dumps({"finalists": chosen, "lines": rows}, indent=1)
        write_whole(str(options.out / "selection.json"), found + "\n")
    except OSError as error:
        raise UserError(f"{error.filename or options.out} cannot be written: {error.strerror}") from None
    print("\n".join(chosen))


if __name__ == "__main__":
    main()
