"""Prepare raw parallel text for fairseq-train: cleaned, tokenized, filtered, cut into joint subwords, binarized.

OUT/data is the folder for fairseq and the other commands: binarized splits (test, test1, ... in the order given),
dictionaries, segmentation.json and the subword model for inference, and raw/ with the text of the validation and test
sets for evaluation. A test set is named after its file; PREFIX.TGT.1, PREFIX.TGT.2 ... are further references.
OUT/clean/filtered.json counts what was left out, and why. Run again with the same options, it resumes.
"""

import argparse
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import List

from gift_fairseq import runs
from gift_fairseq.cli import options as shared
from gift_fairseq.data import prepare
from gift_fairseq.data.segmentation import SUBWORDS, TOKENIZERS, Segmentation
from gift_fairseq.errors import UserError, fairseq_reads
from gift_fairseq.io import say
from gift_fairseq.training.launch import environment, located

FLAGS_OF = "fairseq-preprocess"


def add_options(parser: argparse.ArgumentParser) -> None:
    raw = "raw text, a sentence a line, UTF-8: PREFIX.LANG or PREFIX.LANG.gz"
    parser.add_argument("--train", required=True, type=Path, metavar="PREFIX", help=raw)
    parser.add_argument("--valid", required=True, type=Path, metavar="PREFIX", help="the same for validation")
    parser.add_argument(
        "--test",
        required=True,
        action="extend",
        type=lambda text: [Path(word) for word in text.split(",")],
        metavar="PREFIX,...",
        help="the same for each test set; may be repeated",
    )
    shared.add_out(parser, "where everything goes")
    parser.add_argument("--src", default="en", metavar="LANG", help="source language")
    parser.add_argument("--tgt", default="de", metavar="LANG", help="target language")
    parser.add_argument("--subword", choices=SUBWORDS, default="sentencepiece", help="bpe is subword-nmt's")
    parser.add_argument(
        "--vocab-size",
        type=shared.whole(1),
        default=32000,
        metavar="N",
        help="pieces, or merge operations of bpe, learnt from the training text",
    )
    parser.add_argument(
        "--tokenizer",
        choices=TOKENIZERS,
        help="sacremoses; as Moses' tokenizer.perl alone; none; default: moses for bpe, none for sentencepiece",
    )
    parser.add_argument("--lowercase", action="store_true", help="lowercase all text")
    limits = prepare.Limits()
    parser.add_argument(
        "--min-len",
        type=shared.whole(1),
        default=limits.min_len,
        metavar="N",
        help="minimum number of tokens on each side of a training pair",
    )
    parser.add_argument("--max-len", type=int, default=limits.max_len, metavar="N", help="maximum of that")
    parser.add_argument(
        "--max-ratio",
        type=float,
        default=limits.max_ratio,
        metavar="X",
        help="maximum ratio of the longer side to the shorter",
    )
    parser.add_argument(
        "--subword-model", type=Path, metavar="FILE", help="a sentencepiece model, or codes of bpe, to use unchanged"
    )
    parser.add_argument(
        "--dictionary",
        type=Path,
        metavar="FILE",
        help="fairseq dictionary to use unchanged for both sides; needs --subword-model",
    )
    parser.add_argument("--workers", type=shared.whole(1), default=os.cpu_count(), metavar="N", help="processes")
    shared.add_dry_run(parser)


def run(options: argparse.Namespace, flags: List[str]) -> None:
    options.tokenizer = options.tokenizer or ("moses" if options.subword == "bpe" else "none")
    preparation = prepare.Preparation(
        train=options.train,
        valid=options.valid,
        tests=options.test,
        out=options.out,
        segmentation=Segmentation(options.src, options.tgt, options.tokenizer, options.lowercase, options.subword),
        limits=prepare.Limits(options.min_len, options.max_len, options.max_ratio),
        vocab_size=options.vocab_size,
        subword_model=options.subword_model,
        dictionary=options.dictionary,
        workers=options.workers,
    )
    words = prepare.preprocess_words(preparation, options.out / "data") + flags
    if flags:  # importing fairseq takes seconds
        check_flags(words)
    if options.dry_run:
        print(shlex.join(words))
        return
    runs.check_replaceable(options.out, ["clean", "pieces", "data"], "prepare", "apply")
    settings = runs.settings_of(options, ["out", "workers", "dry_run"])
    settings.update(test=[str(prefix.resolve()) for prefix in options.test], flags=flags)
    with runs.begin(options.out, {"command": "prepare", "settings": settings, **runs.provenance()}) as begun:
        for stage in (prepare.clean, prepare.learn, prepare.apply):
            begun.stage(stage.__name__, lambda stage=stage: stage(preparation))
        begun.stage("binarize", lambda: binarize(preparation, begun, flags))
    say(f"the data is {options.out / 'data'}")


def check_flags(words: List[str]) -> None:
    """:class:`UserError` with fairseq's own sentence unless it understands its command ``words``."""
    from fairseq import options as fairseq_options

    with fairseq_reads(words[0]):
        fairseq_options.get_preprocessing_parser().parse_args(words[1:])


def binarize(preparation: prepare.Preparation, begun: runs.Begun, flags: List[str]) -> None:
    """Makes ``data``, whole or not at all; fairseq-preprocess says how it goes in ``preprocess.log``."""
    say("binarizing")
    data, partial, log = (preparation.out / name for name in ("data", "data.partial", "preprocess.log"))
    shutil.rmtree(partial, ignore_errors=True)
    words = located(prepare.preprocess_words(preparation, partial) + flags)
    with open(log, "w") as said:
        done = subprocess.run(
            words, stdout=said, stderr=subprocess.STDOUT, env=environment(), pass_fds=(begun.lock,), check=False
        )
    if done.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
        raise UserError(f"fairseq-preprocess failed with status {done.returncode}, see {log}: {last}")
    prepare.put_beside(preparation, partial)
    shutil.rmtree(data, ignore_errors=True)
    partial.rename(data)
