"""One training: fairseq's command for it, its processes, its folder, and how far it is."""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from gift_fairseq import runs
from gift_fairseq.errors import PLUGIN_SAYS, UserError, check_flags, fairseq_reads
from gift_fairseq.io import progress, quiet, say
from gift_fairseq.training.log import Log

PLUGIN = Path(__file__).resolve().parent.parent
# of fairseq's options: where a run is made and what is told of it, which may change between a run and its continuation
PLACEMENT = (
    "save_dir log_file log_format log_interval tensorboard_logdir wandb_project user_dir cpu device_id "
    "num_workers no_progress_bar"
).split()
# of fairseq's options: what the options of gift say, or where gift looks for what fairseq writes
SET_HERE = (
    "--save-dir --restore-file --finetune-from-model --criterion --max-update --seed --task --user-dir --log-file "
    "--log-format --keep-last-epochs --no-epoch-checkpoints --snapshots --distributed-world-size"
).split()
ONE_AT_A_TIME = threading.Lock()  # of what changes the whole process, where trainings are run in threads
# on a CPU glibc hands the memory of every large tensor back to the system, which clears it again, page by page, for the
# next one; these keep it in the process. Above 32 MiB it goes back all the same, or its holes let the process grow for
# thousands of updates; pages of 2 MiB make that cheap (glibc 2.35 and later; older ones ignore the last line)
KEEPING_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
DISK_FULL = ("No space left on device", "File too large", "Disk quota exceeded")


def processes_of(options: argparse.Namespace) -> Tuple[int, int]:
    """How many processes ``--gpus`` asks for, and how many GPUs there are; :class:`UserError` if those are too few."""
    import torch

    devices = torch.cuda.device_count()
    gpus = options.gpus or max(devices, 1)
    if devices and gpus > devices:
        raise UserError(f"--gpus is {gpus}, but this machine has {devices}")
    if not devices and options.precision == "fp16":
        raise UserError("--precision is fp16, but this machine has no GPU")
    return gpus, devices


def check_training_flags(flags: Iterable[str]) -> None:
    """:class:`UserError` if one of ``flags``, typed after --, is in :data:`SET_HERE`."""
    check_flags(flags, SET_HERE, "gift sets it itself")


def is_installed(module: str) -> bool:
    """A folder of that name, as that of the logs of a run, is none."""
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


@dataclass(frozen=True)
class Machine:
    """On what a training runs, and what it keeps: the options of :func:`~gift_fairseq.cli.options.add_training`."""

    patience: int
    average: int
    precision: str
    seed: int
    gpus: int  # processes on this machine
    on_cpu: bool
    nodes: int
    node_rank: int
    master: Optional[str]
    tensorboard: bool
    wandb: Optional[str]

    @classmethod
    def of(cls, options: argparse.Namespace, seed: int = -1) -> "Machine":
        """:class:`UserError` where this machine does not have what ``options`` ask for. ``seed`` replaces theirs."""
        gpus, devices = processes_of(options)
        nodes, rank, master = (getattr(options, name, None) for name in ("nodes", "node_rank", "master"))
        nodes, rank = nodes or 1, rank or 0
        if rank >= nodes:
            raise UserError(f"--node-rank is {rank}, but must be below --nodes, {nodes}")
        if nodes > 1 and not master:
            raise UserError("--master is needed for more than one node: HOST:PORT of machine 0")
        for option, *modules in (("tensorboard", "tensorboard", "tensorboardX"), ("wandb", "wandb")):
            if getattr(options, option) and not any(map(is_installed, modules)):
                raise UserError(f"--{option} needs {modules[0]}: {sys.executable} -m pip install {modules[0]}")
        kept = {name: getattr(options, name) for name in ("patience", "average", "precision", "tensorboard", "wandb")}
        where = dict(gpus=gpus, on_cpu=devices == 0, nodes=nodes, node_rank=rank, master=master)
        return cls(**kept, **where, seed=options.seed if seed < 0 else seed)


