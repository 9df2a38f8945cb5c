"""Sentences that end where the decoder ends them: against a loop over prefixes that keeps nothing, row by row."""

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    TRANSFORMER,
    assert_rows,
    batch,
    encoded,
    lengths_for,
    often_ending,
    sentences,
    that_ends,
)
from fairseq.sequence_generator import SequenceGenerator
from naive import BOS, EOS, PAD, WORDS, encode, next_logits, unpadded

from gift_fairseq import rollout
from gift_fairseq.rollout import stepwise, transformer
from gift_fairseq.rollout.transformer import TransformerSteps

VOCABULARY = 4 + WORDS
LENGTHS = [(n, m) for n, m in zip([5, 3, 6, 2, 9, 4, 7, 5, 1, 8, 3, 6], [6, 4, 2, 7, 1, 3, 9, 2, 5, 1, 4, 8])]


def erratic(end):
    """A choice by every digit of the scores, as if it were drawn: any error shows, and rows end anywhere.

    ``end`` is added to the score of ``</s>``.
    """

    def choose(scores, _rows=None):
        scores = scores.clone()
        scores[..., [BOS, PAD]] = -30.0
        scores[..., EOS] += end
        point = (scores * torch.arange(1, VOCABULARY + 1)).sum(-1, keepdim=True) * 100 % 1
        return torch.searchsorted(scores.softmax(-1).cumsum(-1), point).squeeze(-1).clamp(max=VOCABULARY - 1)

    return choose


def sample_for(built, architecture="", seed=1):
    return batch(built.task, sentences(lengths_for(architecture, LENGTHS), seed))


def naive(built, sample, prefix_size, longest, choose):
    """Every sentence by itself, encoded without padding; a full forward of every prefix."""
    built.model.eval()
    rows = []
    for (source, target), most in zip(unpadded(sample), longest):
        forced, encoder_out = target[:-1][:prefix_size].tolist(), encode(built.model, source)
        tokens = forced[:most]
        # a sentence that is shorter than the prefix that is forced ends with it: padding is forced behind
        while len(forced) == prefix_size and len(tokens) < most and tokens[-1:] != [EOS]:
            prefix = [EOS, *tokens]
            tokens.append(int(choose(next_logits(built.model, encoder_out, prefix)[None])))
        rows.append(tokens)
    return rows


def until_eos(built, sample, prefix_size, longest, choose, **options):
    gold_inputs, encoder_out = encoded(built, sample)
    start = gold_inputs[:, : 1 + prefix_size]
    return rollout.until_eos(built.model.decoder, start, encoder_out, choose, EOS, PAD, longest, **options)


CAPS = [1, 3, 7, 2, 12, 5, 1, 9, 4, 6, 30, 8]


