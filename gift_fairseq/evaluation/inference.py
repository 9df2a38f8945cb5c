"""Raw text in, translated raw text out, a line for a line.

``python -m gift_fairseq.evaluation.inference --data DIR --checkpoint FILE <in >out`` (``scripts/inference.sh``) cuts
the text as ``scripts/prepare.sh`` cut the training data (``DIR/segmentation.json``), lets fairseq's generator
translate, and puts the pieces together again. At a terminal every line is answered at once.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple

import torch
from fairseq import checkpoint_utils, tasks, utils
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli.generate import get_symbols_to_strip_from_output
from fairseq_cli.interactive import make_batches

from gift_fairseq.data.segmentation import Segmentation, Segmenter, decode_line
from gift_fairseq.evaluation.translate import GENERATOR_FLAGS, add_search_options, beam_size, parse_before_flags
from gift_fairseq.options import UserError, check_at_least
from gift_fairseq.quiet import quiet
from gift_fairseq.tasks import gift_translation  # noqa: F401  registers the task


class Hypothesis(NamedTuple):
    """A translation, and its score: the base-2 log-probability, averaged as fairseq's ``--lenpen`` says."""

    score: float
    text: str


class Translator:
    """The model of ``checkpoint`` over the folder ``data`` that ``scripts/prepare.sh`` made.

    ``flags`` are those of fairseq-interactive. :class:`UserError` if a file is missing or does not fit the others.
    """

    def __init__(self, data: Path, checkpoint: Path, beam: int, nbest: int, flags: List[str]):
        segmentation = Segmentation.read(data)
        self.source, self.target = (Segmenter(data, language) for language in (segmentation.src, segmentation.tgt))
        arguments = [str(data), "--task", "gift_translation", "-s", segmentation.src, "-t", segmentation.tgt]
        arguments += ["--path", str(checkpoint), "--beam", str(beam), "--nbest", str(nbest)]
        arguments += GENERATOR_FLAGS.split()
        parser = fairseq_options.get_interactive_generation_parser()
        self.cfg = convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, [*arguments, *flags]))
        self.use_cuda = torch.cuda.is_available() and not self.cfg.common.cpu
        self.task = tasks.setup_task(self.cfg.task)
        self.models, _ = checkpoint_utils.load_model_ensemble([str(checkpoint)], task=self.task)
        for model in self.models:
            if self.cfg.common.fp16:
                model.half()
            if self.use_cuda:
                model.cuda()
            model.prepare_for_inference_(self.cfg)
        self.generator = self.task.build_generator(self.models, self.cfg.generation)
        self.max_positions = utils.resolve_max_positions(
            self.task.max_positions(), *(model.max_positions() for model in self.models)
        )

    def translate(self, lines: List[str], first_line: int = 1) -> List[List[Hypothesis]]:
        """The best hypotheses of every line, in order; of a line without text, an empty one.

        :class:`UserError` where a line has more subwords than the model has positions, counting from ``first_line``.
        """
        pieces = [self.source.encode(line) for line in lines]
        most = self.max_positions[0] - 1  # and the end of the sentence
        for number, line in enumerate(pieces, first_line):
            if len(line.split()) > most:
                raise UserError(f"line {number} has {len(line.split())} subwords, but the model takes at most {most}")
        found = {index: [Hypothesis(0.0, "")] for index, line in enumerate(pieces) if not line}
        numbers = [index for index, line in enumerate(pieces) if line]
        texts = [pieces[index] for index in numbers]
        for batch in make_batches(texts, self.cfg, self.task, self.max_positions, lambda text: text) if texts else ():
            sample = {"net_input": {"src_tokens": batch.src_tokens, "src_lengths": batch.src_lengths}}
            if self.use_cuda:
                sample = utils.move_to_cuda(sample)
            translations = self.task.inference_step(self.generator, self.models, sample)
            for index, hypotheses in zip(batch.ids.tolist(), translations):
                found[numbers[index]] = [self._hypothesis(it) for it in hypotheses[: self.cfg.generation.nbest]]
        return [found[index] for index in range(len(lines))]

    def _hypothesis(self, hypothesis) -> Hypothesis:
        pieces = self.task.target_dictionary.string(
            hypothesis["tokens"].int().cpu(), extra_symbols_to_ignore=get_symbols_to_strip_from_output(self.generator)
        )
        return Hypothesis(float(hypothesis["score"]) / math.log(2), self.target.decode(pieces))


def buffers(lines: Iterable[bytes], size: int) -> Iterator[List[str]]:
    """``size`` lines of UTF-8 at a time; :class:`UserError` where a line is not."""
    buffer: List[str] = []
    for number, line in enumerate(lines, 1):
        try:
            buffer.append(decode_line(line, f"line {number}"))
        except ValueError as error:
            raise UserError(str(error)) from None
        if len(buffer) == size:
            yield buffer
            buffer = []
    if buffer:
        yield buffer


def main(args=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m gift_fairseq.evaluation.inference",
        description=__doc__.split("\n")[0],
        epilog=f"What follows -- goes to fairseq's generator, after {GENERATOR_FLAGS}.",
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the data folder of scripts/prepare.sh")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FILE", help="a model trained on it")
    add_search_options(parser)
    parser.add_argument(
        "--nbest",
        type=int,
        default=1,
        metavar="N",
        help="hypotheses a line, at most the beam size; above "
        "1, each as: line number, score, text, with tabs between; default: 1",
    )
    parser.add_argument(
        "--buffer",
        type=int,
        metavar="N",
        help="lines that are translated together, 1 or more; default: 1 at a terminal, otherwise 256",
    )
    options, flags = parse_before_flags(parser, args)
    beam = beam_size(options)
    check_at_least("--nbest", options.nbest, 1)
    if options.nbest > beam:
        raise UserError(f"--nbest is {options.nbest}, but must not be above the beam size, {beam}")
    size = options.buffer if options.buffer is not None else 1 if sys.stdin.isatty() else 256
    check_at_least("--buffer", size, 1)
    with quiet():
        run(options, beam, size, flags)


def run(options: argparse.Namespace, beam: int, size: int, flags: List[str]) -> None:
    """Translates stdin to stdout, ``size`` lines at a time."""
    translator = Translator(options.data, options.checkpoint, beam, options.nbest, flags)
    number = 0
    for lines in buffers(sys.stdin.buffer, size):
        for hypotheses in translator.translate(lines, number + 1):
            number += 1
            for score, text in hypotheses:
                print(f"{number}\t{score:.4f}\t{text}" if options.nbest > 1 else text)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
