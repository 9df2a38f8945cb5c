"""A model's own translations of its training text, as training data: sequence-level interpolation, done once.

Every hypothesis is kept, in ``FOLDER/NUMBER.jsonl``: a line a sentence, its place in the training set, the hypotheses
as subwords and their scores against the gold translation. Kim and Rush (2016, Sequence-Level Knowledge Distillation,
section 3.3) take the best of a beam by BLEU from a larger teacher; here the model is its own.
"""

import contextlib
import json
import multiprocessing
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import Dictionary, LanguagePairDataset, indexed_dataset
from fairseq.data.data_utils import collate_tokens, infer_language_pair
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import Tensor

from gift_fairseq import rollout
from gift_fairseq.checkpoints.files import check_checkpoint
from gift_fairseq.data.origin import Origin
from gift_fairseq.errors import UserError, check_data
from gift_fairseq.io import progress, quiet, say, write_whole, written_whole
from gift_fairseq.objectives.sentence_costs import CostFlags, SentenceCost
from gift_fairseq.prefixes.best import BestFlags, BestPrefixes, Choice
from gift_fairseq.prefixes.free_running import ShareFlags
from gift_fairseq.prefixes.source import Decoding, SamplingFlags, Symbols

CHUNK = 1024  # sentences of a file, at least
SECONDS = ".seconds"  # beside a file: what it took

Batch = List[int]  # places in the training set


@dataclass
class BestOfN(BestFlags, SamplingFlags, CostFlags, ShareFlags):
    pass


class Proposing(NamedTuple):
    """What a process needs to translate: all that can be sent to it."""

    data: Path
    checkpoint: Path
    cfg: BestOfN
    seed: int


def task_of(data: Path) -> TranslationTask:
    """fairseq's task over a data folder, its training set loaded; :class:`UserError` if it is none."""
    source, target = infer_language_pair(str(check_data(data)))
    # those that follow from other parts of fairseq's configuration, which there is none of here
    rest = dict(train_subset="train", dataset_impl=None, required_seq_len_multiple=1, upsample_primary=1)
    cfg = TranslationConfig(data=str(data), source_lang=source, target_lang=target, **rest)
    with quiet():
        task = TranslationTask.setup_task(cfg)
        try:
            task.load_dataset("train")
        except FileNotFoundError:
            raise UserError(f"--data is {data}, which has no training set: prepare one with gift prepare") from None
    return task


class Proposer:
    """Translates sentences of the training text by the model of a checkpoint, and scores what comes out."""

    def __init__(self, what: Proposing):
        """:class:`UserError` if the checkpoint does not fit the data, or a flag of best of n has no meaning."""
        task = task_of(what.data)
        check_checkpoint("--from", str(what.checkpoint), task.source_dictionary, task.target_dictionary)
        with quiet():
            (self.model,), _ = checkpoint_utils.load_model_ensemble([str(what.checkpoint)], task=task)
        self.what, self.use_cuda = what, torch.cuda.is_available()
        self.dataset: LanguagePairDataset = task.dataset("train")
        self.dataset.shuffle = False  # the chunks of a run that is resumed are the same
        self.vocabulary: Dictionary = task.target_dictionary
        cost = SentenceCost(what.cfg.risk_cost, self.vocabulary).of
        self.best = BestPrefixes(what.cfg, Symbols.of(self.vocabulary), self.vocabulary, cost)
        if self.use_cuda:
            self.model.cuda()
        self.model.eval()

    def chunks(self, max_tokens: int, sentences: Optional[int]) -> List[List[Batch]]:
        """Batches of sentences of about one length, at most ``max_tokens`` padded ones; some of them in each chunk.

        ``sentences`` of the text, taken at random, or all. Those that the model cannot read are left out.
        """
        order = self.dataset.ordered_indices()
        if sentences is not None and sentences < len(order):
            taken = np.random.RandomState(self.what.seed).permutation(len(order))[:sentences]
            order = order[np.isin(order, taken)]
        order, _ = self.dataset.filter_indices_by_size(order, self.model.max_positions())
        chunks: List[List[Batch]] = [[]]
        for batch in self.dataset.batch_by_size(order, max_tokens=max_tokens):
            if sum(map(len, chunks[-1])) >= CHUNK:
                chunks.append([])
            chunks[-1].append(list(map(int, batch)))
        return chunks

    def write(self, number: int, batches: Sequence[Batch], folder: Path) -> int:
        """The file of chunk ``number``; how many sentences it has. The same whichever process writes it."""
        utils.set_torch_seed(self.what.seed + number)
        begun = time.time()
        with written_whole(str(file_of(folder, number))) as (file,):
            for batch in batches:
                for line in self.lines(batch):
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            write_whole(str(file_of(folder, number).with_suffix(SECONDS)), f"{time.time() - begun:.2f}\n")
        return sum(map(len, batches))

    def lines(self, batch: Batch) -> Iterator[Dict[str, Any]]:
        sample = self.dataset.collater([self.dataset[i] for i in batch])
        sample = utils.move_to_cuda(sample) if self.use_cuda else sample
        inputs = sample["net_input"]
        gold_inputs = inputs["prev_output_tokens"]
        dtype = rollout.dtype_named(self.what.cfg.rollout_dtype)
        with rollout.generating(self.model, gold_inputs.device, dtype):
            encoder_out = self.model.encoder(inputs["src_tokens"], src_lengths=inputs["src_lengths"])
        tokens, scores = self.best.proposed(Decoding(self.model, sample, gold_inputs, encoder_out, {}, 0))
        pad = self.vocabulary.pad()
        for place, rows, of_rows in zip(sample["id"].tolist(), tokens.tolist(), scores.tolist()):
            hypotheses = [" ".join(self.vocabulary[token] for token in row if token != pad) for row in rows]
            yield {"sentence": place, "scores": [round(score, 2) for score in of_rows], "hypotheses": hypotheses}


