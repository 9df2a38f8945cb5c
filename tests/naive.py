"""References in loops over sentences, prefixes and words, with nothing kept between them: what the package must equal.

A sentence pair is encoded alone and without padding; each token is predicted by a full forward over its prefix.
"""

import itertools
import math

import torch
from fairseq.data import Dictionary
from fairseq.sequence_generator import SequenceGenerator
from sacrebleu.metrics import CHRF

BOS, PAD, EOS, UNK = 0, 1, 2, 3
WORDS = 23  # of the tests' dictionary, behind the four symbols
EPSILON = 0.1
NOTHING = torch.tensor(0.0)


# ---- tokens


def encode(model, source):
    """What the encoder makes of ``source`` alone."""
    return model.encoder(source[None], torch.tensor([len(source)]))


def next_logits(model, encoder_out, prefix):
    """Logits of the token after ``prefix``, from a full forward over it: no cache, no padding.

    fairseq's dynamic convolution normalizes otherwise where a sequence is shorter than its kernel (3 here), so short
    prefixes get words behind them, which a causal decoder does not see.
    """
    more = [5] * (3 - len(prefix))
    output = model.decoder(torch.tensor([prefix + more]), encoder_out=encoder_out)
    if getattr(model.decoder, "adaptive_softmax", None) is not None:  # it has log-probabilities alone
        output = [model.decoder.get_normalized_probs(output, log_probs=True, sample=None)]
    return output[0][0, len(prefix) - 1]


def best_allowed(logits, forbidden=(PAD, EOS, BOS)):
    ranked = sorted(range(logits.numel()), key=lambda word: -logits[word].item())
    return next(word for word in ranked if word not in forbidden)


def most_tokens(gold, cap=1.5):
    return math.ceil(cap * len(gold))


def own_length(model, encoder_out, gold, ignored=0, cap=1.5):
    """Greedy tokens until the model's own ``</s>``, or cut at ``cap`` gold lengths."""
    tokens = gold[:ignored]
    while len(tokens) == ignored or (tokens[-1] != EOS and len(tokens) < most_tokens(gold, cap)):
        tokens.append(best_allowed(next_logits(model, encoder_out, [EOS, *tokens]), (PAD, BOS)))
    return tokens


def gold_length(model, encoder_out, gold, ignored=0, _cap=None, passes=1):
    """What ``passes`` teacher-forced passes leave, to the gold length; the last one, ``</s>`` here, is never read."""
    tokens = gold[:-1]
    for _ in range(passes):
        chosen = [best_allowed(next_logits(model, encoder_out, [EOS, *tokens[:t]])) for t in range(len(tokens))]
        tokens = gold[:-1][:ignored] + chosen[ignored:]
    return [*tokens, EOS]


def free_running(model, encoder_out, gold, ignored=0):
    """Greedy tokens to the gold length, none of them ``</s>`` but the last, which is never read."""
    tokens = gold[:-1][:ignored]
    while len(tokens) < len(gold) - 1:
        tokens.append(best_allowed(next_logits(model, encoder_out, [EOS, *tokens])))
    return [*tokens, EOS]


def best_of_beam(model, source, gold, ignored=0, longest=None):
    """The three best by fairseq's generator, each once."""
    words = Dictionary()
    for number in range(WORDS):
        words.add_symbol(f"w{number}")
    model.eval()
    generator = SequenceGenerator(
        [model], words, beam_size=3, max_len_b=(longest or most_tokens(gold)) - 1, tokens_to_suppress=(words[BOS],)
    )
    net_input = {"src_tokens": source[None], "src_lengths": torch.tensor([len(source)])}
    forced = torch.tensor([gold[:ignored]]) if ignored else None
    found = generator.forward({"net_input": net_input}, prefix_tokens=forced)[0]
    model.train()
    tokens = [hypothesis["tokens"].tolist() for hypothesis in found]
    assert len({tuple(each) for each in tokens}) == 3
    return tokens


# ---- which tokens are right


