"""Runs to systems: what differs in nothing but the seed is one system, with means over its seeds and tests of each.

What a run is, its command line says, not its name. The *baseline* is a run that was not fine-tuned. The *control* of a
run is the fine-tuning by ``gift_standard`` from the same checkpoint, for the same updates, with the same seed.
"""

import statistics
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from gift_fairseq.evaluation import significance
from gift_fairseq.evaluation.scores import testset_of
from gift_fairseq.options import UserError
from gift_fairseq.report.runs import CONTROL, Run

# by results.json; of Log.train, averaged over updates
MEASURES = {"average_memory_mib": "train_mem_mib", "tokens_per_second": "train_wps"}
METRICS = ("bleu", "bleu_ci", "chrf", "ter", "length_ratio", "repetition_rate", "reference_repetition_rate")
AGAINST = ("control", "baseline")


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
        known = run.flags and (run.strategy, tuple(sorted(run.rest.items())))
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
        return one.started_from, one.seed, one.flags.get("--max-update")

    controls = [one for one in runs if one.criterion == CONTROL and what(one) == what(run)]
    alike = [one for one in controls if one.rest == run.rest]
    return alike[0] if alike else controls[0] if len(controls) == 1 else None


def baseline_of(run: Run, runs: Sequence[Run]) -> Optional[Run]:
    """The run whose checkpoint ``run`` was fine-tuned from; the only baseline where folders have been moved."""
    if not run.started_from:
        return None
    baselines = [one for one in runs if not one.started_from]
    for one in baselines:
        if str(one.folder.resolve() / "checkpoints") == run.started_from.rpartition("/")[0]:
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
    found: List[Dict[str, Dict[str, Dict[str, Any]]]]


def compare_all(runs: Sequence[Run], columns: Sequence[str]) -> Comparisons:
    """Every run against its control and against its baseline, on every column that both were scored on."""
    found: List[Dict[str, Dict[str, Dict[str, Any]]]] = [{column: {} for column in columns} for _ in runs]
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


def mean(values: Sequence[Optional[float]]) -> Optional[float]:
    """None if there is no value, or one is None."""
    return None if not values or None in values else statistics.fmean(values)


def training(run: Run, updates_per_epoch: Optional[float]) -> Dict[str, Optional[float]]:
    """Updates, seconds an epoch, MiB of memory, target tokens a second; None where the log does not say.

    An epoch's time is the time in updates (no validation, no saving) per update, times ``updates_per_epoch``: runs
    that end inside an epoch compare with those that do not. None takes the updates of the run's own first epoch. Where
    the log lacks the seconds of updates (of another criterion), the time is fairseq's own, in whole seconds an epoch.
    Average memory is over all updates; maximum memory is the highest peak of an epoch.
    """
    log = run.log
    seconds = log.mean("train_update_seconds")  # of an update
    if seconds is None and log.train and all("train_train_wall" in epoch for epoch in log.train):
        seconds = sum(epoch["train_train_wall"] for epoch in log.train) / log.train[-1]["train_num_updates"]
    return {
        "updates": log.updates or None,
        "epoch_seconds": None if seconds is None else seconds * (updates_per_epoch or log.epoch_updates()[0]),
        "maximum_memory_mib": max((epoch.get("train_peak_mem_mib", 0) for epoch in log.train), default=0) or None,
        **{name: log.mean(key) for name, key in MEASURES.items()},
    }


def forgetting(run: Run, baseline: Optional[Run]) -> Dict[str, Dict[str, float]]:
    """NLL on gold inputs, nats a token, ``before`` and ``after`` fine-tuning: of the validation set as training logged
    it, and of the test sets whose exposure was measured."""
    if baseline is None:
        return {}
    checkpoint = run.started_from.rpartition("/")[2]
    pairs = {"valid": (baseline.log.gold_nll(checkpoint), run.log.gold_nll("checkpoint_last.pt"))}
    for name, exposure in run.exposure.items():
        pairs[name] = tuple((e.get("gold") or {}).get("nll") for e in (baseline.exposure.get(name, {}), exposure))
    return {name: {"before": b, "after": a} for name, (b, a) in pairs.items() if b is not None and a is not None}


