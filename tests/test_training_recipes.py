"""train.sh and finetune.sh: what a run's folder keeps, stopping and going on, several processes, the control."""

import os
import shlex
import signal
import socket
import subprocess
import time

import pytest
import torch
from conftest import TRANSFORMER
from test_recipes import ROOT, recipe

pytestmark = pytest.mark.system

MODEL = [*TRANSFORMER.split()[2:], "--dropout", "0.1", "--num-workers", "0"]


def train(data, out, *more, flags=()):
    arguments = ["--data", data, "--out", out, "--lr", "1e-2", "--warmup", "4", "--max-tokens", "100", *more]
    return recipe("scripts/train.sh", *arguments, "--", *MODEL, *flags, OMP_NUM_THREADS="1")


def parameters(run, name="checkpoint_last.pt"):
    return torch.load(run / "checkpoints" / name)["model"]


def assert_equal(one, other, rtol=0.0, atol=0.0):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def run(binarized, tmp_path_factory):
    """Twelve updates, an epoch each five."""
    out = tmp_path_factory.mktemp("runs") / "a blank and ü"
    done = train(binarized, out, "--updates", "12", "--average", "2")
    assert done.returncode == 0, done.stderr
    return out


def test_what_a_run_keeps(run, binarized):
    kept = {path.name for path in run.iterdir()}
    assert {"settings", "command.sh", "versions.txt", "commit.txt", "train.log", "done", "checkpoints"} <= kept
    assert {path.name for path in (run / "done").iterdir()} == {"train", "average"}
    command = shlex.split((run / "command.sh").read_text())
    assert command[:2] == ["fairseq-train", str(binarized)] and command[command.index("--seed") + 1] == "1"
    log = (run / "train.log").read_text()
    assert "'label_smoothing': 0.1" in log.splitlines()[0] and '"train_num_updates": "12"' in log
    assert "torch==" in (run / "versions.txt").read_text()
    mean, epochs = parameters(run, "checkpoint_average.pt"), [parameters(run, f"checkpoint{n}.pt") for n in (1, 2)]
    for name in mean:
        torch.testing.assert_close(mean[name], sum(epoch[name] for epoch in epochs) / 2)
    again = train(binarized, run, "--updates", "12", "--average", "2")
    assert again.returncode == 0 and "training" not in again.stderr


