"""A run's folder as the report sees it: what was trained, how it went, what it scored, and what is missing."""

import json
import math
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY

from gift_fairseq.data import testsets
from gift_fairseq.evaluation.scores import hypotheses_of, testset_of
from gift_fairseq.options import UserError

CONTROL = "gift_standard"
# flags in which runs of one system differ
OF_A_RUN = {"--seed", "--save-dir", "--log-file", "--tensorboard-logdir", "--wandb-project"}

Numbers = Dict[str, float]


def read_json(path: Path) -> Any:
    """What ``path`` holds; None if it is missing or half-written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_text(path: Path) -> str:
    """Without blank ends; empty if ``path`` is missing."""
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def read_flags(command: str) -> Dict[str, str]:
    """``{"--flag": "value"}`` of a fairseq-train command line, "" for a switch; the last of each, as argparse reads it.

    DATA is under ``data``. Empty if ``command`` is no such line.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # half-written
        return {}
    names = [Path(word).name for word in words]
    if "fairseq-train" not in names:
        return {}
    found: Dict[str, List[str]] = {"data": []}
    values = found["data"]
    for word in words[names.index("fairseq-train") + 1 :]:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            values = found[flag] = [value] if equals else []
        else:
            values.append(word)
    return {flag: " ".join(values) for flag, values in found.items()}


def own_flags(criterion: str) -> List[str]:
    """The flags that ``criterion`` has beyond the control's; not those of fairseq that it only reads (``${...}``)."""
    names = [
        [field.name for field in fields(CRITERION_DATACLASS_REGISTRY[name]) if not str(field.default).startswith("${")]
        if name in CRITERION_DATACLASS_REGISTRY
        else []
        for name in (criterion, CONTROL)
    ]
    return ["--" + name.replace("_", "-") for name in names[0] if name not in names[1]]


class Log:
    """fairseq's JSON log. ``train`` has an entry for every epoch, whole or begun; ``valid`` and ``inner`` (of
    --log-interval) for every update at which they were written; each in order, the last where there are several."""

    def __init__(self, text: str):
        self.finished = "done training" in text
        found: Dict[str, Dict[float, Numbers]] = {"train": {}, "valid": {}, "inner": {}}
        for line in text.split("\n"):
            entry = self._numbers(line)
            if "train_num_updates" in entry and "epoch" in entry:
                found["train"][entry["epoch"]] = entry
            elif "valid_num_updates" in entry:
                found["valid"][entry["valid_num_updates"]] = entry
            elif "num_updates" in entry:
                found["inner"][entry["num_updates"]] = entry
        self.train, self.valid, self.inner = ([entries[key] for key in sorted(entries)] for entries in found.values())
        trained = [epoch["train_num_updates"] for epoch in self.train]
        self.updates = int(max([0, *trained, *found["valid"], *found["inner"]]))

    @staticmethod
    def _numbers(line: str) -> Numbers:
        if not line.startswith('{"epoch"'):
            return {}
        found = {}
        try:
            for key, value in json.loads(line).items():
                if value is not None and math.isfinite(float(value)):
                    found[key] = float(value)
        except (ValueError, TypeError):  # a line that is being written, or of another program
            return {}
        return found

    def epoch_updates(self) -> List[float]:
        """The updates made in each epoch."""
        ends = [0.0] + [epoch["train_num_updates"] for epoch in self.train]
        return [end - start for start, end in zip(ends, ends[1:])]

    def mean(self, key: str) -> Optional[float]:
        """``key`` of the epochs, weighted by their updates; None if one lacks it."""
        if not self.train or any(key not in epoch for epoch in self.train):
            return None
        weights = self.epoch_updates()
        return sum(n * epoch[key] for n, epoch in zip(weights, self.train)) / sum(weights)

    def gold_nll(self, checkpoint: str) -> Optional[float]:
        """NLL on the validation set's gold inputs, nats a token, of the checkpoint FILE.pt; None if not logged."""
        known = [entry for entry in self.valid if "valid_nll_loss" in entry and "valid_loss" in entry]
        if not known or checkpoint not in ("checkpoint_best.pt", "checkpoint_last.pt"):
            return None
        entry = known[-1] if "last" in checkpoint else min(known, key=lambda entry: entry["valid_loss"])
        return entry["valid_nll_loss"] * math.log(2)  # logged in bits


