"""Translation by fairseq's own generator, of binarized test sets and of raw text."""

import ast
import contextlib
import copy
import math
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from fairseq import checkpoint_utils, tasks, utils
from fairseq import options as fairseq_options
from fairseq.data import LanguagePairDataset
from fairseq.dataclass.configs import GenerationConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import FairseqTask
from fairseq_cli.generate import get_symbols_to_strip_from_output
from omegaconf import DictConfig
from torch import Tensor, nn

from gift_fairseq.checkpoints.files import check_checkpoint
from gift_fairseq.data.segmentation import Segmentation, Segmenter
from gift_fairseq.errors import UserError, check_flags, fairseq_reads
from gift_fairseq.io import progress
from gift_fairseq.tasks import gift_translation  # noqa: F401  registers the task

# Batch sizes in multiples of 8, fairseq-generate's default, would drop the sentences that remain; its default of one
# worker to load data makes every test set wait for that worker's end. --max-len-a would make a hypothesis depend on its
# batch.
GENERATOR_FLAGS = "--max-tokens 4000 --required-batch-size-multiple 1 --num-workers 0"
REFUSED = (
    "--path --beam --nbest --gen-subset --constraints --lm-path --replace-unk --score-reference --post-process "
    "--remove-bpe --results-path --num-shards --shard-id --scoring"
).split()


class Hypothesis(NamedTuple):
    """A translation, and its score: the base-2 log-probability, averaged as fairseq's ``--lenpen`` says."""

    score: float
    text: str


def search_name(beam: int) -> str:
    """``greedy`` for a beam of one; ``beam5`` for one of five."""
    return f"beam{beam}" if beam > 1 else "greedy"


def generator_words(data: Path) -> List[str]:
    """The arguments of fairseq-generate that say what is translated, and in which batches."""
    pair = Segmentation.read(data)
    return [str(data), "--task", "gift_translation", "-s", pair.src, "-t", pair.tgt, *GENERATOR_FLAGS.split()]


def generation_of(data: Path, flags: Sequence[str]) -> DictConfig:
    """fairseq's configuration of a translation of the folder ``data`` with ``flags`` of fairseq-generate.

    :class:`UserError` if one of them is none, or is set here.
    """
    check_flags(flags, REFUSED, "use fairseq-generate itself")
    # a product that fconv makes of one beam size alone would be wrong for another
    words = [*generator_words(data), "--no-beamable-mm", *flags]
    with fairseq_reads("fairseq-generate"):
        parser = fairseq_options.get_interactive_generation_parser()
        return convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, words))


class Translator:
    """The model of ``checkpoint`` over the folder ``data`` that the command prepare made.

    ``flags`` are of fairseq-generate. :class:`UserError`, which calls the checkpoint ``option``, if a file is missing
    or does not fit the others.
    """

    def __init__(self, data: Path, checkpoint: Path, flags: Sequence[str] = (), option: str = "CHECKPOINT"):
        self.cfg, self.checkpoint, pair = generation_of(data, flags), checkpoint, Segmentation.read(data)
        self.source, self.target = Segmenter(data, pair.src), Segmenter(data, pair.tgt)
        self.use_cuda = torch.cuda.is_available() and not self.cfg.common.cpu
        self.task = tasks.setup_task(self.cfg.task)
        check_checkpoint(option, str(checkpoint), self.task.source_dictionary, self.task.target_dictionary)
        overrides = overrides_of(self.cfg.common_eval.model_overrides)
        state = checkpoint_utils.load_checkpoint_to_cpu(str(checkpoint), overrides)
        self.models, _ = checkpoint_utils.load_model_ensemble([str(checkpoint)], overrides, self.task, state=state)
        self.updates = state["optimizer_history"][-1]["num_updates"]  # that the checkpoint has behind it
        for model in self.models:
            if self.cfg.common.fp16:
                model.half()
            if self.use_cuda:
                model.cuda()
            model.prepare_for_inference_(self.cfg)
        self.max_positions = utils.resolve_max_positions(
            self.task.max_positions(), *(model.max_positions() for model in self.models)
        )
        self._generators: Dict[int, SequenceGenerator] = {}

    def generator(self, beam: int) -> SequenceGenerator:
        """fairseq's, of this beam size; 1 is greedy. :class:`UserError` if the flags do not fit it or each other."""
        if beam not in self._generators:
            generation = copy.deepcopy(self.cfg.generation)
            generation.beam = beam
            try:
                generator = self.task.build_generator(self.models, generation)
            except (AssertionError, ValueError) as error:
                raise UserError(f"fairseq-generate: {error}") from None
            check_generation(generation, generator.max_len - 1)
            self._generators[beam] = generator
        return self._generators[beam]

    def dataset(self, subset: str) -> LanguagePairDataset:
        """The binarized sentence pairs of fairseq's ``subset``."""
        if subset not in self.task.datasets:
            self.task.load_dataset(subset)
        return self.task.dataset(subset)

    def translate_set(self, name: str, subset: str, beam: int) -> List[str]:
        """The translation of each sentence of the test set ``name``, fairseq's ``subset``, in order, detokenized.

        :class:`UserError` if the model does not take as many tokens as a sentence has.
        """
        dataset = self.dataset(subset)
        check_lengths(self.checkpoint, name, dataset, self.max_positions[:1])
        return [hypotheses[0].text for hypotheses in self._hypotheses(dataset, beam, 1)]

    def translate(self, lines: List[str], beam: int, nbest: int = 1, first_line: int = 1) -> List[List[Hypothesis]]:
        """The ``nbest`` hypotheses of every line of raw text, in order; of a line without text, an empty one.

        :class:`UserError` where a line has more subwords than the model has positions, counting from ``first_line``.
        """
        size = self.cfg.generation.prefix_size
        if size > 0:
            raise UserError(f"--prefix-size is {size}, but raw text has no references to take prefixes from")
        pieces = [self.source.encode(line) for line in lines]
        most = self.max_positions[0] - 1  # and the end of the sentence
        for number, line in enumerate(pieces, first_line):
            if len(line.split()) > most:
                raise UserError(f"line {number} has {len(line.split())} subwords, but the model takes at most {most}")
        texts = [line for line in pieces if line]
        found = iter(())
        if texts:
            tokens, lengths = self.task.get_interactive_tokens_and_lengths(texts, lambda text: text)
            found = iter(self._hypotheses(self.task.build_dataset_for_inference(tokens, lengths), beam, nbest))
        return [next(found) if line else [Hypothesis(0.0, "")] for line in pieces]

    def _hypotheses(self, dataset: LanguagePairDataset, beam: int, nbest: int) -> List[List[Hypothesis]]:
        if not self.cfg.generation.no_seed_provided:  # as fairseq-generate does before each set
            np.random.seed(self.cfg.common.seed)
            utils.set_torch_seed(self.cfg.common.seed)
        generator, batch = self.generator(beam), self.cfg.dataset
        samples = batches(self.task, dataset, batch.max_tokens, self.use_cuda, batch.batch_size)
        prefix_size = self.cfg.generation.prefix_size
        stripped = get_symbols_to_strip_from_output(generator)

        def text_of(tokens: Tensor) -> str:
            pieces = self.task.target_dictionary.string(tokens.int(), extra_symbols_to_ignore=stripped)
            return self.target.decode(pieces)

        found = search(self.task, self.models, generator, samples, nbest, prefix_size)
        return [[Hypothesis(score / math.log(2), text_of(tokens)) for score, tokens in best] for best in found]


