"""A run's folder as the report sees it: what was trained, how it went, what it scored, and what is missing."""

import argparse
import contextlib
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY

import gift_fairseq.criterions  # noqa: F401  registers the strategies, whose options are asked for
from gift_fairseq import runs
from gift_fairseq.checkpoints.files import read_checkpoint
from gift_fairseq.data import testsets
from gift_fairseq.errors import UserError, option
from gift_fairseq.evaluation.scores import Score, testset_of
from gift_fairseq.io import read_json
from gift_fairseq.own_translations.origin import Origin
from gift_fairseq.training.launch import without_placement
from gift_fairseq.training.log import Log

CONTROL = "gift_standard"
LAST = runs.checkpoint_file("last")


def own_options(criterion: str) -> Dict[str, Any]:
    """The options that ``criterion`` has beyond the control's, with their defaults.

    Not those that it takes over from fairseq's own options (``${...}``).
    """
    if criterion not in CRITERION_DATACLASS_REGISTRY:
        return {}
    control = {field.name for field in fields(CRITERION_DATACLASS_REGISTRY[CONTROL])}
    own = [field for field in fields(CRITERION_DATACLASS_REGISTRY[criterion]) if field.name not in control]
    return {field.name: field.default for field in own if not str(field.default).startswith("${")}


@dataclass
class Run:
    """A run as far as it came."""

    folder: Path
    name: str
    command: str
    options: Dict[str, Any]  # fairseq's, typed; empty for a baseline that was not trained by this command line
    settings: Dict[str, Any]  # see settings_of()
    same_time_as: str  # the name of the run whose time this control has; empty for all others
    role: str  # as what others are compared with it: baseline, control, same-time control; empty for all others
    log: Log
    trained: bool  # to the end
    reason: str  # why the run has no scores; empty if it has
    scores: Dict[str, Score]  # by TESTSET.SEARCH
    exposure: Dict[str, Dict[str, Any]]  # by TESTSET, what gift_fairseq.evaluation.exposure wrote
    commit: str
    versions: str

    @property
    def seed(self) -> Optional[int]:
        return self.options.get("seed")

    @property
    def criterion(self) -> str:
        return self.options.get("criterion", "")

    @property
    def started_from(self) -> str:
        """The checkpoint that was fine-tuned; empty for a baseline, also for one that was not trained here."""
        return self.options.get("finetune_from_model") or ""

    @property
    def strategy(self) -> Tuple[str, ...]:
        """The criterion, and its own options where they are not the default."""
        set_ = [
            (name, self.options[name])
            for name, default in own_options(self.criterion).items()
            if name in self.options and self.options[name] != default
        ]
        flags = [option(name) + ("" if value is True else f" {value}") for name, value in set_]
        return (self.criterion, *flags)

    @property
    def rest(self) -> Dict[str, Any]:
        """All settings that do not say which strategy it is."""
        apart = {"criterion", *own_options(self.criterion)}
        return {name: value for name, value in self.settings.items() if name not in apart}

    @property
    def of_control(self) -> Dict[str, Any]:
        """:attr:`rest` of the control: with gold pairs alone, where this run had own translations beside them."""
        data = self.settings.get("data")
        return {**self.rest, "data": data[0]} if isinstance(data, list) else self.rest

    def hypotheses(self, column: str) -> List[str]:
        return runs.RunFolder(self.folder).hypotheses(column)

    def source(self, column: str) -> List[str]:
        return testsets.raw_lines(self.folder, testset_of(column), self.scores[column].src)

    def references(self, column: str) -> List[List[str]]:
        return testsets.references(self.folder, testset_of(column), self.scores[column].tgt)


def _score(run: runs.RunFolder, column: str, found: Any) -> Optional[Score]:
    """None if anything that the report needs of it is missing, as in scores of an earlier version."""
    try:
        score = Score.of_json(found)
        sides = [testsets.raw_lines(run.folder, testset_of(column), language) for language in (score.src, score.tgt)]
        texts = (*sides, run.hypotheses(column))
    except (OSError, ValueError, TypeError, KeyError, UserError):
        return None
    return score if all(len(text) == score.sentences for text in texts) else None