@dataclass
class Run:
    """``reason`` says why the run has no scores; it is empty if it has. ``trained``: training is finished. ``scores``
    and ``exposure`` are what gift_fairseq.evaluation wrote, by TESTSET.SEARCH and by TESTSET."""

    folder: Path
    name: str
    command: str
    flags: Dict[str, str]
    log: Log
    trained: bool
    reason: str
    scores: Dict[str, Dict[str, Any]]
    exposure: Dict[str, Dict[str, Any]]
    commit: str
    versions: str

    @property
    def seed(self) -> Optional[int]:
        seed = self.flags.get("--seed", "")
        return int(seed) if seed.isdigit() else None

    @property
    def criterion(self) -> str:
        return self.flags.get("--criterion", "")

    @property
    def started_from(self) -> str:
        """The checkpoint that was fine-tuned; empty for a baseline, also for one that was not trained here."""
        return self.flags.get("--finetune-from-model", "")

    @property
    def strategy(self) -> Tuple[str, ...]:
        """The criterion and the flags that are its own."""
        own = own_flags(self.criterion)
        return (self.criterion, *(f"{flag} {self.flags[flag]}".strip() for flag in own if flag in self.flags))

    @property
    def rest(self) -> Dict[str, str]:
        """All flags that say neither which strategy it is nor which run."""
        apart = {"--criterion", *own_flags(self.criterion), *OF_A_RUN}
        return {flag: value for flag, value in self.flags.items() if flag not in apart}

    def hypotheses(self, column: str) -> List[str]:
        return hypotheses_of(self.folder, column)

    def source(self, column: str) -> List[str]:
        return testsets.raw_lines(self.folder, testset_of(column), self.scores[column]["src"])

    def references(self, column: str) -> List[List[str]]:
        return testsets.references(self.folder, testset_of(column), self.scores[column]["tgt"])


def _complete(folder: Path, column: str, score: Any) -> bool:
    """Whether all that the report reads of a score is there."""
    if not isinstance(score, dict) or not {"bleu", "bleu_ci", "ter", "src", "tgt"} <= score.keys():
        return False  # of a version before this report
    try:
        texts = [testsets.raw_lines(folder, testset_of(column), score[side]) for side in ("src", "tgt")]
        return all(len(text) == score["sentences"] for text in (*texts, hypotheses_of(folder, column)))
    except (OSError, ValueError, UserError):
        return False


def read_run(folder: Path) -> Run:
    """The run in ``folder``, however far it came; what is half-written counts as missing."""
    folder = Path(folder)
    command, log_file = read_text(folder / "command.sh"), folder / "train.log"
    flags, log = read_flags(command), Log(read_text(log_file))
    scores = read_json(folder / "scores.json")
    scores = scores if isinstance(scores, dict) else {}
    complete = {column: score for column, score in scores.items() if _complete(folder, column, score)}
    reason = ""
    if log_file.is_file() or command:
        if not (log.finished or (folder / "done" / "train").is_file()):
            planned = flags.get("--max-update", "")
            reason = f"training not finished: {log.updates}{f' of {planned}' if planned else ''} updates"
    elif not scores:
        reason = "not trained"
    trained = not reason
    if trained and not complete:
        reason = "scores out of date: run scripts/evaluate.sh again" if scores else "not evaluated"
    exposure = {path.stem: read_json(path) for path in sorted((folder / "exposure").glob("*.json"))}
    return Run(
        folder=folder,
        name=folder.resolve().name,
        command=command,
        flags=flags,
        log=log,
        trained=trained,
        reason=reason,
        scores={} if reason else complete,
        exposure={name: found for name, found in exposure.items() if trained and isinstance(found, dict)},
        commit=read_text(folder / "commit.txt"),
        versions=read_text(folder / "versions.txt"),
    )
