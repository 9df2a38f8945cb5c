"""What only a GPU can show: checked where there is one, rehearsed on the CPU elsewhere."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, error_of, gift
from fairseq import utils

from gift_fairseq.cli import gpu_check
from gift_fairseq.evaluation import benchmark, gpu_checks
from gift_fairseq.rollout import graphs

CPU = torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("check", gpu_checks.CHECKS)
def test_on_a_gpu(check):
    gpu_checks.CHECKS[check](torch.device("cuda"))


def test_checks_fail_on_what_is_wrong(monkeypatch):
    """Weights or sources that differ on the device, training that learns nothing, a graph that repeats a position."""
    with pytest.raises(AssertionError, match="gold NLL 6.89 to 6.89"):
        gpu_checks.learns("gift_standard", "--lr 1e-9", CPU)
    with monkeypatch.context() as patch:
        patch.setattr(graphs.StaticSteps, "_position", lambda steps, _bound: steps.weights.positions[:1])
        with pytest.raises(AssertionError, match="of 71 sentences equal"):
            gpu_checks.graphs_equal_the_engine("bf16", CPU)
    with monkeypatch.context() as patch:
        turns, moved = iter((0, 1)), utils.apply_to_sample
        patch.setattr(utils, "apply_to_sample", lambda to, sample: moved(to, _rolled(sample, next(turns))))
        with pytest.raises(AssertionError, match="of 12 best hypotheses equal"):
            gpu_checks.beam_as_on_the_cpu(CPU)
    models, build = [], benchmark.Bench.__init__

    def init(bench, *how):
        build(bench, *how)
        models.append(bench.model)
        with torch.no_grad():
            bench.model.decoder.layers[0].fc1.weight[0] *= len(models)

    monkeypatch.setattr(benchmark.Bench, "__init__", init)
    with pytest.raises(AssertionError, match="loss off by"):
        gpu_checks.same_as_on_the_cpu("gift_recurrent", CPU)


def _rolled(net_input, by):
    return {**net_input, "src_tokens": net_input["src_tokens"].roll(by, dims=0)}


def test_verdicts():
    ratios = {"recurrent": 1.15, benchmark.EVERY_UPDATE: 1.6, benchmark.EVERY_UPDATE_GRAPHS: 1.4}
    verdicts = benchmark.judged({name: {"ratio": ratio} for name, ratio in ratios.items()})
    assert [verdict["verdict"] for verdict in verdicts] == ["met", "missed", "met", "missed", "met", "not measured"]
    assert [verdict["measured"] for verdict in verdicts] == [
        1.15,
        1.6,
        1.4,
        pytest.approx(1.06),
        pytest.approx(1.04),
        None,
    ]


@pytest.mark.cli
def test_rehearsal(tmp_path, monkeypatch):
    """One check fails, and stops nothing; run again, only that one is done. The report shows all three parts."""
    broken = gpu_checks.REHEARSED[0]
    words = ["gpu-check", "--rehearse", "--out", tmp_path, "--part"]
    with monkeypatch.context() as patch:
        patch.setitem(gpu_checks.CHECKS, broken, lambda device: torch.zeros(2, device=device) @ torch.zeros(3))
        assert f"failed: {broken}; see {tmp_path / 'gpu-check.md'}" in error_of(*words, "checks")
    assert f"| {broken} | FAILED |" in (tmp_path / "gpu-check.md").read_text()
    before = json.loads((tmp_path / "gpu-check.json").read_text())["checks"]
    assert [it["passed"] for it in before.values()] == [False, True, True, True, True]
    for part in gpu_check.PARTS:
        gift(*words, part)
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    assert {**found["checks"], broken: None} == {**before, broken: None}
    assert all(it["passed"] and it["device"] == "CPU" for part in gpu_check.PARTS for it in found[part].values())
    assert [it["verdict"] for it in found["verdicts"]].count("not measured") == 2  # graphs
    text = (tmp_path / "gpu-check.md").read_text()
    for line in ("## checks: 5 of 5 passed", "| generative, every update |", "## run: 6 of 6 passed", "| baseline | "):
        assert line in text


def test_a_part_ends_in_time(tmp_path):
    """In a process of its own: pytest fails a test in which Python drops an exception while it frees an object."""
    code = "import gift_fairseq.evaluation.gpu_checks; from gift_fairseq.cli import gpu_check, main; "  # imported whole
    code += "gpu_check.MINUTES['checks'] = 0.005; main()"
    words = ["gpu-check", "--rehearse", "--out", tmp_path, "--part", "checks"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and f"{gpu_checks.REHEARSED[-1]}; see" in done.stderr
    assert "stopped after 0.005 minutes; run again" in done.stderr


def test_a_part_that_dies_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert "failed: checks, benchmark, run; see" in error_of("gpu-check", "--rehearse", "--out", tmp_path)
    assert "## run: not run" in (tmp_path / "gpu-check.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu(tmp_path):
    assert "torch sees no CUDA device here: --rehearse goes through it" in error_of("gpu-check", "--out", tmp_path)
