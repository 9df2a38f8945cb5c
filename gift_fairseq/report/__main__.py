"""The report of runs: tables, figures, samples and a page that holds them all.

``python -m gift_fairseq.report --out DIR RUN...`` (``scripts/report.sh``) writes ``DIR/results.md``, ``results.json``,
``results.csv``, ``index.html``, and every figure as ``DIR/plots/NAME.png`` and ``NAME.svg``.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Sequence

from gift_fairseq.files import write_whole
from gift_fairseq.options import UserError
from gift_fairseq.quiet import quiet
from gift_fairseq.report import systems, table
from gift_fairseq.report.page import page
from gift_fairseq.report.plots import paint
from gift_fairseq.report.runs import read_run
from gift_fairseq.report.samples import most_different

TITLE = "Fine-tuning strategies compared"


def main(args=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gift_fairseq.report", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the report")
    parser.add_argument("--title", default=TITLE, help=f"of the page; default: {TITLE}")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    options = parser.parse_args(args)
    known = set()
    for folder in options.runs:
        if not folder.is_dir():
            raise UserError(f"RUN is {folder}, but must be the folder of a run")
        if folder.resolve() in known:
            raise UserError(f"RUN is {folder}, but that run was named before")
        known.add(folder.resolve())
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out is {options.out}, but that folder cannot be made: {error.strerror}") from None
    if not os.access(options.out, os.W_OK | os.X_OK):
        raise UserError(f"--out is {options.out}, but nothing can be written there")
    try:
        with quiet():
            report(options.out, options.title, options.runs)
    except OSError as error:
        raise UserError(f"{error.filename or options.out} cannot be written or read: {error.strerror}") from None


def report(out: Path, title: str, folders: Sequence[Path]) -> None:
    """Writes the report on the runs in ``folders`` to the folder ``out``."""
    runs = [read_run(folder) for folder in folders]
    grouped, columns = systems.group(runs), systems.columns_of(runs)
    comparisons = systems.compare_all(runs, columns)
    rows = systems.rows(grouped, runs, columns, comparisons)
    tables, legend = table.tables(rows, columns), table.legend(rows, columns)
    signatures = table.signatures(rows, comparisons.signatures)
    column = columns[0] if columns else ""
    samples = most_different(grouped, column)
    results = {"columns": columns, "paired_tests": comparisons.signatures, "systems": rows}
    write_whole(str(out / "results.json"), json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_whole(str(out / "results.csv"), table.as_csv(rows, columns))
    write_whole(str(out / "results.md"), table.markdown(tables, legend, signatures))
    plots = paint(grouped, rows, columns, out / "plots")
    write_whole(str(out / "index.html"), page(title, tables, legend, plots, samples, column, runs, signatures))


if __name__ == "__main__":
    main()
