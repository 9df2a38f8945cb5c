"""Free-running generation: the engine and the incremental fallback against the naive loop and fairseq's generator."""

import copy
import random
from unittest import mock

import pytest
import torch
from conftest import ARCHITECTURES, LENGTHS, STRATEGIES, TRANSFORMER, assert_rows, batch, batch_of, encoded, sentences
from fairseq.models.transformer import TransformerDecoder
from fairseq.models.transformer.transformer_decoder import Linear
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import EOS, PAD, encode, free_running, unpadded

from gift_fairseq import rollout
from gift_fairseq.prefixes import tensors
from gift_fairseq.rollout import graphs, stepwise, transformer
from gift_fairseq.rollout.graphs import GraphedSteps, StaticSteps
from gift_fairseq.rollout.incremental import IncrementalSteps
from gift_fairseq.rollout.transformer import TransformerSteps

GREEDY = rollout.Sampler((PAD, EOS, 0))
DTYPES = (torch.float64, torch.float32)
SUPPORTED = [
    "",
    "--decoder-normalize-before --encoder-normalize-before",
    "--decoder-normalize-before --no-decoder-final-norm",
    "--decoder-learned-pos",
    "--no-token-positional-embeddings",
    "--share-all-embeddings",
    "--share-decoder-input-output-embed",
    "--layernorm-embedding",
    "--no-scale-embedding",
    "--decoder-output-dim 12",
    "--encoder-embed-dim 24 --encoder-attention-heads 3",
    "--decoder-attention-heads 4 --decoder-layers 3",
    "--decoder-layerdrop 0.4",
    "--checkpoint-activations",
    *(f"--activation-fn {name}" for name in ("gelu", "gelu_fast", "tanh", "linear")),
]
UNSUPPORTED = {
    "--adaptive-softmax-cutoff 8,16": "has an adaptive softmax",
    "--cross-self-attention": "attends to source and target at once",
    "--no-cross-attention": "does not attend to the source",
    "--quant-noise-pq 0.1 --quant-noise-pq-block-size 8": "has quantization noise",
}


def rolled_out(decoder, gold_inputs, encoder_out, ignore_prefix_size=0, **options):
    """Inputs (B, T) that the decoder chose, as the strategies make them."""
    chosen = rollout.free_running(decoder, gold_inputs, encoder_out, GREEDY, PAD, ignore_prefix_size, **options)
    return tensors.replace(gold_inputs, chosen, tensors.replaceable(gold_inputs, PAD, ignore_prefix_size))


@torch.no_grad()
def assert_equals_naive(built, pairs, ignored=0):
    sample, model = batch(built.task, pairs), built.model
    read = rolled_out(model.decoder, *encoded(built, sample), ignored)
    chosen = (free_running(model, encode(model, s), target.tolist(), ignored) for s, target in unpadded(sample))
    assert_rows(read, [[EOS, *tokens[:-1]] for tokens in chosen])


@pytest.mark.parametrize("options", SUPPORTED)
def test_engine_equals_the_naive_loop(build, options):
    built = build(f"{TRANSFORMER} --criterion gift_generative {options}")
    assert stepwise.steps_for(built.model.decoder) is TransformerSteps
    for dtype in DTYPES:
        built.model.to(dtype)
        for seed, lengths in enumerate([LENGTHS, [(3, 9), (8, 9)], [(4, 1), (2, 1)], [(5, 12)]]):
            assert_equals_naive(built, sentences(lengths, seed))


@pytest.mark.parametrize("sentences_of_a_batch", [transformer.FEW_ROWS - 1, transformer.FEW_ROWS + 6])
def test_engine_equals_the_naive_loop_for_many_rows(build, sentences_of_a_batch):
    """From some number of rows on the engine multiplies the other way around; rows that end take it back below."""
    draw = random.Random(1)
    lengths = [(draw.randrange(1, 9), draw.randrange(1, 9)) for _ in range(sentences_of_a_batch)]
    assert_equals_naive(build(f"{TRANSFORMER} --criterion gift_generative"), sentences(lengths))


