"""Runs to systems: what differs in nothing but the seed is one system, with means over its seeds and tests of each.

The settings of a run decide which system it belongs to, not its name. The *baseline* is a run that was not fine-tuned.
The *control* of a run is the fine-tuning by ``gift_standard`` from the same checkpoint, for the same updates, with the
same seed. A *column* is a TESTSET.SEARCH.
"""

import json
import statistics
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from gift_fairseq import runs as folders
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation import significance
from gift_fairseq.evaluation.scores import LengthBucket, Metrics, testset_of
from gift_fairseq.evaluation.significance import Comparison
from gift_fairseq.report.runs import CONTROL, LAST, Run

METRICS = tuple(metric.name for metric in fields(Metrics))
AGAINST = ("control", "baseline")


@dataclass
class Training:
    """What a training took; None where the log does not say, or training is not finished."""

    updates: Optional[int]
    epoch_seconds: Optional[float]  # in updates (no validation, no saving); see training()
    average_memory_mib: Optional[float]  # over all updates
    maximum_memory_mib: Optional[float]  # the highest peak of an epoch
    tokens_per_second: Optional[float]  # target tokens


@dataclass
class GoldNLL:
    """NLL on gold prefixes, nats a token, before and after fine-tuning."""

    before: float
    after: float


@dataclass
class RunScore(Metrics):
    """Of one run on a column."""

    against: Dict[str, Comparison]  # by AGAINST, as far as there is such a run


@dataclass
class RunRow:
    """One run in ``results.json``."""

    name: str
    seed: Optional[int]
    reason: str  # why it has no scores; empty if it has
    scores: Dict[str, RunScore]  # by column
    gold_nll: Dict[str, GoldNLL]  # by set, valid or a test set
    training: Training = field(metadata={"flat": True})


@dataclass
class SeedComparisons:
    """The paired tests of several seeds, each by itself."""

    difference: float  # in BLEU, the mean
    tested: int  # seeds
    significant: int  # of these: significant, and in the direction of the mean


@dataclass
class SystemScore(Metrics):
    """Of a system on a column: the means over its seeds."""

    seeds: int
    sd: Optional[float]  # standard deviation of BLEU over the seeds; None for one seed
    signature: str  # of BLEU, by sacreBLEU, as the two others
    chrf_signature: str
    ter_signature: str
    sentences: int
    bleu_by_length: List[LengthBucket]
    against_control: Optional[SeedComparisons] = None
    against_baseline: Optional[SeedComparisons] = None
    gain_over_greedy: Optional[float] = None  # BLEU; of a beam whose seeds were all scored with greedy search too


@dataclass
class SystemRow:
    """One system in ``results.json`` and in the tables; what was measured of several runs is their mean."""

    name: str
    criterion: str
    notes: List[str]  # what is missing
    scores: Dict[str, SystemScore]  # by column
    training: Training = field(metadata={"flat": True})  # maximum memory: of all runs
    gold_nll: Dict[str, GoldNLL]  # by set, valid or a test set
    runs: List[RunRow]


@dataclass
class System:
    name: str
    runs: List[Run]

    def scored(self, column: str) -> List[Run]:
        return [run for run in self.runs if column in run.scores]


def group(runs: Sequence[Run]) -> List[System]:
    """Systems in the order of their first runs, named by their strategy, and by the first run where several have it."""
    found: Dict[Any, List[Run]] = {}
    for run in runs:
        known = run.options and (run.strategy, json.dumps(run.rest, sort_keys=True))
        found.setdefault(known or run.folder, []).append(run)
    groups = list(found.values())
    names = [" ".join(g[0].strategy).replace("gift_", "", 1) if g[0].started_from else "baseline" for g in groups]
    for more in (lambda run: run.name, lambda run: str(run.folder)):
        twice = {name for name in names if names.count(name) > 1}
        names = [f"{name} ({more(g[0])})" if name in twice else name for name, g in zip(names, groups)]
    return [System(name, list(g)) for name, g in zip(names, groups)]


