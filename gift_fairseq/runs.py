"""The folder of a run: where everything lies in it, who may write to it, what was asked for, and what is done.

Every command that makes a folder goes through :func:`begin`: one process at a time works there, and only with the
settings that the folder was begun with. Settings are typed values in ``run.json``, so another order of the options,
another spelling of a number or a path, and a default that is written out are no difference. What a command does it does
in stages, each of which leaves a stamp in ``done/``; run again, it goes on after the last stamp.

The folder of a training:

    run.json          command, settings, fairseq's options as typed values, fairseq's command, commit, versions; for a
                      fine-tuning, the measured overfitting; for a same-time control, the run whose time it matches
    train.log         fairseq's log as JSON, the whole configuration first
    stderr.log        what fairseq said beside it
    checkpoints/      fairseq's, and checkpoint_average.pt
    generate/         TESTSET.SEARCH.txt, the translations, detokenized, a line for a line; SEARCH is beam5 for example,
                      or beam5-average of checkpoint_average.pt of a fine-tuning
    scores.json       their scores, by TESTSET.SEARCH, each with the checkpoint, its updates and the flags it was
                      made by
    exposure/         TESTSET.json, the measure of exposure bias
    raw/              the text that the scores were computed on; gift_fairseq.data.testsets knows its files
    done/             STAGE, a stamp for each stage that is finished
    lock              held while a command works here
    scores.lock       held while scores.json and raw/ change, which they also do while a command works here
"""

import ast
import contextlib
import fcntl
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from gift_fairseq.errors import UserError, option
from gift_fairseq.io import read_json, read_lines, say, write_whole

CHECKPOINTS = "checkpoints"
TYPED_AS = {  # options of each command that fairseq knows by another name
    "train": {"max_update": "updates", "warmup_updates": "warmup"},
    "finetune": {"max_update": "updates", "finetune_from_model": "from", "criterion": "strategy"},
}
CONTENT = "content_of_from"  # a setting: the digest of the checkpoint that is fine-tuned, or that translates
AVERAGED = "-average"  # after the SEARCH with which the mean of a fine-tuning's models was scored


def checkpoint_file(name: str) -> str:
    """``checkpoint_NAME.pt``: ``last``, ``best``, ``average``."""
    return f"checkpoint_{name}.pt"


def name_with_seed(name: str, seed: int, seeds: Sequence[int]) -> str:
    """The folder's name of the fine-tuning ``name`` with ``seed``: of the first of ``seeds`` that name itself."""
    return name if seed == seeds[0] else f"{name}-seed{seed}"