def edit_distance(one, other):
    """The plain dynamic programme, by its recursion."""
    table = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i, j in itertools.product(range(1, len(one) + 1), range(1, len(other) + 1)):
        substituted = table[i - 1, j - 1] + (one[i - 1] != other[j - 1])
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, substituted)
    return table[len(one), len(other)]


def naive_optimal(prefix, text):
    """The right next tokens after ``prefix``, both without ``</s>``, by the definition of the paper."""
    distances = [edit_distance(prefix, text[:j]) for j in range(len(text) + 1)]
    return {(text + [EOS])[j] for j, distance in enumerate(distances) if distance == min(distances)}


# ---- losses


def smoothed(logits, gold):
    """fairseq's label-smoothed cross-entropy of one token, by its definition."""
    lprobs = torch.log_softmax(logits, dim=-1)
    weights = torch.full_like(lprobs, EPSILON / (logits.numel() - 1))
    weights[gold] = 1 - EPSILON
    return -(weights * lprobs).sum()


def log_probability(model, encoder_out, tokens, ignored=0):
    """Of ``tokens`` without the first ``ignored`` ones."""
    each = [
        torch.log_softmax(next_logits(model, encoder_out, [EOS, *tokens[:t]]), -1)[tokens[t]]
        for t in range(ignored, len(tokens))
    ]
    return sum(each, NOTHING)


def naive_weights(probabilities, weighting="tailr", gamma=0.3, floor=0.02):
    """Of the tokens of one sentence, by the definitions of the papers."""
    held = [min(max(p, floor), 1) for p in probabilities]
    if weighting == "tailr":
        return [min(max(p / (gamma + (1 - gamma) * p), floor), 1) for p in probabilities]
    return [held[t] * sum(held[t : t + 6]) / len(held[t : t + 6]) for t in range(len(held))]


def naive_loss(strategy, model, source, target, given=None, ignored=0, ratio=0.3, passes=1, weighting="tailr"):
    """What ``strategy`` (a name of conftest's STRATEGIES) descends on one sentence pair.

    ``given`` are the tokens that were sampled in place of greedy ones: a list of hypotheses for risk, else one.
    """
    encoder_out, gold = encode(model, source), target.tolist()
    if len(gold) <= ignored:  # all of it is forced: there is nothing to predict
        return NOTHING
    if strategy == "risk":
        return naive_risk(model, encoder_out, given or best_of_beam(model, source, gold, ignored), gold, ignored)
    if strategy == "consistency":
        return naive_consistency(model, encoder_out, gold_length(model, encoder_out, gold, ignored), gold, ignored)
    if strategy == "best" and not given:
        given = naive_best(best_of_beam(model, source, gold, ignored, int(1.5 * len(gold))), gold, ignored)
    if strategy == "best":
        tokens, right = given, [[word] for word in given]
    elif strategy == "oracle":
        tokens = given or own_length(model, encoder_out, gold, ignored)
        right = [sorted(naive_optimal(tokens[:t], gold[:-1])) for t in range(len(tokens))]
    else:
        tokens, right = gold, [[word] for word in gold]
        if strategy == "recurrent":
            tokens = given or gold_length(model, encoder_out, gold, ignored, passes=passes)
        if strategy == "generative":
            tokens = given or free_running(model, encoder_out, gold, ignored)
    losses, probabilities = [], []
    for t in range(ignored, len(tokens)):
        logits = next_logits(model, encoder_out, [EOS, *tokens[:t]])
        probabilities.append(logits.softmax(-1)[right[t][0]].item())
        losses.append(sum(smoothed(logits, word) for word in right[t]) / len(right[t]))
    if strategy == "auxiliary":
        return (1 - ratio) * sum(losses) + ratio * len(losses) * losses[0]
    if strategy == "weighted":
        return sum(weight * loss for weight, loss in zip(naive_weights(probabilities, weighting), losses))
    return sum(losses)