def overrides_of(text: str) -> Dict[str, Any]:
    """The value of --model-overrides; :class:`UserError` if it is none."""
    with contextlib.suppress(SyntaxError, ValueError):
        found = ast.literal_eval(text)
        if isinstance(found, dict):
            return found
    raise UserError(f"--model-overrides is {text}, but must be options in braces, such as {{'dropout': 0.1}}")


def check_generation(generation: GenerationConfig, longest: int) -> None:
    """:class:`UserError` for what fairseq finds out while it translates; ``longest``: tokens that the model writes."""
    beam, groups = generation.beam, generation.diverse_beam_groups
    if groups > 0 and beam % groups:
        raise UserError(f"--diverse-beam-groups is {groups}, but the beam size, {beam}, must be a multiple of it")
    least, most = generation.min_len, min(longest, generation.max_len_b)
    if not generation.max_len_a and least > most:
        raise UserError(f"--min-len is {least}, but a translation has at most {most} tokens: see --max-len-b")


def check_lengths(checkpoint: Path, name: str, dataset: LanguagePairDataset, limits: Sequence[int]) -> None:
    """:class:`UserError` if a sentence of the test set ``name`` has more tokens than the model takes.

    ``limits`` are those of the source and, where the target is read too, of the target.
    """
    for side, sizes, limit in zip(("source", "target"), (dataset.src_sizes, dataset.tgt_sizes), limits):
        if sizes.max() > limit:
            raise UserError(
                f"CHECKPOINT is {checkpoint}, which takes {limit} {side} tokens, but {name} has {sizes.max()} in a line"
            )


def search(
    task: FairseqTask,
    models: Sequence[nn.Module],
    generator: SequenceGenerator,
    samples: Iterator[Dict],
    nbest: int = 1,
    prefix_size: int = 0,
) -> List[List[Tuple[float, Tensor]]]:
    """For every sentence in the order of the data set, its best hypotheses: score, and token ids on the CPU.

    The score is in nats. The ids end in ``</s>``. The first ``prefix_size`` are those of the reference.
    """
    found: Dict[int, List[Tuple[float, Tensor]]] = {}
    for sample in samples:
        prefix = sample["target"][:, :prefix_size] if prefix_size > 0 else None
        for i, best in zip(sample["id"].tolist(), task.inference_step(generator, models, sample, prefix)):
            found[i] = [(float(it["score"]), it["tokens"].cpu()) for it in best[:nbest]]
    return [found[i] for i in range(len(found))]


def batches(
    task: FairseqTask,
    dataset: LanguagePairDataset,
    max_tokens: int,
    use_cuda: bool,
    max_sentences: Optional[int] = None,
    what: str = "translating",
) -> Iterator[Dict]:
    """Every sentence of ``dataset``, in batches of at most ``max_tokens`` padded tokens, or of one sentence.

    A bar shows how far ``what`` is done with them.
    """
    iterator = task.get_batch_iterator(
        dataset,
        max_tokens=max(max_tokens, int(dataset.sizes.max())),
        max_sentences=max_sentences,
        required_batch_size_multiple=1,
        disable_iterator_cache=True,
    )
    with progress(len(dataset), what, "sentences") as bar:
        for sample in iterator.next_epoch_itr(shuffle=False):
            yield utils.move_to_cuda(sample) if use_cuda else sample
            bar.update(len(sample["id"]))
