"""study.sh of Multi30k: the grid, the choice on the validation set alone, and the whole of it on a tiny corpus."""

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
from conftest import TRANSFORMER, fairseq_train
from test_recipes import ROOT, recipe

from gift_fairseq.data import toy_language
from gift_fairseq.options import UserError
from gift_fairseq.report import selection
from gift_fairseq.report.selection import Line

STUDY = "examples/multi30k/study.sh"


def test_the_grid():
    text = "# all\n\nrecurrent-80\trecurrent  --gold-ratio 0.8 # most stay gold\n  generative generative\n"
    grid = selection.parse_grid(text, "grid.txt")
    assert grid == [Line("recurrent-80", "recurrent --gold-ratio 0.8"), Line("generative", "generative")]
    assert [line.strategy for line in grid] == ["recurrent", "generative"]


def test_the_grid_of_the_example_is_one():
    names = [line.name for line in selection.read_grid(ROOT / "examples" / "multi30k" / "grid.txt")]
    assert {"auxiliary", "recurrent", "generative"} <= set(names)


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("recurrent_80 recurrent", "NAME is recurrent_80, but must be letters, digits and -"),
        ("standard standard", "NAME is standard, which the study itself calls a run"),
        ("baseline recurrent", "NAME is baseline, which the study itself calls a run"),
        ("recurrent-seed2 recurrent", "NAME is recurrent-seed2, which the study itself calls a run"),
        ("one generative", "NAME is one, as in a line before"),
        ("two", "two has no STRATEGY"),
        ("two recurrence", "STRATEGY is recurrence, but gift_fairseq has no such criterion"),
        ("two base", "STRATEGY is base, but gift_fairseq has no such criterion"),
        ("two standard --lr 1e-4", "STRATEGY is standard, the control, which is always in"),
        ("two recurrent 0.5", "the flags of two begin with 0.5, but must with --"),
        ("two  recurrent  --passes  2", "two is set as a line before: recurrent --passes 2"),
    ],
)
def test_bad_lines(line, sentence):
    with pytest.raises(UserError) as refused:
        selection.parse_grid(f"# all\none recurrent --passes 2\n\n{line}\n", "a grid.txt")
    assert str(refused.value) == f"gift_fairseq: error: a grid.txt, line 4: {sentence}"


def test_grids_that_are_none(tmp_path):
    with pytest.raises(UserError, match="a grid.txt has no line NAME STRATEGY FLAGS"):
        selection.parse_grid("# nothing\n", "a grid.txt")
    with pytest.raises(UserError, match="--grid is .*nowhere, which cannot be read: No such file"):
        selection.read_grid(tmp_path / "nowhere")


# ---- the choice


def row(name, setting, bleu, chrf):
    """Scores as (beam, greedy)."""
    scores = {column: {"bleu": b, "chrf": c} for column, b, c in zip(selection.COLUMNS, bleu, chrf)}
    return {"name": name, "strategy": setting.split()[0], "scores": scores}


def test_the_best_mean_of_every_strategy():
    rows = [
        row("standard", "standard", (99, 99), (99, 99)),
        row("beam", "recurrent", (32, 20), (60, 60)),  # 26
        row("both", "recurrent --gold-ratio 0.5", (27, 26), (50, 50)),  # 26.5
        row("greedy", "recurrent --gold-ratio 0.8", (20, 32.5), (70, 70)),  # 26.25
        row("alone", "auxiliary", (1, 1), (1, 1)),
    ]
    assert selection.finalists(rows) == ["both", "alone"]


def test_of_equal_ones_the_better_chrf_then_the_first():
    rows = [
        row("one", "recurrent", (30, 20), (50, 40)),  # 25, 45
        row("two", "recurrent --passes 2", (25, 25), (42, 50)),  # 25, 46
        row("three", "recurrent --passes 3", (20, 30), (50, 42)),  # 25, 46
        row("four", "generative", (25, 25), (46, 46)),
    ]
    assert selection.finalists(rows) == ["two", "four"]
    assert selection.finalists(rows[::-1]) == ["four", "three"]


