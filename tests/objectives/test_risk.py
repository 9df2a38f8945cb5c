"""The gradient of minimum risk: against loops, in its limits, and beside that of the cost under the whole model."""

import math

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    LENGTHS,
    STRATEGIES,
    TRANSFORMER,
    assert_same_gradient,
    batch,
    in_batch_order,
    loss_and_gradient,
    of_each,
    often_ending,
    prefixes_of,
    sentences,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import EOS, encode, log_probability, naive_cost, naive_expected, own_length

from gift_fairseq.objectives.risk import expected_cost, minimum_risk
from gift_fairseq.prefixes.candidates import first_of_equals

RISK = "--criterion gift_risk --generate-ratio 1 --risk-cost chrf"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-900, 900), st.floats(0, 1)), max_size=12))
def test_expected_cost_against_a_loop(rows):
    """Rows of a sentence stand anywhere; every sentence has one at least."""
    rows = rows + [(sentence, -3.0, 0.25) for sentence in range(4)]
    sentences_of, scores, costs = (torch.tensor(column) for column in zip(*rows))
    found = expected_cost(scores.double(), costs.double(), sentences_of, 4)
    for sentence in range(4):
        own = [(score, cost) for number, score, cost in rows if number == sentence]
        assert found[sentence].item() == pytest.approx(naive_expected(*zip(*own)), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, -1e6, 1e6, -80000.0])
def test_expected_cost_by_hand(shift):
    """Probabilities 1 : 3, whatever both have in common; nothing overflows."""
    scores = torch.tensor([0.0, math.log(3), 0.0, 0.0, 5.0], dtype=torch.float64) + shift
    costs = torch.tensor([1.0, 0.2, 0.5, 0.1, 0.7], dtype=torch.float64)
    found = expected_cost(scores, costs, torch.tensor([0, 0, 1, 1, 2]), 3)
    assert found.tolist() == pytest.approx([0.25 * 1 + 0.75 * 0.2, 0.3, 0.7], rel=1e-9)


def test_expected_cost_of_extremes():
    """A row that is nearly impossible beside another counts nothing, and has no gradient that is no number."""
    scores = torch.tensor([-1e30, 0.0, 1e30, -1e30], requires_grad=True)
    found = expected_cost(scores, torch.tensor([1.0, 0.5, 0.25, 0.75]), torch.tensor([0, 0, 1, 1]), 2)
    assert found.tolist() == [0.5, 0.25]
    found.sum().backward()
    assert scores.grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("alpha", [0.005, 0.3, 1, 4])
def test_gradient_is_the_weighted_advantage(alpha):
    """That of the expected cost by the log-probabilities, over alpha: ``Q(c) (cost(c) - risk)``, written out.

    0 where all costs are equal. Twice: by autograd through the expected cost, and through what is descended.
    """
    draw = torch.Generator().manual_seed(2)
    log_probs = torch.randn(7, generator=draw, dtype=torch.float64).requires_grad_()
    costs = torch.rand(7, generator=draw, dtype=torch.float64)
    costs[5:] = 0.6
    sentences_of = torch.tensor([0, 1, 0, 1, 0, 2, 2])
    expected = expected_cost(alpha * log_probs, costs, sentences_of, 3)
    descended, risk = minimum_risk(log_probs, costs, sentences_of, 3, alpha)
    torch.testing.assert_close(risk, expected.detach(), rtol=1e-12, atol=0)
    for value in (expected / alpha, descended):
        (gradient,) = torch.autograd.grad(value.sum(), log_probs)
        for sentence in range(3):
            rows = sentences_of.eq(sentence)
            q = (alpha * log_probs.detach()[rows]).softmax(0)
            advantage = costs[rows] - (q * costs[rows]).sum()
            torch.testing.assert_close(gradient[rows], q * advantage, rtol=1e-10, atol=1e-13)
        assert gradient[5:].abs().max() < 1e-13


# ---- how far it is from the gradient of the expected cost under the model


class Toy:
    """Sentences of two words of three, nine in all, with costs; the logits of every step are the parameters."""

    def __init__(self, seed, spread):
        draw = torch.Generator().manual_seed(seed)
        options = {"generator": draw, "dtype": torch.float64}
        self.logits = [(spread * torch.randn(shape, **options)).requires_grad_() for shape in ((1, 3), (3, 3))]
        self.costs = torch.rand(9, **options)
        self.draws = torch.cartesian_prod(*[torch.arange(9)] * 4)  # every one of the 9^4 ways to draw four

    def log_probs(self, temperature=1.0):
        """Of the sentences (9,), where each word is drawn at ``temperature``."""
        first, second = ((logits / temperature).log_softmax(1) for logits in self.logits)
        return (first.view(3, 1) + second).flatten()

    def gradient(self, value):
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, self.logits)])

    def compared(self, estimate, temperature):
        """Cosine and scale of the mean of ``estimate(self, temperature)`` (9^4,), over all draws, beside the truth."""
        truth = self.gradient((self.log_probs().exp() * self.costs).sum())
        probability = self.log_probs(temperature).detach()[self.draws].sum(1).exp()
        assert probability.sum().item() == pytest.approx(1)
        mean = self.gradient((probability * estimate(self, temperature)).sum())
        return torch.cosine_similarity(mean, truth, dim=0).item(), (mean @ truth / (truth @ truth)).item()