class RunFolder:
    """The paths in the folder of a run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.record_file = folder / "run.json"
        self.log_file = folder / "train.log"
        self.stderr_file = folder / "stderr.log"
        self.checkpoints = folder / CHECKPOINTS
        self.scores_file = folder / "scores.json"
        self.generated = folder / "generate"
        self.exposures = folder / "exposure"

    def checkpoint(self, name: str) -> Path:
        return self.checkpoints / checkpoint_file(name)

    def model(self) -> Path:
        """The averaged checkpoint if there is one, else the last."""
        return self.checkpoint("average" if self.checkpoint("average").is_file() else "last")

    def variant(self, checkpoint: Path) -> str:
        """What follows the SEARCH in the columns of ``checkpoint``."""
        averaged = checkpoint.name == checkpoint_file("average") and self.record().get("command") == "finetune"
        return AVERAGED * averaged

    def translations(self, column: str) -> Path:
        """What was generated for ``column``, which is TESTSET.SEARCH."""
        return self.generated / f"{column}.txt"

    def hypotheses(self, column: str) -> List[str]:
        """What was generated for ``column``: a line for each of the test set."""
        return read_lines(self.translations(column))

    @contextlib.contextmanager
    def changing_scores(self) -> Iterator[None]:
        """Waits until no other process changes the scores, and keeps others from it while the block runs."""
        with open(self.folder / "scores.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def exposure(self, testset: str) -> Path:
        return self.exposures / f"{testset}.json"

    def measured(self) -> List[str]:
        """Every test set on which exposure bias was measured."""
        return [path.stem for path in sorted(self.exposures.glob("*.json"))]

    def stamp(self, stage: str) -> Path:
        return self.folder / "done" / stage

    def is_done(self, stage: str) -> bool:
        return self.stamp(stage).is_file()

    def record(self) -> Dict[str, Any]:
        """What ``run.json`` holds; empty if it is missing or half-written."""
        found = read_json(self.record_file)
        return found if isinstance(found, dict) else {}


def run_of(checkpoint: Path) -> Optional[RunFolder]:
    """The run in whose folder ``checkpoint`` lies; None if it lies in none."""
    return RunFolder(checkpoint.parent.parent) if checkpoint.parent.name == CHECKPOINTS else None


class Begun(RunFolder):
    """A run's folder that is this process's own until the block of :func:`begin` ends."""

    def __init__(self, folder: Path, lock: int):
        super().__init__(folder)
        self.lock = lock  # to be handed to child processes: the folder stays locked as long as one of them lives

    def stage(self, name: str, work: Callable[[], None]) -> None:
        """Calls ``work`` unless it was finished before. A stage that failed or was cut off is done again."""
        if self.is_done(name):
            return
        try:
            work()
        except (UserError, SystemExit, KeyboardInterrupt):
            say(f"stage {name} failed in {self.folder}; run again to resume, or with other options in another folder")
            raise
        self.stamp(name).touch()


@contextlib.contextmanager
def begin(out: Path, record: Mapping[str, Any]) -> Iterator[Begun]:
    """The folder ``out``, locked while the block runs; ``record`` becomes its ``run.json``.

    :class:`UserError` if another process works there, if nothing can be written there, or if the folder was begun
    with other ``settings`` or other options of ``fairseq`` (parts of ``record``): the sentence names the option and
    both values. Where the block fails before anything was made, the folder can be begun again with other settings.
    """
    run = RunFolder(out)
    try:
        (out / "done").mkdir(parents=True, exist_ok=True)
        lock = open(out / "lock", "w")
    except OSError as error:
        raise UserError(f"--out is {out}, but nothing can be written there: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--out is {out}, but another process works there") from None
        record = json.loads(json.dumps(record, default=str))
        check_same(out, run.record(), record)
        try:
            if not (run.record() and any((out / "done").iterdir())):  # it tells what made the stages that are finished
                write_whole(str(run.record_file), json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            yield Begun(out, lock.fileno())
        except BaseException:
            if not any(path.is_file() for path in out.glob("*/**/*")):
                run.record_file.unlink(missing_ok=True)
            raise


def check_replaceable(out: Path, names: Sequence[str], command: str, stage: str, given_as: str = "--out") -> None:
    """:class:`UserError` if ``out`` has one of ``names``, or patterns, which ``command`` replaces, and is not its own.

    It is if ``command`` began ``out``, or has finished ``stage`` there. ``given_as`` as in :func:`check_same`.
    """
    run = RunFolder(out)
    there = [path for name in names for path in sorted(out.glob(name))]
    if there and not (run.record().get("command") == command or run.is_done(stage)):
        raise UserError(
            f"{given_as} is {out}, but {there[0]} is there and was not made by gift {command}: choose another folder"
        )


def check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any], given_as: str = "--out") -> None:
    """:class:`UserError` that names the first option whose value was another one when ``out`` was begun.

    ``given_as`` is the option that says which folder it is.
    """
    if not before:
        return
    old, new = (
        {"command": it.get("command"), **it.get("fairseq", {}), **it.get("settings", {})} for it in (before, now)
    )
    # what the user typed is named before what follows from it
    for name in ("command", *now.get("settings", {}), *now.get("fairseq", {})):
        if name in old and _value(old[name]) != _value(new[name]):
            typed = option(TYPED_AS.get(now["command"], {}).get(name, name))
            typed = {"command": "the command", "flags": "what follows --", CONTENT: "what --from holds"}.get(
                name, typed
            )
            raise UserError(
                f"{given_as} is {out}, which was made with other options: {typed} was {_text(old[name])} and is now "
                f"{_text(new[name])}; choose another folder, or the value of before"
            )


def _value(value: Any) -> Any:
    """The number or list that a text means, where it means one: fairseq keeps pairs and schedules as texts."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def provenance() -> Dict[str, Any]:
    """The commit of this project, if it is a checkout, and the versions of all packages of the environment."""
    project = Path(__file__).resolve().parent.parent
    asked = ["git", "-C", str(project), "rev-parse", "--show-toplevel", "HEAD"]
    said = ""
    with contextlib.suppress(OSError):  # a machine without git
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    top, _, commit = said.strip().partition("\n")
    commit = commit if top == str(project) else ""  # of the user's project, with an environment in it
    packages = {
        f"{one.metadata['Name']}=={one.version}" for one in importlib.metadata.distributions() if one.metadata["Name"]
    }
    versions = [f"python=={sys.version.split()[0]}", *sorted(packages, key=str.lower)]
    return {"commit": commit, "versions": versions}


def settings_of(options: Any, leave_out: List[str]) -> Dict[str, Any]:
    """The values of parsed ``options`` by name, paths absolute, without ``leave_out``."""
    return {
        {"start": "from"}.get(name, name): str(value.resolve()) if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name not in leave_out
    }
