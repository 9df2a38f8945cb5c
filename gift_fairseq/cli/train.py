"""Train a model with fairseq-train, on the GPUs there are or on the CPU.

--arch and the flags of fairseq-train after -- define the model: for a Transformer over a joint dictionary, as prepare
makes it, --share-all-embeddings at least. Run again with the same options, a training resumes.
"""

import argparse
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.errors import UserError, check_data
from gift_fairseq.training.launch import Machine, Training, check_training_flags

FLAGS_OF = "fairseq-train"


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_data(parser, "a data folder of fairseq-preprocess; prepare makes one")
    shared.add_out(parser, "folder of the run")
    parser.add_argument("--arch", default="transformer_wmt_en_de", metavar="A", help="fairseq's name of the model")
    parser.add_argument("--criterion", default="gift_standard", metavar="C", help="fairseq's name of the objective")
    parser.add_argument("--lr", type=shared.number_above(0), default=7e-4, metavar="X", help="peak learning rate")
    parser.add_argument(
        "--warmup",
        type=shared.whole(0),
        default=4000,
        metavar="N",
        help="updates until that rate, then down with the inverse square root",
    )
    parser.add_argument("--updates", type=shared.whole(1), default=100000, metavar="N", help="updates to make")
    parser.add_argument(
        "--max-tokens",
        type=shared.whole(1),
        default=4096,
        metavar="N",
        help="tokens of a batch on each GPU: sentences times the longer side, padding included",
    )
    parser.add_argument("--update-freq", type=shared.whole(1), default=1, metavar="N", help="batches of an update")
    shared.add_training(parser, finetuning=False)
    shared.add_dry_run(parser)


def run(options: argparse.Namespace, flags: List[str]) -> None:
    check_data(options.data)
    check_training_flags(flags)
    _check_criterion(options.criterion)
    words = ["--arch", options.arch, "--criterion", options.criterion, "--label-smoothing", "0.1"]
    words += ["--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", f"{options.lr:g}"]
    words += ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", str(options.warmup)]
    words += ["--max-tokens", str(options.max_tokens), "--update-freq", str(options.update_freq), *flags]
    training = Training("train", options.data, options.out, options.updates, words, Machine.of(options))
    training.check()
    training.run(options.dry_run)


def _check_criterion(name: str) -> None:
    """:class:`UserError` unless the criterion takes --label-smoothing and --report-accuracy, which are set here."""
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY

    import gift_fairseq.criterions  # noqa: F401  registers

    found = CRITERION_DATACLASS_REGISTRY.get(name)
    if not {"label_smoothing", "report_accuracy"} <= getattr(found, "__dataclass_fields__", {}).keys():
        raise UserError(f"--criterion is {name}, but must be label_smoothed_cross_entropy or gift_STRATEGY")