def ours(alpha):
    def estimate(toy, _temperature):
        numbers, sets = toy.draws.flatten(), torch.arange(9**4).repeat_interleave(4)
        kept = first_of_equals(numbers.unsqueeze(1), 4, None, -1)
        log_probs, costs = toy.log_probs()[numbers[kept]], toy.costs[numbers[kept]]
        return minimum_risk(log_probs, costs, sets[kept], 9**4, alpha)[0]

    return estimate


def reinforce(toy, _temperature):
    """Each draw counts, equal ones too; the baseline is the mean cost."""
    costs = toy.costs[toy.draws]
    return ((costs - costs.mean(1, keepdim=True)) * toy.log_probs()[toy.draws]).mean(1)


def importance(toy, temperature):
    """Each draw is weighed by its probability over that of being drawn, to a sum of one."""
    weights = (toy.log_probs() - toy.log_probs(temperature)).detach()[toy.draws].softmax(1)
    costs = toy.costs[toy.draws]
    return (weights * (costs - (weights * costs).sum(1, keepdim=True)) * toy.log_probs()[toy.draws]).sum(1)


@pytest.mark.parametrize(
    "estimate, temperature, cosines, scales",  # mean, lowest, highest
    [
        (reinforce, 1, (1, 1, 1), (0.75, 0.75, 0.75)),
        (ours(1e-9), 1, (1.000, 1.000, 1.000), (0.83, 0.79, 0.96)),
        (ours(0.005), 1, (1.000, 1.000, 1.000), (0.83, 0.79, 0.96)),
        (ours(0.005), 0.5, (0.96, 0.86, 1.00), (0.56, 0.04, 0.99)),
        (importance, 0.5, (0.97, 0.84, 1.00), (0.51, 0.01, 0.84)),
        (ours(1), 1, (0.98, 0.93, 1.00), (0.62, 0.13, 0.90)),
    ],
)
def test_mean_over_all_draws_beside_the_gradient_of_the_expected_cost(estimate, temperature, cosines, scales):
    """Exact: every way to draw four sentences, by its probability. The numbers are those of the criterion's docstring.

    Over 16 distributions, nearly even ones and such that prefer few sentences.
    """
    toys = [Toy(seed, spread) for seed in range(8) for spread in (1.0, 2.0)]
    found = torch.tensor([toy.compared(estimate, temperature) for toy in toys])
    for column, expected in zip(found.unbind(1), (cosines, scales)):
        measured = [column.mean().item(), column.min().item(), column.max().item()]
        assert measured == pytest.approx(expected, abs=1e-12 if estimate is reinforce else 0.0055)


# ---- the whole loss


def naive_gradient_of_risk(built, pairs, candidates, alpha, ignored=0):
    """``sum_b w_b sum_c Q(c) (cost(c) - risk) grad log P(c)``; for each sentence its risk, and the mean NLL of its
    candidates."""
    built.model.zero_grad()
    risks, nlls = [], []
    for number, (source, target) in enumerate(pairs):
        encoder_out = encode(built.model, source)
        own = candidates[number]
        lprobs = [log_probability(built.model, encoder_out, tokens, ignored) for tokens in own]
        costs = [naive_cost(tokens, target.tolist(), ignored) for tokens in own]
        q = torch.stack([alpha * lprob.detach() for lprob in lprobs]).softmax(0).tolist()
        risks.append(sum(share * cost for share, cost in zip(q, costs)))
        nlls.append(-sum(lprob.item() for lprob in lprobs) / len(own))
        weight = 1 if built.criterion.sentence_avg else max(len(target) - ignored, 0)
        advantage = sum(share * (cost - risks[-1]) * lprob for share, cost, lprob in zip(q, costs, lprobs))
        (built.criterion.objective.weight * weight * advantage).backward()
    gradient = {n: p.grad.clone() for n, p in built.model.named_parameters() if p.grad is not None}
    return gradient, risks, nlls


