"""How far a hypothesis is from its reference, for training: one minus a sentence-level score of sacreBLEU's."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process
from fairseq.dataclass import FairseqDataclass
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor

from gift_fairseq.errors import check_choice

# add-1 smoothing of the orders above the first (Lin and Och 2004), as Shen et al. (2016) take it; with it the effective
# order is always 4
SMOOTHED_BLEU = partial(BLEU, smooth_method="add-k", smooth_value=1, effective_order=True)
METRICS: Dict[str, Tuple[Callable, ...]] = {"bleu": (SMOOTHED_BLEU,), "chrf": (CHRF,), "mean": (SMOOTHED_BLEU, CHRF)}
# what stands for an unknown token: letters of no text, which share not even a character with each other
UNKNOWN_IN_HYPOTHESIS, UNKNOWN_IN_REFERENCE = "\ue000", "\ue001"


@dataclass
class CostFlags(FairseqDataclass):
    risk_cost: str = field(
        default="bleu",
        metadata={
            "help": "what a hypothesis costs: 1 minus sacreBLEU's sentence-level bleu (smoothed; it favours short "
            "output), chrf (it favours long output), or their mean; default: bleu"
        },
    )


class SentenceCost:
    """``1 - score`` from 0 (the reference itself) to 1, by sacreBLEU's BLEU, chrF2 or their mean, on whole words.

    Text is put together from the subwords of ``vocabulary``: sentencepiece's or subword-nmt's where its entries look
    like them, else they are words. BLEU's tokens are sacreBLEU's (13a). What is unknown is never right.
    """

    def __init__(self, metric: str, vocabulary: Dictionary):
        self.metric, self.vocabulary = check_choice("--risk-cost", metric, METRICS), vocabulary
        self.subwords = subwords_of(vocabulary.symbols)

    def of(self, tokens: Tensor, target: Tensor, ignored: int = 0) -> Tensor:
        """The costs (R,), float64, of ``tokens`` (R, L) against the ``target`` (R, T) beside each.

        Of the text after the first ``ignored`` tokens.
        """
        found = self.costs(tokens[:, ignored:].tolist(), target[:, ignored:].tolist())
        return torch.tensor(found, dtype=torch.float64, device=target.device)

    def costs(self, hypotheses: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> List[float]:
        """The cost of each of ``hypotheses`` against the reference beside it, both ids, with or without ``</s>``.

        The n-grams of a reference are taken once, and equal hypotheses of it are scored once.
        """
        known: Dict[Tuple[int, ...], Any] = {}
        costs: Dict[Tuple[Tuple[int, ...], Tuple[int, ...]], float] = {}
        pairs = list(zip(map(tuple, hypotheses), map(tuple, references)))
        for hypothesis, reference in pairs:
            if reference not in known:
                text = self.text(reference, UNKNOWN_IN_REFERENCE)
                known[reference] = [metric(references=[[text]]) for metric in METRICS[self.metric]]
            if (hypothesis, reference) not in costs:
                text = self.text(hypothesis, UNKNOWN_IN_HYPOTHESIS)
                scores = [metric.corpus_score([text], None).score for metric in known[reference]]
                costs[hypothesis, reference] = 1 - sum(scores) / len(scores) / 100
        return [costs[pair] for pair in pairs]

    def text(self, tokens: Sequence[int], unknown: str) -> str:
        """``tokens`` as text, ``unknown`` standing for what is not in the dictionary; padding is left out."""
        pad = self.vocabulary.pad()
        kept = [token for token in tokens if token != pad]
        return post_process(self.vocabulary.string(kept, unk_string=unknown), self.subwords)


def subwords_of(symbols: Sequence[str]) -> str:
    """fairseq's name of the kind of subwords that ``symbols`` look like: sentencepiece, subword_nmt or none."""
    if any(symbol.startswith("\u2581") for symbol in symbols):
        return "sentencepiece"
    return "subword_nmt" if any(symbol.endswith("@@") for symbol in symbols) else "none"
