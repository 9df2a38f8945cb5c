"""Each strategy's loss and gradient against naive loops in float64, and what it is when switched off."""

import math

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    LENGTHS,
    STRATEGIES,
    TRANSFORMER,
    WORDS,
    assert_same_gradient,
    batch,
    difference,
    loss_and_gradient,
    often_ending,
    sentences,
)
from fairseq.data import Dictionary
from fairseq.sequence_generator import SequenceGenerator
from sacrebleu.metrics import CHRF
from test_oracle import naive_optimal

PAD, EOS, BOS, UNK = 1, 2, 0, 3
EPSILON = 0.1


def smoothed(logits, gold):
    """fairseq's label-smoothed cross-entropy of one token, by its definition."""
    lprobs = torch.log_softmax(logits, dim=-1)
    weights = torch.full_like(lprobs, EPSILON / (logits.numel() - 1))
    weights[gold] = 1 - EPSILON
    return -(weights * lprobs).sum()


def best_allowed(logits, forbidden=(PAD, EOS, BOS)):
    ranked = sorted(range(logits.numel()), key=lambda word: -logits[word].item())
    return next(word for word in ranked if word not in forbidden)


def next_logits(model, encoder_out, prefix):
    """Logits of the token behind ``prefix``, from a full forward over it: no cache, no padding.

    fairseq's dynamic convolution normalizes otherwise where a sequence is shorter than its kernel (3 here), so short
    prefixes get words behind them, which a causal decoder does not see.
    """
    behind = [5] * (3 - len(prefix))
    return model.decoder(torch.tensor([prefix + behind]), encoder_out=encoder_out)[0][0, len(prefix) - 1]


def naive_losses(strategy, model, source, target, ratio=0.3, passes=1, gold_prefix=0, candidates=None):
    """The token losses of one sentence pair, by a loop over prefixes; their sum is what the strategy descends."""
    encoder_out = model.encoder(source[None], torch.tensor([len(source)]))
    gold = target.tolist()
    prefix = [EOS] + gold[:-1]
    if strategy == "recurrent":
        for _ in range(passes):
            chosen = [best_allowed(next_logits(model, encoder_out, prefix[: t + 1])) for t in range(len(gold))]
            prefix = [EOS] + gold[:gold_prefix] + chosen[gold_prefix:-1]
    if strategy == "oracle":
        return naive_oracle(model, encoder_out, gold, gold_prefix)
    if strategy.startswith("risk"):
        return naive_risk(model, source, encoder_out, gold, gold_prefix, candidates)
    losses, own = [], [EOS]
    for t, word in enumerate(gold):
        logits = next_logits(model, encoder_out, own if strategy == "generative" else prefix[: t + 1])
        losses.append(smoothed(logits, word))
        own.append(word if t < gold_prefix else best_allowed(logits))
    losses = losses[gold_prefix:]
    if strategy == "auxiliary" and losses:
        return (1 - ratio) * sum(losses) + ratio * len(losses) * losses[0]
    return sum(losses, torch.tensor(0.0))


def longest(gold):
    return math.ceil(1.5 * len(gold))


def naive_oracle(model, encoder_out, gold, gold_prefix):
    """Greedy to its own end, then the mean loss over all that brute force says is right at each position."""
    if len(gold) <= gold_prefix:  # the whole sentence is given
        return torch.tensor(0.0)
    own = gold[:gold_prefix]
    while len(own) == gold_prefix or (own[-1] != EOS and len(own) < longest(gold)):
        own.append(best_allowed(next_logits(model, encoder_out, [EOS, *own]), (PAD, BOS)))
    loss = torch.tensor(0.0)
    for t in range(gold_prefix, len(own)):
        logits, right = next_logits(model, encoder_out, [EOS, *own[:t]]), naive_optimal(own[:t], gold[:-1])
        loss = loss + sum(smoothed(logits, word) for word in right) / len(right)
    return loss


def log_probability(model, encoder_out, tokens, ignored=0):
    """Of the tokens behind the first ``ignored`` ones, each from a forward of its own."""
    each = [
        torch.log_softmax(next_logits(model, encoder_out, [EOS, *tokens[:t]]), -1)[tokens[t]]
        for t in range(ignored, len(tokens))
    ]
    return sum(each, torch.tensor(0.0))


