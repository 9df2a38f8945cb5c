"""How far a hypothesis is from its reference, for training: one minus a sentence-level score of sacreBLEU's."""

from typing import Callable, Dict, List, Sequence

from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process
from sacrebleu.metrics import BLEU, CHRF

# add-1 smoothing of the orders above the first (Lin and Och 2004), as Shen et al. (2016) take it; with it the effective
# order is always 4
METRICS: Dict[str, Callable] = {
    "bleu": lambda: BLEU(smooth_method="add-k", smooth_value=1, effective_order=True),
    "chrf": CHRF,
}
# what stands for an unknown token: letters of no text, which share not even a character with each other
UNKNOWN_IN_HYPOTHESIS, UNKNOWN_IN_REFERENCE = "\ue000", "\ue001"


class SentenceCost:
    """``1 - score`` from 0 (the reference itself) to 1, by sacreBLEU's BLEU or chrF2 on whole words.

    Text is put together from the subwords of ``vocabulary``: sentencepiece's or subword-nmt's where its entries look
    like them, else they are words. BLEU's tokens are sacreBLEU's (13a). What is unknown is never right.
    """

    def __init__(self, metric: str, vocabulary: Dictionary):
        self.metric, self.vocabulary = METRICS[metric](), vocabulary
        self.subwords = subwords_of(vocabulary.symbols)

    def costs(self, hypotheses: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> List[float]:
        """The cost of each of ``hypotheses`` against the reference beside it, both ids, with or without ``</s>``."""
        known = {}  # several hypotheses have the same reference
        found = []
        for hypothesis, reference in zip(hypotheses, references):
            key = tuple(reference)
            if key not in known:
                known[key] = self.text(reference, UNKNOWN_IN_REFERENCE)
            text = self.text(hypothesis, UNKNOWN_IN_HYPOTHESIS)
            found.append(1 - self.metric.sentence_score(text, [known[key]]).score / 100)
        return found

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
