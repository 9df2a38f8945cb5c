"""examples/study: the grid, the choice on the validation set alone, and the whole of it on a tiny corpus."""

import json
import math
import re
from functools import partial
from types import SimpleNamespace

import language as toy_language
import psutil
import pytest
import selection
import study
from conftest import ROOT, TRANSFORMER, fairseq_train, gift, make
from selection import Line

from gift_fairseq.checkpoints.files import digest_of
from gift_fairseq.cli import from_checkpoint
from gift_fairseq.cli.options import STRATEGIES
from gift_fairseq.errors import UserError
from gift_fairseq.report.runs import read_run
from gift_fairseq.runs import name_with_seed
from gift_fairseq.training import launch


def test_the_grid():
    text = "# all\n\nrecurrent-80\trecurrent  --gold-ratio 0.8 # most stay gold\n  generative generative\n"
    grid = selection.parse_grid(text, "grid.txt")
    assert grid == [Line("recurrent-80", "recurrent --gold-ratio 0.8"), Line("generative", "generative")]
    assert [line.strategy for line in grid] == ["recurrent", "generative"]


@pytest.mark.parametrize(
    "grid, names",
    [
        ("study/strategies.txt", {*STRATEGIES} - {"standard"}),
        ("multi30k/grid.txt", {"auxiliary", "recurrent", "generative"}),
    ],
)
def test_the_grids_of_the_examples(dictionaries, grid, names):
    """Every line makes its criterion; distillation needs data of its own."""
    lines = selection.read_grid(ROOT / "examples" / grid)
    assert names <= {line.name for line in lines}
    for line in lines:
        if line.strategy != "distillation":
            make(dictionaries, f"{TRANSFORMER} --criterion gift_{line.setting}")
    assert len(lines) > 5


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
    assert str(refused.value) == f"a grid.txt, line 4: {sentence}"


def test_grids_that_are_none(tmp_path):
    with pytest.raises(UserError, match="a grid.txt has no line NAME STRATEGY FLAGS"):
        selection.parse_grid("# nothing\n", "a grid.txt")
    with pytest.raises(UserError, match="--grid is .*nowhere, which cannot be read: No such file"):
        selection.read_grid(tmp_path / "nowhere")


# ---- the choice


def row(name, setting, bleu, chrf):
    """Scores as (beam, greedy), of one seed and of another half a point above and below."""
    scores = [
        {column: SimpleNamespace(bleu=b + more, chrf=c - more) for column, b, c in zip(selection.COLUMNS, bleu, chrf)}
        for more in (0.5, -0.5)
    ]
    return SimpleNamespace(name=name, strategy=setting.split()[0], scores=scores)


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


def make_line(
    out, name, setting, bleu, chrf=(50.0, 50.0), test_bleu=0.0, updates=4, seconds=8, rollout=None, bits=2.0, seed=7
):
    """A run after ``updates``, with its scores on the validation set, and on a test set in both places there are."""
    name = name_with_seed(name, seed, (7, 8))
    criterion = setting.split()[0]
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
        scores[column].update({"length_ratio": 1.0, "repetition_rate": 0.0, "reference_repetition_rate": 0.0})
        scores[column]["bleu_by_length"] = [{"from": 1, "to": 5, "sentences": 1, "bleu": b}]
        for folder in (run, scored):
            (folder / "generate" / f"{column}.txt").write_text("ein Haus\n")
    for folder in (run, scored):
        (folder / "scores.json").write_text(json.dumps(scores))
    record = {"fairseq": {"criterion": f"gift_{criterion}", "finetune_from_model": "a.pt", "seed": seed}}
    (run / "run.json").write_text(json.dumps(record))
    train = {"train_num_updates": updates, "train_train_wall": seconds}
    if rollout is not None:
        train["train_rollout_seconds"] = rollout
    valid = {"valid_loss": 3, "valid_nll_loss": bits, "valid_num_updates": updates}
    log = [json.dumps({"epoch": 1, **{key: str(value) for key, value in entry.items()}}) for entry in (valid, train)]
    (run / "train.log").write_text("\n".join([*log, "done training in 8 seconds"]) + "\n")