def control_of(run: Run, runs: Sequence[Run]) -> Optional[Run]:
    """The control of ``run`` among ``runs``: with all other flags alike if there is one, or the only one there is."""
    if not run.started_from or run.criterion == CONTROL:
        return None

    def what(one: Run):
        return one.started_from, one.seed, one.options.get("max_update")

    controls = [one for one in runs if one.criterion == CONTROL and what(one) == what(run)]
    alike = [one for one in controls if one.rest == run.rest]
    return alike[0] if alike else controls[0] if len(controls) == 1 else None


def baseline_of(run: Run, runs: Sequence[Run]) -> Optional[Run]:
    """The run whose checkpoint ``run`` was fine-tuned from; the only baseline where folders have been moved."""
    if not run.started_from:
        return None
    baselines = [one for one in runs if not one.started_from]
    for one in baselines:
        if folders.Run(one.folder.resolve()).checkpoints == Path(run.started_from).parent:
            return one
    return baselines[0] if len(baselines) == 1 else None


def columns_of(runs: Sequence[Run]) -> List[str]:
    """Every TESTSET.SEARCH that a run was scored on; :class:`UserError` where two runs had unlike references."""
    columns = list(dict.fromkeys(column for run in runs for column in run.scores))
    for column in columns:
        first, *others = [run for run in runs if column in run.scores]
        for run in others:
            if run.references(column) != first.references(column):
                raise UserError(
                    f"RUN {run.folder} was scored on another {testset_of(column)} than RUN {first.folder}: "
                    "evaluate both on the same data"
                )
    return columns


class Comparisons(NamedTuple):
    """Paired tests: ``found[index of the run][column]["control" or "baseline"]``, and sacreBLEU's signature."""

    signatures: List[str]
    found: List[Dict[str, Dict[str, Comparison]]]


def compare_all(runs: Sequence[Run], columns: Sequence[str]) -> Comparisons:
    """Every run against its control and against its baseline, on every column that both were scored on."""
    found: List[Dict[str, Dict[str, Comparison]]] = [{column: {} for column in columns} for _ in runs]
    signatures = set()
    others = {"control": [control_of(run, runs) for run in runs], "baseline": [baseline_of(run, runs) for run in runs]}
    for kind in AGAINST:
        for reference in {id(other): other for other in others[kind] if other}.values():
            for column in reference.scores:
                tested = {
                    index: run.hypotheses(column)
                    for index, run in enumerate(runs)
                    if others[kind][index] is reference and column in run.scores
                }
                if tested:
                    signature, results = significance.compare(
                        reference.hypotheses(column), tested, reference.references(column)
                    )
                    signatures.add(signature)
                    for index, result in results.items():
                        found[index][column][kind] = result
    return Comparisons(sorted(signatures), found)


def training(run: Run, updates_per_epoch: Optional[float]) -> Training:
    """What the log says of the training of ``run``.

    An epoch's time is the time in updates (no validation, no saving) per update, times ``updates_per_epoch``: runs
    that end inside an epoch compare with those that do not. None takes the updates of the run's own first epoch. Where
    the log lacks the seconds of updates (of another criterion), the time is fairseq's own, in whole seconds an epoch.
    """
    log = run.log
    seconds = log.mean("train_update_seconds")  # of an update
    if seconds is None and log.train and all("train_train_wall" in epoch for epoch in log.train):
        seconds = sum(epoch["train_train_wall"] for epoch in log.train) / log.train[-1]["train_num_updates"]
    return Training(
        updates=log.updates or None,
        epoch_seconds=None if seconds is None else seconds * (updates_per_epoch or log.epoch_updates()[0]),
        average_memory_mib=log.mean("train_mem_mib"),
        maximum_memory_mib=max((epoch.get("train_peak_mem_mib", 0) for epoch in log.train), default=0) or None,
        tokens_per_second=log.mean("train_wps"),
    )


def forgetting(run: Run, baseline: Optional[Run]) -> Dict[str, GoldNLL]:
    """Of the validation set as training logged it, and of the test sets whose exposure bias was measured."""
    if baseline is None:
        return {}
    pairs = {"valid": (baseline.log.gold_nll(Path(run.started_from).name), run.log.gold_nll(LAST))}
    for name, exposure in run.exposure.items():
        pairs[name] = tuple((e.get("gold") or {}).get("nll") for e in (baseline.exposure.get(name, {}), exposure))
    return {name: GoldNLL(b, a) for name, (b, a) in pairs.items() if b is not None and a is not None}


