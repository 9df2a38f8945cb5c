"""Fine-tune a checkpoint by one of the strategies, and by standard, the control of the same updates, beside it.

Without --strategy the updates are plain (standard): in the same time no strategy has done better yet. For distillation
the checkpoint, which should know the text well, first translates training text (OUT/candidates), unless --data has such
translations: as many sentences as the updates read own ones, by a beam, which may take longer than the updates.

Architecture, batch size, label smoothing, Adam's settings are the checkpoint's. Dropout is 0, for the control too,
unless the model overfits: where its NLL on training text is 0.45 nats or more below that on validation text (1,000
sentences of each), dropout stays as it was. It always stays for consistency, whose two passes differ by it.

The optimizer starts afresh; its rate rises for 20 updates (fewer where there are less than 100 in all), then falls
linearly to 0 at the last update. Flags after -- go to the control too; a --dropout or --lr-scheduler there replaces
this one. Run again with the same options, it resumes.
"""

import argparse
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import List, Optional, Sequence, Tuple

import numpy as np

from gift_fairseq.cli import candidates, parser_of
from gift_fairseq.cli import options as shared
from gift_fairseq.cli.train import Machine, Training, typed_options
from gift_fairseq.data.origin import Origin
from gift_fairseq.errors import UserError
from gift_fairseq.io import say
from gift_fairseq.runs import Run, check_same

FLAGS_OF = "fairseq-train"
WARMUP = 20  # updates; at most a fifth of all
OVERFITTED = 0.45  # nats; without dropout -0.04 and 0.33 gained, 0.58 lost 2.5 BLEU: examples/adaptation/README.md


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strategy",
        default="standard",
        metavar="S",
        help=f"{', '.join(shared.STRATEGIES)}; with flags of its own in one word: 'recurrent --gold-ratio 0.5'; those "
        "of distillation are gift candidates', and --margin and --margin-weight",
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
    shared.add_lr_of_finetuning(parser)
    parser.add_argument("--updates", type=shared.whole(1), default=1200, metavar="N", help="updates to make")
    shared.add_training(parser)
    shared.add_dry_run(parser)


def run(options: argparse.Namespace, flags: List[str]) -> None:
    name, *own = strategy_words(options.strategy)
    if options.same_time and (name == "standard" or options.no_control or options.nodes > 1):
        raise UserError(
            "--same-time needs a strategy and its control on one machine: no standard, --no-control, --nodes"
        )
    machine = Machine.of(options)
    start = Start.of(options, flags, options.out, [name, *own], machine)
    training = start.training(options.out, [name, *own], machine)
    check_same(options.out, Run(options.out).record(), training.record())  # said before the control trains
    control = start.control(options.control or options.out.parent / "standard", machine)
    if name != "standard" and not options.no_control:
        control.run(options.dry_run)
    training.run(options.dry_run)
    if not options.dry_run:
        for same_time in start.as_long_as([(training, control)]) if options.same_time else ():
            same_time.run()
        say(f"its model is {Run(training.out).model()}")


def strategy_words(text: str) -> List[str]:
    """A strategy and its flags; :class:`UserError` if there is no such strategy."""
    words = shared.split_words("--strategy", text)
    if not words or words[0] not in shared.STRATEGIES:
        raise UserError(
            f"--strategy is {text!r}, but must be {', '.join(shared.STRATEGIES[:-1])} or {shared.STRATEGIES[-1]}"
        )
    return words


def criterion_words(words: List[str]) -> Tuple[List[str], List[str]]:
    """Those of ``words`` that are flags of distillation's criterion, and the others, which are of ``candidates``.

    :class:`UserError` if one of the former has no meaning.
    """
    from fairseq.dataclass.utils import gen_parser_from_dataclass

    from gift_fairseq.checkpoints.flags import option
    from gift_fairseq.objectives import margin

    parser = shared.Parser(prog="gift finetune", add_help=False)
    gen_parser_from_dataclass(parser, margin.MarginFlags())
    found, others = parser.parse_known_args(words)
    margin.checked(found)
    return [word for name, value in vars(found).items() for word in (option(name), str(value))], others