GRID = "mild recurrent --gold-ratio 0.8\nwild recurrent\naux auxiliary\n"


@pytest.fixture
def made(tmp_path):
    """The folder of a study and its grid; on the test set the worst line is the best by far.

    Of the seeds 7 and 8, wild is the better recurrent with the first and the worse one in the mean.
    """
    mild = partial(make_line, tmp_path, "mild", "recurrent --gold-ratio 0.8", seconds=12, rollout=0.75)
    for seed, more in ((7, 0), (8, 1)):
        make_line(tmp_path, "standard", "standard", (30 + more, 28), bits=2.0, seed=seed)
        mild((30, 28.5 + 2 * more), bits=3.0 + more, seed=seed)
        make_line(tmp_path, "wild", "recurrent", (30, 29 - more), test_bleu=99.0, seed=seed)
        make_line(tmp_path, "aux", "auxiliary", (29, 28), seconds=10, seed=seed)
    (tmp_path / "grid.txt").write_text(GRID)
    return tmp_path


def choose(made):
    return selection.choose(made, selection.read_grid(made / "grid.txt"), (7, 8))


def test_the_table_by_hand_and_without_the_test_set(made):
    assert choose(made) == ["mild", "aux"]
    found = json.loads((made / "selection.json").read_text())
    assert found["finalists"] == ["mild", "aux"]
    assert [line["chosen"] for line in found["lines"]] == [False, True, False, True]
    assert all([set(of_seed) for of_seed in line["scores"]] == 2 * [set(selection.COLUMNS)] for line in found["lines"])
    assert all(line["seeds"] == [7, 8] for line in found["lines"])
    mild = found["lines"][1]
    assert mild["seconds"] == pytest.approx(12 / 4) and mild["nll"] == pytest.approx(3.5 * math.log(2))
    rows = (made / "selection.md").read_text().split("\n\n")[0].split("\n")[2:]
    assert rows[0] == "| standard | standard | 30.50 | 28.00 | – |  | 50.00 | 50.00 | 1.386 | 1.00 | – |  |"
    assert rows[1] == (  # 29.25 over 29 and 30.25 over 29.5; 12 s over 8 s; 0.75 s of 3 s an update
        "| mild | recurrent --gold-ratio 0.8 | 30.00 | 29.50 | +0.50 | +0.25 +0.75 | 50.00 | 50.00 | 2.426 | 1.50 "
        "| 25.0 | yes |"
    )
    assert rows[2].startswith("| wild | recurrent | 30.00 | 28.50 | +0.00 | +0.50 -0.50 | ") and rows[2].endswith(
        " |  |"
    )
    assert rows[3] == (
        "| aux | auxiliary | 29.00 | 28.00 | -0.75 | -0.50 -1.00 | 50.00 | 50.00 | 1.386 | 1.25 | – | yes |"
    )
    assert "99" not in (made / "selection.md").read_text()


def test_what_is_missing_is_no_finalist(made):
    scores = made / "selection" / "wild-seed8" / "scores.json"
    kept = json.loads(scores.read_text())
    scores.write_text(json.dumps({column: kept[column] for column in ("valid.beam5", "test.beam5")}))
    with pytest.raises(UserError, match="selection/wild-seed8 lacks the scores of valid.greedy"):
        choose(made)
    (made / "runs" / "mild" / "train.log").write_text("")
    with pytest.raises(UserError, match="runs/mild is not ready to be chosen from: training not finished"):
        choose(made)
    assert not (made / "selection.md").exists()


# ---- the command


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("--data x --out y", "the following arguments are required: --from"),
        ("--data x --out y --from a.pt", "--from is a.pt, but must be RUN/checkpoints/FILE.pt"),
        ("--data x --out y --from r/checkpoints/a.pt", "--data is x, but that is no data folder"),
        ("--data x --out y --from r/checkpoints/a.pt --grid no", "--grid is no, which cannot be read: No such file"),
        ("--data x --out y --from a.pt --jobs 0", "--jobs is '0', but must be a whole number, 1 or more"),
        ("--data x --out y --from a.pt --seeds 1,2", "--seeds is '1,2', but must be whole numbers with blanks between"),
        ("--data x --out y --from a.pt --gold-ratio 1", "unrecognized arguments: --gold-ratio 1"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="^study.py: error: ") as refused:
        study.main(arguments.split())
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


