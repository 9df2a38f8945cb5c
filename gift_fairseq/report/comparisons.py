"""What a report says of differences: of strategies over seeds, of two given runs over sentences."""

from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from gift_fairseq.evaluation import significance
from gift_fairseq.evaluation.scores import search_of, testset_of
from gift_fairseq.evaluation.significance import LEVEL, OverSeeds
from gift_fairseq.report.runs import CONTROL, LAST, Run
from gift_fairseq.report.systems import System, SystemRow, baseline_of, control_of, held, same_time_control_of, start_of
from gift_fairseq.runs import AVERAGED

AGAINST = {"control": control_of, "same-time control": same_time_control_of, "baseline": baseline_of}
CLAIMED = {"bleu": "BLEU", "chrf": "chrF2"}


@dataclass
class Claim:
    """A system against another, paired by seed; the difference of a seed is on one test set or the mean over all."""

    system: str
    role: str  # of the system
    against: str  # of AGAINST
    search: str
    metric: str  # of CLAIMED
    testset: str  # empty: the mean over all
    seeds: OverSeeds = field(metadata={"flat": True})
    p_holm: Optional[float] = None  # p, corrected for the number of strategies; None for one test set of several

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < LEVEL


def claims(systems: Sequence[System], runs: Sequence[Run], columns: Sequence[str]) -> List[Claim]:
    """Of every system against the controls and the baseline, for each search and metric apart.

    Over all test sets; against the control also on each of several. A run counts only if it and the opponent of its
    seed were scored on all test sets. Holm's correction covers all strategies with the same search, metric and
    opponent. The control's own p (against the baseline) is not corrected.
    """
    claimed: List[Claim] = []
    for against, search, metric in product(AGAINST, dict.fromkeys(map(search_of, columns)), CLAIMED):
        own, family, parts = [column for column in columns if search_of(column) == search], [], []
        for system in systems:
            pairs = [(run, other) for run in system.runs if (other := AGAINST[against](run, runs))]
            scores = [[(run.scores.get(c), other.scores.get(held(other, c))) for c in own] for run, other in pairs]
            differences = [
                [getattr(one, metric) - getattr(other, metric) for one, other in of_seed]
                for of_seed in scores
                if all(map(all, of_seed))
            ]
            if not differences:
                continue
            claim = partial(Claim, system.name, system.runs[0].role, against, search, metric)
            over = significance.over_seeds([fmean(of_seed) for of_seed in differences])
            family.append(claim(testset="", seeds=over, p_holm=over.p))
            if against == "control" and len(own) > 1:
                for column, of_column in zip(own, zip(*differences)):
                    parts.append(claim(testset=testset_of(column), seeds=significance.over_seeds(of_column)))
        tested = [one for one in family if not one.role and one.p_holm is not None]
        for one, p in zip(tested, significance.holm([one.p_holm for one in tested])):
            one.p_holm = p
        claimed += family + parts
    return claimed


def over_sentences(
    systems: Sequence[System], runs: Sequence[Run]
) -> Tuple[List[str], Dict[Path, Dict[str, Dict[str, Any]]]]:
    """sacreBLEU's signatures, and its paired tests, by a run's folder, a column, and AGAINST.

    Of systems with one run. Of others the seeds speak; and a second's work for each test would make hundreds of them.
    """
    found: Dict[Path, Dict[str, Dict[str, Any]]] = {}
    signatures = set()
    for run in (system.runs[0] for system in systems if len(system.runs) == 1):
        others = {against: other for against, of in AGAINST.items() if (other := of(run, runs))}
        found[run.folder] = {column: {} for column in run.scores}
        for (against, other), column in product(others.items(), run.scores):
            if held(other, column) in other.scores:
                texts = other.hypotheses(held(other, column)), run.hypotheses(column), run.references(column)
                signature, found[run.folder][column][against] = significance.compare(*texts)
                signatures.add(signature)
    return sorted(signatures), found


def unlike_flags(runs: Sequence[Run]) -> List[str]:
    """Warnings where runs were evaluated with different flags of fairseq-generate, as far as these are known."""
    first: Dict[str, Dict[str, str]] = {}  # by column and flags, the name of the first run
    for run in runs:
        for column, score in run.scores.items():
            if score.flags is not None:
                first.setdefault(column.removesuffix(AVERAGED), {}).setdefault(score.flags, run.name)
    found = []
    for column, runs_by_flags in first.items():
        if len(runs_by_flags) > 1:
            with_flags = "; ".join(f"{name} with {flags or 'none'}" for flags, name in runs_by_flags.items())
            found.append(
                f"Warning: on {column} runs were evaluated with different flags after --, so their scores do not "
                f"compare: {with_flags}."
            )
    return found


