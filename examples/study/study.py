"""Fine-tune by many settings with two seeds, and by the best of each strategy on the validation set with all seeds.

1. The control (standard) and every line of the grid are fine-tuned with the first seeds: OUT/runs/NAME, NAME-seedN.
2. They translate the validation set (OUT/selection/NAME), with --average by the mean of their models. Of every strategy
   the line with the best BLEU there, the mean of beam and greedy and of the seeds, is a finalist: OUT/selection.md and
   selection.json.
3. The control and the finalists are fine-tuned with the other seeds too. They and the baseline translate the test
   sets, their exposure bias is measured, and the report is written to OUT/report.

Run again, it resumes and skips what is done; lines can be added to the grid, and seeds.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import psutil
import selection

from gift_fairseq import runs
from gift_fairseq.cli import options as shared
from gift_fairseq.cli import run_command
from gift_fairseq.cli.from_checkpoint import Start
from gift_fairseq.data.testsets import VALID
from gift_fairseq.errors import UserError, one_sentence
from gift_fairseq.io import say
from gift_fairseq.training.launch import Machine, Training


def parse(arguments: List[str]) -> argparse.Namespace:
    parser = shared.Parser(
        prog="python examples/study/study.py",
        description=__doc__,
        epilog="Arguments after -- are passed to fairseq-train, for all fine-tunings.",
    )
    shared.add_data(parser)
    shared.add_from(parser, "RUN/checkpoints/FILE.pt, the checkpoint to start from; the baseline of the report")
    shared.add_out(parser, "where everything goes")
    grid = Path(__file__).with_name("strategies.txt")
    parser.add_argument(
        "--grid",
        type=Path,
        default=grid,
        metavar="FILE",
        help="lines NAME STRATEGY FLAGS...; default: strategies.txt beside this file",
    )
    parser.add_argument(
        "--seeds", type=shared.whole_numbers, default="1 2 3 4 5", metavar='"N..."', help="of the finalists"
    )
    parser.add_argument(
        "--selection-seeds", type=shared.whole(1), default=2, metavar="N", help="so many of them, the first, choose"
    )
    shared.add_rate_and_updates(parser)
    parser.add_argument(
        "--jobs",
        type=shared.whole(1),
        default=1,
        metavar="N",
        help="trainings at once, each with OMP_NUM_THREADS or its share of the cores",
    )
    shared.add_average(parser)
    shared.add_precision(parser)
    # what else a training can be asked for
    parser.set_defaults(patience=0, gpus=None, tensorboard=False, wandb=None)
    own, flags = shared.split_flags(arguments)
    return argparse.Namespace(**vars(parser.parse_args(own)), flags=flags)


class Study:
    def __init__(self, options: argparse.Namespace):
        self.options, self.out = options, options.out
        self.baseline = runs.run_of(options.start)
        if self.baseline is None or options.start.suffix != ".pt":
            raise UserError(f"--from is {options.start}, but must be RUN/checkpoints/FILE.pt")
        self.lines = [selection.STANDARD, *selection.read_grid(options.grid)]
        name = selection.STANDARD.name
        first = self.out / "runs" / name, [name], Machine.of(options, options.seeds[0])
        self.start = Start.of(options, ["--eval-free-running", *options.flags], *first)

    def trainings(self, names: Sequence[str], seeds: Sequence[int]) -> List[Training]:
        """Those of the lines ``names`` with each of ``seeds``."""
        settings, found = dict(self.lines), []
        for seed in seeds:
            machine = Machine.of(self.options, seed)
            for name in names:
                out = self.out / "runs" / runs.name_with_seed(name, seed, self.options.seeds)
                found.append(self.start.training(out, shared.split_words("--grid", settings[name]), machine))
        return found

    def run(self) -> None:
        choosing = self.options.seeds[: self.options.selection_seeds]
        lines = self.trainings([line.name for line in self.lines], choosing)
        record = {**lines[0].record(), "command": "study", **runs.provenance()}
        with runs.begin(self.out / "study", record) as begun:  # beside the stamps of compare, whose runs can be used
            self.check(lines)
            self.train(lines)
            self.select(begun, lines)
            chosen = selection.choose(self.out, self.lines[1:], choosing)
            say(f"chosen on the validation set ({self.out / 'selection.md'}): {' '.join(chosen)}")
            finalists = self.trainings([selection.STANDARD.name, *chosen], self.options.seeds)
            self.train(finalists)
            self.report(begun, finalists)
        for table in ("selection.md", "report/results.md"):
            print((self.out / table).read_text(encoding="utf-8").split("\n\n", 1)[0])  # the first of each
        say(f"the runs are in {self.out / 'runs'}, the choice is in {self.out / 'selection.md'}")

    def check(self, lines: Sequence[Training]) -> None:
        """:class:`UserError` where fairseq does not know a line's flags, or its run was made with others."""
        for training in lines:
            before = runs.RunFolder(training.out).record()
            try:
                self.start.check(training)
                runs.check_same(training.out, before, training.record())
            except UserError as error:
                advice = "; lines with other flags need another NAME" if before else ""
                raise UserError(f"{self.options.grid}, {training.out.name}: {error}{advice}") from None

    def train(self, trainings: Sequence[Training]) -> None:
        """So many at once; where one fails, or this program is to stop, the others are ended."""
        stop = threading.Event()

        def run(training: Training) -> None:
            try:
                if not stop.is_set():
                    training.run()
            except BaseException:
                stop.set()
                raise

        pool = ThreadPoolExecutor(self.options.jobs)
        under_way = {pool.submit(run, training): training.out.name for training in trainings}
        try:
            for training in as_completed(under_way):
                try:
                    training.result()
                except UserError as error:
                    raise UserError(f"the training of {under_way[training]} failed: {error}") from None
        finally:
            stop.set()
            pool.shutdown(wait=False)
            while not all(training.done() for training in under_way):
                for process in psutil.Process().children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.terminate()
                time.sleep(0.1)

    def select(self, begun: runs.Begun, lines: Sequence[Training]) -> None:
        """The validation set apart from the runs, whose folders the report reads."""
        checkpoints = {}
        for training in lines:
            run = runs.RunFolder(self.out / "selection" / training.out.name)
            run.folder.mkdir(parents=True, exist_ok=True)
            if not run.checkpoints.is_symlink():
                run.checkpoints.symlink_to(os.path.relpath(runs.RunFolder(training.out).checkpoints, run.folder))
            checkpoints[training.out.name] = [run.checkpoint("average" if self.options.average else "last")]
        self.once(begun, "select", ["evaluate", "--search", "both", "--testset", VALID], checkpoints)

    def report(self, begun: runs.Begun, finalists: Sequence[Training]) -> None:
        kinds, checkpoints = ["last"] + ["average"] * bool(self.options.average), {"baseline": [self.options.start]}
        checkpoints.update(
            {one.out.name: [runs.RunFolder(one.out).checkpoint(kind) for kind in kinds] for one in finalists}
        )
        self.once(begun, "evaluate", ["evaluate", "--search", "both"], checkpoints)
        self.once(begun, "exposure", ["exposure"], {name: kept[-1:] for name, kept in checkpoints.items()})
        folders, stamp = [str(self.baseline.folder), *(str(one.out) for one in finalists)], begun.stamp("report")
        if not stamp.is_file() or stamp.read_text().split("\n") != folders:
            run_command(["report", "--out", str(self.out / "report"), *folders])
            stamp.write_text("\n".join(folders))

    def once(self, begun: runs.Begun, stage: str, command: List[str], checkpoints: Dict[str, List[Path]]) -> None:
        """``command`` with those ``checkpoints``, by run, for which it is not done yet."""
        left = [name for name in checkpoints if not begun.is_done(f"{stage}-{name}")]
        if left:
            files = [str(one) for name in left for one in checkpoints[name]]
            with contextlib.redirect_stdout(io.StringIO()):
                run_command([*command, "--data", str(self.options.data), *files])
        for name in left:
            begun.stamp(f"{stage}-{name}").touch()


def main(arguments: Optional[List[str]] = None) -> None:
    with one_sentence("study.py"):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # blocks end, children stop
        options = parse(sys.argv[1:] if arguments is None else arguments)
        study = Study(options)
        # of the trainings alone: torch, loaded by now, has counted its own threads
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
        study.run()


if __name__ == "__main__":
    main()
