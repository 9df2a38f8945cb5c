"""The recipes as a user runs them, and that what they train has learned."""

import json
import os
import shutil
import subprocess
import time

import language as toy_language
import pytest
from conftest import ROOT, error_of, fairseq_train, gift, recipe

from gift_fairseq.cli import COMMANDS
from gift_fairseq.runs import RunFolder

SPLITS = ("train", "valid", "test")
LEARN_UPDATES, LEARN_BLEU = 400, 30.0
STRATEGIES = ["baseline", "standard", "auxiliary", "recurrent", "generative", "weighted"]


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
        assert set(run["scores"]) == {"test.beam5", "test.greedy", "test_long.beam5", "test_long.greedy"}
        assert all("version:" in score["signature"] for score in run["scores"].values())
        assert run["epoch_seconds"] > 0
        assert run["maximum_memory_mib"] >= run["average_memory_mib"] > 50
    assert len({run["updates"] for run in results[1:]}) == 1
    rows = (quickstart / "results.md").read_text().splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:8]] == STRATEGIES
    for name in STRATEGIES:
        kept = {path.name for path in (quickstart / "runs" / name).iterdir()}
        assert {"run.json", "train.log", "scores.json", "checkpoints", "generate", "raw"} <= kept
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
    """And a stage that fails ends the recipe."""
    done = recipe("scripts/quickstart.sh", "--fast", "--out", quickstart, "--", "--dropout", "0.2")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == (
        f"gift: error: --out is {quickstart / 'runs' / 'baseline'}, which was made with other options: "
        "--dropout was 0.1 and is now 0.2; choose another folder, or the value of before"
    )


@pytest.mark.system
def test_a_dry_run_of_compare(quickstart, tmp_path, capsys):
    """The fine-tunings from the one checkpoint, and nothing done."""
    checkpoint, data = quickstart / "runs/baseline/checkpoints/checkpoint_best.pt", quickstart / "prepared/data"
    words = ["--data", data, "--from", checkpoint, "--out", tmp_path / "out", "--updates", "7", "--dry-run"]
    gift("compare", *words, "--", "--num-workers", "0")
    said = capsys.readouterr().out.splitlines()
    assert said[::2] == [f"mkdir -p {tmp_path / 'out' / 'runs' / name}" for name in STRATEGIES[1:]]
    for name, command in zip(STRATEGIES[1:], said[1::2]):
        assert command.startswith("fairseq-train ") and f"--criterion gift_{name} " in command
        assert "--max-update 7 " in command and "--lr 0.0009 " in command
    assert not (tmp_path / "out").exists()


@pytest.mark.system
def test_with_other_options_of_evaluate_it_evaluates_again_and_does_not_train(quickstart, tmp_path, capfd):
    """A mistake in them is said before anything is made."""
    copy = tmp_path / "copy"
    shutil.copytree(quickstart, copy)
    checkpoint, data = quickstart / "runs/baseline/checkpoints/checkpoint_best.pt", quickstart / "prepared/data"
    updates = json.loads((quickstart / "run.json").read_text())["settings"]["updates"]
    words = ["--data", data, "--from", checkpoint, "--lr", "5e-4", "--updates", updates, "--evaluate"]
    said = error_of("compare", "--out", tmp_path / "new", *words, "-- --lenpenalty 0.6", "--", "--num-workers", "0")
    assert "fairseq-generate: unrecognized arguments: --lenpenalty 0.6" in said and not (tmp_path / "new").exists()
    capfd.readouterr()
    for again in (True, False):
        gift("compare", "--out", copy, *words, "--search greedy --testset test", "--", "--num-workers", "0")
        said = capfd.readouterr().err
        assert "training" not in said and ("translating test by weighted, greedy" in said) == again


