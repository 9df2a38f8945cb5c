"""fairseq-generate for several checkpoints and test sets in one process, which pays for its imports once.

``python -m gift_fairseq.evaluation.translate DATA --tests "NAME..." --search beam CHECKPOINT... [-- FLAGS]`` translates
the test sets of the binarized ``DATA`` (its subsets test, test1, ..., in the order of the names) with every
``RUN/checkpoints/FILE.pt`` and writes what fairseq-generate prints to ``RUN/generate/NAME.SEARCH.txt``.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import List, Tuple

from fairseq import options as fairseq_options
from fairseq_cli import generate

from gift_fairseq.options import UserError, check_at_least
from gift_fairseq.tasks import gift_translation  # noqa: F401  registers the task


def fairseq_generate(arguments: List[str], output: Path) -> None:
    """Runs fairseq-generate with the command line ``arguments`` and writes its output to the file ``output``, whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(suffix=".partial", dir=output.parent) as partial:
        parsed = fairseq_options.parse_args_and_arch(
            fairseq_options.get_generation_parser(), input_args=[*arguments, "--results-path", partial]
        )
        generate.main(parsed)
        os.replace(Path(partial) / f"generate-{parsed.gen_subset}.txt", output)


def add_search_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--search", choices=("beam", "greedy"), default="beam", help="default: beam")
    parser.add_argument("--beam", type=int, default=5, metavar="N", help="beam size of beam, 2 or more; default: 5")


def beam_size(options: argparse.Namespace) -> int:
    """What fairseq's ``--beam`` is for the search options; :class:`UserError` if they make no sense."""
    check_at_least("--beam", options.beam, 2)
    return options.beam if options.search == "beam" else 1


def parse_before_flags(parser: argparse.ArgumentParser, args=None) -> Tuple[argparse.Namespace, List[str]]:
    """Options from what stands before ``--`` in ``args`` (default: the command line); what stands behind, as it is."""
    args = sys.argv[1:] if args is None else list(args)
    end = args.index("--") if "--" in args else len(args)
    return parser.parse_args(args[:end]), args[end + 1 :]


def main(args=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m gift_fairseq.evaluation.translate", description=__doc__.split("\n")[0]
    )
    parser.add_argument("data", metavar="DATA", help="folder of fairseq-preprocess")
    parser.add_argument("--tests", default="test", metavar="NAMES", help="names of its test sets; default: test")
    add_search_options(parser)
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="RUN/checkpoints/FILE.pt")
    options, flags = parse_before_flags(parser, args)
    beam = beam_size(options)
    for checkpoint in options.checkpoints:
        if checkpoint.parent.name != "checkpoints":
            raise UserError(f"CHECKPOINT is {checkpoint}, but must be RUN/checkpoints/FILE.pt")
    for checkpoint in options.checkpoints:
        run = checkpoint.parent.parent
        for number, name in enumerate(options.tests.split()):
            print(f"  {run.name}: {name}, {options.search}", flush=True)
            fairseq_generate(
                [options.data, "--task", "gift_translation", "--path", str(checkpoint), "--beam", str(beam)]
                + ["--gen-subset", f"test{number or ''}", *flags],
                run / "generate" / f"{name}.{options.search}.txt",
            )


if __name__ == "__main__":
    main()