def naive_candidates(model, source, gold, gold_prefix):
    """The three best by fairseq's generator, this sentence alone."""
    words = Dictionary()
    for number in range(WORDS):
        words.add_symbol(f"w{number}")
    model.eval()
    generator = SequenceGenerator(
        [model], words, beam_size=3, max_len_b=longest(gold) - 1, tokens_to_suppress=(words[BOS],)
    )
    net_input = {"src_tokens": source[None], "src_lengths": torch.tensor([len(source)])}
    forced = torch.tensor([gold[:gold_prefix]]) if gold_prefix else None
    found = generator.forward({"net_input": net_input}, prefix_tokens=forced)[0]
    model.train()
    return [hypothesis["tokens"].tolist() for hypothesis in found]


def text(tokens):
    """The words of the tests' dictionary; what is unknown is no word of any reference."""
    return " ".join("?" if token == UNK else f"w{token - 4}" for token in tokens if token != EOS)


def naive_risk(model, source, encoder_out, gold, gold_prefix, candidates=None, alpha=0.005):
    """Over ``candidates`` that were drawn, or, where there are none, the three best."""
    if len(gold) <= gold_prefix:  # the whole sentence is given: there is nothing to choose
        return torch.tensor(0.0)
    if candidates is None:
        candidates = naive_candidates(model, source, gold, gold_prefix)
        assert len({tuple(candidate) for candidate in candidates}) == 3
    lprobs = [log_probability(model, encoder_out, c, gold_prefix) for c in candidates]
    weights = [(alpha * lprob).exp() for lprob in lprobs]
    costs = [naive_cost(c, gold, gold_prefix) for c in candidates]
    risk = sum(weight * cost for weight, cost in zip(weights, costs)) / sum(weights)
    descended = (len(gold) - gold_prefix) * risk / alpha
    return logged_as(descended, -sum(lprobs) / len(lprobs))


def naive_cost(tokens, gold, ignored=0):
    """One minus chrF of the text behind the first ``ignored`` tokens."""
    return 1 - CHRF().sentence_score(text(tokens[ignored:]), [text(gold[ignored:])]).score / 100


def logged_as(descended, shown):
    """The value of ``shown`` with the gradient of ``descended``."""
    return shown.detach() + descended - descended.detach()


def naive_gradient(strategy, model, pairs, candidates=None, **options):
    """``candidates`` are those of each pair, where they are drawn."""
    model.zero_grad()
    candidates = candidates or [None] * len(pairs)
    losses = (naive_losses(strategy, model, *pair, candidates=own, **options) for pair, own in zip(pairs, candidates))
    total = sum(losses)
    if total.requires_grad:
        total.backward()
    return total.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_loss_and_gradient_equal_the_naive_loop(build, strategy, architecture):
    built = often_ending(build(f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]}"))
    # fairseq's lightconv reads across source padding, so it gets none
    pairs = sentences([(5, n) for _, n in LENGTHS] if architecture == "lightconv" else LENGTHS)
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    naive_loss, naive = naive_gradient(strategy, built.model, pairs)
    assert loss == pytest.approx(naive_loss, rel=1e-10)
    assert_same_gradient(gradient, naive, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "standard"])
def test_ignored_prefix_stays_gold_and_out_of_the_loss(build, strategy):
    """A sentence that is shorter than the prefix trains nothing, whatever else is in the batch."""
    built = often_ending(build(f"{TRANSFORMER} {STRATEGIES[strategy]} --ignore-prefix-size 2"))
    pairs = sentences(LENGTHS)
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    naive_loss, naive = naive_gradient(strategy, built.model, pairs, gold_prefix=2)
    assert loss == pytest.approx(naive_loss, rel=1e-10)
    assert_same_gradient(gradient, naive, rtol=1e-6, atol=1e-8)


def candidates_of(built):
    """A list that will hold what every training forward weighs: for each row its sentence and its tokens."""
    seen, reading = [], built.criterion.reading

    def look(*arguments):
        found = reading(*arguments)
        rows = [[token for token in row if token != PAD] for row in found.tokens.tolist()]
        seen.append(list(zip(found.sentences.tolist(), rows)))
        return found

    built.criterion.reading = look
    return seen


def as_in_the_batch(pairs):
    """fairseq's collater sorts them by the length of the source, longest first."""
    return sorted(pairs, key=lambda pair: -len(pair[0]))


