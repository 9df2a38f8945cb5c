"""Joint subwords by sentencepiece: learnt on the training split of both languages, applied line by line.

``python -m gift_fairseq.data.subwords learn --vocab-size N --model PREFIX FILE...``
``python -m gift_fairseq.data.subwords encode --model PREFIX.model --out DIR FILE...``
"""

import argparse
import os

import sentencepiece

from gift_fairseq.files import written_whole
from gift_fairseq.options import UserError, check_at_least


def learn(files, prefix: str, vocab_size: int) -> None:
    """Learns a unigram model of ``vocab_size`` pieces over ``files``; writes ``prefix``.model and ``prefix``.vocab.

    All characters of the text get a piece of their own. :class:`UserError` if the text has not that many pieces.
    """
    check_at_least("--vocab-size", vocab_size, 1)
    partial = f"{prefix}.partial"
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=list(files),
            model_prefix=partial,
            vocab_size=vocab_size,
            character_coverage=1.0,
            minloglevel=2,
            num_threads=os.cpu_count(),
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).split("] ")[-1].strip()
        raise UserError(f"--vocab-size is {vocab_size}, which does not fit the text: {reason}") from None
    for ending in (".vocab", ".model"):
        os.replace(partial + ending, prefix + ending)


def encode(files, model: str, out_dir: str) -> None:
    """Writes each of ``files`` under its own name into ``out_dir``, as pieces with blanks between them."""
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    os.makedirs(out_dir, exist_ok=True)
    for file in files:
        path = os.path.join(out_dir, os.path.basename(file))
        with open(file, encoding="utf-8", newline="\n") as lines, written_whole(path) as (out,):
            for line in lines:
                out.write(" ".join(processor.encode(line.rstrip("\n"), out_type=str)) + "\n")


def main(args=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gift_fairseq.data.subwords", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    learner = commands.add_parser("learn", help="learn a joint model")
    learner.add_argument("--model", required=True, metavar="PREFIX", help="writes PREFIX.model and PREFIX.vocab")
    learner.add_argument("--vocab-size", type=int, default=8000, metavar="N", help="pieces, 1 or more; default: 8000")
    encoder = commands.add_parser("encode", help="apply it")
    encoder.add_argument("--model", required=True, metavar="FILE", help="a .model file of 'learn'")
    encoder.add_argument("--out", required=True, metavar="DIR", help="folder for files of the same names")
    for command in (learner, encoder):
        command.add_argument("files", nargs="+", metavar="FILE", help="plain text in UTF-8, a sentence a line")
    options = parser.parse_args(args)
    for file in options.files:
        if not os.path.isfile(file):
            raise UserError(f"FILE is {file}, but there is no such file")
    if options.command == "learn":
        learn(options.files, options.model, options.vocab_size)
    else:
        encode(options.files, options.model, options.out)


if __name__ == "__main__":
    main()
