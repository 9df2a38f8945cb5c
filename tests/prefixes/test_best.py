"""Best of n: which hypothesis is chosen, and where the gold translation stays."""

from types import SimpleNamespace

import pytest
import torch
from conftest import (
    LENGTHS,
    SAMPLED,
    TRANSFORMER,
    assert_rows,
    batch,
    in_batch_order,
    loss_and_gradient,
    often_ending,
    sentences,
)
from naive import EOS, PAD, encode, naive_best, own_length

BEST = "--criterion gift_generative --generate-ratio 1 --targets best"
GOLD = [[4, 5, 6, 7, EOS], [4, 5, 6, 7, EOS], [8, 9, 4, EOS], [7, EOS]]
DRAWN = [  # three a sentence, with their scores
    [([4, 5, 6, EOS], 60), ([4, 5, 7, 6, EOS], 80), ([4, 5, 6, 6, 7, 7, 7], 90)],  # the last is too long, and cut
    [([4, 5, EOS], 90), ([4, 5, 6, EOS], 50), ([5, 5, 6, EOS], 50)],  # too short; enough; as near
    [([8, 9, EOS], 49.9), ([8, EOS], 100), ([8, 9, 5, 4], 90)],  # too far; too short; as long, but has no end
    [([EOS], 10), ([7, EOS], 100), ([7, EOS], 100)],
]
CHOSEN = [[4, 5, 7, 6, EOS], [4, 5, 6, EOS], [8, 9, 4, EOS], [7, EOS]]


def padded(rows, width=7):
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def read_of(build, flags, seed=1):
    """The prefixes of gold targets and hypotheses with the given scores, and the longest that were asked for."""
    source, asked = build(f"{TRANSFORMER} {BEST} --choose sample --candidates 3 {flags}").criterion.source, []
    rows, scores = zip(*(one for each in DRAWN for one in each))
    source.best.hypotheses = SimpleNamespace(of=lambda _, longest: asked.append(longest.tolist()) or padded(rows))
    source.best.cost = lambda tokens, target: 1 - torch.tensor(scores, dtype=torch.float64) / 100
    inputs = padded([[EOS, *target[:-1]] for target in GOLD])
    decoder = SimpleNamespace(max_positions=lambda: 1024)
    torch.manual_seed(seed)
    found = source.read(SimpleNamespace(target=padded(GOLD), gold_inputs=inputs, decoder=decoder))
    return found, asked[0]


def test_the_nearest_of_those_that_ended_within_the_length(build):
    """By hand. A quarter longer or shorter: up to 6, 5 and 2 tokens, from 4, 3 and 2 on."""
    found, longest = read_of(build, "--min-score 50 --length-tolerance 0.25")
    assert longest == [6, 6, 5, 2]
    assert_rows(found.next_tokens, CHOSEN)
    assert_rows(found.inputs, [[EOS, *tokens[:-1]] for tokens in CHOSEN])
    assert found.sentences is None
    log = {name: float(value) for name, value in found.log.items()}
    means = [230 / 3, 190 / 3, 239.9 / 3, 70]
    assert log.pop("drawn_score") == pytest.approx(sum(means))
    assert log.pop("own_score") == pytest.approx(80 + 50 + 100)
    assert log == {"n_best": 4, "n_own": 3, "n_replaced": 4 + 3 + 1, "n_inputs": 5 + 4 + 4 + 2}


@pytest.mark.parametrize(
    "flags, chosen",
    [
        ("--min-score 50.1 --length-tolerance 0.25", [CHOSEN[0], *GOLD[1:]]),
        ("--min-score 49.9 --length-tolerance 0.25", [*CHOSEN[:2], [8, 9, EOS], GOLD[3]]),
        ("--min-score 0 --length-tolerance 0", [CHOSEN[0], *GOLD[1:]]),
        ("--min-score 0 --length-tolerance 0.2", [*CHOSEN[:2], *GOLD[2:]]),
        ("--min-score 0 --length-tolerance 1", [CHOSEN[0], [4, 5, EOS], [8, EOS], GOLD[3]]),
    ],
)
def test_thresholds(build, flags, chosen):
    assert_rows(read_of(build, flags)[0].next_tokens, chosen)


def test_a_random_one_is_one_that_is_near_enough(build):
    """As many sentences take one as with the best; each that is near enough is taken by chance."""
    taken = [set(), set(), set(), set()]
    for seed in range(20):
        found, _ = read_of(build, "--min-score 50 --length-tolerance 0.25 --pick random", seed)
        assert found.log["n_own"] == 3
        for rows, row in zip(taken, found.next_tokens.tolist()):
            rows.add(tuple(token for token in row if token != PAD))
    near = [[DRAWN[0][0][0], DRAWN[0][1][0]], [DRAWN[1][1][0], DRAWN[1][2][0]], [GOLD[2]], [GOLD[3]]]
    assert taken == [set(map(tuple, rows)) for rows in near]


def test_a_sentence_that_is_all_given_stays_as_it_is(build):
    found, _ = read_of(build, "--min-score 0 --length-tolerance 1 --ignore-prefix-size 2")
    assert found.next_tokens[3].tolist()[:2] == GOLD[3] and found.log["n_best"] == 3
    assert float(found.log["own_score"]) == 80 + 90 + 100
    assert float(found.log["drawn_score"]) == pytest.approx(230 / 3 + 190 / 3 + 239.9 / 3)


def test_one_candidate_is_the_greedy_one(build):
    built = often_ending(build(f"{TRANSFORMER} {BEST} --candidates 1 --min-score 0 --length-tolerance 1"))
    pairs, read, source = in_batch_order(sentences(LENGTHS)), [], built.criterion.source
    drawn = source.best.hypotheses.of
    source.best.hypotheses.of = lambda *args: read.append(drawn(*args)) or read[-1]
    loss_and_gradient(built, batch(built.task, pairs))
    rows = [own_length(built.model, encode(built.model, one), gold.tolist(), cap=2) for one, gold in pairs]
    assert_rows(read[0], rows)


def test_of_drawn_ones_the_first_is_greedy_and_the_nearest_is_trained_on(build):
    built = often_ending(build(f"{TRANSFORMER} {SAMPLED['best']}"))
    pairs, drawn, chosen, source = in_batch_order(sentences(LENGTHS)), [], [], built.criterion.source
    of, read = source.best.hypotheses.of, source.read
    source.best.hypotheses.of = lambda *args: drawn.append(of(*args)) or drawn[-1]
    source.read = lambda decoding: chosen.append(read(decoding)) or chosen[-1]
    torch.manual_seed(5)
    for _ in range(4):
        loss_and_gradient(built, batch(built.task, pairs))
    kinds = set()
    for tokens, found in zip(drawn, chosen):
        rows = [[token for token in row if token != PAD] for row in tokens.tolist()]
        for number, (one, target) in enumerate(pairs):
            own, gold = rows[6 * number : 6 * number + 6], target.tolist()
            assert own[0] == own_length(built.model, encode(built.model, one), gold, cap=1.5)[: int(1.5 * len(gold))]
            best = naive_best(own, gold)
            assert [token for token in found.next_tokens[number].tolist() if token != PAD] == best
            kinds.add(own.index(best) if best in own else "gold")
    assert len(kinds) > 3 and "gold" in kinds
    assert not torch.equal(drawn[0], drawn[1])