@pytest.mark.parametrize("options", SUPPORTED)
def test_static_steps_equal_the_naive_loop(build, options, monkeypatch):
    """What CUDA graphs capture, uncaptured: rollouts of several sizes, in the room that the ones before left behind."""
    monkeypatch.setattr(graphs, "POSITIONS", 4)
    monkeypatch.setattr(graphs, "ROWS", 2)
    built = build(f"{TRANSFORMER} --criterion gift_generative {options}")
    monkeypatch.setitem(stepwise._steps_class, built.model.decoder, StaticSteps)
    for seed, lengths in enumerate([[(9, 3), (3, 4)], LENGTHS, [(2, 6)], [(12, 11)] * 3, [(3, 9), (8, 9)]]):
        built.model.to(DTYPES[seed // 3])
        assert_equals_naive(built, sentences(lengths, seed))
        with torch.no_grad():  # the room's weights must follow
            for parameter in built.model.decoder.parameters():
                parameter.mul_(1.1)


def test_static_steps_reach_the_last_learned_position(build):
    """Rounded up, the room would have positions that the model has not."""
    built = build(f"{TRANSFORMER} --criterion gift_generative --decoder-learned-pos --max-target-positions 9")
    decoder = built.model.decoder
    with mock.patch.dict(stepwise._steps_class, {decoder: StaticSteps}):
        assert_equals_naive(built, sentences([(3, 9), (5, 4)]))


def test_without_capture_the_rollout_goes_on_and_says_so_once(build, monkeypatch, caplog):
    def fails(*_args):
        raise RuntimeError("planted")

    monkeypatch.setattr(GraphedSteps, "_captured", fails)
    built = build(f"{TRANSFORMER} --criterion gift_generative")
    monkeypatch.setitem(stepwise._steps_class, built.model.decoder, GraphedSteps)
    assert_equals_naive(built, sentences(LENGTHS))
    assert_equals_naive(built, sentences(LENGTHS))
    assert [r.message for r in caplog.records if "CUDA" in r.message] == [
        "rollouts go on without CUDA graphs, which could not be captured: planted"
    ]


@pytest.mark.parametrize("ignored", [1, 2, 5, 30])
def test_ignored_prefix_is_read_from_the_gold_inputs(build, ignored):
    assert_equals_naive(build(f"{TRANSFORMER} --criterion gift_generative"), sentences(LENGTHS), ignored)


@pytest.mark.parametrize("options, reason", UNSUPPORTED.items())
def test_other_decoders_go_over_incremental_state_and_say_why(build, options, reason, caplog):
    built = build(f"{TRANSFORMER} --criterion gift_generative {options}")
    with caplog.at_level("INFO"):
        assert stepwise.steps_for(built.model.decoder) is IncrementalSteps
        stepwise.steps_for(built.model.decoder)
    said = [record.message for record in caplog.records if "free-running" in record.message]
    assert said == [f"free-running generation goes over fairseq's incremental_state: the decoder {reason}"]
    if "cross-" not in options:  # there fairseq's own cached steps do not compute what its parallel pass does
        assert_equals_naive(built, sentences(LENGTHS))


def test_a_subclass_or_an_adapter_is_not_for_the_engine(build):
    """What only looks like fairseq's Transformer may compute something else."""

    class Mine(TransformerDecoder):
        pass

    class Adapter(torch.nn.Linear):
        pass

    decoder = build(f"{TRANSFORMER} --criterion gift_generative").model.decoder
    subclass, adapted = copy.deepcopy(decoder), copy.deepcopy(decoder)
    subclass.__class__ = Mine
    adapted.layers[1].encoder_attn.v_proj = Adapter(16, 16)
    assert stepwise.steps_for(subclass) is IncrementalSteps
    assert stepwise.steps_for(adapted) is IncrementalSteps


def test_embeddings_of_another_width_are_projected(build):
    built = build(f"{TRANSFORMER} --criterion gift_generative")
    decoder = built.model.decoder
    decoder.embed_tokens = torch.nn.Embedding(len(built.task.target_dictionary), 10, PAD).double()
    decoder.project_in_dim = Linear(10, 16, bias=False).double()
    assert stepwise.steps_for(decoder) is TransformerSteps
    assert_equals_naive(built, sentences(LENGTHS))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_configurations(build, data):
    def draw(*values):
        return data.draw(st.sampled_from(values))

    heads = draw(1, 2, 4)
    flags = [
        f"--decoder-layers {draw(1, 2, 3)} --decoder-attention-heads {heads} --decoder-embed-dim {heads * draw(4, 6)}",
        f"--decoder-ffn-embed-dim {draw(8, 20)} --activation-fn {draw('relu', 'gelu', 'tanh')}",
        *(draw("", flag) for flag in ("--decoder-normalize-before", "--decoder-learned-pos", "--layernorm-embedding")),
        *(draw("", flag) for flag in ("--share-decoder-input-output-embed", "--no-scale-embedding")),
    ]
    dtype = draw(*DTYPES)
    built = build(f"{TRANSFORMER} --criterion gift_generative {' '.join(flags)}", seed=draw(1, 2, 3), dtype=dtype)
    assert stepwise.steps_for(built.model.decoder) is TransformerSteps
    lengths = data.draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6))
    assert_equals_naive(built, sentences(lengths, draw(1, 2, 3)), draw(0, 0, 1, 3))