def settings_of(options: Dict[str, Any]) -> Dict[str, Any]:
    """``options`` without seeds: a checkpoint or a data folder made from one stands for the settings that made it.

    So the seeds of a recipe of several steps are one system, though each goes on from a checkpoint of its own.
    """
    found = {name: value for name, value in options.items() if name != "seed"}
    if options.get("finetune_from_model"):
        found["finetune_from_model"] = _made_by(options["finetune_from_model"])
    with contextlib.suppress(UserError):  # own translations of another version: their path it is
        origin = Origin.of(Path(options["data"])) if options.get("data") else None
        if origin:
            found["data"] = [origin.data, _made_by(origin.checkpoint), origin.settings]
    return found


def _made_by(checkpoint: str) -> Any:
    """The path where no run tells."""
    run = runs.run_of(Path(checkpoint))
    options = run and run.record().get("fairseq")
    return [Path(checkpoint).name, settings_of(options)] if options else checkpoint


def _role(options: Dict[str, Any], same_time_as: str) -> str:
    if not options.get("finetune_from_model"):
        return "baseline"
    if same_time_as:
        return "same-time control"
    return "control" if options.get("criterion") == CONTROL else ""


def options_in_checkpoint(run: runs.RunFolder) -> Dict[str, Any]:
    """fairseq's options of a fine-tuning that fairseq-train made by itself, as ``run.json`` would have them.

    Empty where the last or, without it, the best checkpoint is missing, cannot be read, or was not fine-tuned by a
    criterion of this plugin: a checkpoint of the user's own is a baseline, whatever it was made from.
    """
    path = next((path for name in ("last", "best") if (path := run.checkpoint(name)).is_file()), None)
    state: Dict[str, Any] = {}
    with contextlib.suppress(UserError):
        state = read_checkpoint("RUN", str(path)) if path else {}
    model = (state.get("cfg") or {}).get("model")
    options = without_placement(vars(model)) if isinstance(model, argparse.Namespace) else {}  # it has all of them
    if not (options.get("finetune_from_model") and options.get("criterion", "").startswith("gift_")):
        return {}
    options.pop("_name", None)
    return {**options, "finetune_from_model": str(Path(options["finetune_from_model"]).resolve())}


def read_run(folder: Path) -> Run:
    """The run in ``folder``, however far it came; what is half-written counts as missing."""
    run = runs.RunFolder(Path(folder))
    record = run.record()
    log = Log.of(run)
    scores = read_json(run.scores_file)
    scores = scores if isinstance(scores, dict) else {}
    complete = {column: _score(run, column, found) for column, found in scores.items()}
    complete = {column: score for column, score in complete.items() if score}
    options, reason = record.get("fairseq", {}) if record else options_in_checkpoint(run), ""
    if run.log_file.is_file() or record:
        if not (log.finished or run.is_done("train")):
            planned = options.get("max_update")
            reason = f"training not finished: {log.updates}{f' of {planned}' if planned else ''} updates"
    elif not scores and not options:
        reason = "not trained"
    trained = not reason
    if trained and not complete:
        reason = "scores out of date: evaluate it again" if scores else "not evaluated"
    exposure = {name: read_json(run.exposure(name)) for name in run.measured()}
    same_time_as = record.get("same_time_as", {}).get("run", "")
    return Run(
        folder=run.folder,
        name=run.folder.resolve().name,
        command=shlex.join(record.get("words", [])),
        options=options,
        settings=settings_of(options),
        same_time_as=same_time_as,
        role=_role(options, same_time_as),
        log=log,
        trained=trained,
        reason=reason,
        scores={} if reason else complete,
        exposure={name: found for name, found in exposure.items() if trained and isinstance(found, dict)},
        commit=record.get("commit", ""),
        versions="\n".join(record.get("versions", [])),
    )