@dataclass(frozen=True)
class Start:
    """What the fine-tunings from one checkpoint share. ``flags`` make its model and go on as it was trained."""

    checkpoint: Path
    data: Path
    gold: Path  # the data folder of the control: ``data``, or where that has own translations, the one without them
    updates: int
    flags: List[str]
    overfitting: Optional[float] = None  # nats: how far its NLL on training text is below that on validation text

    @classmethod
    def of(
        cls, options: argparse.Namespace, flags: List[str], out: Path, strategy: List[str], machine: Machine
    ) -> "Start":
        """Overfitting is measured, unless ``flags``, typed after --, name a dropout.

        ``out``, ``strategy`` and ``machine`` are those of the first fine-tuning; if it was begun, ``run.json`` has the
        measure. :class:`UserError`, before anything is measured, if the checkpoint is none, or does not fit the data,
        or if a flag of ``strategy`` has no meaning.
        """
        from gift_fairseq.checkpoints.flags import flags_of

        found = flags_of(str(options.start), options.data)
        found += ["--lr", f"{options.lr:g}"] if options.lr else []
        origin = Origin.of(options.data)
        gold = Path(origin.data) if origin else options.data
        start = cls(options.start.resolve(), options.data, gold, options.updates, [*found, *flags])
        before, now = Run(out).record(), start.training(out, strategy, machine).record()["fairseq"]
        if is_typed("--dropout", flags):
            return start
        known, made_from = before.get("overfitting"), before.get("fairseq", {})
        if known is None or any(made_from.get(name) != now[name] for name in ("data", "finetune_from_model")):
            known = overfitting_of(start.checkpoint, gold)
        return replace(start, overfitting=known)

    def training(self, out: Path, strategy: List[str], machine: Machine) -> Training:
        """The fine-tuning by ``strategy``, whose first word is its name, into the folder ``out``.

        For distillation its other words are those of its criterion, and options of ``gift candidates``, which makes
        the data in ``out`` first, unless ``data`` has own translations. Without --sentences, it translates as many as
        the updates read own ones (a sixth of that, read six times, did not help on Multi30k). :class:`UserError` if
        the words have no meaning.
        """
        (name, *own), translated = strategy, self.data != self.gold
        if translated and name == "standard":
            raise UserError(f"--strategy is standard, but --data is {self.data}, on which only distillation trains")
        if name != "distillation":
            return self._training(out, self.data, strategy, machine)
        of_criterion, own = criterion_words(own)
        training = self._training(out, self.data, [name, *of_criterion], machine)
        if translated and own:
            raise UserError(f"--strategy has {own[0]}, but --data is {self.data}, which has own translations")
        if translated:
            return training
        if machine.nodes > 1:
            raise UserError("--nodes is above 1, but one machine translates: make --data with gift candidates first")
        folder = out / "candidates"
        words = ["--from", str(self.checkpoint), "--data", str(self.data), "--out", str(folder), "--gpus"]
        words += [str(machine.gpus), "--precision", machine.precision, "--seed", str(machine.seed), *own]
        parsed = parser_of("candidates").parse_args(words)
        candidates.checked(parsed)  # a mistake is said before the control trains
        if parsed.sentences is None:
            words += ["--sentences", str(max(1, round(parsed.share * self._sentences_read(training))))]
        return replace(training, data=folder / "data", first=["candidates", *words])

    def control(self, out: Path, machine: Machine) -> Training:
        """The fine-tuning by standard on the gold pairs."""
        return self._training(out, self.gold, ["standard"], machine)

    def _sentences_read(self, training: Training) -> float:
        """About how many sentence pairs all updates of ``training`` read."""
        from gift_fairseq.distillation import task_of

        options = typed_options(training.fairseq_words())
        batches = self.updates * sum(options["update_freq"]) * training.machine.gpus
        if not options["max_tokens"]:
            return batches * options["batch_size"]
        dataset = task_of(self.data).dataset("train")
        return batches * options["max_tokens"] / np.maximum(dataset.src_sizes, dataset.tgt_sizes).mean()

    def _training(self, out: Path, data: Path, strategy: List[str], machine: Machine) -> Training:
        words = ["--criterion", f"gift_{strategy[0]}", *strategy[1:], "--finetune-from-model", str(self.checkpoint)]
        words += ["--optimizer", "adam", *schedule(self.updates, self.flags), *self.flags]
        if hardly_overfits(self.overfitting) and strategy[0] != "consistency":  # its passes differ by dropout
            words += ["--dropout", "0"]
        why = {} if self.overfitting is None else {"overfitting": self.overfitting}
        return Training("finetune", data, out, self.updates, words, machine, why)

    def as_long_as(self, pairs: Sequence[Tuple[Training, Training]]) -> List[Training]:
        """The controls of the same time, one for each of ``pairs``: the seeds of a strategy, each with its control.

        All of them make as many updates as take the seconds of the strategy's, in the mean over the seeds and without
        validation and saving, but with the time of translating for distillation: they are one system, whose schedule
        ends at its own last update. The trainings of ``pairs`` are finished.
        """
        from gift_fairseq.report.runs import Log

        logs = [[Log.of(Run(training.out)) for training in pair] for pair in pairs]
        seconds = fmean(strategy.mean("train_update_seconds") * strategy.updates for strategy, _ in logs)
        origins = [(Origin.of(strategy.data), strategy.machine.gpus) for strategy, _ in pairs]
        seconds += fmean(origin.seconds / gpus if origin else 0 for origin, gpus in origins)
        of_control = fmean(control.mean("train_update_seconds") for _, control in logs)
        longer = replace(self, updates=max(1, round(seconds / of_control)))
        found = []
        for strategy, _ in pairs:
            out = strategy.out.with_name(f"standard-as-long-as-{strategy.out.name}")
            why = {"run": strategy.out.name, "seconds": seconds, "seconds_of_an_update": of_control}
            training = longer.control(out, strategy.machine)
            found.append(replace(training, why={**training.why, "same_time_as": why}))
        return found


