"""fairseq-generate for several checkpoints and test sets in one process, which pays for its imports once.

``python -m gift_fairseq.evaluation.translate DATA --search beam CHECKPOINT... [-- FLAGS]`` (``scripts/evaluate.sh``)
translates test sets of the data folder that ``scripts/prepare.sh`` made with every ``RUN/checkpoints/FILE.pt``.
``RUN/generate/NAME.SEARCH.txt`` are the translations, detokenized, a line for a line; ``NAME.SEARCH.log`` beside it is
what fairseq-generate printed. SEARCH is ``greedy``, or ``beam5`` for a beam of five.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Tuple

from fairseq import options as fairseq_options
from fairseq_cli import generate

from gift_fairseq.data import testsets
from gift_fairseq.data.segmentation import Segmentation, Segmenter
from gift_fairseq.files import write_whole
from gift_fairseq.options import UserError, check_at_least
from gift_fairseq.quiet import quiet
from gift_fairseq.tasks import gift_translation  # noqa: F401  registers the task

# Batch sizes in multiples of 8, fairseq's default, would drop the sentences that remain; its default of one worker to
# load data makes every test set wait for that worker's end. --max-len-a would make a hypothesis depend on its batch.
GENERATOR_FLAGS = "--max-tokens 4000 --required-batch-size-multiple 1 --num-workers 0"


def fairseq_generate(arguments: List[str], output: Path) -> None:
    """Runs fairseq-generate with the command line ``arguments`` and writes its output to the file ``output``, whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(suffix=".partial", dir=output.parent) as partial:
        parsed = fairseq_options.parse_args_and_arch(
            fairseq_options.get_generation_parser(), input_args=[*arguments, "--results-path", partial]
        )
        with quiet():
            generate.main(parsed)
        os.replace(Path(partial) / f"generate-{parsed.gen_subset}.txt", output)


def read_best(path: Path) -> List[str]:
    """The best hypothesis of every sentence in ``path``, in subwords, in the order of the test set.

    fairseq-generate writes sentences by length, the best hypothesis first. :class:`UserError` where one is missing.
    """
    best: Dict[int, str] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("H-"):
            number, _, text = line.split("\t", 2)
            best.setdefault(int(number[2:]), text)
    if sorted(best) != list(range(len(best))) or not best:
        raise UserError(f"{path} lacks sentences: run fairseq-generate again, on the whole test set")
    return [best[number] for number in range(len(best))]


def add_search_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--search", choices=("beam", "greedy"), default="beam", help="default: beam")
    parser.add_argument("--beam", type=int, default=5, metavar="N", help="beam size of beam, 2 or more; default: 5")


def beam_size(options: argparse.Namespace) -> int:
    """What fairseq's ``--beam`` is for the search options; :class:`UserError` if they make no sense."""
    check_at_least("--beam", options.beam, 2)
    return options.beam if options.search == "beam" else 1


def search_name(beam: int) -> str:
    """``greedy`` for a beam of one; ``beam5`` for one of five."""
    return f"beam{beam}" if beam > 1 else "greedy"


def parse_before_flags(parser: argparse.ArgumentParser, args=None) -> Tuple[argparse.Namespace, List[str]]:
    """Options from what stands before ``--`` in ``args`` (default: the command line); what stands behind, as it is."""
    args = sys.argv[1:] if args is None else list(args)
    end = args.index("--") if "--" in args else len(args)
    return parser.parse_args(args[:end]), args[end + 1 :]


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--testset", metavar="NAME,...", help="test sets, or valid; default: all test sets")
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="folder for one checkpoint that lies in no run's folder"
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="RUN/checkpoints/FILE.pt")


def subsets_of(options: argparse.Namespace) -> Dict[str, str]:
    """The names of the test sets that are asked for, with fairseq's; :class:`UserError` if there is no such set."""
    sets = options.testset.split(",") if options.testset else testsets.names(options.data)
    return {name: testsets.subset_of(options.data, name) for name in sets}


def runs_of(options: argparse.Namespace) -> Dict[Path, Path]:
    """For every checkpoint the folder of its run, where its results go.

    :class:`UserError` if nothing says which it is, or two checkpoints have the same.
    """
    runs: Dict[Path, Path] = {}
    if options.out and len(options.checkpoints) > 1:
        raise UserError(f"--out is {options.out}, but there are {len(options.checkpoints)} checkpoints: it takes one")
    for checkpoint in options.checkpoints:
        if options.out is None and checkpoint.parent.name != "checkpoints":
            raise UserError(
                f"CHECKPOINT is {checkpoint}, but must be RUN/checkpoints/FILE.pt, or --out name the folder"
            )
        run = options.out or checkpoint.parent.parent
        if run in runs.values():
            raise UserError(f"CHECKPOINT is {checkpoint}, but must be the only one of {run}, whose results would mix")
        runs[checkpoint] = run
    return runs


def main(args=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m gift_fairseq.evaluation.translate",
        description=__doc__.split("\n")[0],
        epilog=f"What follows -- goes to fairseq-generate, after {GENERATOR_FLAGS}.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="the data folder of scripts/prepare.sh")
    add_search_options(parser)
    add_checkpoint_options(parser)
    options, flags = parse_before_flags(parser, args)
    beam = beam_size(options)
    segmentation = Segmentation.read(options.data)
    subsets, runs = subsets_of(options), runs_of(options)
    segmenter = Segmenter(options.data, segmentation.tgt)
    for checkpoint, run in runs.items():
        for name, subset in subsets.items():
            print(f"  {run.name}: {name}, {search_name(beam)}", flush=True)
            output = run / "generate" / f"{name}.{search_name(beam)}"
            try:
                fairseq_generate(
                    [str(options.data), "--task", "gift_translation", "-s", segmentation.src, "-t", segmentation.tgt]
                    + ["--path", str(checkpoint), "--beam", str(beam), "--gen-subset", subset]
                    + [*GENERATOR_FLAGS.split(), *flags],
                    Path(f"{output}.log"),
                )
                lines = [segmenter.decode(line) for line in read_best(Path(f"{output}.log"))]
                write_whole(f"{output}.txt", "".join(line + "\n" for line in lines))
            except OSError as error:
                raise UserError(f"{error.filename or output} cannot be written or read: {error.strerror}") from None


if __name__ == "__main__":
    main()
