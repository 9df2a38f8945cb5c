"""Runs to systems: what differs in nothing but the seed is one system, with means over its seeds.

The settings of a run decide which system it belongs to, not its name. The *baseline* is a run that was not fine-tuned.
The *control* of a run is the fine-tuning by ``gift_standard``, or by the system that was named as the control, from the
same checkpoint, for the same updates, with the same seed; the *same-time control* made as many updates as took as long.
A *column* is a TESTSET.SEARCH.
"""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Callable, Dict, List, Optional, Sequence

from gift_fairseq import runs as folders
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation.scores import Metrics, Score, testset_of
from gift_fairseq.evaluation.significance import Comparison
from gift_fairseq.report.runs import LAST, Run
from gift_fairseq.runs import AVERAGED, TYPED_AS

UPDATES = ("max_update", "total_num_update", "warmup_updates")  # options that follow from --updates
MOST_NAMED = 3  # options in the name of a system
METRICS = tuple(metric.name for metric in fields(Metrics))


@dataclass
class TrainingCost:
    """What a training took; None where the log does not say, or training is not finished."""

    updates: Optional[int]
    epoch_seconds: Optional[float]  # in updates (no validation, no saving); see training_cost()
    average_memory_mib: Optional[float]  # over all updates
    maximum_memory_mib: Optional[float]  # the highest peak of an epoch
    tokens_per_second: Optional[float]  # target tokens


@dataclass
class GoldNLL:
    """NLL on gold prefixes, nats a token, before and after fine-tuning."""

    before: float
    after: float


@dataclass
class RunRow:
    """One run in ``results.json``."""

    name: str
    seed: Optional[int]
    reason: str  # why it has no scores; empty if it has
    scores: Dict[str, Score]  # by column
    tests: Dict[str, Dict[str, Comparison]]  # over sentences, of a system with one run: by column, then opponent
    gold_nll: Dict[str, GoldNLL]  # by set, valid or a test set
    training: TrainingCost = field(metadata={"flat": True})


@dataclass
class SystemScore(Score):
    """Of a system on a column: the means over its seeds."""

    seeds: int = 1
    sd: Optional[float] = None  # standard deviation of BLEU over the seeds; None for one seed
    gain_over_greedy: Optional[float] = None  # BLEU; of a beam whose seeds were all scored with greedy search too


@dataclass
class SystemRow:
    """One system in ``results.json`` and in the tables; what was measured of several runs is their mean."""

    name: str
    criterion: str
    role: str  # of its runs
    notes: List[str]  # what is missing
    scores: Dict[str, SystemScore]  # by column
    training: TrainingCost = field(metadata={"flat": True})  # maximum memory: of all runs
    gold_nll: Dict[str, GoldNLL]  # by set, valid or a test set
    runs: List[RunRow]


@dataclass
class System:
    name: str
    runs: List[Run]

    def scored(self, column: str) -> List[Run]:
        return [run for run in self.runs if column in run.scores]


def group(runs: Sequence[Run]) -> List[System]:
    """Systems in the order of their first runs.

    A system is named after its strategy. If several share a strategy, the options in which they differ are added, or
    the name of the first run if these are more than :data:`MOST_NAMED`.
    """
    found: Dict[Any, List[Run]] = {}
    for run in runs:
        rest = run.rest
        if run.same_time_as:  # the number of updates was measured, and may be another one for another seed
            rest = {name: value for name, value in rest.items() if name not in UPDATES}
        known = run.options and (_name(run, runs), json.dumps(rest, sort_keys=True))
        found.setdefault(known or run.folder, []).append(run)
    groups = list(found.values())
    strategies = [_name(g[0], runs) for g in groups]
    names = []
    for name, own in zip(strategies, groups):
        settings = _settings([g[0] for g, other in zip(groups, strategies) if other == name])
        typed = [(TYPED_AS["finetune"].get(setting, setting), own[0].rest.get(setting)) for setting in settings]
        names.append(", ".join([name, *(f"{option.replace('_', '-')} {_shown(value)}" for option, value in typed)]))
    for more in (lambda run: run.name, lambda run: str(run.folder)):
        twice = {name for name in names if names.count(name) > 1}
        names = [f"{name} ({more(g[0])})" if name in twice else name for name, g in zip(names, groups)]
    return [System(name, list(g)) for name, g in zip(names, groups)]


