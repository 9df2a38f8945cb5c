"""The recipes as a user runs them, and that what they train has learned."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import fairseq_train

from gift_fairseq.data import toy_language

ROOT = Path(__file__).parent.parent
SPLITS = ("train", "valid", "test")
LEARN_UPDATES, LEARN_BLEU = 400, 30.0
STRATEGIES = ["baseline", "standard", "auxiliary", "recurrent", "generative"]


def recipe(name, *arguments, **environment):
    return subprocess.run(
        ["bash", str(ROOT / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "a blank and ü"
    done = recipe("scripts/quickstart.sh", "--fast", "--out", out, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.system
def test_quickstart_ends_in_the_table(quickstart):
    results = json.loads((quickstart / "results.json").read_text())["systems"]
    assert [run["name"] for run in results] == STRATEGIES and not any(run["notes"] for run in results)
    for run in results:
        assert set(run["scores"]) == {
            f"{test}.{search}" for test in ("test", "test_long") for search in ("beam5", "greedy")
        }
        assert all("version:" in score["signature"] for score in run["scores"].values())
        assert run["epoch_seconds"] > 0
        assert run["maximum_memory_mib"] >= run["average_memory_mib"] > 50
    assert len({run["updates"] for run in results[1:]}) == 1
    rows = (quickstart / "results.md").read_text().splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:7]] == STRATEGIES
    for name in STRATEGIES:
        kept = {path.name for path in (quickstart / "runs" / name).iterdir()}
        assert {"command.sh", "versions.txt", "train.log", "scores.json", "checkpoints", "generate", "settings"} <= kept
        exposure = quickstart / "runs" / name / "exposure"
        assert {path.name for path in exposure.iterdir()} == {"test.json", "test_long.json"}
    assert (quickstart / "index.html").is_file() and list((quickstart / "plots").glob("*.svg"))
    assert not list(quickstart.rglob("*.partial"))


@pytest.mark.system
def test_second_run_skips_what_is_done_and_redoes_what_is_not(quickstart):
    before = {path: path.stat().st_mtime_ns for path in quickstart.rglob("*") if path.suffix in (".pt", ".txt", ".bin")}
    (quickstart / "done" / "report").unlink()
    (quickstart / "results.md").unlink()
    done = recipe("scripts/quickstart.sh", "--fast", "--out", quickstart)
    assert done.returncode == 0 and (quickstart / "results.md").exists()
    assert "training" not in done.stderr and "translating" not in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.system
def test_other_options_do_not_mix_into_a_folder(quickstart):
    done = recipe("scripts/quickstart.sh", "--fast", "--out", quickstart, "--", "--dropout", "0.2")
    assert done.returncode != 0 and "made with other options" in done.stderr


@pytest.mark.system
def test_a_failing_stage_stops_the_recipe(tmp_path):
    """A stage that fails and a script that goes on; and the traceback stays in the log's last lines."""
    done = recipe("scripts/quickstart.sh", "--fast", "--out", tmp_path, "--", "--dropout", "high")
    assert done.returncode != 0
    assert "stage train failed" in done.stderr and "invalid float value: 'high'" in done.stderr
    assert not (tmp_path / "runs" / "baseline" / "done" / "train").exists() and "training standard" not in done.stderr


COMPARE = "--data x --from run/checkpoints/a.pt --out x"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("--out", "--out needs a value"),
        ("--nonsense 1", "the option is --nonsense"),
        ("--out x --from y", "--data is needed"),
        (f"{COMPARE} --updates 0", "--updates is '0', but must be a whole number, 1 or more"),
        (f"{COMPARE} --lr fast", "--lr is 'fast', but must be a number"),
        (f"{COMPARE} --seeds one", "--seeds is 'one', but must be whole numbers with blanks between"),
        (f"{COMPARE} --nodes 2", "--nodes is 2, but this recipe works on one machine"),
        (COMPARE, "--from is run/checkpoints/a.pt, but there is no such file"),
        ("--data x --from a.pt --out x", "--from is a.pt, but must be RUN/checkpoints/FILE.pt"),
    ],
)
def test_bad_options_of_compare(tmp_path, arguments, sentence):
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/compare.sh"), *arguments.split()], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1 and sentence in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


RECIPES = [path.relative_to(ROOT) for path in (*ROOT.glob("scripts/*.sh"), *ROOT.glob("examples/*/*.sh"))]


@pytest.mark.parametrize("name", sorted(path for path in RECIPES if path.name != "common.sh"))
def test_help(name):
    done = recipe(name, "--help")
    assert done.returncode == 0 and f"bash {name}" in done.stdout


@pytest.mark.system
def test_the_toy_baseline_learns(tmp_path):
    """A shorter training than quickstart's already translates; one that learned nothing scores below 1."""
    text = tmp_path / "text"
    toy_language.main(["--out", str(text), "--train", "8000", "--valid", "50", "--test", "100"])
    done = recipe(
        "scripts/prepare.sh",
        *(word for name in SPLITS for word in (f"--{name}", text / name)),
        *("--vocab-size", 1000, "--out", tmp_path / "prepared"),
    )
    assert done.returncode == 0, done.stderr
    data = tmp_path / "prepared" / "data"
    fairseq_train(
        data,
        tmp_path / "run",
        "--arch transformer_wmt_en_de --share-all-embeddings --encoder-layers 2 --decoder-layers 2 "
        "--encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 "
        "--encoder-attention-heads 4 --decoder-attention-heads 4 --dropout 0.1 --label-smoothing 0.1 "
        "--task gift_translation --criterion gift_standard --max-tokens 1024 --lr 3e-3 --lr-scheduler inverse_sqrt "
        f"--warmup-updates 100 --max-update {LEARN_UPDATES} --disable-validation --log-interval 50",
    )
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoint_last.pt").rename(tmp_path / "run" / "checkpoints" / "last.pt")
    done = recipe(
        "scripts/evaluate.sh", "--data", data, "--search", "greedy", tmp_path / "run" / "checkpoints" / "last.pt"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "scores.json").read_text())["test.greedy"]
    assert found["bleu"] > LEARN_BLEU and found["sentences"] == 100  # 52 was seen
    assert done.stdout.startswith(f"run\ttest.greedy\t{found['bleu']:.2f}\t")