def together(tests: Sequence[Dict[str, float]]) -> Dict[str, Any]:
    """The tests of several seeds: the mean ``difference``, and how many of those ``tested`` differ significantly and in
    the direction of the mean. The outputs are not pooled: those for one sentence are no independent samples."""
    difference = statistics.fmean(test["difference"] for test in tests)
    alike = [t for t in tests if t["p"] < significance.LEVEL and t["difference"] * difference > 0]
    return {"difference": difference, "tested": len(tests), "significant": len(alike)}


def _score(system: System, column: str, runs: List[Dict[str, Any]]) -> Dict[str, Any]:
    """A system's scores on ``column``: means over ``runs``, the dicts of its runs that were scored there."""
    scores = [run["scores"][column] for run in runs]
    found: Dict[str, Any] = {metric: mean([score[metric] for score in scores]) for metric in METRICS}
    found["seeds"] = len(scores)
    found["sd"] = statistics.stdev(score["bleu"] for score in scores) if len(scores) > 1 else None
    for kind in AGAINST:
        tests = [score["against"][kind] for score in scores if kind in score["against"]]
        if tests:
            found[f"against_{kind}"] = together(tests)
    full = system.scored(column)[0].scores[column]
    found.update({key: full[key] for key in ("signature", "chrf_signature", "ter_signature", "sentences")})
    buckets = [run.scores[column]["bleu_by_length"] for run in system.scored(column)]
    found["bleu_by_length"] = [{**same[0], "bleu": mean([bucket["bleu"] for bucket in same])} for same in zip(*buckets)]
    return found


def rows(
    systems: Sequence[System], runs: Sequence[Run], columns: Sequence[str], tests: Comparisons
) -> List[Dict[str, Any]]:
    """A dict for every system, as results.json has it. What is not known is None, or not there."""
    baselines = [run for run in runs if not run.started_from and run.log.finished and run.log.train]
    updates_per_epoch = baselines[0].log.epoch_updates()[0] if baselines else None
    found = []
    for system in systems:
        dicts = []
        for run in system.runs:
            index = next(i for i, one in enumerate(runs) if one is run)
            scores = {
                column: {**{m: run.scores[column][m] for m in METRICS}, "against": tests.found[index][column]}
                for column in columns
                if column in run.scores
            }
            measures = training(run, updates_per_epoch)
            if not run.trained:
                measures = {key: None for key in measures}
            gold_nll = forgetting(run, baseline_of(run, runs)) if run.trained else {}
            dicts.append(
                {"name": run.name, "seed": run.seed, "reason": run.reason, "scores": scores, "gold_nll": gold_nll}
                | measures
            )
        found.append(_row(system, dicts, columns))
    return found


def _row(system: System, runs: List[Dict[str, Any]], columns: Sequence[str]) -> Dict[str, Any]:
    several = len(runs) > 1
    notes = []
    for run in runs:
        missing = [column for column in columns if column not in run["scores"]]
        reason = run["reason"] or (f"not evaluated on {', '.join(missing)}" if missing else "")
        if reason:
            notes.append(f"{run['name']}: {reason}" if several else reason)

    def over(key: str, how: Callable = mean) -> Optional[float]:
        values = [run[key] for run in runs if run[key] is not None]
        return how(values) if values else None

    scores = {}
    for column in columns:
        scored = [run for run in runs if column in run["scores"]]
        if scored:
            scores[column] = _score(system, column, scored)
    for column, score in scores.items():
        greedy = scores.get(f"{testset_of(column)}.greedy")
        if greedy and greedy is not score and greedy["seeds"] == score["seeds"]:
            score["gain_over_greedy"] = score["bleu"] - greedy["bleu"]
    sets = dict.fromkeys(name for run in runs for name in run["gold_nll"])
    gold_nll = {
        name: {
            when: mean([run["gold_nll"][name][when] for run in runs if name in run["gold_nll"]])
            for when in ("before", "after")
        }
        for name in sets
    }
    return {
        "name": system.name,
        "criterion": system.runs[0].criterion,
        "notes": notes,
        "scores": scores,
        "updates": over("updates", lambda values: round(mean(values))),
        "epoch_seconds": over("epoch_seconds"),
        "average_memory_mib": over("average_memory_mib"),
        "maximum_memory_mib": over("maximum_memory_mib", max),
        "tokens_per_second": over("tokens_per_second"),
        "gold_nll": gold_nll,
        "runs": runs,
    }