def make_line(out, name, setting, bleu, chrf=(50.0, 50.0), test_bleu=0.0, updates=4, seconds=8, rollout=None, bits=2.0):
    """A run after ``updates``, with its scores on the validation set, and on a test set in both places there are."""
    criterion, *flags = setting.split()
    run, scored = out / "runs" / name, out / "selection" / name
    scores = {}
    for folder in (run, scored):
        for kept in ("raw", "generate"):
            (folder / kept).mkdir(parents=True)
        for subset in ("valid", "test"):
            for language in ("en", "de"):
                (folder / "raw" / f"{subset}.{language}").write_text("ein Haus\n")
    for column, b, c in (*zip(selection.COLUMNS, bleu, chrf), ("test.beam5", test_bleu, test_bleu)):
        scores[column] = {"bleu": b, "bleu_ci": 1.0, "chrf": c, "ter": 50.0, "sentences": 1, "src": "en", "tgt": "de"}
        scores[column].update({key: "nrefs:1" for key in ("signature", "chrf_signature", "ter_signature")})
        for folder in (run, scored):
            (folder / "generate" / f"{column}.txt").write_text("ein Haus\n")
    for folder in (run, scored):
        (folder / "scores.json").write_text(json.dumps(scores))
    words = ["--data", "d", "--criterion", f"gift_{criterion}", "--", "--finetune-from-model", "a.pt", *flags]
    (run / "settings").write_text("\n".join([*words, "--eval-free-running", "--dropout", "0.2"]) + "\n")
    (run / "command.sh").write_text(f"fairseq-train d --criterion gift_{criterion} --finetune-from-model a.pt --seed 7")
    train = {"train_num_updates": updates, "train_train_wall": seconds}
    if rollout is not None:
        train["train_rollout_seconds"] = rollout
    valid = {"valid_loss": 3, "valid_nll_loss": bits, "valid_num_updates": updates}
    log = [json.dumps({"epoch": 1, **{key: str(value) for key, value in entry.items()}}) for entry in (valid, train)]
    (run / "train.log").write_text("\n".join([*log, "done training in 8 seconds"]) + "\n")


GRID = "mild recurrent --gold-ratio 0.8\nwild recurrent\naux auxiliary\n"


@pytest.fixture
def study(tmp_path):
    """The folder of a study and its grid; on the test set the worst line is the best by far."""
    make_line(tmp_path, "standard", "standard", (30, 28), bits=2.0)
    make_line(tmp_path, "mild", "recurrent --gold-ratio 0.8", (30, 29), seconds=12, rollout=0.75, bits=3.0)
    make_line(tmp_path, "wild", "recurrent", (29, 29), test_bleu=99.0)
    make_line(tmp_path, "aux", "auxiliary", (29, 28), seconds=10)
    (tmp_path / "grid.txt").write_text(GRID)
    return tmp_path


def test_the_table_by_hand_and_without_the_test_set(study, capsys):
    selection.main([str(study), str(study / "grid.txt")])
    assert capsys.readouterr().out == "mild\naux\n"
    found = json.loads((study / "selection.json").read_text())
    assert found["finalists"] == ["mild", "aux"]
    assert [line["chosen"] for line in found["lines"]] == [False, True, False, True]
    assert all(set(line["scores"]) == set(selection.COLUMNS) and line["seed"] == 7 for line in found["lines"])
    mild = found["lines"][1]
    assert mild["seconds"] == pytest.approx(12 / 4) and mild["nll"] == pytest.approx(3 * math.log(2))
    rows = (study / "selection.md").read_text().split("\n\n")[0].split("\n")[2:]
    assert rows[0] == "| standard | standard | 30.00 | 28.00 | – | 50.00 | 50.00 | 1.386 | 1.00 | – |  |"
    assert rows[1] == (  # 12 s over 8 s; 0.75 s of 3 s an update
        "| mild | recurrent --gold-ratio 0.8 | 30.00 | 29.00 | +0.50 | 50.00 | 50.00 | 2.079 | 1.50 | 25.0 | yes |"
    )
    assert rows[3] == "| aux | auxiliary | 29.00 | 28.00 | -0.50 | 50.00 | 50.00 | 1.386 | 1.25 | – | yes |"
    assert "99" not in (study / "selection.md").read_text()