# of two at once (three of six cores each), the one that fails waits the first time until the long one is under way
STUB = """cd "$(dirname "$0")"
echo "$OMP_NUM_THREADS $*" >>trained
case "$*" in
    *--passes*)
        [ "$OMP_NUM_THREADS" != 3 ] || [ -e failed ] ||
            timeout 60 bash -c 'until grep -q -e --temperature trained; do sleep 0.05; done'
        touch failed; echo "It is broken" >&2; exit 1 ;;
    *--temperature*) exec -a "$0" sleep 300 ;;
esac
"""


def still_running(words):
    found = [one.info for one in psutil.process_iter(("cmdline", "status"))]
    return [one for one in found if words in " ".join(one["cmdline"] or ()) and one["status"] != psutil.STATUS_ZOMBIE]


@pytest.fixture
def stubbed(binarized, tmp_path, monkeypatch):
    """``stubbed(grid, jobs)`` is a study whose trainings only note their commands."""
    stub, checkpoint = tmp_path / "a stub.sh", tmp_path / "baseline" / "checkpoints" / "a.pt"
    stub.write_text(STUB)
    monkeypatch.setattr(launch, "located", lambda words: ["bash", str(stub), *words])
    flags = [*"--arch transformer --lr 1e-3 --max-tokens 100".split()]
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"a model")
    start = from_checkpoint.Start(checkpoint, binarized, binarized, 3, flags, digest=digest_of(checkpoint))
    monkeypatch.setattr(from_checkpoint.Start, "of", lambda *_: start)

    def run(grid, jobs):
        (tmp_path / "grid.txt").write_text(grid)
        places = {"--data": binarized, "--from": checkpoint, "--out": tmp_path / "out", "--grid": tmp_path / "grid.txt"}
        with pytest.raises(SystemExit) as ended:
            study.main([*(str(word) for place in places.items() for word in place), "--jobs", str(jobs)])
        noted = tmp_path / "trained"
        commands = noted.read_text().splitlines() if noted.exists() else []
        noted.unlink(missing_ok=True)
        return str(ended.value), commands

    return run


BAD = "bad recurrent --passes 2\n"
PASSES = "--passes is 0, but must be 1 or more"