@pytest.mark.parametrize("options", SUPPORTED)
def test_logits_of_every_step_equal_the_parallel_pass(build, options):
    built = build(f"{TRANSFORMER} --criterion gift_generative {options}")
    assert_logits_equal_the_parallel_pass(built, 2e-5 if "gelu" in options else 1e-12)  # fairseq's gelu is float32
    built.model.float()
    assert_logits_equal_the_parallel_pass(built, 2e-5)


def assert_logits_equal_the_parallel_pass(built, tolerance):
    gold_inputs, encoder_out = encoded(built, batch_of(built, [(9, 3), (2, 8), (5, 8), (6, 5)]))
    decoder, lengths = built.model.decoder, gold_inputs.ne(PAD).sum(dim=1)
    order = lengths.argsort(descending=True)
    with torch.no_grad():
        parallel, _ = decoder(gold_inputs, encoder_out=encoder_out)
        steps = TransformerSteps(decoder, encoder_out, order, gold_inputs.size(1), GREEDY)
        for t, n in enumerate([4, 4, 4, 3, 3, 2, 2, 2]):
            step = steps.logits(gold_inputs[order[:n], : t + 1])
            torch.testing.assert_close(step, parallel[order[:n], t], rtol=tolerance, atol=tolerance)


def test_finished_rows_are_not_computed(build, monkeypatch):
    """The rows of all steps add up to the inputs that the decoder has to choose."""
    computed = []
    next_tokens = TransformerSteps.next_tokens

    def counted(self, prefix):
        computed.append(len(prefix))
        return next_tokens(self, prefix)

    monkeypatch.setattr(TransformerSteps, "next_tokens", counted)
    built = build(f"{TRANSFORMER} --criterion gift_generative")
    rolled_out(built.model.decoder, *encoded(built, batch_of(built)))
    assert sum(computed) == sum(target - 1 for _, target in LENGTHS)
    assert computed == sorted(computed, reverse=True)


@pytest.mark.parametrize("architecture", ["transformer_wmt_en_de", "lstm"])
@pytest.mark.parametrize("strategy", ["recurrent", "generative", "oracle"])
@pytest.mark.parametrize("name, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_rollout_dtype_is_that_of_the_choosing_pass_only(build, architecture, strategy, name, dtype, monkeypatch):
    seen = []
    choose = rollout.Sampler.__call__
    monkeypatch.setattr(rollout.Sampler, "__call__", lambda self, s, *_: seen.append(s.dtype) or choose(self, s))
    flags = f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]}"
    low = build(f"{flags} --rollout-dtype {name}", dtype=torch.float32)
    sample = batch_of(low)
    loss, _, _ = low.criterion(low.model, sample)
    assert set(seen) == {dtype} and loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in low.model.parameters() if p.grad is not None)
    seen.clear()
    model = build(flags, dtype=torch.float32)
    model.criterion(model.model, sample)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
@pytest.mark.parametrize("how", ["autocast", "model"])
def test_low_precision_logits_are_near(build, how, dtype, tolerance):
    """Under autocast (--amp) the engine computes in autocast's type, otherwise in the model's (--fp16, --bf16)."""
    built = build(f"{TRANSFORMER} --criterion gift_generative", dtype=torch.float32)
    gold_inputs, encoder_out = encoded(built, batch_of(built, [(9, 5), (2, 5)]))
    order = torch.arange(2)
    with torch.no_grad():
        parallel, _ = built.model.decoder(gold_inputs, encoder_out=encoder_out)
        if how == "model":
            built.model.to(dtype)
            encoder_out["encoder_out"] = [states.to(dtype) for states in encoder_out["encoder_out"]]
        with torch.autocast("cpu", dtype=dtype, enabled=how == "autocast"):
            steps = TransformerSteps(built.model.decoder, encoder_out, order, 5, GREEDY)
            for t in range(5):
                step = steps.logits(gold_inputs[:, : t + 1])
                assert step.dtype == dtype
                torch.testing.assert_close(step.float(), parallel[:, t], rtol=0, atol=tolerance)