def test_what_is_missing_is_no_finalist(study):
    scores = study / "selection" / "wild" / "scores.json"
    kept = json.loads(scores.read_text())
    scores.write_text(json.dumps({column: kept[column] for column in ("valid.beam5", "test.beam5")}))
    with pytest.raises(UserError, match="selection/wild lacks the scores of valid.greedy"):
        selection.main([str(study), str(study / "grid.txt")])
    (study / "runs" / "mild" / "train.log").write_text("")
    with pytest.raises(UserError, match="runs/mild is not ready to be chosen from: training not finished"):
        selection.main([str(study), str(study / "grid.txt")])
    assert not (study / "selection.md").exists()


def test_a_run_keeps_its_flags(study, capsys):
    """Lines can be added and moved, not changed."""
    (study / "grid.txt").write_text("new generative\n" + GRID)
    selection.main(["--lines", str(study), str(study / "grid.txt")])
    assert capsys.readouterr().out.startswith("new\tgenerative\nmild\trecurrent --gold-ratio 0.8\n")
    (study / "grid.txt").write_text(GRID.replace("0.8", "0.9"))
    with pytest.raises(
        UserError, match="mild is 'recurrent --gold-ratio 0.9', but .*mild was made with 'recurrent --g"
    ):
        selection.main(["--lines", str(study), str(study / "grid.txt")])


# ---- the command


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("--data x --out y", "--from is needed"),
        ("--data x --out y --from a.pt", "--from is a.pt, but must be RUN/checkpoints/FILE.pt"),
        ("--data x --out y --from r/checkpoints/a.pt", "--from is r/checkpoints/a.pt, but there is no such file"),
        ("--data x --out y --from a.pt --jobs 0", "--jobs is '0', but must be a whole number, 1 or more"),
        ("--data x --out y --from a.pt --seeds 1,2", "--seeds is '1,2', but must be whole numbers with blanks between"),
        ("--data x --out y --from a.pt --gold-ratio 1", "the option is --gold-ratio, which is none of this recipe"),
    ],
)
def test_bad_options(tmp_path, arguments, sentence):
    done = subprocess.run(["bash", str(ROOT / STUDY), *arguments.split()], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and sentence in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


STUB = """while [ "$1" != --out ]; do [ "$1" != --strategy ] || strategy="$2"; shift; done
echo "$(basename "$2"): $strategy" >>"$(dirname "$2")/trained"
case "$strategy" in *--passes*) exit 1 ;; *--temperature*) exec -a "$2" sleep 300 ;; esac
"""


def still_running(words):
    listed = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if words in line and not line.startswith("Z")]


def test_a_training_that_fails_ends_the_study(tmp_path):
    """And with it those under way; what is trained is not trained again. finetune.sh here only notes its call."""
    for name in ("scripts/common.sh", STUDY):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "scripts" / "finetune.sh").write_text(STUB)
    runs, grid = tmp_path / "out" / "runs", tmp_path / "examples" / "multi30k" / "grid.txt"
    for folder in (runs, tmp_path / "baseline" / "checkpoints"):
        folder.mkdir(parents=True)
    (tmp_path / "baseline" / "checkpoints" / "a.pt").touch()
    grid.write_text("good recurrent\nlong recurrent --temperature 0.5\nbad recurrent --passes 2\nnever auxiliary\n")

    def study(jobs):
        arguments = ["--data", "x", "--from", tmp_path / "baseline/checkpoints/a.pt", "--out", tmp_path / "out"]
        command = ["bash", tmp_path / STUDY, *arguments, "--jobs", str(jobs)]
        environment = {**os.environ, "GIFT_VENV": sys.prefix}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 1 and done.stderr.count("error:") == 1
        assert done.stderr.splitlines()[-1] == "study.sh: error: the training of bad failed; run again to resume"
        trained = (runs / "trained").read_text().splitlines()
        (runs / "trained").unlink()
        return trained

    trained = study(jobs=2)
    assert set(trained[:2]) == {"standard: standard", "good: recurrent"}
    assert set(trained[2:]) == {"long: recurrent --temperature 0.5", "bad: recurrent --passes 2"}
    assert not still_running(str(runs))
    grid.write_text("bad recurrent --passes 2\n" + grid.read_text().replace("bad recurrent --passes 2\n", ""))
    assert study(jobs=1) == ["bad: recurrent --passes 2"]