def test_a_training_that_fails_ends_the_study(stubbed, tmp_path, monkeypatch, capfd):
    """And with it those under way; what is trained is not trained again; every one has its share of the cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    grid = f"good recurrent\nlong risk --temperature 0.5\n{BAD}never auxiliary\n"
    said, trained = stubbed(grid, jobs=2)
    assert said.startswith("study.py: error: the training of bad failed: fairseq-train failed with status 1; see ")
    assert "It is broken" in capfd.readouterr().err
    names = [re.search("runs/(.*?)/checkpoints", command)[1] for command in trained]
    assert set(names[:2]) == {"standard", "good"} and set(names[2:]) == {"long", "bad"}
    assert all(command.startswith("3 fairseq-train ") for command in trained)
    assert not still_running(str(tmp_path / "a stub.sh"))
    said, trained = stubbed(BAD + grid.replace(BAD, ""), jobs=1)
    assert "the training of bad failed" in said and len(trained) == 1 and "--passes 2" in trained[0]


def test_a_line_that_was_run_keeps_its_flags(stubbed, tmp_path):
    """Lines can be added and moved, not changed; and fairseq knows all flags before anything is trained."""
    stubbed(f"mild recurrent --gold-ratio 0.8\n{BAD}", jobs=1)
    said, trained = stubbed(f"new generative\nmild recurrent --gold-ratio 0.9\n{BAD}", jobs=1)
    assert not trained and f"{tmp_path / 'grid.txt'}, mild: --out is {tmp_path / 'out/runs/mild'}" in said
    assert "--gold-ratio was 0.8 and is now 0.9" in said and said.endswith("lines with other flags need another NAME")
    for wrong, sentence in (("--pases 2", "fairseq-train: unrecognized arguments: --pases 2"), ("--passes 0", PASSES)):
        said, trained = stubbed(f"{BAD}mild recurrent --gold-ratio 0.8\nnew recurrent {wrong}\n", jobs=1)
        assert not trained and said.endswith(f"grid.txt, new: {sentence}")
    said, trained = stubbed(f"new generative\nmild recurrent --gold-ratio=0.8\n{BAD}", jobs=1)
    assert [command.split("--criterion ")[1].split()[0] for command in trained] == ["gift_generative", "gift_recurrent"]


@pytest.mark.system
def test_the_study(tmp_path, capsys):
    """From a tiny model to the report, in which the finalist and the control have both seeds and nothing is of the
    validation set; then nothing is left to do."""
    toy_language.main(["--out", str(tmp_path / "text"), "--train", "200", "--valid", "9", "--test", "9"])
    prefixes = [word for name in ("train", "valid", "test") for word in (f"--{name}", tmp_path / "text" / name)]
    gift("prepare", *prefixes, "--vocab-size", 200, "--workers", 1, "--out", tmp_path / "prepared")
    data, checkpoints, out = tmp_path / "prepared/data", tmp_path / "baseline/checkpoints", tmp_path / "a blank & ü"
    checkpoints.parent.mkdir()
    fairseq_train(  # few positions, for such a model ends no sentence
        *(data, checkpoints, f"{TRANSFORMER} --share-all-embeddings --criterion gift_standard --max-update 1"),
        *("--task", "gift_translation", "--max-target-positions", "100"),
    )
    (tmp_path / "grid.txt").write_text("half recurrent --gold-ratio 0.5\n")
    arguments = ["--data", data, "--from", checkpoints / "checkpoint_last.pt", "--out", out]
    arguments += ["--grid", tmp_path / "grid.txt", "--seeds", "1 2", "--selection-seeds", "1"]
    arguments += ["--updates", "2", "--jobs", "2"]
    run = partial(study.main, [*map(str, arguments), "--", "--num-workers", "0"])
    run()
    said = capsys.readouterr()
    assert "| half | recurrent --gold-ratio 0.5 | " in said.out and "chosen on the validation set" in said.err

    assert json.loads((out / "selection.json").read_text())["finalists"] == ["half"]
    runs = {"standard", "half", "standard-seed2", "half-seed2"}
    assert {path.name for path in (out / "runs").iterdir()} == runs
    for name in runs:
        assert (out / "runs" / name / "scores.json").exists()
        assert (out / "runs" / name / "exposure" / "test.json").exists()
        assert not list((out / "runs" / name).rglob("valid*"))
    for name in ("standard", "half"):
        assert set(json.loads((out / "selection" / name / "scores.json").read_text())) == set(selection.COLUMNS)
    assert read_run(out / "runs" / "half-seed2").strategy == ("gift_recurrent", "--gold-ratio 0.5")
    report = json.loads((out / "report" / "results.json").read_text())
    assert report["columns"] == ["test.beam5", "test.greedy"]
    assert [one["name"] for one in report["systems"]] == ["baseline", "standard", "recurrent --gold-ratio 0.5"]
    for system in report["systems"][1:]:
        assert [run["seed"] for run in system["runs"]] == [1, 2] and not system["notes"]
        assert all(score["seeds"] == 2 for score in system["scores"].values())
    options = [json.loads((out / "runs" / name / "run.json").read_text())["fairseq"] for name in runs]
    assert {one["dropout"] for one in options} == {0}  # after one update the model does not overfit
    claims = {(claim["system"], claim["against"], claim["search"]): claim["seeds"] for claim in report["claims"]}
    assert claims["recurrent --gold-ratio 0.5", "control", "beam5"] == 2
    assert not list(out.rglob("*.partial"))

    kept = [path for path in out.rglob("*") if path.suffix in (".pt", ".txt", ".json", ".log", ".html")]
    before = {path: path.stat().st_mtime_ns for path in kept if path.name != "selection.json"}
    run()
    said = capsys.readouterr().err
    assert "training" not in said and "translating" not in said
    assert before == {path: path.stat().st_mtime_ns for path in before}