@pytest.mark.parametrize("prefix_size", [0, 1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_equals_the_naive_loop(build, architecture, prefix_size):
    """Whatever the caps: what one cuts off changes nothing before it."""
    built = build(f"{ARCHITECTURES[architecture]} --criterion gift_generative")
    is_engine = stepwise.steps_for(built.model.decoder) is TransformerSteps
    assert is_engine == architecture.startswith("transformer")
    sample, choose = sample_for(built, architecture), erratic(1.0)
    rows = naive(built, sample, prefix_size, [40] * 12, choose)
    assert len({len(row) for row in rows}) >= 5 and max(map(len, rows)) > 10
    for caps in ([40] * 12, [4] * 12, CAPS):
        tokens = until_eos(built, sample, prefix_size, torch.tensor(caps), choose)
        assert_rows(tokens, [row[:cap] for row, cap in zip(rows, caps)])


@pytest.mark.parametrize("end", [-30, 30])
@torch.no_grad()
def test_all_rows_end_at_once_or_none_before_its_cap(build, end):
    built = build(f"{TRANSFORMER} --criterion gift_generative")
    longest = torch.tensor(CAPS)
    tokens = until_eos(built, sample_for(built), 0, longest, erratic(end))
    if end > 0:
        assert tokens.tolist() == [[EOS]] * 12
    else:
        assert torch.equal(tokens.ne(PAD).sum(1), longest) and not tokens.eq(EOS).any()


@pytest.mark.parametrize("few", [0.0, transformer.FEW_SENTENCES, 1.01])
@pytest.mark.parametrize("prefix_size", [0, 2])
@torch.no_grad()
def test_rows_that_ended_are_left_out(build, prefix_size, few, monkeypatch):
    """At once; their sources never, as it is, or at once: rows that stay keep their caches, sources, masks and caps."""
    monkeypatch.setattr(transformer, "FEW_SENTENCES", few)
    computed, sources, forward = [], [], TransformerSteps._forward

    def watched(self, tokens, t):
        computed.append(len(tokens))
        sources.append(self.cross[0].size(1))
        return forward(self, tokens, t)

    monkeypatch.setattr(TransformerSteps, "_forward", watched)
    built = build(f"{TRANSFORMER} --criterion gift_generative")
    longest = torch.tensor([9, 2, 30, 4, 30, 6, 30, 1, 30, 7, 30, 12])
    rows = naive(built, sample_for(built), prefix_size, longest.tolist(), erratic(1.0))
    assert_rows(until_eos(built, sample_for(built), prefix_size, longest, erratic(1.0)), rows)

    # padding that is forced ends a row a step later
    forced = sample_for(built)["target"].ne(PAD).sum(1).le(prefix_size).tolist()
    steps = [min(len(row) + late, most) for row, late, most in zip(rows, forced, longest.tolist())]
    assert computed == [sum(n > t for n in steps) for t in range(max(map(len, rows)))] and computed[0] == 12
    if few in (0, 1.01):
        assert sources == (computed if few else [12] * len(computed))
    else:
        assert len(set(sources)) > 3 and all(few * held <= n <= held for n, held in zip(computed, sources))


COPIES = 5


def by(points, copies=1, first=0):
    """Draws by ``points`` (R, T), a number for each row and step; of several copies row r has the number r."""
    steps, sampler = iter(range(points.size(1))), rollout.Sampler((PAD, BOS), 0.7)

    def choose(scores, rows):
        return sampler.taken(sampler.masked(scores.clone()), points[rows * copies + first, next(steps)])

    return choose


@pytest.mark.parametrize("few", [transformer.FEW_SENTENCES, 1.01])
@pytest.mark.parametrize("prefix_size", [0, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_copies_are_separate_rollouts_with_the_same_noise(build, architecture, prefix_size, few, monkeypatch):
    """And the engine computes once what copies of a sentence have read alike, and nothing for those that ended."""
    monkeypatch.setattr(transformer, "FEW_SENTENCES", few)
    computed, forward = [], TransformerSteps._forward
    monkeypatch.setattr(
        TransformerSteps, "_forward", lambda self, tokens, t: computed.append(len(tokens)) or forward(self, tokens, t)
    )
    built = often_ending(build(f"{ARCHITECTURES[architecture]} --criterion gift_generative"))
    sample, longest = sample_for(built, architecture), torch.tensor(CAPS) + 2
    points = torch.rand(12, COPIES, 40, generator=torch.Generator().manual_seed(3))
    points[:, 1::2, :3] = points[:, :1, :3]  # some draw the same at first, and part later
    points = points.flatten(0, 1)
    separate = [
        until_eos(built, sample, prefix_size, longest, by(points, COPIES, first)).tolist() for first in range(COPIES)
    ]
    rows = [[token for token in one[b] if token != PAD] for b in range(12) for one in separate]
    computed.clear()
    reorder = built.model.encoder.reorder_encoder_out
    together = until_eos(built, sample, prefix_size, longest, by(points), copies=COPIES, reorder=reorder)
    assert_rows(together, rows)
    assert len({len(row) for row in rows}) > 5 and len({tuple(row) for row in rows}) > 30
    if computed:
        forced = sample["target"].ne(PAD).sum(1).le(prefix_size).repeat_interleave(COPIES).tolist()
        most = [
            min(len(row) + late, cap) for row, late, cap in zip(rows, forced, longest.repeat_interleave(5).tolist())
        ]
        read = [
            {(r // COPIES, tuple(row[:t])) for r, row in enumerate(rows) if most[r] > t} for t in range(len(computed))
        ]
        assert computed == [len(each) for each in read] and computed[0] == 12 and max(computed) > 24


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "lightconv"])
@torch.no_grad()
def test_source_padding_and_other_rows_change_nothing(build, architecture):
    """The source padding mask is forgotten easily where rows are left out. (fairseq's lightconv has no such mask.)"""
    built = build(f"{ARCHITECTURES[architecture]} --criterion gift_generative")
    pairs, longest, choose = sentences(LENGTHS), torch.full((12,), 25), erratic(1.0)
    whole = until_eos(built, batch(built.task, pairs), 1, longest, choose)
    order = batch(built.task, pairs)["id"].tolist()  # fairseq's collater sorts by source length
    (longer,) = sentences([(15, 2)], seed=3)
    for part in ([*range(12), "longer"], [3, 8, 0], [11], [7, 2], [8, "longer"]):
        sample = batch(built.task, [longer if i == "longer" else pairs[i] for i in part])
        found = until_eos(built, sample, 1, longest[:1].expand(len(part)), choose)
        for row, place in zip(found.tolist(), sample["id"].tolist()):
            if part[place] != "longer":
                there = whole[order.index(part[place])].tolist()
                length = sum(token != PAD for token in there)
                assert row[:length] == there[:length] and set(row[length:]) <= {PAD}
    assert len({tuple(row) for row in whole.tolist()}) >= 9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_greedy_equals_fairseqs_generator(build, architecture):
    """fairseq's beam search with one beam: all tokens, but that it puts </s> where ours is cut."""
    longest, ends, cut = 9, set(), 0
    for seed in (2, 3) if architecture == "fconv" else (1, 3):
        built = that_ends(build(f"{ARCHITECTURES[architecture]} --criterion gift_generative", seed=seed), architecture)
        words, sample = built.task.target_dictionary, sample_for(built, architecture, seed)
        tokens = until_eos(built, sample, 0, torch.full((12,), longest), rollout.Sampler((PAD, BOS)))
        generator = SequenceGenerator(
            [built.model], words, beam_size=1, max_len_b=longest - 1, min_len=0, tokens_to_suppress=(words[BOS],)
        )
        for row, (hypothesis,) in zip(tokens.tolist(), generator.generate([built.model], sample)):
            theirs = hypothesis["tokens"].tolist()
            ours = [token for token in row if token != PAD]
            if ours[-1] == EOS:
                ends.add(len(ours))
            else:
                assert len(ours) == longest
                ours[-1], cut = EOS, cut + 1
            assert ours == theirs
    assert len(ends) >= 2 and cut > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_sentences_are_drawn_by_their_probability(build, architecture):
    """How often each of the short sentences is drawn: its probability by full forwards over its prefixes."""
    built = build(f"{ARCHITECTURES[architecture]} --criterion gift_generative")
    count, pair = 3000, sentences([(3, 2)])
    gold_inputs, encoder_out = encoded(built, batch(built.task, pair))
    allowed = (EOS, 9, 10)
    forbidden = tuple(word for word in range(VOCABULARY) if word not in allowed)
    drawn = rollout.Sampler(forbidden, 0.5, 0, torch.Generator().manual_seed(4))
    choose = rollout.SeveralDrawn(drawn, count, count, greedy=False)
    (longest,), options = torch.tensor([[2]]), {"copies": count, "reorder": built.model.encoder.reorder_encoder_out}
    decoder, start = built.model.decoder, gold_inputs[:, :1]
    tokens = rollout.until_eos(decoder, start, encoder_out, choose, EOS, PAD, longest, **options)
    found = torch.tensor([(9, 9), (9, 10), (9, EOS), (10, 9), (10, 10), (10, EOS), (EOS, PAD)])
    counts = (tokens.unsqueeze(1) == found).all(-1).sum(0)
    assert counts.sum() == count

    gold_inputs, encoder_out = encoded(built, batch(built.task, pair))  # fairseq's fconv overwrites what it reorders

    def probability(prefix, token):
        output = built.model.decoder(torch.tensor([[EOS, *prefix, 5, 5]]), encoder_out=encoder_out)
        scores = rollout.scores_of(built.model.decoder, output)[0, len(prefix), list(allowed)]
        return (scores / 0.5).softmax(0)[allowed.index(token)].item()

    for (one, two), times in zip(found.tolist(), counts.tolist()):
        expected = probability([], one) * (probability([one], two) if two != PAD else 1.0)
        assert times / count == pytest.approx(expected, abs=5 * (expected / count) ** 0.5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_the_arithmetic_is_of_the_type_that_is_asked_for(build, architecture, dtype):
    built = build(f"{ARCHITECTURES[architecture]} --criterion gift_generative", dtype=torch.float32)
    seen, greedy = [], rollout.Sampler((PAD, BOS))

    def choose(scores, _rows=None):
        seen.append(scores.dtype)
        return greedy(scores)

    sample, longest = sample_for(built, architecture), torch.full((12,), 6)
    tokens = until_eos(built, sample, 0, longest, choose, dtype=dtype)
    assert set(seen) == {dtype} and not torch.is_autocast_enabled("cpu")
    whole = until_eos(built, sample, 0, longest, choose)
    assert seen[-1] == torch.float32
    assert tokens[:, 0].eq(whole[:, 0]).double().mean() > 0.6  # where the best two are not near each other
    assert not tokens.eq(BOS).any() and tokens.size(1) <= 6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_everything_is_left_as_it_was(build, architecture):
    """No dropout and no gradient where tokens are generated; training flags and random stream as before."""
    built = build(f"{ARCHITECTURES[architecture]} --criterion gift_generative", dropout=0.5)
    sample, longest, choose = sample_for(built, architecture), torch.full((12,), 9), erratic(1.0)
    expected = until_eos(built, sample, 1, longest, choose)
    gold_inputs, encoder_out = encoded(built, sample)
    built.model.train()
    next(module for module in built.model.decoder.modules() if isinstance(module, torch.nn.Embedding)).eval()
    flags = {name: module.training for name, module in built.model.named_modules()}
    stream = torch.random.get_rng_state()
    start = gold_inputs[:, :2].clone()
    tokens = rollout.until_eos(built.model.decoder, start, encoder_out, choose, EOS, PAD, longest)
    assert torch.equal(tokens, expected) and torch.equal(start, gold_inputs[:, :2])
    assert torch.equal(torch.random.get_rng_state(), stream) and torch.is_grad_enabled()
    assert flags == {name: module.training for name, module in built.model.named_modules()}