def naive_consistency(model, encoder_out, own, gold, ignored, weight=2):
    """The mean loss of both passes, and ``weight`` times the mean of both divergences, by their definition."""
    total = NOTHING
    for t in range(ignored, len(gold)):
        both = [next_logits(model, encoder_out, [EOS, *tokens[:t]]) for tokens in (own, gold)]
        p, q = (logits.softmax(-1) for logits in both)
        divergences = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
        total = total + sum(smoothed(logits, gold[t]) for logits in both) / 2 + weight * divergences / 2
    return total


def text(tokens):
    """The words of the tests' dictionary; what is unknown is no word of any reference."""
    return " ".join("?" if token == UNK else f"w{token - 4}" for token in tokens if token != EOS)


def naive_cost(tokens, gold, ignored=0):
    """One minus chrF of the text after the first ``ignored`` tokens."""
    return 1 - CHRF().sentence_score(text(tokens[ignored:]), [text(gold[ignored:])]).score / 100


def naive_best(candidates, gold, ignored=0, least=11, tolerance=0.5):
    """Of those that ended, within the length and near enough, the nearest, the first of equal ones; else the gold."""
    best, best_score = gold, least
    for tokens in candidates:
        score = 100 * (1 - naive_cost(tokens, gold, ignored))
        near = tokens[-1] == EOS and abs(len(tokens) - len(gold)) <= tolerance * len(gold)
        if near and (score > best_score or best is gold and score == best_score):
            best, best_score = tokens, score
    return best


def naive_expected(scores, costs):
    weights = [math.exp(score - max(scores)) for score in scores]
    return sum(weight * cost for weight, cost in zip(weights, costs)) / sum(weights)


def naive_risk(model, encoder_out, candidates, gold, ignored, alpha=0.005):
    """The expected cost over ``candidates``, by its gradient; by its value their mean negative log-likelihood."""
    lprobs = [log_probability(model, encoder_out, c, ignored) for c in candidates]
    weights = [(alpha * lprob).exp() for lprob in lprobs]
    costs = [naive_cost(c, gold, ignored) for c in candidates]
    descended = sum(weight * cost for weight, cost in zip(weights, costs)) / sum(weights)
    descended = (len(gold) - ignored) * descended / alpha
    shown = -sum(lprobs) / len(lprobs)
    return shown.detach() + descended - descended.detach()


def gradient_of(model, loss):
    """By the names of the parameters that have one."""
    model.zero_grad()
    if loss.requires_grad:
        loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def naive_gradient(strategy, model, pairs, given=None, **options):
    """Summed :func:`naive_loss` and its gradient; ``given`` are those of each pair."""
    given = given or [None] * len(pairs)
    total = sum(naive_loss(strategy, model, *pair, given=own, **options) for pair, own in zip(pairs, given))
    return total.item(), gradient_of(model, total)


def naive_divergence(initial, model, pairs, ignored=0):
    """``sum_t sum_v p_0 (log p_0 - log p)`` over gold prefixes, each in a forward of its own."""
    total = NOTHING
    for source, target in pairs:
        with torch.no_grad():
            theirs_out = encode(initial, source)
        ours_out = encode(model, source)
        for t in range(ignored, len(target)):
            prefix = [EOS, *target[:t].tolist()]
            with torch.no_grad():
                theirs = torch.log_softmax(next_logits(initial, theirs_out, prefix), -1)
            ours = torch.log_softmax(next_logits(model, ours_out, prefix), -1)
            total = total + (theirs.exp() * (theirs - ours)).sum()
    return total


# ---- whole batches, as fairseq's collater pads them


def unpadded(sample):
    """The sentence pairs of ``sample``, in its order."""
    sources = (source[source != PAD] for source in sample["net_input"]["src_tokens"])
    return list(zip(sources, (target[target != PAD] for target in sample["target"])))


@torch.no_grad()
def naive_gold_probabilities(model, sample):
    """p(gold token of position t), as lists of the sentences' lengths."""
    model.eval()
    rows = []
    for source, target in unpadded(sample):
        encoder_out, gold = encode(model, source), target.tolist()
        logits = [next_logits(model, encoder_out, [EOS, *gold[:t]]) for t in range(len(gold))]
        rows.append([each.softmax(0)[word].item() for each, word in zip(logits, gold)])
    model.train()
    return rows
