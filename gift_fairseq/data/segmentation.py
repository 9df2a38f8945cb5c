"""Raw text to subwords and back: what a model's text went through, kept beside the data it was trained on.

Preparation writes ``segmentation.json`` and the subword model into one folder, where inference reads them.
"""

import contextlib
import io
import itertools
import json
import os
import re
import sys
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterator, Sequence

import sacremoses
import sentencepiece
from subword_nmt import apply_bpe
from subword_nmt import learn_bpe as subword_nmt_learn_bpe

from gift_fairseq.errors import UserError, check_choice
from gift_fairseq.io import write_whole, written_whole

TOKENIZERS = ("moses", "moses-bare", "none")
SUBWORDS = {"sentencepiece": "subwords.model", "bpe": "subwords.codes"}  # with the names of their files
MODELS = {"sentencepiece": "a model of sentencepiece", "bpe": "codes of subword-nmt, two symbols a line"}  # as said
FILE = "segmentation.json"


@dataclass(frozen=True)
class Segmentation:
    """How the text of a language pair is cut; the same for both sides but for the language of the tokenizer."""

    src: str
    tgt: str
    tokenizer: str = "none"
    lowercase: bool = False
    subword: str = "sentencepiece"

    def __post_init__(self):
        for option, language in (("--src", self.src), ("--tgt", self.tgt)):
            if not language or set(language) & set("-./"):  # fairseq splits train.SRC-TGT.LANG.bin at them
                raise UserError(f"{option} is {language}, but must be a name without '-', '.' and '/', as pt_BR is")
        if self.src == self.tgt:
            raise UserError(f"--tgt is {self.tgt}, but must be another language than --src")
        check_choice("--tokenizer", self.tokenizer, TOKENIZERS)
        check_choice("--subword", self.subword, SUBWORDS)

    def write(self, folder: Path) -> None:
        write_whole(str(folder / FILE), json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Segmentation":
        """:class:`UserError` if ``folder`` has none."""
        try:
            return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except OSError:
            raise UserError(f"--data is {folder}, which has no {FILE}: prepare the data with gift prepare") from None

    def subword_file(self, folder: Path) -> Path:
        return folder / SUBWORDS[self.subword]


class Tokenizer:
    """Text of one language to tokens with blanks between them, and back."""

    def __init__(self, segmentation: Segmentation, language: str):
        self.moses = segmentation.tokenizer != "none"
        self.bare = segmentation.tokenizer == "moses-bare"  # as Moses' tokenizer.perl writes when it is given no option
        self.lowercase = segmentation.lowercase
        if self.moses:
            self.normalizer = sacremoses.MosesPunctNormalizer(language)
            self.tokenizer = sacremoses.MosesTokenizer(language)
            self.detokenizer = sacremoses.MosesDetokenizer(language)

    def tokenize(self, line: str) -> str:
        """Composed characters (NFC), control characters and runs of blanks as one blank; tokenized where asked for.

        ``moses`` also normalizes punctuation and splits at hyphens (``@-@``); ``moses-bare`` does neither and escapes
        (``&apos;``): so was the text made that many released models read.
        """
        line = " ".join(_CONTROL.sub(" ", unicodedata.normalize("NFC", line)).split())
        if self.moses:
            line = line if self.bare else self.normalizer.normalize(line)
            line = self.tokenizer.tokenize(
                line, aggressive_dash_splits=not self.bare, return_str=True, escape=self.bare
            )
        return line.lower() if self.lowercase else line

    def detokenize(self, line: str) -> str:
        if not self.moses:
            return line
        return self.detokenizer.detokenize(line.replace(" @-@ ", "-").split(), unescape=self.bare)


# category Cc but for the blank ones, the zero-width no-break blank, and what only separates lines and paragraphs
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ufeff\\u2028\\u2029]")


def has_control_characters(line: str) -> bool:
    return _CONTROL.search(line) is not None


def decode_line(line: bytes, where: str) -> str:
    """UTF-8 to text; :class:`UserError` that says ``where`` if it is not."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8: {error.reason} at byte {error.start + 1}") from None


class Subwords:
    """Tokens to pieces and back, by the learnt model ``file`` of the kind ``subword``; :class:`UserError` if none."""

    def __init__(self, subword: str, file: Path):
        self.bpe = None
        try:
            if subword == "bpe":
                with open(file, encoding="utf-8") as codes, contextlib.redirect_stderr(io.StringIO()):
                    self.bpe = apply_bpe.BPE(codes)
            else:
                self.processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        except (SystemExit, ValueError, RuntimeError):  # subword-nmt says why on stderr, and exits
            raise UserError(f"--subword is {subword}, but {file} is not {MODELS[subword]}") from None

    def encode(self, tokens: str) -> str:
        if self.bpe is not None:
            return self.bpe.process_line(tokens)
        return " ".join(self.processor.encode(tokens, out_type=str))

    def decode(self, pieces: str) -> str:
        if self.bpe is not None:
            return re.sub("@@( |$)", "", pieces)
        return pieces.replace(" ", "").replace("\u2581", " ").strip()  # as fairseq does: <unk> stays what it is


class Segmenter:
    """Raw text of one side to pieces and back: :class:`Tokenizer`, then :class:`Subwords`."""

    def __init__(self, folder: Path, language: str):
        segmentation = Segmentation.read(folder)
        file = segmentation.subword_file(folder)
        if not file.is_file():
            raise UserError(f"{folder} has no {file.name}: prepare the data with gift prepare")
        self.tokenizer, self.subwords = Tokenizer(segmentation, language), Subwords(segmentation.subword, file)

    def encode(self, line: str) -> str:
        return self.subwords.encode(self.tokenizer.tokenize(line))

    def decode(self, pieces: str) -> str:
        return self.tokenizer.detokenize(self.subwords.decode(pieces))


def learn_sentencepiece(files: Sequence[Path], file: Path, vocab_size: int, sentences: int) -> None:
    """Learns a joint unigram model of ``vocab_size`` pieces from ``sentences`` lines, drawn at random; 0: from all.

    All characters of those lines get a piece of their own. :class:`UserError` if the text has not that many pieces.
    """
    sentencepiece.set_random_generator_seed(1)
    model = io.BytesIO()  # and no file names given: the model would keep them
    try:
        with _lines(files) as lines:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines,
                model_writer=model,
                vocab_size=vocab_size,
                character_coverage=1.0,
                input_sentence_size=sentences,
                shuffle_input_sentence=sentences > 0,
                minloglevel=2,
                num_threads=os.cpu_count(),
            )
    except RuntimeError as error:
        reason = str(error).split("] ")[-1].strip()
        raise UserError(f"--vocab-size is {vocab_size}, which does not fit the text: {reason}") from None
    with written_whole(str(file), binary=True) as (out,):
        out.write(model.getvalue())


def learn_bpe(files: Sequence[Path], file: Path, vocab_size: int) -> None:
    """Learns ``vocab_size`` joint merge operations (Sennrich et al. 2016) from all lines of ``files``."""
    # its progress bar is for a terminal, and would fill a log
    shown = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    with _lines(files) as lines, written_whole(str(file)) as (codes,), shown:
        subword_nmt_learn_bpe.learn_bpe(lines, codes, vocab_size)


@contextlib.contextmanager
def _lines(files: Sequence[Path]) -> Iterator[Iterator[str]]:
    """The lines of all ``files``, one file after the other."""
    with contextlib.ExitStack() as stack:
        texts = [stack.enter_context(open(name, encoding="utf-8", newline="\n")) for name in files]
        yield (line.rstrip("\n") for line in itertools.chain.from_iterable(texts))