def _settings(alike: Sequence[Run]) -> List[str]:
    """The options in which runs of one strategy differ; none if they are many, or paths."""
    values = {name: {json.dumps(run.rest.get(name)) for run in alike} for run in alike for name in run.rest}
    differing = [name for name, found in values.items() if len(found) > 1]
    if "max_update" in differing:
        differing = [name for name in differing if name not in UPDATES[1:]]
    return differing if len(differing) <= MOST_NAMED and not {"data", "finetune_from_model"} & set(differing) else []


def _shown(value: Any) -> str:
    """About as it is typed: a list of one is that one."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _name(run: Run, runs: Sequence[Run]) -> str:
    """The strategy of ``run``; of a control of the same time, that of the run whose time it has."""
    if run.same_time_as:
        named = (_name(one, runs) for one in runs if one.name == run.same_time_as)
        return f"control, same time as {next(named, run.same_time_as)}"
    return " ".join(run.strategy).replace("gift_", "", 1) if run.started_from else "baseline"


def hold_against(control: Path, systems: Sequence[System]) -> None:
    """Makes the system of the run in the folder ``control`` the one control; :class:`UserError` if it cannot be one."""
    found = [one for one in systems if any(run.folder.resolve() == control.resolve() for run in one.runs)]
    if not found:
        raise UserError(f"--control is {control}, but must be one of RUN")
    if found[0].runs[0].role not in ("", "control"):
        raise UserError(f"--control is {control}, a {found[0].runs[0].role}, but must be one of the fine-tunings")
    for system in systems:
        for run in system.runs:
            run.role = "control" if system is found[0] else "" if run.role == "control" else run.role


def control_of(run: Run, runs: Sequence[Run]) -> Optional[Run]:
    """The control of ``run`` among ``runs``: with all other flags alike if there is one, or the only one there is."""
    if run.role:
        return None

    def what(one: Run):
        return one.started_from, one.seed, one.options.get("max_update")

    controls = [one for one in runs if one.role == "control" and what(one) == what(run)]
    alike = [one for one in controls if one.rest == run.of_control]
    return alike[0] if alike else controls[0] if len(controls) == 1 else None


def same_time_control_of(run: Run, runs: Sequence[Run]) -> Optional[Run]:
    """The control that trained as long as ``run``."""
    wanted = (run.name, run.started_from, run.seed)
    return next((one for one in runs if (one.same_time_as, one.started_from, one.seed) == wanted), None)


def start_of(run: Run, runs: Sequence[Run]) -> Optional[Run]:
    """The baseline in whose folder the checkpoint is that ``run`` was fine-tuned from."""
    folder = Path(run.started_from).parent
    baselines = (one for one in runs if not one.started_from)
    return next((one for one in baselines if folders.RunFolder(one.folder.resolve()).checkpoints == folder), None)


def baseline_of(run: Run, runs: Sequence[Run]) -> Optional[Run]:
    """As :func:`start_of`; the only baseline where folders have been moved, or ``run`` is a second fine-tuning."""
    if not run.started_from:
        return None
    baselines = [one for one in runs if not one.started_from]
    return start_of(run, runs) or (baselines[0] if len(baselines) == 1 else None)


def held(other: Run, column: str) -> str:
    """The column of ``other`` that ``column`` is compared with: a baseline has no averaged one of its own."""
    return column if other.started_from else column.removesuffix(AVERAGED)


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


def training_cost(run: Run, updates_per_epoch: Optional[float]) -> TrainingCost:
    """What the log says of the training of ``run``.

    An epoch's time is the time in updates (no validation, no saving) per update, times ``updates_per_epoch``: runs
    that end inside an epoch compare with those that do not. None takes the updates of the run's own first epoch. Where
    the log lacks the seconds of updates (of another criterion), the time is fairseq's own, in whole seconds an epoch.
    """
    log = run.log
    seconds = log.mean("train_update_seconds")  # of an update
    if seconds is None and log.train and all("train_train_wall" in epoch for epoch in log.train):
        seconds = sum(epoch["train_train_wall"] for epoch in log.train) / log.train[-1]["train_num_updates"]
    return TrainingCost(
        updates=log.updates or None,
        epoch_seconds=None if seconds is None else seconds * (updates_per_epoch or log.epoch_updates()[0]),
        average_memory_mib=log.mean("train_mem_mib"),
        maximum_memory_mib=max((epoch.get("train_peak_mem_mib", 0) for epoch in log.train), default=0) or None,
        tokens_per_second=log.mean("train_wps"),
    )


def epoch_of(runs: Sequence[Run]) -> Optional[float]:
    """How many updates an epoch's time is of, one number for all ``runs``; None where none of them was trained here.

    Those of the first epoch of the baseline. Where its log is not among them: of the control; without one, of the first
    of ``runs``.
    """
    logged, rank = [run for run in runs if run.trained and run.log.train], {"baseline": 0, "control": 1}
    return min(logged, key=lambda run: rank.get(run.role, 2)).log.epoch_updates()[0] if logged else None


def forgetting(run: Run, baseline: Optional[Run]) -> Dict[str, GoldNLL]:
    """Of the validation set as training logged it, and of the test sets whose exposure bias was measured."""
    if baseline is None:
        return {}
    pairs = {"valid": (baseline.log.gold_nll(Path(run.started_from).name), run.log.gold_nll(LAST))}
    for name, exposure in run.exposure.items():
        pairs[name] = tuple((e.get("gold") or {}).get("nll") for e in (baseline.exposure.get(name, {}), exposure))
    return {name: GoldNLL(b, a) for name, (b, a) in pairs.items() if b is not None and a is not None}


def _score(scores: Sequence[Score]) -> SystemScore:
    """The mean of the runs of a system on a column."""
    buckets = [
        replace(same[0], bleu=fmean(bucket.bleu for bucket in same))
        for same in zip(*(s.bleu_by_length for s in scores))
    ]
    mean = {metric: fmean(getattr(score, metric) for score in scores) for metric in METRICS}
    mean.update(bleu_by_length=buckets, compound_split_bleu=None, checkpoint=None, flags=None, updates=None)
    sd = stdev(score.bleu for score in scores) if len(scores) > 1 else None
    return SystemScore(**{**vars(scores[0]), **mean}, seeds=len(scores), sd=sd)


def rows(
    systems: Sequence[System], runs: Sequence[Run], columns: Sequence[str], tests: Dict[Path, Dict[str, Any]]
) -> List[SystemRow]:
    """A row for every system; ``tests``, by a run's folder, are those over sentences."""
    updates_per_epoch = epoch_of(runs)

    def row(run: Run) -> RunRow:
        gold_nll = forgetting(run, baseline_of(run, runs)) if run.trained else {}
        measures = training_cost(run, updates_per_epoch) if run.trained else TrainingCost(*[None] * 5)
        return RunRow(run.name, run.seed, run.reason, run.scores, tests.get(run.folder, {}), gold_nll, measures)

    return [_row(system, [row(run) for run in system.runs], columns) for system in systems]


