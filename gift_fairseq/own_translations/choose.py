"""Which of the translations become training pairs, and the data folder of gold pairs and these."""

import contextlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

import numpy as np
import torch
from fairseq import utils
from fairseq.data import indexed_dataset
from fairseq.tasks.translation import TranslationTask

from gift_fairseq.data.binarized import TextWriter, task_of
from gift_fairseq.errors import UserError
from gift_fairseq.own_translations.origin import Origin
from gift_fairseq.own_translations.propose import SECONDS, Proposing, read
from gift_fairseq.prefixes.best import Choice
from gift_fairseq.prefixes.source import Symbols


class Chosen(NamedTuple):
    """What was chosen: means over the sentences that were translated, or over those of them with a ``near`` one."""

    sentences: int
    near: int
    score: float
    score_of_all: float
    length: float  # tokens of the chosen hypotheses for each of the gold translations


def is_chosen(what: Proposing, out: Path, share: float, sentences: Optional[int]) -> bool:
    """Whether :func:`choose` has made ``out`` with the same options before."""
    with contextlib.suppress(UserError):  # of another version
        origin = Origin.of(out)
        wanted = str(what.data), str(what.checkpoint), _settings(what, share, sentences)
        return origin is not None and (origin.data, origin.checkpoint, origin.settings) == wanted
    return False


def _settings(what: Proposing, share: float, sentences: Optional[int]) -> Dict[str, Any]:
    return {**asdict(what.cfg), "share": share, "sentences": sentences}


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
            builder = TextWriter(partial / f"train.{'-'.join(pair)}.{language}", len(of_side))
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
        settings = _settings(what, share, sentences)
        Origin(str(what.data), str(what.checkpoint), seconds, len(gold[0]), settings).write(partial)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _choose(what: Proposing, task: TranslationTask, folder: Path, own: Path) -> Chosen:
    """Writes the chosen pairs as ``own``.source and ``own``.target."""
    dataset, vocabulary, choice = task.dataset("train"), task.target_dictionary, Choice(what.cfg)
    sides = zip(("source", "target"), (task.source_dictionary, vocabulary))
    builders = [TextWriter(own.with_suffix(f".{side}"), len(words)) for side, words in sides]
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