def file_of(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.jsonl"


def read(file: Path, vocabulary: Dictionary) -> Tuple[List[int], Tensor, Tensor]:
    """Of each sentence of a file its place in the training set, N hypotheses (B, N, L) and their scores (B, N)."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    # at blanks alone, and lines at line feeds: subwords may hold other white space
    rows = [[vocabulary.index(word) for word in text.split(" ")] for line in lines for text in line["hypotheses"]]
    tokens = collate_tokens(list(map(torch.tensor, rows)), vocabulary.pad())
    scores = torch.tensor([line["scores"] for line in lines], dtype=torch.float64)
    return [line["sentence"] for line in lines], tokens.view(len(lines), -1, tokens.size(1)), scores


def propose(what: Proposing, folder: Path, max_tokens: int, sentences: Optional[int], processes: int) -> None:
    """Writes the chunks that are not there yet, by so many processes, each with a GPU of its own if there are any."""
    proposer = Proposer(what)
    chunks = proposer.chunks(max_tokens, sentences)
    total = sum(len(batch) for chunk in chunks for batch in chunk)
    folder.mkdir(parents=True, exist_ok=True)
    left = [(number, chunk, folder) for number, chunk in enumerate(chunks) if not file_of(folder, number).is_file()]
    done = total - sum(len(batch) for _, chunk, _ in left for batch in chunk)
    begun = time.time()
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(total, "translating", "sentences", done))
        written = map(lambda one: proposer.write(*one), left)
        if processes > 1:
            spawn = multiprocessing.get_context("spawn")  # CUDA cannot be used in a fork
            ranks = spawn.SimpleQueue()
            for rank in range(processes):
                ranks.put(rank)
            written = stack.enter_context(spawn.Pool(processes, _start, (what, ranks))).imap_unordered(_write, left)
        for sentences in written:
            bar.update(sentences)
    seconds = time.time() - begun
    say(f"translated {total - done} sentences in {seconds:.0f} s, {(total - done) / seconds:.0f} a second")


_proposer: Proposer  # of this process


def _start(what: Proposing, ranks: Any) -> None:
    global _proposer
    rank = ranks.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    _proposer = Proposer(what)


def _write(one: Tuple[int, List[Batch], Path]) -> int:
    return _proposer.write(*one)


class Chosen(NamedTuple):
    """What was chosen: means over the sentences that were translated, or over those of them with a ``near`` one."""

    sentences: int
    near: int
    score: float
    score_of_all: float
    length: float  # tokens of the chosen hypotheses for each of the gold translations


def choose(what: Proposing, folder: Path, out: Path, share: float, sentences: Optional[int]) -> Chosen:
    """Makes the data folder ``out``, whole or not at all: ``what.data``, with chosen pairs after the gold ones.

    The chosen pairs are the given ``share`` of all pairs: each stands there as often as that takes, give or take once.
    ``sentences`` is what :func:`propose` had.
    (fairseq would read them from a ``train1`` too, but stops without ``--upsample-primary``.)
    """
    task, partial = task_of(what.data), out.with_name(f"{out.name}.partial")
    pair, words = (task.cfg.source_lang, task.cfg.target_lang), (task.source_dictionary, task.target_dictionary)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        found = _choose(what, task, folder, partial / "own")
        if not found.near:
            raise UserError(f"--min-score is {what.cfg.min_score:g}, but no translation of the text reaches it")
        gold = task.dataset("train").src, task.dataset("train").tgt
        own = [indexed_dataset.make_dataset(str(partial / f"own.{side}"), "mmap") for side in ("source", "target")]
        order = np.random.RandomState(what.seed).permutation(found.near)
        copies = max(1, round(share / (1 - share) * len(gold[0])))
        for language, of_side, texts, chosen in zip(pair, words, gold, own):
            builder = _Text(partial / f"train.{'-'.join(pair)}.{language}", len(of_side))
            for text in texts:
                builder.add_item(text)
            for copy in range(copies):
                builder.add_item(chosen[order[copy % len(order)]])
            builder.end()
        del own
        for path in partial.glob("own.*"):
            path.unlink()
        for path in what.data.iterdir():
            if not path.name.startswith("train"):
                (partial / path.name).symlink_to(path.resolve())
        seconds = sum(float(path.read_text()) for path in folder.glob(f"*{SECONDS}"))
        settings = {**asdict(what.cfg), "share": share, "sentences": sentences}
        Origin(str(what.data), str(what.checkpoint), seconds, len(gold[0]), settings).write(partial)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


class _Text:
    """A text of fairseq's, binarized, that is written: ``prefix``.bin and .idx."""

    def __init__(self, prefix: Path, words: int):
        self.prefix, self.builder = prefix, indexed_dataset.make_builder(f"{prefix}.bin", "mmap", words)
        self.add_item = self.builder.add_item

    def end(self) -> None:
        self.builder.finalize(f"{self.prefix}.idx")


def _choose(what: Proposing, task: TranslationTask, folder: Path, own: Path) -> Chosen:
    """Writes the chosen pairs as ``own``.source and ``own``.target."""
    dataset, vocabulary, choice = task.dataset("train"), task.target_dictionary, Choice(what.cfg)
    sides = zip(("source", "target"), (task.source_dictionary, vocabulary))
    builders = [_Text(own.with_suffix(f".{side}"), len(words)) for side, words in sides]
    utils.set_torch_seed(what.seed)
    sums = dict.fromkeys(("sentences", "near", "score", "score_of_all", "tokens", "gold"), 0.0)
    for file in sorted(folder.glob("*.jsonl")):
        places, tokens, scores = read(file, vocabulary)
        gold = torch.tensor([int(dataset.tgt_sizes[place]) for place in places])
        best, near = choice.among(tokens, scores, gold, Symbols.of(vocabulary))
        for row in near.nonzero().flatten().tolist():
            hypothesis = tokens[row, best[row]]
            hypothesis = hypothesis[hypothesis.ne(vocabulary.pad())]
            for builder, text in zip(builders, (dataset.src[places[row]], hypothesis)):
                builder.add_item(text)
            sums["tokens"] += len(hypothesis)
        sums["sentences"] += len(places)
        sums["near"] += int(near.sum())
        sums["gold"] += int(gold[near].sum())
        sums["score"] += float(scores.gather(1, best.unsqueeze(1))[near].sum())
        sums["score_of_all"] += float(scores.mean(dim=1).sum())
    for builder in builders:
        builder.end()
    return Chosen(
        sentences=int(sums["sentences"]),
        near=int(sums["near"]),
        score=sums["score"] / max(1, sums["near"]),
        score_of_all=sums["score_of_all"] / max(1, sums["sentences"]),
        length=sums["tokens"] / max(1, sums["gold"]),
    )