def overfitting_of(checkpoint: Path, data: Path) -> Optional[float]:
    """Measures it, and says what follows; None where ``data`` has no validation set that the model can read."""
    from gift_fairseq.evaluation import overfitting

    found = overfitting.measure(checkpoint, data)
    if found is None or isnan(found.gap):
        say(f"there is no validation set in {data} to tell overfitting by; so the dropout is that of the checkpoint")
        return None
    dropout = "0" if hardly_overfits(found.gap) else "that of the checkpoint"
    say(
        f"NLL of {checkpoint.name}: {found.train:.2f} nats on train, {found.valid:.2f} on valid; so the dropout is "
        f"{dropout} (what decides: a difference of {OVERFITTED:g})"
    )
    return found.gap


def hardly_overfits(overfitting: Optional[float]) -> bool:
    return overfitting is not None and overfitting < OVERFITTED


def is_typed(option: str, flags: List[str]) -> bool:
    return any(flag.split("=")[0] == option for flag in flags)


def schedule(updates: int, flags: List[str]) -> List[str]:
    """Flags of the learning rate: linearly up to its peak, then linearly down to 0 at the last of ``updates``.

    fairseq takes the rate of update u from the u - 1 updates before it, so the first one has rate 0 and fills Adam's
    moments. None where ``flags`` name a scheduler, which may not know the others' flags.
    """
    if is_typed("--lr-scheduler", flags):
        return []
    warmup = str(min(WARMUP, updates // 5))
    words = ["--lr-scheduler", "polynomial_decay", "--warmup-updates", warmup, "--total-num-update", str(updates)]
    return [*words, "--end-learning-rate", "0"]