def _measured(run: Run) -> Iterator[Tuple[str, str, str, Optional[int]]]:
    """By which command ``run`` was measured, on what, and the checkpoint's file name and updates, if known."""
    for column, score in run.scores.items():
        yield "evaluate", column, score.checkpoint or "", score.updates
    for name, found in run.exposure.items():
        yield "exposure", name, Path(found.get("checkpoint") or "").name, found.get("updates")


def unlike_checkpoints(runs: Sequence[Run]) -> List[str]:
    """Warnings where fine-tunings were measured by checkpoints of different names, as far as these are known.

    Not of a baseline, whose checkpoint is the one that was fine-tuned.
    """
    first: Dict[Tuple[str, str], Dict[str, str]] = {}  # by what was measured and checkpoint, the name of the first run
    for run in (run for run in runs if run.started_from):
        for command, what, checkpoint, _ in _measured(run):
            if checkpoint:
                first.setdefault((command, what), {}).setdefault(checkpoint, run.name)
    return [
        f"Warning: on {what} {command} took different checkpoints of the fine-tunings, so differences may come from "
        f"that: {'; '.join(f'{checkpoint} of {name}' for checkpoint, name in runs_by_checkpoint.items())}."
        for (command, what), runs_by_checkpoint in first.items()
        if len(runs_by_checkpoint) > 1
    ]


def another_start(runs: Sequence[Run]) -> List[str]:
    """Warnings where a baseline was measured by another checkpoint than was fine-tuned, as far as that is known."""
    found: Dict[Tuple[str, str, str, str], Dict[str, None]] = {}  # the sets, each once
    for run in runs:
        baseline, start = start_of(run, runs), Path(run.started_from).name
        for command, what, checkpoint, _ in _measured(baseline) if baseline else ():
            if checkpoint not in ("", start):
                found.setdefault((baseline.name, command, checkpoint, start), {})[what] = None
    return [
        f"Warning: {name} was measured on {', '.join(sets)} by {checkpoint}, but {start} was fine-tuned: "
        f"run {command} with that one."
        for (name, command, checkpoint, start), sets in found.items()
    ]


def outdated(runs: Sequence[Run]) -> List[str]:
    """Warnings where the ``checkpoint_last.pt`` that was measured is not the one with which the training ended."""
    found = []
    for run in runs:
        ended, old = run.log.updates, {}
        for command, what, checkpoint, updates in _measured(run):
            if checkpoint == LAST and updates is not None and ended not in (0, updates):  # 0: there is no log
                old.setdefault((command, updates), []).append(what)
        found += [
            f"Warning: {run.name} was measured on {', '.join(sets)} after {updates:,} updates, but its training ended "
            f"after {ended:,}: run {command} again."
            for (command, updates), sets in old.items()
        ]
    return found


def unconverged(rows: Sequence[SystemRow], claims: Sequence[Claim]) -> List[str]:
    """Warnings where plain updates are significantly better than the baseline.

    By BLEU over its seeds in one of the searches; with one seed by the tests over sentences, corrected by their number.
    """
    found = []
    for row in (row for row in rows if row.criterion == CONTROL):
        own = [c for c in claims if (c.system, c.against, c.metric) == (row.name, "baseline", "bleu")]
        said = [(c.search, c.seeds.difference, c.p_holm) for c in own if c.p_holm is not None]
        if not said:
            tests = [(column, kinds["baseline"]) for column, kinds in row.runs[0].tests.items() if "baseline" in kinds]
            ps = significance.holm([test.p for _, test in tests])
            said = [(column, test.difference, p) for (column, test), p in zip(tests, ps)]
        better = [
            f"{where} {difference:+.1f}, p = {p:.2g}" for where, difference, p in said if p < LEVEL and difference > 0
        ]
        if better:
            found.append(
                f"Warning: {row.name}, plain updates, is better than the baseline (BLEU, {'; '.join(better)}): the "
                "baseline was not converged, and the comparison rewards whatever trains longest."
            )
    return found