@pytest.mark.parametrize(
    "name, arguments, sentence",
    [
        ("scripts/quickstart.sh", "--out", "--out needs a value; see --help"),
        ("scripts/quickstart.sh", "--fats", "--fats is no option of this recipe; see --help"),
        ("examples/multi30k/run.sh", "--out=x", "--raw is needed; see --help"),
        ("examples/adaptation/run.sh", "--raw x", "--general is needed; see --help"),
        ("examples/study/default.sh", "--from x --out y", "--data is needed; see --help"),
        ("examples/study/default.sh", "--from x.pt --out y --data z", "--from is x.pt, but must be RUN/checkpoints/"),
        (
            "examples/study/default.sh",
            "--from checkpoints/x.pt --out y --data z --dropout 0.0",
            "--dropout is 0.0, but must be that of the model, above 0",
        ),
        ("examples/wmt14_en_de/run.sh", "--vocab-size 5", "--out is needed; see --help"),
        ("examples/wmt14_en_de/run.sh", "--out x --gpus two", "--gpus is two, but must be a whole number, 1 or more"),
        ("examples/wmt14_en_de/run.sh", "--out x --gpus 0", "--gpus is 0, but must be a whole number, 1 or more"),
        ("examples/wmt14_en_de/run.sh", "--out x --max-tokens=", "--max-tokens is , but must be a whole number"),
        ("examples/wmt14_en_de/download.sh", "--out x -- --fp16", "--fp16 stands after --, but this recipe takes"),
        ("examples/wmt14_en_de/download.sh", "--out x --source=no", "--source is no, but there is no such folder"),
    ],
)
def test_bad_options(name, arguments, sentence):
    done = recipe(name, *arguments.split())
    assert done.returncode == 1 and not done.stdout and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{name.split('/')[-1]}: error: {sentence}")


def test_without_an_environment(tmp_path):
    done = recipe("scripts/train.sh", "--out", "x", GIFT_VENV=str(tmp_path))
    assert done.returncode == 1 and done.stderr == (
        f"train.sh: error: there is no environment at {tmp_path}: run bash scripts/setup_env.sh first\n"
    )


RECIPES = [path.relative_to(ROOT) for path in (*ROOT.glob("scripts/*.sh"), *ROOT.glob("examples/*/*.sh"))]


@pytest.mark.parametrize("name", sorted(path for path in RECIPES if path.name != "common.sh"))
def test_help(name):
    """A recipe of one command shows that command's help; the others show the comment at their head."""
    done = recipe(name, "--help")
    expected = f"usage: gift {name.stem} " if name.stem in COMMANDS else f"bash {name}"
    assert done.returncode == 0 and expected in done.stdout and not done.stderr


@pytest.mark.system
def test_the_toy_baseline_learns(tmp_path, capsys):
    """A shorter training than quickstart's already translates; one that learned nothing scores below 1."""
    text = tmp_path / "text"
    toy_language.main(["--out", str(text), "--train", "8000", "--valid", "50", "--test", "100"])
    prefixes = (word for name in SPLITS for word in (f"--{name}", text / name))
    gift("prepare", *prefixes, "--vocab-size", 1000, "--out", tmp_path / "prepared")
    data, run = tmp_path / "prepared" / "data", RunFolder(tmp_path / "run")
    run.folder.mkdir()
    fairseq_train(
        data,
        run.checkpoints,
        "--arch transformer_wmt_en_de --share-all-embeddings --encoder-layers 2 --decoder-layers 2 "
        "--encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 "
        "--encoder-attention-heads 4 --decoder-attention-heads 4 --dropout 0.1 --label-smoothing 0.1 "
        "--task gift_translation --criterion gift_standard --max-tokens 1024 --lr 3e-3 --lr-scheduler inverse_sqrt "
        f"--warmup-updates 100 --max-update {LEARN_UPDATES} --disable-validation --log-interval 50",
    )
    capsys.readouterr()
    gift("evaluate", "--data", data, "--search", "greedy", run.checkpoint("last"))
    found = json.loads(run.scores_file.read_text())["test.greedy"]
    assert found["bleu"] > LEARN_BLEU and found["sentences"] == 100  # 52 was seen
    assert capsys.readouterr().out.startswith(f"run\ttest.greedy\t{found['bleu']:.2f}\t")


@pytest.mark.cli
def test_what_scored_asks_for(tmp_path):
    """Test sets in one call, with the validation set where that is the model's own; once, unless the model is newer."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "testsets.txt").write_text("a\nb\n")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    checkpoint = tmp_path / "run" / "checkpoints" / "x.pt"
    checkpoint.touch()

    def asked(*more):
        told = 'source scripts/common.sh; gift() { echo "$@"; }; scored "$@"'
        words = ["bash", "-c", told, "bash", tmp_path / "out", tmp_path, checkpoint, *more]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    evaluate, exposure = asked("valid")
    assert evaluate == f"evaluate --search both --testset valid,a,b --data {tmp_path} {checkpoint}"
    assert exposure == f"exposure --data {tmp_path} {checkpoint}" and asked("valid") == []
    os.utime(checkpoint, (time.time() + 5,) * 2)
    assert asked()[0] == evaluate.replace("valid,", "")