SHORT = {  # of source and target
    "all shorter": (3, [(6, 2), (5, 1), (4, 2)]),
    "all as long": (2, [(6, 2), (5, 2), (4, 2)]),
    "all empty": (1, [(5, 1), (4, 1)]),
    "mixed": (2, [(7, 1), (6, 5), (5, 2), (4, 3)]),
    "mixed with empty ones": (3, [(7, 1), (6, 6), (5, 3), (4, 2)]),
}
DRAWN = "--criterion gift_risk --generate-ratio 1 --candidates-from sample --candidates 3 --risk-cost chrf"


@pytest.mark.parametrize("architecture", ["transformer_wmt_en_de", "lstm"])
@pytest.mark.parametrize("lengths", SHORT)
@pytest.mark.parametrize("strategy", [*STRATEGIES, "risk of draws"])
def test_sentences_within_the_ignored_prefix_train_nothing(build, strategy, lengths, architecture):
    """Also where the whole batch is no longer than the prefix: loss and gradient are 0 there, and no more is read."""
    prefix_size, pairs = SHORT[lengths][0], as_in_the_batch(sentences(SHORT[lengths][1]))
    flags = STRATEGIES.get(strategy, DRAWN)
    built = often_ending(build(f"{ARCHITECTURES[architecture]} {flags} --ignore-prefix-size {prefix_size}"))
    seen = candidates_of(built) if strategy == "risk of draws" else []
    sample = batch(built.task, pairs)
    torch.manual_seed(5)
    read = []
    hook = built.model.decoder.register_forward_hook(lambda _m, a, kw, _o: read.append(a[0]), with_kwargs=True)
    loss, gradient = loss_and_gradient(built, sample)
    hook.remove()
    candidates = [[tokens for sentence, tokens in drawn if sentence == n] for drawn in seen for n in range(len(pairs))]
    naive_loss, naive = naive_gradient(strategy, built.model, pairs, candidates, gold_prefix=prefix_size)
    assert loss == pytest.approx(naive_loss, rel=1e-10)
    if naive:
        assert_same_gradient(gradient, naive, rtol=1e-6, atol=1e-8)
    else:
        assert loss == 0 and gradient and all(part.eq(0).all() for part in gradient.values())
    assert bool(naive) == lengths.startswith("mixed")
    # whatever the decoder reads begins as one of the sentences, as far as the prefix and what is not padding go
    inputs = [row[: 1 + prefix_size] for row in sample["net_input"]["prev_output_tokens"].tolist()]
    for row in read[-1].tolist():
        forced = [token for token in row[: 1 + prefix_size] if token != PAD]
        assert forced and any(begun[: len(forced)] == forced for begun in inputs)


@pytest.mark.parametrize("passes", [2, 3])
def test_more_passes_equal_the_naive_loop(build, passes):
    built = build(f"{TRANSFORMER} {STRATEGIES['recurrent']} --passes {passes}")
    pairs = sentences(LENGTHS)
    loss, _ = loss_and_gradient(built, batch(built.task, pairs))
    assert loss == pytest.approx(naive_gradient("recurrent", built.model, pairs, passes=passes)[0], rel=1e-10)


def test_as_many_passes_as_positions_are_the_free_running_output(build):
    pairs = sentences(LENGTHS)
    recurrent = build(f"{TRANSFORMER} {STRATEGIES['recurrent']} --passes 9")
    generative = build(f"{TRANSFORMER} {STRATEGIES['generative']}")
    sample = batch(recurrent.task, pairs)
    loss, gradient = loss_and_gradient(recurrent, sample)
    other_loss, other = loss_and_gradient(generative, sample)
    assert loss == pytest.approx(other_loss, rel=1e-12)
    assert_same_gradient(gradient, other)


def test_auxiliary_weighs_the_first_token_once_with_sentence_avg(build):
    built = build(f"{TRANSFORMER} {STRATEGIES['auxiliary']} --sentence-avg")
    standard = build(f"{TRANSFORMER} {STRATEGIES['standard']} --sentence-avg")
    pairs = sentences(LENGTHS)
    loss, _ = loss_and_gradient(built, batch(built.task, pairs))
    whole, _ = loss_and_gradient(standard, batch(built.task, pairs))
    first = 0.0
    for source, target in pairs:
        encoder_out = built.model.encoder(source[None], torch.tensor([len(source)]))
        first += smoothed(next_logits(built.model, encoder_out, [EOS]), target[0].item()).item()
    assert loss == pytest.approx(0.7 * whole + 0.3 * first, rel=1e-10)