@dataclass(frozen=True)
class Training:
    """One training by fairseq-train; ``words`` are the flags that say what is trained, without where and how long."""

    command: str
    data: Path
    out: Path
    updates: int
    words: List[str]
    machine: Machine
    why: Dict[str, Any] = field(default_factory=dict)  # for run.json
    first: List[str] = field(default_factory=list)  # the command of gift that makes ``data``
    settings: Dict[str, Any] = field(default_factory=dict)  # the options of that command that do not follow from others
    start: Optional[Tuple[Path, str]] = None  # the checkpoint that a fine-tuning starts from, and its digest

    def fairseq_words(self) -> List[str]:
        """The command of one process; a user can paste it."""
        machine, run = self.machine, runs.RunFolder(self.out)
        words = ["fairseq-train", str(self.data.resolve()), "--user-dir", str(PLUGIN), "--task", "gift_translation"]
        words += ["--report-accuracy", "--max-update", str(self.updates), "--seed", str(machine.seed)]
        words += ["--save-dir", str(run.checkpoints), "--log-format", "json", "--log-interval", "20"]
        cpu = "cpu-" if machine.on_cpu else ""
        words += [f"--{cpu}{machine.precision}"] if machine.precision != "fp32" else []
        words += ["--patience", str(machine.patience)] if machine.patience else []
        if machine.average and self.command == "train":
            words += ["--keep-last-epochs", str(machine.average)]
        else:
            words += ["--no-epoch-checkpoints"]
            words += ["--snapshots", str(machine.average)] if machine.average else []
        words += ["--tensorboard-logdir", str(self.out / "tensorboard")] if machine.tensorboard else []
        words += ["--wandb-project", machine.wandb] if machine.wandb else []
        words += ["--cpu"] if machine.on_cpu else []
        words += ["--log-file", str(run.log_file)] if machine.node_rank == 0 else []
        return words + self.words

    def launched_words(self) -> List[str]:
        """:meth:`fairseq_words`, started by torchrun where there is more than one process."""
        words, machine = self.fairseq_words(), self.machine
        if machine.gpus * machine.nodes == 1:  # fairseq's default is a process for every GPU
            return [*words, "--distributed-world-size", "1"]
        if machine.on_cpu:
            words += ["--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]
        rendezvous = ["--standalone"]
        if machine.nodes > 1:
            host, port = machine.master.split(":")
            rendezvous = ["--nnodes", str(machine.nodes), "--node-rank", str(machine.node_rank)]
            rendezvous += ["--master-addr", host, "--master-port", port]
        worker = 'exec "$@" --distributed-world-size "$WORLD_SIZE" --distributed-rank "$RANK" --device-id "$LOCAL_RANK"'
        start = ["torchrun", *rendezvous, "--nproc-per-node", str(machine.gpus), "--no-python", "bash", "-c", worker]
        return [*start, "worker", *words, "--distributed-init-method", "env://", "--distributed-no-spawn"]

    def check(self) -> None:
        """:class:`UserError` if fairseq-train would stop at an option: the task and the criterion are made.

        They are made without a look at the checkpoint to start from.
        """
        from fairseq import tasks
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        with ONE_AT_A_TIME, fairseq_reads("fairseq-train"), quiet():
            cfg = convert_namespace_to_omegaconf(_parsed(self.fairseq_words()))
            tasks.setup_task(cfg.task, from_checkpoint=True).build_criterion(cfg.criterion)

    def record(self) -> Dict[str, Any]:
        """What must be the same where the training is gone on with; see :func:`~gift_fairseq.runs.check_same`."""
        machine = self.machine
        settings = {"gpus": machine.gpus, "nodes": machine.nodes, "average": machine.average, **self.settings}
        return {
            "command": self.command,
            "settings": {**settings, **({runs.CONTENT: self.start[1]} if self.start else {})},
            "fairseq": typed_options(self.fairseq_words()),
        }

    def check_folder(self, given_as: str = "--out") -> None:
        """:class:`UserError` if ``out``, which the option ``given_as`` names, cannot be begun or gone on with.

        That is where it was made with other options, or holds checkpoints that fairseq-train would go on with although
        this command did not make them.
        """
        runs.check_same(self.out, runs.RunFolder(self.out).record(), self.record(), given_as)
        runs.check_replaceable(self.out, [f"{runs.CHECKPOINTS}/checkpoint*.pt"], self.command, "train", given_as)

    def run(self, dry_run: bool = False) -> None:
        """Trains, or prints the command if ``dry_run``; then averages if asked for."""
        words, machine = self.launched_words(), self.machine
        if dry_run and self.first:
            print(shlex.join(["gift", *self.first]))
        elif self.first and not runs.RunFolder(self.out).is_done("train"):
            self._make_data()
        if dry_run:
            print(shlex.join(["mkdir", "-p", str(self.out)]))  # fairseq makes the folder of checkpoints, not of the log
            print(shlex.join(words))
            return
        if machine.node_rank:  # machine 0 keeps the folder
            done = runs.RunFolder(self.out).is_done("train")
            status = 0 if done else subprocess.call(located(words), env=environment(machine))
            if status:
                sys.exit(status)
            return
        self.check_folder()
        with runs.begin(self.out, {**self.record(), **self.why, "words": words, **runs.provenance()}) as begun:
            begun.stage("train", lambda: self._train(begun, words))
            if machine.average:
                self._average(begun)
        say(f"the run is {self.out}")

    def _make_data(self) -> None:
        """In a process of its own, which can be ended: the trainings of a study run in threads."""
        with ended_with_block(subprocess.Popen([sys.executable, "-m", "gift_fairseq", *self.first])) as process:
            process.wait()
        if process.returncode:  # it has said why
            sys.exit(process.returncode)

    def _train(self, run: runs.Begun, words: List[str]) -> None:
        if Log.of(run).finished:  # but cut off before the stage was stamped: fairseq would make one update more
            return
        from gift_fairseq.checkpoints.files import digest_of, mend_last

        if self.start and digest_of(self.start[0]) != self.start[1]:
            raise UserError(
                f"--from is {self.start[0]}, which has changed since this command began: what is compared must start "
                "from one model, so copy the checkpoint to a run of its own and start from that"
            )
        mended = mend_last(run.checkpoints)
        if mended:
            say(mended)
        if not run.checkpoint("last").is_file():  # fairseq begins anew, and would append to the log of what was lost
            run.log_file.unlink(missing_ok=True)
        say(f"training {self.out.name}")
        how = dict(stdout=subprocess.PIPE, text=True, env=environment(self.machine), pass_fds=(run.lock,))
        with open(run.stderr_file, "w") as stderr:
            with ended_with_block(subprocess.Popen(located(words), stderr=stderr, **how)) as process:
                self._follow(process.stdout)
                process.wait()
        if process.returncode == 0:
            return
        said = run.stderr_file.read_text(encoding="utf-8", errors="replace")
        for reason in DISK_FULL:
            if reason in said:
                raise UserError(f"a checkpoint cannot be written to {run.checkpoints}: {reason}")
        last = [line for line in said.splitlines() if line.strip()][-3:]
        if last and last[-1].startswith(PLUGIN_SAYS):
            raise UserError(last[-1].removeprefix(PLUGIN_SAYS))
        print(*last, sep="\n", file=sys.stderr)
        raise UserError(f"fairseq-train failed with status {process.returncode}; see {run.stderr_file}")

    def _follow(self, lines: Iterable[str]) -> None:
        """Shows how far the training is, by fairseq's lines of --log-interval, from the first of them on."""
        with contextlib.ExitStack() as shown:
            bar = None
            for line in lines:
                start = line.find('{"epoch"')
                if "train_inner" not in line or start < 0:
                    continue
                with contextlib.suppress(ValueError, KeyError):
                    found = json.loads(line[start:])
                    done, bits = int(found["num_updates"]), f"{found['nll_loss']} bits a token"
                    bar = bar or shown.enter_context(progress(self.updates, self.out.name, "updates", done))
                    bar.set_postfix_str(bits, refresh=False)
                    bar.update(done - bar.n)

    def _average(self, run: runs.Begun) -> None:
        from gift_fairseq.checkpoints import average

        snapshots = average.snapshots(run.checkpoints)

        def write() -> None:
            paths = [*snapshots, run.checkpoint("last")]
            if self.command == "train":
                paths = average.last_epochs(run.checkpoints, self.machine.average, "--average")
            average.write_average(paths, run.checkpoint("average"))

        run.stage("average", write)
        for path in snapshots:  # not before the stamp: cut off, the stage needs them again
            path.unlink()


@contextlib.contextmanager
def ended_with_block(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """``process``; whatever ends the block ends it too."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def located(words: List[str]) -> List[str]:
    """``words`` with the program's path: fairseq's commands lie beside the Python that runs this."""
    program = shutil.which(words[0], path=environment()["PATH"])
    if program is None:
        raise UserError(f"{words[0]} is not installed beside {sys.executable}: run bash scripts/setup_env.sh")
    return [program, *words[1:]]


def environment(machine: Optional[Machine] = None) -> Dict[str, str]:
    """Of child processes: they find the programs of this environment too; trainings on a CPU keep their memory."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**(KEEPING_MEMORY if machine and machine.on_cpu else {}), **os.environ, "PATH": path}


def typed_options(words: List[str]) -> Dict[str, Any]:
    """All options of the command ``words`` with their defaults, as fairseq reads them, but for :data:`PLACEMENT`.

    :class:`UserError` with fairseq's own sentence where it does not understand them.
    """
    return dict(_typed_options(tuple(words)))


@functools.cache  # a training asks before it begins, and its folder when it does
def _typed_options(words: Tuple[str, ...]) -> Dict[str, Any]:
    with ONE_AT_A_TIME, fairseq_reads("fairseq-train"), quiet():
        return without_placement(vars(_parsed([*words])))


def without_placement(options: Dict[str, Any]) -> Dict[str, Any]:
    """fairseq's ``options`` but for :data:`PLACEMENT` and those of distributed training."""
    kept = {name: value for name, value in options.items() if name not in PLACEMENT}
    return {name: value for name, value in kept.items() if not name.startswith(("distributed_", "ddp_"))}


def _parsed(words: List[str]) -> argparse.Namespace:
    from fairseq import options as fairseq_options

    import gift_fairseq.criterions
    import gift_fairseq.tasks.gift_translation  # noqa: F401  registers, as --user-dir does

    return fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), input_args=words[1:])