@pytest.mark.system
def test_the_study(tmp_path):
    """From a tiny model to the report, in which the finalist and the control have both seeds and nothing is of the
    validation set; then nothing is left to do."""
    toy_language.main(["--out", str(tmp_path / "text"), "--train", "200", "--valid", "9", "--test", "9"])
    prefixes = [word for name in ("train", "valid", "test") for word in (f"--{name}", tmp_path / "text" / name)]
    done = recipe("scripts/prepare.sh", *prefixes, "--vocab-size", 200, "--workers", 1, "--out", tmp_path / "prepared")
    assert done.returncode == 0, done.stderr
    data, checkpoints, out = tmp_path / "prepared/data", tmp_path / "baseline/checkpoints", tmp_path / "a blank & ü"
    checkpoints.parent.mkdir()
    fairseq_train(  # few positions, for such a model ends no sentence
        *(data, checkpoints, f"{TRANSFORMER} --share-all-embeddings --criterion gift_standard --max-update 1"),
        *("--task", "gift_translation", "--max-target-positions", "100"),
    )
    (tmp_path / "grid.txt").write_text("half recurrent --gold-ratio 0.5\n")
    arguments = ["--data", data, "--from", checkpoints / "checkpoint_last.pt", "--out", out]
    arguments += ["--grid", tmp_path / "grid.txt", "--seeds", "1 2", "--updates", "2", "--jobs", "2"]
    done = recipe(STUDY, *arguments, "--", "--num-workers", "0", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]

    assert json.loads((out / "selection.json").read_text())["finalists"] == ["half"]
    runs = {"standard", "half", "standard-seed2", "half-seed2"}
    assert {path.name for path in (out / "runs").iterdir()} == runs
    for name in runs:
        assert (out / "runs" / name / "scores.json").exists()
        assert (out / "runs" / name / "exposure" / "test.json").exists()
        assert not list((out / "runs" / name).rglob("valid*"))
    for name in ("standard", "half"):
        assert set(json.loads((out / "selection" / name / "scores.json").read_text())) == set(selection.COLUMNS)
    settings = {name: selection.setting_of(out / "runs" / name) for name in runs}
    assert settings["standard"] == "standard" and settings["half-seed2"] == "recurrent --gold-ratio 0.5"
    report = json.loads((out / "report" / "results.json").read_text())
    assert report["columns"] == ["test.beam5", "test.greedy"]
    assert [one["name"] for one in report["systems"]] == ["baseline", "standard", settings["half"]]
    for system in report["systems"][1:]:
        assert [run["seed"] for run in system["runs"]] == [1, 2] and not system["notes"]
        assert all(score["seeds"] == 2 for score in system["scores"].values())
    assert report["systems"][2]["scores"]["test.beam5"]["against_control"]["tested"] == 2
    assert not list(out.rglob("*.partial"))

    kept = [path for path in out.rglob("*") if path.suffix in (".pt", ".txt", ".json", ".log", ".html")]
    before = {path: path.stat().st_mtime_ns for path in kept if path.name != "selection.json"}
    done = recipe(STUDY, *arguments, "--", "--num-workers", "0", OMP_NUM_THREADS="1")
    assert done.returncode == 0 and "training" not in done.stderr and "translating" not in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
