"""How a token is sampled by its scores, or is the best one; never a forbidden one."""

import pytest
import torch
from conftest import ARCHITECTURES, batch_of, encoded
from torch.utils._python_dispatch import TorchDispatchMode

from gift_fairseq import rollout
from gift_fairseq.rollout import Sampler, SeveralDrawn, seeded

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
DRAWS = 40_000
SCORES = torch.tensor([3.0, 1.5, -0.5, 0.0, 0.7, 2.0, 2.1, -1.0, 9.0, 0.2])
FORBIDDEN = (0, 8)


def draws(choose, scores=SCORES, seed=3, count=DRAWS):
    """How often each token is chosen by ``count`` rows of ``scores`` (V,)."""
    noise = torch.Generator().manual_seed(seed)
    chosen = choose._replace(noise=noise)(scores.repeat(count, 1))
    assert chosen.shape == (count,)
    return torch.bincount(chosen, minlength=len(scores)).double()


def assert_drawn_from(counts, probabilities):
    """Pearson's chi-square, five standard deviations from its mean; what has no probability is never drawn."""
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    expected = probabilities[possible] * counts.sum()
    statistic = ((counts[possible] - expected) ** 2 / expected).sum().item()
    freedom = int(possible.sum()) - 1
    assert statistic <= freedom + 5 * (2 * freedom) ** 0.5


def probabilities_of(temperature, top_k=0, scores=SCORES, forbidden=FORBIDDEN):
    """By the definition, in a loop over words."""
    allowed = [word for word in range(len(scores)) if word not in forbidden]
    best = sorted(allowed, key=lambda word: -scores[word].item())[: top_k or None]
    weights = torch.zeros(len(scores), dtype=torch.float64)
    for word in best:
        weights[word] = (scores[word].double() / temperature).exp()
    return weights / weights.sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature, top_k", [(0, 0), (1, 0), (1, 3), (0.1, 0), (30, 0), (30, 4)])
def test_forbidden_tokens_are_never_chosen(dtype, temperature, top_k):
    """Masked before the choice, by a value that half precision holds too; at the ends of the vocabulary and within."""
    forbidden = (0, 3, 9)
    scores = torch.full((400, 5, 10), -6e4, dtype=dtype)
    scores[..., list(forbidden)] = 6e4
    allowed = torch.randn(400, 5, 4, generator=torch.Generator().manual_seed(1)) * 500 - 5e4
    scores[..., 4:8] = allowed.to(dtype)
    chosen = Sampler(forbidden, temperature, top_k, torch.Generator().manual_seed(2))(scores)
    assert chosen.shape == (400, 5) and chosen.dtype == torch.long
    assert set(chosen.flatten().tolist()) == {4, 5, 6, 7}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("top_k", [0, 2])
def test_without_temperature_it_is_the_best_allowed_one(dtype, top_k):
    scores = torch.randn(6, 7, 11, generator=torch.Generator().manual_seed(1)).to(dtype)
    naive = [
        [max((w for w in range(11) if w not in (2, 10)), key=lambda w: row[w].item()) for row in rows]
        for rows in scores
    ]
    assert Sampler((2, 10), 0, top_k)(scores.clone()).tolist() == naive


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "temperature, top_k", [(1, 0), (0.5, 0), (3, 0), (1, 4), (2, 1), (1, 8), (1, 9), (0.7, 100), (1e6, 0), (1e6, 4)]
)
def test_tokens_are_drawn_from_the_softmax(temperature, top_k, dtype):
    """Of the k best only, by their own softmax: the forbidden ones are none of the k, and nobody keeps their share."""
    counts = draws(Sampler(FORBIDDEN, temperature, top_k), SCORES.to(dtype))
    expected = probabilities_of(temperature, top_k, SCORES.to(dtype).double())
    assert_drawn_from(counts, expected)
    other = probabilities_of(temperature * 1.3, top_k, SCORES.to(dtype).double())
    if top_k != 1 and temperature < 1e6:
        with pytest.raises(AssertionError):  # the counts tell temperatures apart
            assert_drawn_from(counts, other)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("top_k", [0, 4])
def test_each_of_several_hypotheses_has_numbers_of_its_own(top_k, greedy):
    """Whichever others are still drawn, and in whatever order; the first of every three is the argmax if ``greedy``."""
    rows, scores = torch.tensor([7, 2, 3, 9, 11]), torch.randn(12, 10, generator=torch.Generator().manual_seed(1))

    def drawn(rows, steps=20):
        choose = SeveralDrawn(Sampler((0,), 1.0, top_k, torch.Generator().manual_seed(4)), 3, 12, greedy)
        return torch.stack([choose(scores[rows].clone(), rows) for _ in range(steps)])

    whole = drawn(torch.arange(12))
    assert torch.equal(drawn(rows), whole[:, rows])
    always = [len(set(row.tolist())) == 1 for row in whole.unbind(1)]
    assert always == [greedy and row % 3 == 0 for row in range(12)]
    if greedy:
        assert torch.equal(whole[0, ::3], scores[::3, 1:].argmax(1) + 1)