def _row(system: System, runs: List[RunRow], columns: Sequence[str]) -> SystemRow:
    notes = []
    for run in system.runs:
        missing = [column for column in columns if held(run, column) not in run.scores]
        reason = run.reason or (f"not evaluated on {', '.join(missing)}" if missing else "")
        if reason:
            notes.append(f"{run.name}: {reason}" if len(runs) > 1 else reason)
    known = {column: [run.scores[column] for run in runs if column in run.scores] for column in columns}
    scores = {column: _score(found) for column, found in known.items() if found}
    for column, score in scores.items():
        greedy = scores.get(f"{testset_of(column)}.greedy{AVERAGED * column.endswith(AVERAGED)}")
        if greedy and greedy is not score and greedy.seeds == score.seeds:
            score.gain_over_greedy = score.bleu - greedy.bleu
    measured = dict.fromkeys(name for run in runs for name in run.gold_nll)
    gold_nll = {name: _mean([run.gold_nll[name] for run in runs if name in run.gold_nll]) for name in measured}
    took = _mean([run.training for run in runs], updates=lambda known: round(fmean(known)), maximum_memory_mib=max)
    first = system.runs[0]
    return SystemRow(system.name, first.criterion, first.role, notes, scores, took, gold_nll, runs)


def _mean(of: Sequence[Any], **how: Callable) -> Any:
    """Of dataclasses of numbers, field by field, of those that are known; ``how`` names what is no mean."""
    found = {}
    for name in vars(of[0]):
        known = [value for one in of if (value := getattr(one, name)) is not None]
        found[name] = how.get(name, fmean)(known) if known else None
    return type(of[0])(**found)
