"""How a token is sampled by its scores, or is the best one; never a forbidden one."""

import pytest
import torch
from conftest import SAMPLED, TRANSFORMER, batch, sentences
from fairseq.distributed import utils as distributed_utils

from gift_fairseq import rollout
from gift_fairseq.rollout import Sampler, seeded, worker_generator

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
@pytest.mark.parametrize("temperature, top_k", [(1, 0), (0.5, 0), (3, 0), (1, 4), (2, 1), (1, 8), (1, 9), (0.7, 100)])
def test_tokens_are_drawn_from_the_softmax(temperature, top_k, dtype):
    """Of the k best only, by their own softmax: the forbidden ones are none of the k, and nobody keeps their share."""
    counts = draws(Sampler(FORBIDDEN, temperature, top_k), SCORES.to(dtype))
    expected = probabilities_of(temperature, top_k, SCORES.to(dtype).double())
    assert_drawn_from(counts, expected)
    other = probabilities_of(temperature * 1.3, top_k, SCORES.to(dtype).double())
    if top_k != 1:
        with pytest.raises(AssertionError):  # the counts tell temperatures apart
            assert_drawn_from(counts, other)


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


@pytest.mark.parametrize("top_k", [0, 4])
def test_high_temperature_draws_all_alike(top_k):
    counts = draws(Sampler(FORBIDDEN, 1e6, top_k))
    best = [6, 5, 1, 4] if top_k else [w for w in range(len(SCORES)) if w not in FORBIDDEN]
    expected = torch.zeros(len(SCORES), dtype=torch.float64)
    expected[best] = 1 / len(best)
    assert_drawn_from(counts, expected)


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


def test_the_random_stream_is_taken_from_once_and_only_to_draw():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    greedy = Sampler((0,))
    assert seeded(greedy, torch.device("cpu")) is greedy
    assert torch.equal(torch.random.get_rng_state(), before)
    choose = seeded(Sampler((0,), 1.0), torch.device("cpu"))
    begun = torch.random.get_rng_state()
    assert not torch.equal(begun, before)
    choose(torch.zeros(50, 30))
    assert torch.equal(torch.random.get_rng_state(), begun)


def test_the_generator_is_not_the_stream_that_dropout_draws_from():
    """Draws that come again in the dropout masks would correlate what is read with what is dropped."""
    torch.manual_seed(7)
    choose = seeded(Sampler((), 1.0), torch.device("cpu"))
    drawn = torch.rand(100, generator=choose.noise)
    torch.manual_seed(7)
    stream = torch.rand(200)
    assert not torch.isin(drawn, stream).any()


def test_numbers_of_workers_have_nothing_in_common(monkeypatch):
    """Uniform each, and the products of two workers' numbers, of one seed or of seeds beside each other, add up to
    what independent ones do."""
    monkeypatch.setattr(distributed_utils, "get_data_parallel_world_size", lambda: 4)
    numbers = {}
    for rank in range(4):
        monkeypatch.setattr(distributed_utils, "get_data_parallel_rank", lambda rank=rank: rank)
        for seed in (1, 2):
            torch.manual_seed(seed)
            generator = worker_generator(torch.device("cpu"))
            numbers[rank, seed] = torch.rand(DRAWS, generator=generator, dtype=torch.float64)
    for key, one in numbers.items():
        assert one.mean().item() == pytest.approx(0.5, abs=5 * (1 / 12 / DRAWS) ** 0.5)
        for other in (other for other_key, other in numbers.items() if other_key != key):
            covariance = ((one - 0.5) * (other - 0.5)).mean().item()
            assert covariance == pytest.approx(0, abs=5 / 12 / DRAWS**0.5)


def test_a_teacher_forced_pass_draws_every_position_from_its_own_softmax(build):
    """Over many passes of one batch: the shares of the tokens at each position are the model's probabilities."""
    built = build(f"{TRANSFORMER} {SAMPLED['recurrent']}")
    sample = batch(built.task, sentences([(4, 3), (2, 2)]))
    net_input, count = sample["net_input"], 4000
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in built.model.decoder.parameters():
            parameter.mul_(1.5)  # less even
        encoder_out = built.model.encoder(net_input["src_tokens"], net_input["src_lengths"])
        inputs = net_input["prev_output_tokens"]
        scores, _ = built.model.decoder(inputs, encoder_out=encoder_out)
        choose = seeded(Sampler(built.criterion.symbols.forbidden, 1.0), torch.device("cpu"))
        rows = torch.arange(2).repeat(count)
        many = built.model.encoder.reorder_encoder_out(encoder_out, rows)
        chosen = rollout.teacher_forced(built.model.decoder, inputs[rows], many, choose)
    for row in range(2):
        for t in range(3):
            counts = torch.bincount(chosen[rows == row, t], minlength=scores.size(-1)).double()
            assert_drawn_from(counts, probabilities_of(1, 0, scores[row, t], built.criterion.symbols.forbidden))