def test_a_draw_is_the_best_of_scores_with_gumbel_noise():
    """Two samples of one distribution: chi-square of their difference."""
    noise = torch.Generator().manual_seed(11)
    gumbel = -torch.empty(DRAWS, len(SCORES)).exponential_(generator=noise).log()
    by_noise = torch.bincount(Sampler(FORBIDDEN)(SCORES + gumbel), minlength=len(SCORES)).double()
    drawn = draws(Sampler(FORBIDDEN, 1.0))
    both = by_noise + drawn
    seen = both > 0
    statistic = ((by_noise - drawn)[seen] ** 2 / both[seen]).sum().item()
    freedom = int(seen.sum()) - 1
    assert freedom == len(SCORES) - len(FORBIDDEN) - 1
    assert statistic <= freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("top_k", [0, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_near_temperature_zero_is_the_best_one(top_k, dtype):
    scores = torch.randn(500, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    scores += torch.nn.functional.one_hot(torch.arange(500) % 40, 40) * 4  # no two of a row are near each other
    best = Sampler((0, 1, 39))(scores.clone())
    for temperature in (1e-3, 1e-30):
        noise = torch.Generator().manual_seed(2)
        assert torch.equal(Sampler((0, 1, 39), temperature, top_k, noise)(scores.clone()), best)


@pytest.mark.parametrize("certain", [0, 2, 5])
@pytest.mark.parametrize("top_k", [0, 1, 4, 7])
def test_a_certain_token_with_forbidden_ones_behind_it(certain, top_k):
    """The cumulative distribution is flat after it: a random number rounded up to 1 would lie past the last."""
    scores = torch.full((8,), -1e4)
    scores[certain] = 1e4
    scores[6:] = 3e4
    assert draws(Sampler((6, 7), 1.0, top_k), scores, count=200_000)[certain] == 200_000


@pytest.mark.parametrize("random_number, expected", [(0.0, "first"), (1 - 2**-24, "last"), (1.0, "last")])
def test_the_ends_of_the_random_numbers(random_number, expected, monkeypatch):
    """0 is drawn, 1 is not, but rounding may make it: the first and the last token that has a probability."""
    monkeypatch.setattr(torch, "rand", lambda shape, **_options: torch.full(shape, random_number))
    for words in (5, 50, 5000):
        scores = torch.randn(300, words + 6, generator=torch.Generator().manual_seed(words))
        chosen = Sampler((0, 1, 2, words + 3, words + 4, words + 5), 1.0)(scores)
        assert chosen.ge(3).all() and chosen.lt(words + 3).all()
        if words == 5:
            assert chosen.eq(3 if expected == "first" else words + 2).all()


@pytest.mark.parametrize("temperature, top_k", [(0, 0), (1, 0), (1, 3)])
def test_scores_that_are_no_numbers_give_a_token_of_the_vocabulary(temperature, top_k):
    """A model that has diverged ends in fairseq's own error about its loss, not in an index out of range."""
    chosen = Sampler((0,), temperature, top_k, torch.Generator())(torch.full((4, 9), float("nan")))
    assert chosen.ge(0).all() and chosen.lt(9).all()


def test_the_generator_comes_from_the_random_stream_which_goes_on():
    def drawn(seed=None):
        if seed is not None:
            torch.manual_seed(seed)
        choose = seeded(Sampler((0,), 1.0), torch.device("cpu"))
        return choose(torch.zeros(50, 30)).tolist()

    first, second = drawn(7), drawn()
    assert first != second
    assert (drawn(7), drawn()) == (first, second)
    assert drawn(8) != first
    torch.manual_seed(7)  # what comes again in the dropout masks would correlate what is read with what is dropped
    before, greedy = torch.random.get_rng_state(), Sampler((0,))
    assert seeded(greedy, torch.device("cpu")) is greedy and torch.equal(torch.random.get_rng_state(), before)
    noise, stream = seeded(Sampler((), 1.0), torch.device("cpu")).noise, torch.rand(200)
    assert not torch.isin(torch.rand(100, generator=noise), stream).any()


class Multiplied(TorchDispatchMode):
    """``by``: the shapes of the matrices that a batch of others is multiplied by, one for one."""

    def __init__(self):
        super().__init__()
        self.by = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten.bmm.default:
            self.by.add(tuple(args[1].shape[1:]))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_output_projection_is_not_copied_for_every_sentence(build, architecture, length, frozen):
    """In autocast, or where the model is not trained, torch does so for the transposed input that fairseq gives it."""
    built = build(f"{ARCHITECTURES[architecture]} --criterion gift_standard", dtype=torch.float32)
    gold_inputs, encoder_out = encoded(built, batch_of(built))
    decoder, inputs = built.model.decoder.requires_grad_(not frozen), gold_inputs[:, :length]
    words = len(built.task.target_dictionary)
    with Multiplied() as plain, torch.no_grad(), torch.autocast("cpu", torch.bfloat16, not frozen, False):
        decoder.eval()(inputs, encoder_out=encoder_out)
    with Multiplied() as found, rollout.generating(decoder, inputs.device, None if frozen else torch.bfloat16):
        decoder(inputs, encoder_out=encoder_out)
    assert words not in {columns for _, columns in found.by}
    if architecture not in ("fconv", "lstm"):  # whose output is not transposed, or not where T is 1
        assert words in {columns for _, columns in plain.by}
