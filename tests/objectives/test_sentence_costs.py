"""Sentence costs beside sacreBLEU's own scores of the text."""

import pytest
from fairseq.data import Dictionary
from naive import EOS, PAD, UNK
from sacrebleu.metrics import BLEU, CHRF

from gift_fairseq.objectives.sentence_costs import SentenceCost, subwords_of


def dictionary(*symbols):
    words = Dictionary()
    for symbol in symbols:
        words.add_symbol(symbol)
    return words


KINDS = {
    "sentencepiece": (
        "▁the ▁c at ▁sat s",
        {"▁the ▁c at": "the cat", "▁the ▁c at ▁sat": "the cat sat", "▁sat s": "sats"},
    ),
    "subword_nmt": ("the c@@ at s@@", {"the c@@ at": "the cat", "c@@ at the s@@": "cat the s", "c@@ at": "cat"}),
    "none": ("the cat sat it's", {"the cat": "the cat", "the cat sat": "the cat sat", "it's the": "it's the"}),
}
BLEU_AND_CHRF = (BLEU(smooth_method="add-k", smooth_value=1, effective_order=True), CHRF())
SCORES = {"bleu": BLEU_AND_CHRF[:1], "chrf": BLEU_AND_CHRF[1:], "mean": BLEU_AND_CHRF}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", SCORES)
def test_costs_are_one_minus_sacrebleu_of_the_text(metric, kind):
    symbols, texts = KINDS[kind]
    words = dictionary(*symbols.split())
    assert subwords_of(words.symbols) == kind
    cost = SentenceCost(metric, words)
    ids = {pieces: [words.index(piece) for piece in pieces.split()] for pieces in texts}
    pairs = [(one, other) for one in texts for other in texts]
    found = cost.costs(
        [[*ids[one], EOS, PAD, PAD] for one, _ in pairs], [[*ids[other], EOS, PAD] for _, other in pairs]
    )
    for (one, other), value in zip(pairs, found):
        scores = [each.sentence_score(texts[one], [texts[other]]).score for each in SCORES[metric]]
        assert value == pytest.approx(1 - sum(scores) / len(scores) / 100, abs=1e-12)
        assert one != other or value == pytest.approx(0, abs=1e-12)
        assert one == other or 0 < value <= 1


@pytest.mark.parametrize("metric", SCORES)
def test_a_text_of_nothing_costs_all(metric):
    cost = SentenceCost(metric, dictionary("a", "b"))
    assert cost.costs([[EOS], [EOS, PAD], [], [4, EOS]], [[4, 5, EOS], [4, EOS], [4], [EOS]]) == [1, 1, 1, 1]


@pytest.mark.parametrize("metric", SCORES)
@pytest.mark.parametrize("symbols", ["a b", "▁a b", "a@@ b"])
def test_what_is_unknown_is_never_right(metric, symbols):
    """Neither as a word nor by its letters, also where the reference has an unknown word at the same place."""
    cost = SentenceCost(metric, dictionary(*symbols.split()))
    unknown, (wrong, right) = cost.costs([[UNK, EOS]], [[UNK, EOS]]), cost.costs([[4, UNK], [4]], [[4, UNK], [4]])
    assert unknown == [1] and right == pytest.approx(0, abs=1e-12) and wrong > 0.2


def test_bleu_by_hand():
    """3/4 of the words; smoothed by one (1 + 1)/(3 + 1) of the pairs, 1/3, 1/2; no brevity penalty."""
    cost = SentenceCost("bleu", dictionary("a", "b", "c", "d", "e"))
    (found,) = cost.costs([[4, 5, 8, 6, EOS]], [[4, 5, 6, 7, EOS]])
    assert found == pytest.approx(1 - (3 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25, abs=1e-9)
