"""The folder of a report: tables, figures, samples, and a page that holds them all."""

import json
from pathlib import Path
from typing import Sequence

from gift_fairseq.errors import UserError
from gift_fairseq.io import to_json, write_whole
from gift_fairseq.report import systems, table
from gift_fairseq.report.page import page
from gift_fairseq.report.plots import paint
from gift_fairseq.report.runs import read_run
from gift_fairseq.report.samples import most_different


def write_report(out: Path, title: str, folders: Sequence[Path]) -> None:
    """Writes the report on the runs in ``folders`` to the folder ``out``.

    :class:`UserError` if one of ``folders`` is none or named twice, or ``out`` cannot be made.
    """
    known = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"RUN is {folder}, but must be the folder of a run")
        if folder.resolve() in known:
            raise UserError(f"RUN is {folder}, but that run was named before")
        known.add(folder.resolve())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out is {out}, but that folder cannot be made: {error.strerror}") from None
    runs = [read_run(folder) for folder in folders]
    grouped, columns = systems.group(runs), systems.columns_of(runs)
    comparisons = systems.compare_all(runs, columns)
    rows = systems.rows(grouped, runs, columns, comparisons)
    tables, legend = table.tables(rows, columns), table.legend(rows, columns)
    signatures = table.signatures([score for row in rows for score in row.scores.values()], comparisons.signatures)
    column = columns[0] if columns else ""
    samples = most_different(grouped, column)
    results = to_json({"columns": columns, "paired_tests": comparisons.signatures, "systems": rows})
    write_whole(str(out / "results.json"), json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_whole(str(out / "results.csv"), table.as_csv(rows, columns))
    write_whole(str(out / "results.md"), table.markdown(tables, legend, signatures))
    plots = paint(grouped, rows, columns, out / "plots")
    write_whole(str(out / "index.html"), page(title, tables, legend, plots, samples, column, runs, signatures))
