"""The oracle's next tokens are those after which the best achievable edit distance has not grown, and no others."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import EOS, PAD, edit_distance, naive_optimal

from gift_fairseq.objectives import oracle

A, B, C = 4, 5, 6
texts = st.lists(st.sampled_from([A, B, C]), max_size=6)


def tensors(prefixes, references, more_inputs=0, more_references=0):
    """Decoder inputs and references with their ends, padded, and by ``more`` columns more."""

    def padded(rows, more):
        width = max(map(len, rows)) + more
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])

    inputs = padded([[EOS, *prefix] for prefix in prefixes], more_inputs)
    return inputs, padded([[*text, EOS] for text in references], more_references)


def sets(mask, references):
    """What a row of the mask marks, as lists of tokens: one for every position."""
    return [[int(token) for token in references[marked]] for marked in mask]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.integers(0, 2), st.integers(0, 2))
def test_every_prefix_of_a_padded_batch_against_the_definition(pairs, more_inputs, more_references):
    """Also: whatever else is in the batch and however it is padded, a set has every token once."""
    inputs, references = tensors(*zip(*pairs), more_inputs, more_references)
    distances = oracle.prefix_distances(inputs, references)
    mask = oracle.optimal_next(inputs, references, PAD)
    assert mask.any(dim=2).all()
    for row, (hypothesis, text) in enumerate(pairs):
        found = sets(mask[row], references[row])
        for t in range(len(hypothesis) + 1):
            expected = [edit_distance(hypothesis[:t], text[:j]) for j in range(len(text) + 1)]
            assert distances[row, t, : len(text) + 1].tolist() == expected
            assert sorted(found[t]) == sorted(naive_optimal(hypothesis[:t], text))


def test_exhaustive_search_for_what_can_still_be_achieved():
    """Over all prefixes to 3 tokens, all texts to 3, all continuations to 4: a token is right exactly if the best
    final distance after it is the best after any token. The continuation after </s> is empty."""
    words = [A, B]
    strings = [list(s) for n in range(5) for s in itertools.product(words, repeat=n)]
    short = [s for s in strings if len(s) <= 3]
    for prefix, text in itertools.product(short, short):
        best = {token: min(edit_distance(prefix + [token] + s, text) for s in strings) for token in [*words, C]}
        best[EOS] = edit_distance(prefix, text)
        right = {token for token, distance in best.items() if distance == min(best.values())}
        inputs, references = tensors([prefix], [text])
        assert set(sets(oracle.optimal_next(inputs, references, PAD)[0], references[0])[-1]) == right


@given(texts)
def test_behind_a_gold_prefix_only_the_gold_token(text):
    inputs, references = tensors([text], [text])
    found = sets(oracle.optimal_next(inputs, references, PAD)[0], references[0])
    assert found == [[token] for token in [*text, EOS]]


@pytest.mark.parametrize(
    "prefix, text, right",
    [
        ([], [A, B], {A}),
        ([], [], {EOS}),
        ([C], [A, B], {A, B}),  # C is in place of A, or in front of it
        ([B], [A, B], {A, B, EOS}),  # B is after a missing A, in place of it, or too much
        ([A, B, C, C], [A, B], {EOS}),  # longer than the reference
        ([C, C], [A], {A, EOS}),
        ([A, C], [A, A, B], {A, B}),
    ],
)
def test_by_hand(prefix, text, right):
    inputs, references = tensors([prefix], [text])
    found = sets(oracle.optimal_next(inputs, references, PAD)[0], references[0])[-1]
    assert set(found) == right and len(found) == len(right)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3), st.integers(0, 1000))
def test_mass_and_membership_against_a_loop(pairs, seed):
    inputs, references = tensors(*zip(*pairs))
    draw = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(*inputs.shape, 7, generator=draw, dtype=torch.float64).log_softmax(-1).requires_grad_()
    tokens = torch.randint(2, 7, inputs.shape, generator=draw)
    mask = oracle.optimal_next(inputs, references, PAD)
    mass, right = oracle.log_mass(mask, references, log_probs), oracle.contains(mask, references, tokens)
    assert torch.autograd.grad(mass.sum(), log_probs)[0].isfinite().all()
    for row, (hypothesis, text) in enumerate(pairs):
        for t in range(len(hypothesis) + 1):
            optimal = naive_optimal(hypothesis[:t], text)
            expected = sum(log_probs[row, t, token].exp() for token in optimal)
            assert mass[row, t].exp().item() == pytest.approx(expected.item(), rel=1e-12)
            assert right[row, t].item() == (tokens[row, t].item() in optimal)
