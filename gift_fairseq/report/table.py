"""The results table: strategy (and the baseline) by BLEU, epoch time and memory.

``python -m gift_fairseq.report.table --out DIR RUN...`` reads ``scores.json`` and ``train.log`` (fairseq's JSON log) of
every run and writes ``DIR/results.json`` and ``DIR/results.md``. The first run is the baseline.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Dict, List

from gift_fairseq.files import write_whole
from gift_fairseq.options import UserError


def epochs(log: Path) -> List[Dict[str, float]]:
    """One dict of numbers per epoch, whole or begun, as fairseq logged them in ``log``; the last of each epoch."""
    found: Dict[int, Dict[str, float]] = {}
    for line in log.read_text(encoding="utf-8").split("\n"):
        if line.startswith('{"epoch"') and '"train_loss"' in line:
            numbers = {key: float(value) for key, value in json.loads(line).items()}
            found[int(numbers["epoch"])] = numbers
    if not found:
        raise UserError(f"{log} has no finished epoch: train with --log-format json --log-file")
    return [found[epoch] for epoch in sorted(found)]


def read_run(run: Path, updates_per_epoch: float = 0.0) -> Dict[str, Any]:
    """What the table says of ``run``: scores, updates, seconds an epoch, MiB of memory.

    An epoch's time is the time in updates (no validation, no saving) per update, times ``updates_per_epoch``: runs
    that end inside an epoch compare with those that do not. 0 takes the updates of the run's own first epoch.
    Average memory is over all updates; maximum memory is the highest peak of an epoch.
    """
    for needed in ("scores.json", "train.log"):
        if not (run / needed).is_file():
            raise UserError(f"RUN is {run}, but it has no {needed}")
    log = epochs(run / "train.log")
    ends = [0.0] + [epoch["train_num_updates"] for epoch in log]
    updates = [end - start for start, end in zip(ends, ends[1:])]
    seconds = sum(epoch["train_train_wall"] for epoch in log)
    return {
        "name": run.name,
        "scores": json.loads((run / "scores.json").read_text(encoding="utf-8")),
        "updates": int(ends[-1]),
        "updates_per_epoch": updates_per_epoch or updates[0],
        "epoch_seconds": seconds / ends[-1] * (updates_per_epoch or updates[0]),
        "average_memory_mib": sum(n * epoch["train_mem_mib"] for n, epoch in zip(updates, log)) / ends[-1],
        "maximum_memory_mib": max(epoch["train_peak_mem_mib"] for epoch in log),
    }


def markdown(runs: List[Dict[str, Any]]) -> str:
    """The table, with sacreBLEU's signature under it."""
    columns = list(runs[0]["scores"])
    titles = ["Strategy", *(f"BLEU {column.replace('.', ', ')}" for column in columns)]
    titles += ["Updates", "Epoch time (s)", "Avg memory (MiB)", "Max memory (MiB)"]
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for run in runs:
        scores = [f"{run['scores'][column]['bleu']:.1f}" for column in columns]
        measures = [f"{run[k]:.0f}" for k in ("updates", "epoch_seconds", "average_memory_mib", "maximum_memory_mib")]
        lines.append("| " + " | ".join([run["name"], *scores, *measures]) + " |")
    signatures = sorted({score["signature"] for run in runs for score in run["scores"].values()})
    return "\n".join([*lines, "", *(f"sacreBLEU: `{signature}`" for signature in signatures), ""])


def main(args=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gift_fairseq.report.table", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of results.json and results.md")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run; the first is the baseline")
    options = parser.parse_args(args)
    baseline = read_run(options.runs[0])
    runs = [baseline, *(read_run(run, baseline["updates_per_epoch"]) for run in options.runs[1:])]
    for run in runs:
        if run["scores"].keys() != baseline["scores"].keys():
            raise UserError(f"RUN {run['name']} was scored on {sorted(run['scores'])}, the baseline on other sets")
    options.out.mkdir(parents=True, exist_ok=True)
    write_whole(str(options.out / "results.json"), json.dumps(runs, indent=1) + "\n")
    write_whole(str(options.out / "results.md"), markdown(runs))
    print(markdown(runs))


if __name__ == "__main__":
    main()
