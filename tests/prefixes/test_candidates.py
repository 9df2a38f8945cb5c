"""Candidates: several whole hypotheses of every sentence, each once; none of another sentence."""

from collections import Counter

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    STRATEGIES,
    TRANSFORMER,
    batch,
    in_batch_order,
    of_each,
    often_ending,
    prefixes_of,
    sentences,
)
from hypothesis import given
from hypothesis import strategies as st
from naive import EOS, PAD, encode, own_length

from gift_fairseq.prefixes.candidates import first_of_equals

SAMPLED = "--criterion gift_risk --generate-ratio 1"


def test_first_of_equals_by_hand():
    tokens = torch.tensor([[4, 2, 1], [5, 6, 2], [4, 2, 1], [4, 2, 1], [5, 6, 2], [5, 2, 1]])
    assert first_of_equals(tokens, 3, None, PAD).tolist() == [True, True, False, True, True, True]
    assert first_of_equals(tokens, 2, None, PAD).tolist() == [True, True, True, False, True, True]
    gold = torch.tensor([[4, 2, 1, 1], [7, 7, 7, 2]])  # as wide as the longest gold one
    assert first_of_equals(tokens, 3, gold, PAD).tolist() == [False, True, False, True, True, True]
    narrow = torch.tensor([[4, 2], [5, 2]])
    assert first_of_equals(tokens, 3, narrow, PAD).tolist() == [False, True, False, True, True, False]
    assert first_of_equals(tokens[:1], 1, gold[:1], PAD).tolist() == [False]


@given(st.lists(st.lists(st.lists(st.integers(4, 5), max_size=2), min_size=3, max_size=3), min_size=1, max_size=3))
def test_first_of_equals_leaves_each_text_once(sets):
    rows = [[*text, EOS] + [PAD] * (2 - len(text)) for texts in sets for text in texts]
    kept = iter(first_of_equals(torch.tensor(rows), 3, None, PAD).tolist())
    for texts in sets:
        assert Counter(tuple(text) for text in texts if next(kept)) == Counter({tuple(text) for text in texts})


@pytest.mark.parametrize("architecture", ["transformer_wmt_en_de", "transformer_align", "lstm", "fconv"])
def test_each_sentence_gets_candidates_of_its_own_source(build, architecture):
    """Nearly without temperature all draws are what the model writes of that source greedily."""
    built = often_ending(build(f"{ARCHITECTURES[architecture]} {SAMPLED} --temperature 1e-6"))
    pairs, seen = in_batch_order(sentences([(5, 6), (3, 4), (6, 2), (2, 7), (7, 5)])), prefixes_of(built)
    built.criterion(built.model, batch(built.task, pairs))
    expected = [own_length(built.model, encode(built.model, source), target.tolist()) for source, target in pairs]
    assert seen[0] == list(enumerate(expected))
    assert len({tuple(tokens) for tokens in expected}) > 3


def test_a_beam_gives_each_sentence_its_places_where_there_are_few(build):
    """With gold length as the cap and a forced prefix a short sentence has one translation; it counts once."""
    built = build(f"{TRANSFORMER} {STRATEGIES['risk']} --length-cap 1 --ignore-prefix-size 1")
    pairs, seen = in_batch_order(sentences([(5, 6), (4, 2), (3, 1), (2, 3)])), prefixes_of(built)
    sample = batch(built.task, pairs)
    built.criterion(built.model, sample)
    rows = of_each(seen[0], 4)
    assert rows[1] == [pairs[1][1].tolist()] and rows[2] == [[EOS]]
    for number in (0, 3):
        length, first = len(pairs[number][1]), pairs[number][1][0].item()
        assert len(rows[number]) == 3 and all(len(t) <= length and t[0] == first for t in rows[number])
        assert all(tokens.count(EOS) == 1 and tokens[-1] == EOS for tokens in rows[number])
