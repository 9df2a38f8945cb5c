"""The benchmark counts the work that it times; what the strategies owe shows in the counts."""

import json

import pytest
import torch
from conftest import error_of, gift

from gift_fairseq.evaluation import benchmark

TINY = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --decoder-embed-dim 16".split()
SIZES = "--device cpu --vocabulary 50 --sentences 4 --length 6 --rounds 1".split()


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    file = tmp_path_factory.mktemp("a blank and ü") / "result.json"
    sizes = "--lengths 9 --batches --vocabularies 60".split()
    gift("benchmark", *SIZES, *sizes, "--json", file, "--", *TINY)
    return json.loads(file.read_text())


def flops(measured):
    return measured["gflops"] * measured["seconds"]


def test_strategies_do_no_work_twice(result):
    """auxiliary, weighted and distillation owe nothing; recurrent one decoder pass and no encoder pass; generative not
    more than that; consistency a second pass, of the decoder alone where the encoder is shared.

    Best of n owes n rollouts, but projects each source once (24 positions, 16 numbers to 16 keys and 16 values in two
    layers), and makes the first step once; the sixth, which may end a hypothesis, is one more than to the gold length.
    """
    updates = {name: flops(it) for name, it in result["updates"].items()}
    standard = updates[benchmark.STANDARD]
    one_pass, engine = (flops(result["rollouts"][0][name]) for name in ("parallel", "engine"))
    assert updates["peer: fairseq's label_smoothed_cross_entropy"] == pytest.approx(standard)
    assert updates["auxiliary"] == pytest.approx(standard) == updates["weighted"]
    assert updates["distillation, half of the pairs own"] == pytest.approx(standard)
    assert updates["consistency"] == pytest.approx(2 * standard)
    assert updates["consistency, shared encoder"] < 1.9 * standard
    assert updates["recurrent"] == pytest.approx(standard + one_pass)
    assert updates[benchmark.EVERY_UPDATE] == pytest.approx(standard + engine)
    assert 0.7 * one_pass < engine <= one_pass
    sources = 2 * 2 * 24 * 2 * 16 * 16 / 1e9
    step = (engine - sources) / 5
    for n in (4, 8):
        assert updates[f"best of {n} sampled, every update"] < standard + sources + (5 * n + 1.3) * step
    assert updates[benchmark.UNCACHED] > 2 * standard


def test_every_size_and_yardstick_is_there(result):
    sizes = [(it["sentences"], it["length"], it["vocabulary"]) for it in result["rollouts"]]
    assert sizes == [(4, 6, 50), (4, 9, 50), (4, 6, 60)]
    assert result["updates"][benchmark.STANDARD]["ratio"] == 1
    assert all(it["parallel"]["ratio"] == 1 for it in result["rollouts"])
    assert result["matrix_gflops"] > 0


def test_another_architecture(capsys):
    gift("benchmark", *SIZES, "--arch", "lstm", "--lengths", "--batches", "--vocabularies", "--")
    assert "| recurrent |" in capsys.readouterr().out


@pytest.mark.parametrize("peer", [benchmark.uncached_back_propagation, benchmark.over_incremental_state])
def test_peers_have_the_loss_of_the_strategy(peer):
    """Without dropout, the peer's loss on its own output is that of gift_generative."""
    flags = [*TINY, "--dropout", "0", "--attention-dropout", "0"]
    bench = benchmark.Bench("transformer_wmt_en_de", 50, torch.device("cpu"), torch.float64, flags)
    sample = bench.batch(3, 7)
    generative = bench.criterion("gift_generative --generate-ratio 1")
    expected, _, _ = generative(bench.model, sample)
    loss = peer(bench.criterion("gift_standard"))(bench.model, sample)[0]
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--length", "1"], "--length is '1', but must be a whole number, 2 or more"),
        (["--json", "no such folder/x.json"], "--json is no such folder/x.json, but its folder does not exist"),
    ],
)
def test_bad_options(arguments, sentence):
    assert sentence in error_of("benchmark", *SIZES, *arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_cuda_without_a_gpu():
    assert "--device is cuda, but torch sees no CUDA device here" in error_of("benchmark", "--device", "cuda")
