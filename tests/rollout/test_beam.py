"""The best of a beam: what fairseq's generator finds from scratch, over an encoder pass that is already made."""

import pytest
import torch
from conftest import ARCHITECTURES, TRANSFORMER, assert_rows, batch, encoded, lengths_for, sentences, that_ends
from fairseq.sequence_generator import SequenceGenerator
from naive import BOS, EOS

from gift_fairseq import rollout
from gift_fairseq.errors import UserError


def made(build, architecture="transformer_wmt_en_de", **options):
    built = that_ends(build(f"{ARCHITECTURES[architecture]} --criterion gift_standard", **options), architecture)
    return built, batch(built.task, sentences(lengths_for(architecture)))


def beam(built, sample, encoder_out, size, longest, prefix_size=0, **options):
    words, each = built.task.target_dictionary, torch.as_tensor(longest).expand(len(sample["target"]))
    return rollout.beam(built.model, sample["net_input"], encoder_out, words, size, each, prefix_size, **options)


def from_scratch(built, sample, size, longest, prefix_size=0):
    """All hypotheses (B size) of fairseq's generator, each as its tokens."""
    words, gold_inputs = built.task.target_dictionary, sample["net_input"]["prev_output_tokens"]
    generator = SequenceGenerator(
        [built.model], words, beam_size=size, max_len_b=longest - 1, tokens_to_suppress=(words[BOS],)
    )
    prefix = gold_inputs[:, 1 : 1 + prefix_size] if prefix_size else None
    found = generator.generate([built.model], sample, prefix_tokens=prefix)
    return [hypothesis["tokens"].tolist() for best in found for hypothesis in best]


def alone(built, pair, size, longest, prefix_size=0):
    """:func:`from_scratch` for one pair; the best again where there are fewer."""
    rows = from_scratch(built, batch(built.task, [pair]), size, longest, min(prefix_size, len(pair[1]) - 1))
    return rows + rows[:1] * (size - len(rows))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_fairseqs_generator_from_scratch(build, architecture):
    built, sample = made(build, architecture)
    _, encoder_out = encoded(built, sample)
    lengths = set()
    for size, longest in ((1, 7), (4, 9), (3, 3)):
        rows = from_scratch(built, sample, size, longest)
        assert len(rows) == 4 * size and all(row[-1] == EOS and len(row) <= longest for row in rows)
        assert_rows(beam(built, sample, encoder_out, size, longest), rows)
        lengths |= {len(row) for row in rows}
    assert len(lengths) >= 3


def test_a_model_that_heeds_the_size_of_the_beam_stays_as_it_was(build):
    """BART remembers the size: its cross-attention would read every third source only, in the training pass too."""
    built = that_ends(
        build(f"{TRANSFORMER.replace('transformer_wmt_en_de', 'bart_base')} --criterion gift_standard"), "bart"
    )
    sample = batch(built.task, sentences([(6, 4), (5, 6), (4, 3), (3, 7), (2, 5), (2, 2)]))
    trained_on, _ = built.model(**sample["net_input"])
    _, encoder_out = encoded(built, sample)
    tokens = beam(built, sample, encoder_out, 3, 8)
    assert torch.equal(built.model(**sample["net_input"])[0], trained_on)
    assert_rows(tokens, from_scratch(built, sample, 3, 8))  # fairseq changes the model


@pytest.mark.parametrize("prefix_size", [0, 1])
def test_each_sentence_has_a_length_of_its_own(build, prefix_size):
    """As if it were alone in its batch: fairseq has one length for all, up to which the others would go on."""
    built, _ = made(build)
    pairs, longest = sentences([(9, 6), (7, 4), (6, 5), (5, 7), (4, 3), (2, 2)]), [5, 2, 9, 3, 12, 4]  # as collated
    sample = batch(built.task, pairs)
    _, encoder_out = encoded(built, sample)
    tokens = beam(built, sample, encoder_out, 4, longest, prefix_size)
    rows = [row for pair, most in zip(pairs, longest) for row in alone(built, pair, 4, most, prefix_size)]
    assert_rows(tokens, rows)
    assert all(len(row) <= most for row, most in zip(rows, torch.tensor(longest).repeat_interleave(4).tolist()))


def test_the_start_symbol_is_never_said(build):
    """fairseq's generator forbids <pad> only."""
    built, sample = made(build)
    with torch.no_grad():
        built.model.decoder.output_projection.weight[BOS] = 9 * built.model.decoder.output_projection.weight[7]
    _, encoder_out = encoded(built, sample)
    words = built.task.target_dictionary
    free = SequenceGenerator([built.model], words, beam_size=4, max_len_b=7)
    assert any(BOS in hypothesis["tokens"] for best in free.generate([built.model], sample) for hypothesis in best)
    assert not beam(built, sample, encoder_out, 4, 8).eq(BOS).any()


@pytest.mark.parametrize("longest", [1, 2])
@pytest.mark.parametrize("prefix_size", [0, 1])
def test_there_are_as_many_as_asked_for_even_where_only_one_is_possible(build, prefix_size, longest):
    """One token leaves </s> only, two behind a forced one as well: the best is there again."""
    built, sample = made(build)
    gold_inputs, encoder_out = encoded(built, sample)
    tokens = beam(built, sample, encoder_out, 3, longest, prefix_size)
    assert tokens.size() == (4 * 3, longest) and tokens.eq(EOS).sum(1).eq(1).all()
    if longest == 1:
        assert tokens.eq(EOS).all()
    elif prefix_size == 1:
        assert torch.equal(tokens[:, 0], gold_inputs[:, 1].repeat_interleave(3))
    else:
        assert len({tuple(row) for row in tokens.tolist()}) > 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_arithmetic_is_of_the_type_that_is_asked_for(build, dtype):
    built, sample = made(build, dtype=torch.float32)
    _, encoder_out = encoded(built, sample)
    seen = []
    hook = built.model.decoder.output_projection.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    beam(built, sample, encoder_out, 2, 5, dtype=dtype)
    assert set(seen) == {dtype} and not torch.is_autocast_enabled("cpu")
    seen.clear()
    beam(built, sample, encoder_out, 2, 5)
    assert set(seen) == {torch.float32}
    hook.remove()


def test_half_precision_of_another_kind_than_the_weights_is_refused(build):
    built, sample = made(build, dtype=torch.bfloat16)
    _, encoder_out = encoded(built, sample)
    beam(built, sample, encoder_out, 2, 5, dtype=torch.bfloat16)
    with pytest.raises(
        UserError, match="--rollout-dtype is fp16, but the model's weights are in bf16: it must be model or"
    ):
        beam(built, sample, encoder_out, 2, 5, dtype=torch.float16)