def together(tests: Sequence[Comparison]) -> SeedComparisons:
    """The tests of several seeds. The outputs are not pooled: those for one sentence are no independent samples."""
    difference = fmean(test.difference for test in tests)
    alike = [test for test in tests if test.p < significance.LEVEL and test.difference * difference > 0]
    return SeedComparisons(difference, len(tests), len(alike))


def _score(system: System, column: str, rows: Sequence[RunRow]) -> SystemScore:
    """A system's scores on ``column``; ``rows`` are those of its runs that were scored there."""
    scores = [row.scores[column] for row in rows]
    tests = {kind: [score.against[kind] for score in scores if kind in score.against] for kind in AGAINST}
    full = [run.scores[column] for run in system.scored(column)]
    buckets = zip(*(score.bleu_by_length for score in full))
    return SystemScore(
        **{metric: fmean(getattr(score, metric) for score in scores) for metric in METRICS},
        seeds=len(scores),
        sd=statistics.stdev(score.bleu for score in scores) if len(scores) > 1 else None,
        signature=full[0].signature,
        chrf_signature=full[0].chrf_signature,
        ter_signature=full[0].ter_signature,
        sentences=full[0].sentences,
        bleu_by_length=[replace(same[0], bleu=fmean(bucket.bleu for bucket in same)) for same in buckets],
        **{f"against_{kind}": together(found) for kind, found in tests.items() if found},
    )


def rows(systems: Sequence[System], runs: Sequence[Run], columns: Sequence[str], tests: Comparisons) -> List[SystemRow]:
    """A row for every system."""
    baselines = [run for run in runs if not run.started_from and run.log.finished and run.log.train]
    updates_per_epoch = baselines[0].log.epoch_updates()[0] if baselines else None
    found = []
    for system in systems:
        of_runs = []
        for run in system.runs:
            index = next(i for i, one in enumerate(runs) if one is run)
            scores = {
                column: RunScore(
                    **{metric: getattr(run.scores[column], metric) for metric in METRICS},
                    against=tests.found[index][column],
                )
                for column in columns
                if column in run.scores
            }
            gold_nll = forgetting(run, baseline_of(run, runs)) if run.trained else {}
            measures = training(run, updates_per_epoch) if run.trained else Training(*[None] * 5)
            of_runs.append(RunRow(run.name, run.seed, run.reason, scores, gold_nll, measures))
        found.append(_row(system, of_runs, columns))
    return found


def _row(system: System, runs: List[RunRow], columns: Sequence[str]) -> SystemRow:
    notes = []
    for run in runs:
        missing = [column for column in columns if column not in run.scores]
        reason = run.reason or (f"not evaluated on {', '.join(missing)}" if missing else "")
        if reason:
            notes.append(f"{run.name}: {reason}" if len(runs) > 1 else reason)
    scores = {}
    for column in columns:
        scored = [run for run in runs if column in run.scores]
        if scored:
            scores[column] = _score(system, column, scored)
    for column, score in scores.items():
        greedy = scores.get(f"{testset_of(column)}.greedy")
        if greedy and greedy is not score and greedy.seeds == score.seeds:
            score.gain_over_greedy = score.bleu - greedy.bleu
    gold_nll = {}
    for name in dict.fromkeys(name for run in runs for name in run.gold_nll):
        known = [run.gold_nll[name] for run in runs if name in run.gold_nll]
        gold_nll[name] = GoldNLL(fmean(nll.before for nll in known), fmean(nll.after for nll in known))

    def over(key: str, how: Callable = fmean) -> Optional[float]:
        values = [getattr(run.training, key) for run in runs]
        values = [value for value in values if value is not None]
        return how(values) if values else None

    measures = Training(
        updates=over("updates", lambda values: round(fmean(values))),
        epoch_seconds=over("epoch_seconds"),
        average_memory_mib=over("average_memory_mib"),
        maximum_memory_mib=over("maximum_memory_mib", max),
        tokens_per_second=over("tokens_per_second"),
    )
    return SystemRow(system.name, system.runs[0].criterion, notes, scores, measures, gold_nll, runs)
