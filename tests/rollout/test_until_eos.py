"""Sentences that end where the decoder ends them: against a loop over prefixes that keeps nothing, row by row."""

import pytest
import torch
from conftest import ARCHITECTURES, TRANSFORMER, assert_rows, batch, encoded, lengths_for, sentences, that_ends
from fairseq.sequence_generator import SequenceGenerator
from naive import BOS, EOS, PAD, WORDS, encode, next_logits, unpadded

from gift_fairseq import rollout
from gift_fairseq.rollout import stepwise
from gift_fairseq.rollout.transformer import TransformerSteps

VOCABULARY = 4 + WORDS
LENGTHS = [(n, m) for n, m in zip([5, 3, 6, 2, 9, 4, 7, 5, 1, 8, 3, 6], [6, 4, 2, 7, 1, 3, 9, 2, 5, 1, 4, 8])]


def erratic(end):
    """A choice by every digit of the scores, as if it were drawn: any error shows, and rows end anywhere.

    ``end`` is added to the score of ``</s>``.
    """

    def choose(scores):
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


@pytest.mark.parametrize("few", [0.0, stepwise.FEW_GO_ON, 1.01])
@pytest.mark.parametrize("prefix_size", [0, 2])
@torch.no_grad()
def test_rows_that_ended_are_left_out(build, prefix_size, few, monkeypatch):
    """Compacted never, as it is, or after every step: the rows that stay keep their caches, sources, masks and caps."""
    monkeypatch.setattr(stepwise, "FEW_GO_ON", few)
    computed, kept = [], []
    next_tokens, keep = TransformerSteps.next_tokens, TransformerSteps.keep
    monkeypatch.setattr(
        TransformerSteps, "next_tokens", lambda self, prefix: computed.append(len(prefix)) or next_tokens(self, prefix)
    )
    monkeypatch.setattr(TransformerSteps, "keep", lambda self, rows: kept.append(rows.tolist()) or keep(self, rows))
    built = build(f"{TRANSFORMER} --criterion gift_generative")
    longest = torch.tensor([9, 2, 30, 4, 30, 6, 30, 1, 30, 7, 30, 12])
    rows = naive(built, sample_for(built), prefix_size, longest.tolist(), erratic(1.0))
    assert_rows(until_eos(built, sample_for(built), prefix_size, longest, erratic(1.0)), rows)

    # padding that is forced ends a row a step later
    forced = sample_for(built)["target"].ne(PAD).sum(1).le(prefix_size).tolist()
    steps = [min(len(row) + late, most) for row, late, most in zip(rows, forced, longest.tolist())]
    going_on = [sum(n > t for n in steps) for t in range(len(computed))]
    assert computed[0] == 12 and len(computed) == max(map(len, rows))
    if few == 0:
        assert kept == [] and computed == [12] * len(computed)
    else:
        assert len(kept) >= 3 and any(rows != list(range(len(rows))) for rows in kept)
        assert all(few * n <= still <= n for n, still in zip(computed[1:], going_on[1:]) if few < 1)
    if few > 1:
        assert computed[1:] == going_on[1:]


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
