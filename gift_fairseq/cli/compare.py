"""Fine-tune a checkpoint by standard, auxiliary, recurrent, generative and weighted for as many updates, and report.

Scores and exposure bias of all are measured.

The runs are OUT/runs/NAME, made by the commands finetune, evaluate and exposure; NAME is standard for example, and
standard-seed2 with a second seed of 2. Settings, learning rate and dropout are as finetune has them. The report is
OUT/index.html and OUT/results.md. It scores the last checkpoint; with --average also the mean, and measures exposure
bias on the mean. Flags after -- go to all fine-tunings. Run again with the same options, it resumes. On
several machines, call finetune on each instead.
"""

import argparse
import contextlib
import hashlib
from typing import Dict, List

from gift_fairseq import runs
from gift_fairseq.cli import options as shared
from gift_fairseq.cli import parser_of, run_command
from gift_fairseq.cli.from_checkpoint import Start
from gift_fairseq.errors import UserError, check_data
from gift_fairseq.io import say, written_whole
from gift_fairseq.training.launch import Machine, Training, typed_options

FLAGS_OF = "fairseq-train"
COMPARED = ("standard", "auxiliary", "recurrent", "generative", "weighted")


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_data(parser)
    shared.add_from(parser, "RUN/checkpoints/FILE.pt, the checkpoint to start from; the baseline of the report")
    shared.add_out(parser, "where everything goes")
    shared.add_same_time(parser)
    shared.add_rate_and_updates(parser)
    parser.add_argument(
        "--seeds", type=shared.whole_numbers, default="1", metavar='"N..."', help="every fine-tuning is made with each"
    )
    parser.add_argument(
        "--evaluate",
        default="",
        metavar='"..."',
        help="further options of evaluate: '--beam 4 -- --lenpen 0.6'; a single word stands after =: "
        "--evaluate=--compound-split",
    )
    shared.add_training(parser, several_machines=False, seed=False)
    shared.add_dry_run(parser)


def run(options: argparse.Namespace, flags: List[str]) -> None:
    baseline = runs.run_of(options.start)
    if baseline is None or options.start.suffix != ".pt":
        raise UserError(f"--from is {options.start}, but must be RUN/checkpoints/FILE.pt")
    from gift_fairseq.evaluation import translate

    data = ["--data", str(options.data)]
    further = shared.split_words("--evaluate", options.evaluate)
    check_data(options.data)
    words, generation = shared.split_flags(further)  # a mistake in them is said before training
    shared.sets_of(parser_of("evaluate").parse_intermixed_args([*data, str(options.start), *words]))
    translate.generation_of(options.data, generation)
    first = options.out / "runs" / "standard", ["standard"], Machine.of(options, options.seeds[0])
    start = Start.of(options, ["--eval-free-running", *flags], *first)
    trainings: Dict[str, List[Training]] = {strategy: [] for strategy in COMPARED}  # one for each seed
    for seed in options.seeds:
        machine = Machine.of(options, seed)
        for strategy, of_seeds in trainings.items():
            name = runs.name_with_seed(strategy, seed, options.seeds)
            of_seeds.append(start.training(options.out / "runs" / name, [strategy], machine))
    ordered = [training for of_seed in zip(*trainings.values()) for training in of_seed]
    if options.dry_run:
        for training in ordered:
            training.run(dry_run=True)
        return

    def evaluate() -> None:
        with written_whole(str(options.out / "scores.txt")) as (out,), contextlib.redirect_stdout(out):
            checkpoints = [str(options.start), *last, *averaged]
            run_command(["evaluate", *data, "--search", "both", *checkpoints, *further])

    def report() -> None:
        run_command(["report", "--out", str(options.out), *(str(run.folder) for run in (baseline, *folders))])

    record = {
        "command": "compare",
        "settings": runs.settings_of(options, ["out", "dry_run", "gpus", "evaluate"]),
        "fairseq": typed_options(ordered[0].fairseq_words()),
    }
    with runs.begin(options.out, record) as begun:
        for training in ordered:
            begun.stage(f"train-{training.out.name}", training.run)
        for strategy in COMPARED[1:] if options.same_time else ():
            for training in start.as_long_as(list(zip(trainings[strategy], trainings["standard"]))):
                begun.stage(f"train-{training.out.name}", training.run)
                ordered.append(training)
        folders = [runs.RunFolder(training.out) for training in ordered]
        last = [str(folder.checkpoint("last")) for folder in folders]
        averaged = [str(folder.checkpoint("average")) for folder in folders] if options.average else []
        way = f" {hashlib.sha256(options.evaluate.encode()).hexdigest()[:16]}" if options.evaluate else ""
        for name in ("evaluate", "report"):  # by other options of evaluate they are made again
            for stamp in begun.stamp(name).parent.glob(f"{name}*"):
                if stamp.name != f"{name}{way}":
                    stamp.unlink()
        begun.stage(f"evaluate{way}", evaluate)
        begun.stage("exposure", lambda: run_command(["exposure", *data, str(options.start), *(averaged or last)]))
        begun.stage(f"report{way}", report)
    print((options.out / "results.md").read_text(encoding="utf-8").split("\n\n", 1)[0])  # the first of its tables
    say(f"the report is {options.out / 'index.html'}, the runs are in {options.out / 'runs'}")
