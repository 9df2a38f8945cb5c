"""What the fine-tunings from one checkpoint share: its flags, the schedule of the rate, dropout, and the controls."""

import argparse
from dataclasses import dataclass, replace
from math import inf, isnan
from pathlib import Path
from statistics import fmean
from typing import List, Optional, Sequence, Tuple

import numpy as np

from gift_fairseq.cli import candidates, parser_of
from gift_fairseq.cli import options as shared
from gift_fairseq.errors import UserError, option
from gift_fairseq.io import say
from gift_fairseq.own_translations.origin import Origin
from gift_fairseq.runs import RunFolder, settings_of
from gift_fairseq.training.launch import Machine, Training, check_training_flags, typed_options
from gift_fairseq.training.log import Log

OF_THE_TRAINING = ("from", "data", "out", "gpus", "precision", "seed")  # options of candidates that finetune sets
WARMUP = 20  # updates; at most a fifth of all
OVERFITTED = 0.45  # nats; without dropout -0.04 and 0.33 gained, 0.58 lost 2.6 BLEU: examples/adaptation/README.md


def criterion_words(words: List[str]) -> Tuple[List[str], List[str]]:
    """Those of ``words`` that are flags of distillation's criterion, and the others, which are of ``candidates``.

    :class:`UserError` if one of the former has no meaning.
    """
    from fairseq.dataclass.utils import gen_parser_from_dataclass

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
    dropouts: Sequence[str] = ("--dropout",)  # the options that are 0 unless the model overfits
    digest: str = ""  # of the checkpoint's file

    @classmethod
    def of(
        cls, options: argparse.Namespace, flags: List[str], out: Path, strategy: List[str], machine: Machine
    ) -> "Start":
        """Overfitting is measured, unless ``flags``, typed after --, name a dropout.

        ``out``, ``strategy`` and ``machine`` are those of the first fine-tuning; if it was begun, ``run.json`` has the
        measure. :class:`UserError`, before anything is measured, if the checkpoint is none, or does not fit the data,
        or if a flag of ``strategy`` has no meaning.
        """
        from gift_fairseq.checkpoints.files import digest_of
        from gift_fairseq.checkpoints.flags import flags_of

        check_training_flags(flags)
        found = flags_of(str(options.start), options.data, rate_is_given=bool(options.lr) or is_typed("--lr", flags))
        found += ["--lr", f"{options.lr:g}"] if options.lr else []
        origin = Origin.of(options.data)
        gold = Path(origin.data) if origin else options.data
        start = cls(options.start.resolve(), options.data, gold, options.updates, [*found, *flags])
        start = replace(start, digest=digest_of(start.checkpoint))
        first = start.training(out, strategy, machine)
        start.check(first)
        before, now = RunFolder(out).record(), first.record()["fairseq"]
        if is_typed("--dropout", flags):
            return start
        typed = [*strategy, *flags]
        dropouts = [option(name) for name, value in now.items() if "dropout" in name and value]  # attention's too
        known, made_from = before.get("overfitting"), before.get("fairseq", {})
        if known is None or any(made_from.get(name) != now[name] for name in ("data", "finetune_from_model")):
            known = overfitting_of(start.checkpoint, gold)
        return replace(start, overfitting=known, dropouts=[name for name in dropouts if not is_typed(name, typed)])

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
        typed = next((name for name in OF_THE_TRAINING if is_typed(option(name), own)), None)
        if typed:
            raise UserError(f"--strategy has {option(typed)}, but finetune sets it: leave it out there")
        folder = out / "candidates"
        words = ["--from", str(self.checkpoint), "--data", str(self.data), "--out", str(folder), "--gpus"]
        words += [str(machine.gpus), "--precision", machine.precision, "--seed", str(machine.seed), *own]
        parsed = parser_of("candidates").parse_args(words)
        candidates.proposing_of(parsed)  # a mistake is said before the control trains
        settings = settings_of(parsed, ["start", *OF_THE_TRAINING, "max_tokens"])  # which is of batches alone
        if parsed.sentences is None:
            words += ["--sentences", str(max(1, round(parsed.share * self._sentences_read(training))))]
        return replace(training, data=folder / "data", first=["candidates", *words], settings=settings)

    def check(self, training: Training) -> None:
        """:class:`UserError` if a flag has no meaning, or its value has none; own translations need not be made yet."""
        replace(training, data=self.gold).check()

    def control(self, out: Path, machine: Machine) -> Training:
        """The fine-tuning by standard on the gold pairs."""
        return self._training(out, self.gold, ["standard"], machine)

    def _sentences_read(self, training: Training) -> float:
        """About how many sentence pairs all updates of ``training`` read."""
        from gift_fairseq.data.binarized import task_of

        options = typed_options(training.fairseq_words())
        of_batch = options["batch_size"] or inf  # fairseq asks for one of the two
        if options["max_tokens"]:
            dataset = task_of(self.data).dataset("train")
            longer = np.maximum(dataset.src_sizes, dataset.tgt_sizes)
            of_batch = min(of_batch, options["max_tokens"] / longer.mean())
        return self.updates * options["update_freq"][0] * training.machine.gpus * of_batch

    def _training(self, out: Path, data: Path, strategy: List[str], machine: Machine) -> Training:
        words = ["--criterion", f"gift_{strategy[0]}", *strategy[1:], "--finetune-from-model", str(self.checkpoint)]
        words += ["--optimizer", "adam", *schedule(self.updates, self.flags), *self.flags]
        if hardly_overfits(self.overfitting) and strategy[0] != "consistency":  # its passes differ by dropout
            words += [word for name in self.dropouts for word in (name, "0")]
        why = {} if self.overfitting is None else {"overfitting": self.overfitting}
        return Training("finetune", data, out, self.updates, words, machine, why, start=(self.checkpoint, self.digest))

    def as_long_as(self, pairs: Sequence[Tuple[Training, Training]]) -> List[Training]:
        """The controls of the same time, one for each of ``pairs``: the seeds of a strategy, each with its control.

        All of them make as many updates as take the seconds of the strategy's, in the mean over the seeds and without
        validation and saving, but with the time of translating for distillation: they are one system, whose schedule
        ends at its own last update. The trainings of ``pairs`` are finished.
        """
        logs = [[Log.of(RunFolder(training.out)) for training in pair] for pair in pairs]
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
    """Flags of the learning rate: linearly up to its peak, then linearly down to 0 after the last of ``updates``.

    fairseq takes the rate of an update from the number of updates before it: the first one has rate 0 and only fills
    Adam's moments. No flags where ``flags`` name another scheduler, which may not know these.
    """
    if is_typed("--lr-scheduler", flags):
        return []
    warmup = str(min(WARMUP, updates // 5))
    words = ["--lr-scheduler", "polynomial_decay", "--warmup-updates", warmup, "--total-num-update", str(updates)]
    return [*words, "--end-learning-rate", "0"]
