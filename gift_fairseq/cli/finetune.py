"""Fine-tune a checkpoint by one of the strategies, and by standard, the control of the same updates, beside it.

The default strategy is weighted. It takes the time of plain updates (standard). Where the model did not overfit, greedy
search gained about half a point of BLEU over plain updates without dropout, and one to two points over those with
dropout; where it overfitted and kept its dropout, 0.4 points. On text of another kind (captions) it forgets more of its
earlier training text than plain updates without dropout do.

distillation needs translations of the training text by the checkpoint, which should be adapted to that text already. If
--data has none, finetune makes them first, by a beam, in OUT/candidates, by default of as many sentences as the updates
will read, at most of the whole training set. This may take longer than the updates.

Architecture, label smoothing, Adam's settings, the tokens in a batch of one GPU and --update-freq are the checkpoint's.
Dropout (also of attention and activations) is 0, for the control too, unless the model overfits: where its NLL on
training text is 0.45 nats or more below that on validation text (1,000 sentences of each), dropout stays as it was. It
always stays for consistency, whose two passes differ by it.

The optimizer is reset. Its rate rises for 20 updates (a fifth of all if there are fewer than 100), then falls linearly
to 0. Flags after -- go to the control too; a --dropout or --lr-scheduler there
replaces this one. Run again with the same options, it resumes.
"""

import argparse
from pathlib import Path
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.cli.from_checkpoint import Start
from gift_fairseq.errors import UserError
from gift_fairseq.io import say
from gift_fairseq.runs import RunFolder
from gift_fairseq.training.launch import Machine

FLAGS_OF = "fairseq-train"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strategy",
        default="weighted",
        metavar="S",
        help=f"{', '.join(shared.STRATEGIES)}; with its flags in the same argument: 'recurrent --gold-ratio 0.5'; "
        "distillation also takes the options of gift candidates, --margin and --margin-weight",
    )
    shared.add_from(parser)
    shared.add_data(parser, "data made with the checkpoint's dictionaries")
    shared.add_out(parser, "folder of the run")
    parser.add_argument(
        "--control",
        type=Path,
        metavar="RUN",
        help="folder of the control, trained first unless it is there; default: standard, beside --out",
    )
    parser.add_argument("--no-control", action="store_true", help="train no control")
    shared.add_same_time(parser)
    shared.add_rate_and_updates(parser)
    shared.add_training(parser)
    shared.add_dry_run(parser)


def run(options: argparse.Namespace, flags: List[str]) -> None:
    name, *own = strategy_words(options.strategy)
    if options.same_time and (name == "standard" or options.no_control or options.nodes > 1):
        raise UserError(
            "--same-time needs a strategy and its control on one machine: leave out --no-control and --nodes, and give "
            "a --strategy other than standard"
        )
    if options.control and options.no_control:
        raise UserError(f"--control is {options.control}, but --no-control says that there is none: leave one out")
    folder = options.control or options.out.parent / "standard"
    if name != "standard" and not options.no_control and folder.resolve() == options.out.resolve():
        raise UserError(
            f"--out is {options.out}, which is also the folder of the control: choose another --out or --control"
        )
    machine = Machine.of(options)
    start = Start.of(options, flags, options.out, [name, *own], machine)
    training = start.training(options.out, [name, *own], machine)
    control = start.control(folder, machine)
    training.check_folder()  # before the control trains
    if name != "standard" and not options.no_control:
        control.check_folder("--control")
        control.run(options.dry_run)
    training.run(options.dry_run)
    if not options.dry_run:
        for same_time in start.as_long_as([(training, control)]) if options.same_time else ():
            same_time.run()
        say(f"its model is {RunFolder(training.out).model()}")


def strategy_words(text: str) -> List[str]:
    """A strategy and its flags; :class:`UserError` if there is no such strategy."""
    words = shared.split_words("--strategy", text)
    if not words or words[0] not in shared.STRATEGIES:
        raise UserError(
            f"--strategy is {text!r}, but must be {', '.join(shared.STRATEGIES[:-1])} or {shared.STRATEGIES[-1]}"
        )
    return words
