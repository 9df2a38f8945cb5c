"""Translates the training text and keeps every hypothesis, resumably, by one process for each GPU.

``FOLDER/NUMBER.jsonl`` has a line a sentence: its place in the training set, the hypotheses as subwords, and their
scores against the gold translation.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.data.data_utils import collate_tokens
from torch import Tensor

from gift_fairseq import rollout
from gift_fairseq.checkpoints.files import check_checkpoint
from gift_fairseq.data.binarized import task_of
from gift_fairseq.errors import UserError
from gift_fairseq.io import progress, quiet, read_lines, say, write_whole, written_whole
from gift_fairseq.objectives.sentence_costs import CostFlags, SentenceCost
from gift_fairseq.prefixes.best import BestFlags, BestOfN
from gift_fairseq.prefixes.source import Decoding, SamplingFlags, Symbols

CHUNK = 1024  # sentences of a file, at least
SECONDS = ".seconds"  # beside a file: what it took

Batch = List[int]  # places in the training set
Chunk = Tuple[int, List[Batch], Path]  # its number, its batches, and the folder of its file


@dataclass
class ProposingConfig(BestFlags, SamplingFlags, CostFlags):
    pass


class Proposing(NamedTuple):
    """What a process needs to translate: all that can be sent to it."""

    data: Path
    checkpoint: Path
    cfg: ProposingConfig
    seed: int


class Proposer:
    """Translates sentences of the training text by the model of a checkpoint, and scores what comes out."""

    def __init__(self, what: Proposing, translates: bool = True):
        """:class:`UserError` if the checkpoint does not fit the data, or a flag of best of n has no meaning.

        To translate, it moves the model to this process's GPU, if there is one; :meth:`chunks` needs none.
        """
        task = task_of(what.data)
        check_checkpoint("--from", str(what.checkpoint), task.source_dictionary, task.target_dictionary)
        with quiet():
            (self.model,), _ = checkpoint_utils.load_model_ensemble([str(what.checkpoint)], task=task)
        self.what, self.use_cuda = what, translates and torch.cuda.is_available()
        self.dataset: LanguagePairDataset = task.dataset("train")
        self.dataset.shuffle = False  # the chunks of a run that is resumed are the same
        self.vocabulary: Dictionary = task.target_dictionary
        cost = SentenceCost(what.cfg.risk_cost, self.vocabulary).of
        self.dtype = rollout.dtype_named(what.cfg.rollout_dtype)
        self.best = BestOfN(what.cfg, Symbols.of(self.vocabulary), self.vocabulary, cost)
        if self.use_cuda:
            self.model.cuda()
        self.model.eval()

    def chunks(self, max_tokens: int, sentences: Optional[int]) -> List[List[Batch]]:
        """Batches of sentences of about one length, at most ``max_tokens`` padded ones; some of them in each chunk.

        Where a sentence has more tokens, that many. ``sentences`` of the text, taken at random, or all; those that the
        model cannot read are left out.
        """
        order = self.dataset.ordered_indices()
        if sentences is not None and sentences < len(order):
            taken = np.random.RandomState(self.what.seed).permutation(len(order))[:sentences]
            order = order[np.isin(order, taken)]
        order, _ = self.dataset.filter_indices_by_size(order, self.model.max_positions())
        max_tokens = int(self.dataset.num_tokens_vec(order).max(initial=max_tokens))
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
        with rollout.generating(self.model, gold_inputs.device, self.dtype):
            encoder_out = self.model.encoder(inputs["src_tokens"], src_lengths=inputs["src_lengths"])
        tokens, scores = self.best.proposed(Decoding(self.model, sample, gold_inputs, encoder_out))
        pad = self.vocabulary.pad()
        for place, rows, of_rows in zip(sample["id"].tolist(), tokens.tolist(), scores.tolist()):
            hypotheses = [" ".join(self.vocabulary[token] for token in row if token != pad) for row in rows]
            yield {"sentence": place, "scores": [round(score, 2) for score in of_rows], "hypotheses": hypotheses}


def file_of(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.jsonl"


def read(file: Path, vocabulary: Dictionary) -> Tuple[List[int], Tensor, Tensor]:
    """Of each sentence of a file its place in the training set, N hypotheses (B, N, L) and their scores (B, N)."""
    lines = [json.loads(line) for line in read_lines(file)]
    # at blanks alone: subwords may hold other white space
    rows = [[vocabulary.index(word) for word in text.split(" ")] for line in lines for text in line["hypotheses"]]
    tokens = collate_tokens(list(map(torch.tensor, rows)), vocabulary.pad())
    scores = torch.tensor([line["scores"] for line in lines], dtype=torch.float64)
    return [line["sentence"] for line in lines], tokens.view(len(lines), -1, tokens.size(1)), scores


def propose(what: Proposing, folder: Path, max_tokens: int, sentences: Optional[int], processes: int) -> None:
    """Writes the chunks that are not there yet, by so many processes, each with a GPU of its own if there are any.

    :class:`UserError` if one of several processes ends before the work does; chunks that are written stay.
    """
    proposer = Proposer(what, translates=processes == 1)
    chunks = proposer.chunks(max_tokens, sentences)
    total = sum(len(batch) for chunk in chunks for batch in chunk)
    folder.mkdir(parents=True, exist_ok=True)
    left = [(number, chunk, folder) for number, chunk in enumerate(chunks) if not file_of(folder, number).is_file()]
    done = total - sum(len(batch) for _, chunk, _ in left for batch in chunk)
    begun = time.time()
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(total, "translating", "sentences", done))
        written: Iterator[int] = (proposer.write(*one) for one in left)
        if processes > 1:
            stack.callback(_remove_partials, folder)
            written = stack.enter_context(_by_processes(what, left, processes))
        for sentences in written:
            bar.update(sentences)
    seconds = time.time() - begun
    say(f"translated {total - done} sentences in {seconds:.0f} s, {(total - done) / seconds:.0f} a second")


@contextlib.contextmanager
def _by_processes(what: Proposing, left: Sequence[Chunk], processes: int) -> Iterator[Iterator[int]]:
    """How many sentences each chunk has that is written, as they are; all processes end with the block.

    :class:`UserError` if one of them ends inside, because it cannot start or is killed.
    """
    spawn = multiprocessing.get_context("spawn")  # CUDA cannot be used in a fork
    ranks = spawn.SimpleQueue()
    for rank in range(processes):
        ranks.put(rank)
    reader, held = spawn.Pipe(duplex=False)
    try:
        # at the end held is closed first: the processes end, whatever they do, and the pool has none to wait for
        with ProcessPoolExecutor(processes, spawn, _start, (what, ranks, reader)) as pool, held:
            futures = [pool.submit(_write, one) for one in left]
            yield (future.result() for future in as_completed(futures))
    except BrokenProcessPool:
        raise UserError(
            f"one of the {processes} processes that translate has ended early: its own error stands above, unless it "
            "was killed, as where memory is out; give fewer --gpus or a smaller --max-tokens"
        ) from None


def _remove_partials(folder: Path) -> None:
    """What processes that were ended have begun."""
    for path in folder.glob("*.partial"):
        path.unlink()


_proposer: Proposer  # of this process


def _start(what: Proposing, ranks: Any, reader: Connection) -> None:
    global _proposer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the parent too, which ends this
    threading.Thread(target=_end_with_parent, args=(reader,), daemon=True).start()
    rank = ranks.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    _proposer = Proposer(what)


def _end_with_parent(reader: Connection) -> None:
    """Ends this process once the parent, or its end of the pipe, is no more; a pool's own would wait for work."""
    reader.poll(None)
    os._exit(1)


def _write(one: Chunk) -> int:
    return _proposer.write(*one)