def test_killed_and_run_again_it_ends_in_the_same_parameters(binarized, tmp_path):
    """SIGKILL of all processes after some updates; what was saved is gone on with, also inside an epoch."""
    more, flags = ["--updates", "40"], ["--save-interval-updates", "3", "--keep-interval-updates", "1"]
    assert train(binarized, tmp_path / "whole", *more, flags=flags).returncode == 0
    arguments = ["--data", binarized, "--out", tmp_path / "stopped", "--lr", "1e-2", "--warmup", "4"]
    arguments += ["--max-tokens", "100", *more, "--", *MODEL, *flags]
    stopped = subprocess.Popen(
        ["bash", str(ROOT / "scripts/train.sh"), *map(str, arguments)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    checkpoints = tmp_path / "stopped" / "checkpoints"
    while not list(checkpoints.glob("checkpoint_*_*.pt")) and stopped.poll() is None:
        time.sleep(0.02)
    os.killpg(stopped.pid, signal.SIGKILL)
    stopped.wait()
    assert not (tmp_path / "stopped" / "done" / "train").exists()
    done = train(binarized, tmp_path / "stopped", *more, flags=flags)
    assert done.returncode == 0, done.stderr
    assert_equal(parameters(tmp_path / "whole"), parameters(tmp_path / "stopped"))


def test_two_processes_and_two_machines_are_one_big_batch(binarized, tmp_path):
    """torchrun on this machine, twice as two machines on the loopback: the parameters of one process with
    --update-freq 2, to rounding."""
    flags = ["--dropout", "0"]
    assert train(binarized, tmp_path / "one", "--updates", "5", "--update-freq", "2", flags=flags).returncode == 0
    done = train(binarized, tmp_path / "two", "--updates", "5", "--gpus", "2", flags=flags)
    assert done.returncode == 0, done.stderr
    assert_equal(parameters(tmp_path / "one"), parameters(tmp_path / "two"), rtol=1e-4, atol=1e-5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--data", binarized, "--out", tmp_path / "nodes", "--lr", "1e-2", "--warmup", "4", "--updates", "5"]
    arguments += ["--max-tokens", "100", "--nodes", "2", "--master", f"127.0.0.1:{port}"]
    nodes = [
        subprocess.Popen(
            [
                "bash",
                str(ROOT / "scripts/train.sh"),
                *map(str, arguments),
                "--node-rank",
                str(rank),
                "--",
                *MODEL,
                *flags,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    for node in nodes:
        _, said = node.communicate(timeout=240)
        assert node.returncode == 0, said
    assert_equal(parameters(tmp_path / "two"), parameters(tmp_path / "nodes"), rtol=1e-4, atol=1e-5)


def test_fine_tuning_trains_the_control_beside_it(run, binarized, tmp_path):
    """Same updates, batches and rate for both; the strategy's own flags for itself alone; half the peak rate."""
    checkpoint = run / "checkpoints" / "checkpoint_best.pt"
    relative = [os.path.relpath(path) for path in (checkpoint, binarized)]
    arguments = ["--strategy", "recurrent --gold-ratio 0.5", "--from", relative[0], "--data", relative[1]]
    arguments += ["--out", tmp_path / "mine", "--updates", "3", "--", "--num-workers", "0"]
    done = recipe("scripts/finetune.sh", *arguments, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    said = {}
    for name in ("mine", "standard"):
        command = shlex.split((tmp_path / name / "command.sh").read_text())
        assert command[1] == str(binarized) and command[command.index("--finetune-from-model") + 1] == str(checkpoint)
        said[name] = " ".join(command[2:]).replace(str(tmp_path / name), "RUN")
        state = torch.load(tmp_path / name / "checkpoints" / "checkpoint_last.pt")
        assert state["optimizer_history"][-1]["num_updates"] == 3
        assert state["cfg"]["optimization"]["lr"] == [5e-3] and state["cfg"]["lr_scheduler"]["_name"] == "fixed"
        assert state["cfg"]["model"].dropout == 0.1
    assert said["mine"].replace("gift_recurrent", "gift_standard").replace(" --gold-ratio 0.5", "") == said["standard"]
    mine, control = parameters(tmp_path / "mine"), parameters(tmp_path / "standard")
    assert any(not torch.equal(mine[name], control[name]) for name in mine)


def test_a_folder_in_which_nothing_was_made_takes_mended_options(binarized, tmp_path):
    """And one in which something was made does not mix with others."""
    done = train(binarized, tmp_path / "run", "--updates", "1", flags=["--dropout", "high"])
    assert done.returncode != 0 and "invalid float value: 'high'" in done.stderr
    done = train(binarized, tmp_path / "run", "--updates", "1")
    assert done.returncode == 0, done.stderr
    done = train(binarized, tmp_path / "run", "--updates", "2")
    assert done.returncode != 0 and "made with other options" in done.stderr


GOOD = "--data . --out x"


@pytest.mark.parametrize(
    "name, arguments, sentence",
    [
        ("train", "--out x", "--data is needed"),
        ("train", "--data nowhere --out x", "--data is nowhere, but there is no such folder"),
        ("train", GOOD, "--data is ., but that is no data folder: prepare one with scripts/prepare.sh"),
        ("train", f"{GOOD} --precision fp8", "--precision is 'fp8', but must be fp32, fp16 or bf16"),
        ("train", f"{GOOD} --gpus 0", "--gpus is '0', but must be a whole number, 1 or more"),
        ("train", f"{GOOD} --nodes 2", "--master is '', but must be HOST:PORT for more than one node"),
        ("train", f"{GOOD} --nodes 2 --master h:1 --node-rank 2", "--node-rank is 2, but must be below --nodes, 2"),
        ("train", f"{GOOD} --lr fast", "--lr is 'fast', but must be a number above 0"),
        (
            "train",
            f"{GOOD} --dropout 0.1",
            "the option is --dropout, which is none of this recipe; flags of fairseq-train",
        ),
        ("train", f"{GOOD} --patience -1", "--patience is '-1', but must be a whole number, 0 or more"),
        ("finetune", f"{GOOD} --from x.pt --strategy base", "--strategy is 'base', but must be standard, auxiliary,"),
        ("finetune", f"{GOOD} --strategy standard", "--from is needed"),
        ("finetune", f"{GOOD} --strategy standard --from x.pt", "--data is ., but that is no data folder"),
        ("evaluate", "--data .", "there is no CHECKPOINT"),
        ("evaluate", "--data . --search best x.pt", "--search is 'best', but must be beam, greedy or both"),
        ("evaluate", "--data . x.pt", ". has no segmentation.json: prepare the data with scripts/prepare.sh"),
        ("export", "x.pt", "there are 1 arguments, but CHECKPOINT and OUT are needed"),
        ("export", "x.pt y.pt", "CHECKPOINT is x.pt, but there is no such file"),
        ("export", "x.pt y.pt -- --fp16", "--fp16 stands after --, but this recipe takes nothing there"),
    ],
)
def test_bad_options(tmp_path, name, arguments, sentence):
    done = subprocess.run(
        ["bash", str(ROOT / f"scripts/{name}.sh"), *arguments.split()], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode != 0 and sentence in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
