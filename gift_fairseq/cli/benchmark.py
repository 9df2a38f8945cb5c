"""Measure what the strategies cost: an update of each, and of peers, on the same batches; how rollouts grow."""

import argparse
import json
import math
from pathlib import Path
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.errors import UserError
from gift_fairseq.io import quiet, write_whole

FLAGS_OF = "fairseq-train, to say what the model is: --encoder-layers 3"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--arch", default="transformer_wmt_en_de", metavar="A", help="fairseq's name of the model")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16", "fp16"), help="of weights and arithmetic")
    parser.add_argument("--sentences", type=shared.whole(1), default=32, metavar="N", help="of a batch")
    parser.add_argument("--length", type=shared.whole(2), default=25, metavar="N", help="tokens of a sentence")
    parser.add_argument("--vocabulary", type=shared.whole(8), default=8000, metavar="N", help="words")
    parser.add_argument("--rounds", type=shared.whole(1), default=9, metavar="N", help="calls of every variant")
    for option, least, default, unit in (
        ("--lengths", 2, [50, 100, 200], "tokens a sentence"),
        ("--batches", 1, [8, 128], "sentences"),
        ("--vocabularies", 8, [32000], "words"),
    ):
        what = f"rollouts are measured at these sizes too ({unit}); at none without a number"
        parser.add_argument(option, type=shared.whole(least), nargs="*", default=default, metavar="N", help=what)
    parser.add_argument(
        "--no-uncached", action="store_true", help="leave out the peer whose memory grows with the square of the length"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all numbers are written too")


def run(options: argparse.Namespace, flags: List[str]) -> None:
    if options.json and not options.json.absolute().parent.is_dir():
        raise UserError(f"--json is {options.json}, but its folder does not exist")
    import torch

    from gift_fairseq.evaluation import benchmark

    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but torch sees no CUDA device here")
    device, dtype = torch.device(options.device), benchmark.DTYPES[options.dtype]

    def bench(vocabulary: int) -> benchmark.Bench:
        return benchmark.Bench(options.arch, vocabulary, device, dtype, flags)

    with quiet():
        where, rate = benchmark.machine(device), benchmark.matrix_rate(device, dtype)
        print(f"{where}; {options.arch}, {options.dtype}; matrix products: {rate:.0f} GFLOP/s\n", flush=True)
        standard = bench(options.vocabulary)
        size = (options.sentences, options.length, options.rounds)
        updates = benchmark.measure_updates(standard, *size, not options.no_uncached)
        print(f"{options.sentences} sentences of {options.length} tokens, vocabulary {options.vocabulary}\n")
        print(benchmark.table_of_updates(updates) + "\n", flush=True)
        base = {"sentences": options.sentences, "length": options.length, "vocabulary": options.vocabulary}
        sizes = [base, *({**base, "length": length} for length in options.lengths)]
        sizes += [{**base, "sentences": sentences} for sentences in options.batches]
        sizes += [{**base, "vocabulary": vocabulary} for vocabulary in options.vocabularies]
        rollouts, rounds = [], math.ceil(options.rounds / 2)
        for size in sizes:
            one = standard if size["vocabulary"] == options.vocabulary else bench(size["vocabulary"])
            found = benchmark.measure_rollout(one, size["sentences"], size["length"], rounds)
            rollouts.append({**size, **found})
        print(benchmark.table_of_rollouts(rollouts))
    if options.json:
        settings = {**vars(options), "json": str(options.json), "flags": flags}
        result = {"machine": where, "matrix_gflops": rate, **settings, "updates": updates, "rollouts": rollouts}
        write_whole(str(options.json), json.dumps(result, indent=1) + "\n")