def test_auxiliary_alone_is_the_first_token_only(build):
    """Ratio 1: what comes after the first target token has no influence beyond the sentence's length."""
    built = build(f"{TRANSFORMER} --criterion gift_auxiliary --auxiliary-ratio 1")
    pairs = sentences(LENGTHS)
    changed = [(s, torch.cat([t[:1], t[1:-1].flip(0), t[-1:]])) for s, t in pairs]
    loss, _ = loss_and_gradient(built, batch(built.task, pairs))
    other, _ = loss_and_gradient(built, batch(built.task, changed))
    assert loss == pytest.approx(other, rel=1e-12)


def test_strategies_have_different_gradients(build):
    """A strategy wired to nothing would train standard."""
    pairs = sentences(LENGTHS)
    gradients = {}
    for name, flags in STRATEGIES.items():
        built = build(f"{TRANSFORMER} {flags}")
        gradients[name] = loss_and_gradient(built, batch(built.task, pairs))[1]
    names = list(gradients)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert difference(gradients[one], gradients[other]) > 1e-2, (one, other)


OFF = {
    "auxiliary": "--criterion gift_auxiliary --auxiliary-ratio 0",
    "recurrent": "--criterion gift_recurrent --gold-ratio 1",
    "generative": "--criterion gift_generative --generate-ratio 0",
    "oracle": "--criterion gift_generative --generate-ratio 0 --targets oracle --mle-weight 0.5",
    "risk": "--criterion gift_risk --generate-ratio 0 --risk-gold",
    "a schedule at its end": "--criterion gift_recurrent --gold-ratio linear:1:0.5:10 --choose sample",
    "fairseq's own": "--criterion label_smoothed_cross_entropy",
}


@pytest.mark.parametrize("name", OFF)
def test_switched_off_is_standard_bit_for_bit(build, name):
    """Same loss, same gradient and the same random stream afterwards, with dropout on."""
    results = []
    for flags in (STRATEGIES["standard"], OFF[name]):
        built = build(f"{TRANSFORMER} {flags} --attention-dropout 0.1", dropout=0.3)
        sample = batch(built.task, sentences(LENGTHS))
        torch.manual_seed(7)
        built.model.zero_grad()
        getattr(built.criterion, "set_num_updates", int)(0)
        loss, sample_size, _ = built.criterion(built.model, sample)
        loss.backward()
        gradient = {n: p.grad for n, p in built.model.named_parameters()}
        results.append((loss.item(), sample_size, gradient, torch.random.get_rng_state()))
    (loss, size, gradient, stream), (other_loss, other_size, other, other_stream) = results
    assert loss == other_loss and size == other_size
    assert torch.equal(stream, other_stream)
    for key in gradient:
        assert torch.equal(gradient[key], other[key]), key


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_evaluation_is_the_plain_loss_on_gold_inputs(build, strategy):
    """Validation numbers compare across strategies, and with fairseq's own criterion."""
    logs = []
    for flags in (STRATEGIES[strategy], "--criterion label_smoothed_cross_entropy"):
        built = build(f"{TRANSFORMER} {flags} --report-accuracy", dropout=0.3)
        sample = batch(built.task, sentences(LENGTHS))
        _, sample_size, log = built.task.valid_step(sample, built.model, built.criterion.eval())
        logs.append((sample_size, *(float(log[key]) for key in ("loss", "nll_loss", "n_correct", "total", "ntokens"))))
    assert logs[0] == logs[1]


def test_gold_ratio_keeps_that_share_of_the_inputs(build):
    built = build(f"{TRANSFORMER} --criterion gift_recurrent --gold-ratio 0.75")
    sample = batch(built.task, sentences([(5, 40)] * 50))
    torch.manual_seed(3)
    _, _, log = built.criterion(built.model, sample)
    assert int(log["n_chosen"]) == 50 * 39
    assert int(log["n_replaced"]) / (50 * 39) == pytest.approx(0.25, abs=0.04)
