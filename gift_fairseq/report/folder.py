"""The folder of a report: tables, figures, samples, and a page that holds them all."""

import json
from pathlib import Path
from typing import List, Optional, Sequence

from gift_fairseq.data.testsets import VALID
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation.scores import testset_of
from gift_fairseq.io import to_json, write_whole
from gift_fairseq.report import comparisons, systems, table
from gift_fairseq.report.page import page
from gift_fairseq.report.plots import paint
from gift_fairseq.report.runs import Run, read_run
from gift_fairseq.report.samples import most_different


def sets_of(runs: Sequence[Run]) -> List[str]:
    """The sets that at least one of ``runs`` was scored on, in order."""
    return list(dict.fromkeys(testset_of(column) for run in runs for column in run.scores))


def show_only(testsets: Sequence[str], runs: Sequence[Run]) -> None:
    """Takes the scores and measures on all other sets out of ``runs``.

    Without ``testsets`` the test sets of the fine-tunings stay (of the baselines if there are none): settings are
    selected on the validation set, and a baseline may have been scored for fine-tunings of other data too.
    :class:`UserError` if no run was scored on one of ``testsets``.
    """
    scored = sets_of(runs)
    for name in testsets:
        if name not in scored:
            raise UserError(f"--testset is {','.join(testsets)}, but RUN was scored on {', '.join(scored) or 'none'}")
    tested = [run for run in runs if run.started_from and sets_of([run]) != [VALID]]
    wanted = testsets or [name for name in sets_of(tested) or scored if name != VALID]
    of_others = {*scored} - {*wanted, VALID}
    for run in runs:
        own = sets_of([run])
        kept = {column: score for column, score in run.scores.items() if testset_of(column) in wanted}
        if run.scores and not kept and not testsets:
            run.reason = f"evaluated on {', '.join(own)} alone, which only --testset {','.join(own)} shows"
        run.scores = kept
        if testsets:
            run.exposure = {name: found for name, found in run.exposure.items() if name in testsets}
        else:
            run.exposure = {name: found for name, found in run.exposure.items() if name not in of_others}


def write_report(
    out: Path, title: str, folders: Sequence[Path], testsets: Sequence[str] = (), control: Optional[Path] = None
) -> List[str]:
    """Writes the report on the runs in ``folders`` to the folder ``out``; returns its warnings.

    On ``testsets``, or on all test sets of the fine-tunings (of the baselines if there are none). The control is the
    system of the run ``control``, one of ``folders``, in place of ``gift_standard``. :class:`UserError` if one of
    ``folders`` is none or named twice, no run was scored on one of ``testsets``, ``control`` cannot be one, or ``out``
    cannot be made.
    """
    known = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"RUN is {folder}, but must be the folder of a run")
        if folder.resolve() in known:
            raise UserError(f"RUN is {folder}, but that run was named before")
        known.add(folder.resolve())
    runs = [read_run(folder) for folder in folders]
    show_only(testsets, runs)
    grouped = systems.group(runs)
    if control:
        systems.hold_against(control, grouped)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out is {out}, but that folder cannot be made: {error.strerror}") from None
    columns = systems.columns_of(runs)
    claims, (paired, tests) = comparisons.claims(grouped, runs, columns), comparisons.over_sentences(grouped, runs)
    rows = systems.rows(grouped, runs, columns, tests)
    warnings = [*comparisons.unlike_flags(runs), *comparisons.unlike_checkpoints(runs), *comparisons.outdated(runs)]
    warnings += [*comparisons.another_start(runs), *comparisons.unconverged(rows, claims)]
    tables, legend = table.tables(rows, columns, claims), [*warnings, *table.legend(rows, claims)]
    signatures = table.signatures([score for row in rows for score in row.scores.values()], paired)
    column = columns[0] if columns else ""
    samples = most_different(grouped, column)
    results = {"columns": columns, "paired_tests": paired, "warnings": warnings, "systems": rows, "claims": claims}
    results = to_json(results)
    write_whole(str(out / "results.json"), json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_whole(str(out / "results.csv"), table.as_csv(rows, columns, claims))
    write_whole(str(out / "results.md"), table.markdown(tables, legend, signatures))
    plots = paint(grouped, rows, columns, out / "plots")
    write_whole(str(out / "index.html"), page(title, tables, legend, plots, samples, column, runs, signatures))
    return warnings