@pytest.mark.parametrize(
    "architecture, flags, options",
    [
        ("transformer_wmt_en_de", "--risk-weight 3", {}),
        ("transformer_wmt_en_de", "--risk-alpha 1 --ignore-prefix-size 1", {"alpha": 1, "ignored": 1}),
        ("transformer_wmt_en_de", "--risk-alpha 0.2 --candidates 7 --top-k 2 --risk-gold", {"alpha": 0.2}),
        ("transformer_wmt_en_de", "--risk-alpha 0.2 --candidates-from beam --risk-gold", {"alpha": 0.2}),
        ("transformer_wmt_en_de", "--sentence-avg --ignore-prefix-size 1", {"ignored": 1}),
        ("transformer_align", "--length-cap 1", {}),
        ("lstm", "", {}),
        ("fconv", "--risk-gold", {}),
    ],
)
def test_gradient_equals_the_naive_loop(build, architecture, flags, options):
    """Divided by alpha; of the sentence's own candidates, over its own source; the gold one among them at cost 0.

    A sentence weighs as much as its scored tokens, where losses are averaged over them. What is logged as the loss is
    the candidates' mean NLL; the forced prefix is in neither.
    """
    built = often_ending(build(f"{ARCHITECTURES[architecture]} {RISK} {flags}"))
    pairs, seen = in_batch_order(sentences(LENGTHS)), prefixes_of(built)
    torch.manual_seed(5)
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    candidates = of_each(seen[0], len(pairs))
    if "--risk-gold" in flags:
        candidates = [[*own, target.tolist()] for own, (_, target) in zip(candidates, pairs)]
    alpha = options.get("alpha", 0.005)
    naive, risks, nlls = naive_gradient_of_risk(built, pairs, candidates, alpha, options.get("ignored", 0))
    assert loss == pytest.approx(sum(nlls), rel=1e-9)
    assert_same_gradient(gradient, naive, rtol=1e-6, atol=1e-8)
    assert built.criterion.objective.weight == (3 if "--risk-weight" in flags else 1)
    assert sum(part.pow(2).sum().item() for part in gradient.values()) > 1e-4  # costs differ
    torch.manual_seed(5)
    _, _, log = built.criterion(built.model, batch(built.task, pairs))
    assert float(log["risk"]) == pytest.approx(sum(risks), rel=1e-6) and int(log["n_risk"]) == len(pairs)
    assert float(log["nll_loss"]) == pytest.approx(sum(nlls), rel=1e-9)
    assert int(log["n_candidates"]) == sum(map(len, candidates))


def test_gold_is_no_candidate_twice_also_where_all_are_gold(build):
    """The model's own output as the target: nothing is left but the gold one, at cost 0 and without a gradient."""
    flags = f"{TRANSFORMER} {RISK} --temperature 1e-6 --risk-gold"
    built, beside = often_ending(build(flags)), often_ending(build(f"{flags} --mle-weight 0.3"))
    pairs = sentences([(n, 6) for n in range(2, 14)])
    own = [(source, own_length(built.model, encode(built.model, source), gold.tolist())) for source, gold in pairs]
    ended = [(source, torch.tensor(tokens)) for source, tokens in own if tokens[-1] == EOS]
    assert len(ended) > 1
    sample = batch(built.task, ended)
    nll, gradient = loss_and_gradient(built, sample)
    assert all(part.eq(0).all() for part in gradient.values())
    _, _, log = built.criterion(built.model, sample)
    assert float(log["risk"]) == 0
    assert nll == pytest.approx(float(log["gold_nll_loss"]), rel=1e-10)
    assert int(log["n_candidates"]) == len(ended) and int(log["n_replaced"]) == 0
    standard = often_ending(build(f"{TRANSFORMER} {STRATEGIES['standard']}"))
    gold_loss, gold = loss_and_gradient(standard, sample)
    loss, gradient = loss_and_gradient(beside, sample)
    assert loss == pytest.approx(0.7 * nll + 0.3 * gold_loss, rel=1e-10)
    assert_same_gradient(gradient, {name: 0.3 * part for name, part in gold.items()})
    # beside a sentence that has another candidate
    pairs = in_batch_order([*ended, *sentences([(8, 3)], seed=3)])
    seen = prefixes_of(built)
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    assert len(seen[0]) == 1
    candidates = [[*own, target.tolist()] for own, (_, target) in zip(of_each(seen[0], len(pairs)), pairs)]
    naive, risks, nlls = naive_gradient_of_risk(built, pairs, candidates, 0.005)
    assert loss == pytest.approx(sum(nlls), rel=1e-9)
    assert sum(risk > 0.01 for risk in risks) == 1
    assert_same_gradient(gradient, naive, rtol=1e-6, atol=1e-8)
