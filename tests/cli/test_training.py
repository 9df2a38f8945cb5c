"""train and finetune: what a run keeps, stopping and going on, other spellings, several processes, the control."""

import argparse
import fcntl
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import MACHINE, ROOT, TRANSFORMER, assert_equal, error_of, gift, recipe
from fairseq.data import data_utils

from gift_fairseq import runs
from gift_fairseq.checkpoints.files import digest_of
from gift_fairseq.cli.options import split_flags
from gift_fairseq.errors import UserError
from gift_fairseq.own_translations.origin import Origin
from gift_fairseq.training.launch import SET_HERE, Machine, Training
from gift_fairseq.training.log import Log

pytestmark = pytest.mark.system

MODEL = [*TRANSFORMER.split()[2:], "--dropout", "0.1", "--num-workers", "0"]
TWELVE = "--lr 1e-2 --warmup 4 --max-tokens 100 --updates 12 --average 2".split()


def words_of(data, out, *more, flags=()):
    """The arguments of a training, without its updates."""
    own = ["--data", data, "--out", out, "--lr", "1e-2", "--warmup", "4", "--max-tokens", "100", *more]
    return ["train", *own, "--", *MODEL, *flags]


def parameters(run, name="checkpoint_last.pt"):
    return torch.load(run / "checkpoints" / name)["model"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def run(binarized, tmp_path_factory):
    """Twelve updates, an epoch each five."""
    out = tmp_path_factory.mktemp("runs") / "a blank and ü"
    out.mkdir()
    (out / "train.log").write_text('{"epoch": 1, "num_updates": "400"}\n')  # stopped before anything was saved
    gift("train", "--data", binarized, "--out", out, *TWELVE, "--", *MODEL)
    return out


def test_what_a_run_keeps(run, binarized):
    assert {path.name for path in run.iterdir()} >= {"run.json", "train.log", "stderr.log", "done", "checkpoints"}
    assert {path.name for path in (run / "done").iterdir()} == {"train", "average"}
    record = json.loads((run / "run.json").read_text())
    assert record["words"][:2] == ["fairseq-train", str(binarized)] and record["command"] == "train"
    assert record["fairseq"]["seed"] == 1 and record["fairseq"]["lr"] == [0.01]
    assert record["fairseq"]["dropout"] == 0.1 and record["settings"]["average"] == 2
    assert any(version.startswith("torch==") for version in record["versions"]) and "commit" in record
    log = (run / "train.log").read_text()
    assert Log.of(runs.RunFolder(run)).updates == 12
    assert "'label_smoothing': 0.1" in log.splitlines()[0] and '"train_num_updates": "12"' in log
    mean, epochs = parameters(run, "checkpoint_average.pt"), [parameters(run, f"checkpoint{n}.pt") for n in (1, 2)]
    for name in mean:
        torch.testing.assert_close(mean[name], sum(epoch[name] for epoch in epochs) / 2)


# ---- what is the same training, and what is another one


@pytest.mark.parametrize(
    "own, flags",
    [
        (TWELVE, MODEL),
        (TWELVE[4:] + TWELVE[:4], MODEL[-4:] + MODEL[:-4]),
        ("--lr=0.01 --warmup=4 --max-tokens=100 --updates=12 --average=2".split(), MODEL),
        ([*TWELVE, "--seed", "1", "--arch", "transformer_wmt_en_de", "--precision", "fp32"], MODEL),
        (TWELVE, [*MODEL, "--dropout", ".10", "--adam-betas", "(.9,0.98)", "--clip-norm", "0.0"]),
    ],
    ids=["the same", "another order", "=", "defaults spelled out", "numbers spelled otherwise"],
)
def test_another_spelling_goes_on(run, binarized, monkeypatch, capfd, own, flags):
    """And a path from another folder. What tells how the run was made stays."""
    monkeypatch.chdir(run.parent)
    before = (run / "run.json").read_bytes()
    gift("train", "--out", run.name, "--data", os.path.relpath(binarized), *own, "--", *flags)
    said = capfd.readouterr().err
    assert "the run is" in said and "training" not in said
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "own, flags, difference",
    [
        (["--lr", "2e-2"], [], "--lr was [0.01] and is now [0.02]"),
        (["--updates", "13"], [], "--updates was 12 and is now 13"),
        (["--warmup", "5"], [], "--warmup was 4 and is now 5"),
        (["--average", "3"], [], "--average was 2 and is now 3"),
        (["--criterion", "gift_recurrent"], [], "--criterion was gift_standard and is now gift_recurrent"),
        ([], ["--dropout", "0.2"], "--dropout was 0.1 and is now 0.2"),
        ([], ["--adam-betas", "(0.9, 0.99)"], "--adam-betas was (0.9, 0.98) and is now (0.9, 0.99)"),
    ],
)
def test_another_training_is_refused(run, binarized, own, flags, difference):
    before = (run / "run.json").read_bytes()
    said = error_of("train", "--data", binarized, "--out", run, *TWELVE, *own, "--", *MODEL, *flags)
    assert said == (
        f"gift: error: --out is {run}, which was made with other options: {difference}; "
        "choose another folder, or the value of before"
    )
    assert (run / "run.json").read_bytes() == before


def test_a_difference_is_named_as_it_was_typed():
    """Of a fine-tuning, where fairseq has other names."""
    before = {"criterion": "gift_risk", "finetune_from_model": "a.pt"}
    for name, option in (("criterion", "--strategy was gift_risk"), ("finetune_from_model", "--from was a.pt")):
        records = ({"command": "finetune", "fairseq": each} for each in (before, {**before, name: "other"}))
        with pytest.raises(UserError, match=f"{option} and is now other"):
            runs.check_same(Path("out"), *records)


def test_a_dry_run_pasted_trains_the_same(run, binarized, tmp_path, capsys):
    """Bit for bit; and the dry run itself does nothing."""
    out = tmp_path / "a blank & ü"
    gift("train", "--data", binarized, "--out", out, *TWELVE, "--dry-run", "--", *MODEL)
    assert not out.exists()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pasted = capsys.readouterr().out
    done = subprocess.run(["bash", "-ec", pasted], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal(parameters(run), parameters(out))


def test_no_whole_epoch_to_average(binarized, tmp_path):
    arguments = words_of(binarized, tmp_path / "run", "--updates", "1", "--average", "2")
    folder = tmp_path / "run" / "checkpoints"
    assert f"--average is 2, but {folder} has no checkpoint of an epoch: train for longer" in error_of(*arguments)


def test_a_failing_training_says_why_and_its_folder_takes_other_options(binarized, tmp_path, capfd):
    arguments = words_of(binarized, tmp_path / "run", "--updates", "1")
    said = error_of(*arguments, "--valid-subset", "nowhere")
    assert said == f"gift: error: the data folder is {binarized}, which has no split 'nowhere'"
    said = capfd.readouterr().err
    assert "nowhere" not in said and "Traceback" not in said
    assert "stage train failed" in said and "run again to resume" in said
    assert not (tmp_path / "run" / "done" / "train").exists()
    gift(*arguments)
    assert (tmp_path / "run" / "done" / "train").exists()


def test_killed_and_run_again_it_ends_in_the_same_parameters(binarized, tmp_path):
    """SIGKILL after some updates, in the copy of the last checkpoint; nobody works there before all processes have
    gone; then it goes on with what was saved, also inside an epoch, by options in another order."""
    flags = ["--save-interval-updates", "3", "--keep-interval-updates", "1"]
    gift(*words_of(binarized, tmp_path / "whole", "--updates", "40", flags=flags))
    arguments = [str(word) for word in words_of(binarized, tmp_path / "stopped", "--updates", "40", flags=flags)[1:]]
    command = ["bash", str(ROOT / "scripts/train.sh"), *arguments]
    stopped = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "stopped").glob("checkpoints/checkpoint_*_*.pt")) and stopped.poll() is None:
        time.sleep(0.02)
    os.killpg(stopped.pid, signal.SIGSTOP)
    stopped.kill()  # fairseq-train itself is still there
    stopped.wait()
    again = words_of(binarized, tmp_path / "stopped", flags=flags)
    again[1:1] = ["--updates", "40"]
    assert f"--out is {tmp_path / 'stopped'}, but another process works there" in error_of(*again)
    os.killpg(stopped.pid, signal.SIGKILL)
    assert not (tmp_path / "stopped" / "done" / "train").exists()
    last = tmp_path / "stopped" / "checkpoints" / "checkpoint_last.pt"
    last.write_bytes(last.read_bytes()[:1000] if last.exists() else b"")  # as if killed while fairseq copied it
    with open(tmp_path / "stopped" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits until the last of them has gone
    gift(*again)
    assert_equal(parameters(tmp_path / "whole"), parameters(tmp_path / "stopped"))


def test_sigterm_ends_the_training_too(binarized, tmp_path):
    command = ["bash", ROOT / "scripts/train.sh", *words_of(binarized, tmp_path / "run", "--updates", "100000")[1:]]
    started = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "train.log").exists() and started.poll() is None:
        time.sleep(0.02)
    started.terminate()
    _, said = started.communicate(timeout=60)
    assert started.returncode == 128 + signal.SIGTERM and "stage train failed" in said
    with runs.begin(tmp_path / "run", {}):  # nobody works there
        pass


# ---- several processes


def test_two_processes_and_two_machines_are_one_big_batch(binarized, tmp_path):
    """torchrun on this machine, twice as two machines on the loopback: the parameters of one process with
    --update-freq 2, to rounding."""

    def words(name, *more):
        return words_of(binarized, tmp_path / name, "--updates", "5", *more, flags=["--dropout", "0"])

    gift(*words("one", "--update-freq", "2"))
    gift(*words("two", "--gpus", "2"))
    assert_equal(parameters(tmp_path / "one"), parameters(tmp_path / "two"), rtol=1e-4, atol=1e-5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nodes = ["--nodes", "2", "--master", f"127.0.0.1:{free.getsockname()[1]}"]
    second = [sys.executable, "-m", "gift_fairseq", *words("nodes", *nodes, "--node-rank", "1")]
    with subprocess.Popen(list(map(str, second)), stderr=subprocess.PIPE, text=True) as node:
        gift(*words("nodes", *nodes, "--node-rank", "0"))
        _, said = node.communicate(timeout=240)
    assert node.returncode == 0, said
    assert_equal(parameters(tmp_path / "two"), parameters(tmp_path / "nodes"), rtol=1e-4, atol=1e-5)


# ---- fine-tuning


def test_fine_tuning_trains_the_control_beside_it(run, binarized, tmp_path):
    """Same updates, batches and rate for both; the strategy's own flags for itself alone; 0.3 of the peak rate; without
    dropout, as after 12 updates nothing is overfitted."""
    checkpoint = run / "checkpoints" / "checkpoint_best.pt"
    relative = [os.path.relpath(path) for path in (checkpoint, binarized)]
    arguments = ["--strategy", "recurrent --gold-ratio 0.5", "--from", relative[0], "--data", relative[1]]
    arguments += ["--out", tmp_path / "mine", "--updates", "3", "--average", "2", "--", "--num-workers", "0"]
    done = recipe("scripts/finetune.sh", *arguments)
    assert done.returncode == 0, done.stderr
    assert "training standard" in done.stderr and f"the run is {tmp_path / 'mine'}\n" in done.stderr
    assert done.stderr.endswith(f"its model is {tmp_path / 'mine' / 'checkpoints' / 'checkpoint_average.pt'}\n")
    assert "Warning" not in done.stderr and "tensorboardX" not in done.stderr
    said, options = {}, {}
    for name in ("mine", "standard"):
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["words"][1] == str(binarized) and record["fairseq"]["finetune_from_model"] == str(checkpoint)
        said[name] = " ".join(record["words"][2:]).replace(str(tmp_path / name), "RUN")
        options[name] = record["fairseq"]
        state = torch.load(tmp_path / name / "checkpoints" / "checkpoint_last.pt")
        assert state["optimizer_history"][-1]["num_updates"] == 3
        assert state["cfg"]["optimization"]["lr"] == [3e-3] and state["cfg"]["lr_scheduler"]["total_num_update"] == 3
        assert state["cfg"]["model"].dropout == 0 and record["overfitting"] < 0.45
        assert record["fairseq"]["snapshots"] == 2
        kept = {path.name for path in (tmp_path / name / "checkpoints").iterdir()}
        assert kept == {f"checkpoint_{which}.pt" for which in ("best", "last", "average")}
    assert said["mine"].replace("gift_recurrent", "gift_standard").replace(" --gold-ratio 0.5", "") == said["standard"]
    assert all(options["mine"][name] == value for name, value in options["standard"].items() if name != "criterion")
    mine, control = parameters(tmp_path / "mine"), parameters(tmp_path / "standard")
    assert any(not torch.equal(mine[name], control[name]) for name in mine)


def test_distillation_translates_before_it_trains(run, binarized, tmp_path, capsys):
    """The control trains on the gold pairs alone, also where the own translations are there already."""
    checkpoint, own = run / "checkpoints" / "checkpoint_best.pt", tmp_path / "own"
    flags = "--beam 2 --min-score 0 --length-tolerance 1 --share 0.25"

    def tune(out, data, strategy, *more):
        given = ["--from", checkpoint, "--data", data, "--out", out, "--updates", "2", *more]
        gift("finetune", "--strategy", strategy, *given, "--", "--num-workers", "0")
        files = [folder / "run.json" for folder in (out, tmp_path / "standard")]
        return [json.loads(file.read_text())["fairseq"] for file in files if file.is_file()]

    tune(own, binarized, f"distillation {flags}", "--dry-run")
    commands = [line.split() for line in capsys.readouterr().out.splitlines() if not line.startswith("mkdir")]
    assert commands[1][:2] == ["gift", "candidates"] and not own.exists()
    lengths = [len(line.split()) + 1 for line in (binarized.parent / "train.en").open()]  # both sides are as long
    read = 2 * 100 / (sum(lengths) / 60)  # sentences, in two updates of 100 tokens; a quarter are own
    assert commands[1][commands[1].index("--sentences") + 1] == str(round(0.25 * read))
    flags += " --sentences 50"
    options, of_control = tune(own, binarized, f"distillation --margin 0.5 {flags} --margin-weight=3")
    data = own / "candidates" / "data"
    assert options.pop("data") == str(data) and of_control["data"] == str(binarized)
    assert options.pop("criterion") == "gift_distillation"
    assert [options.pop(name) for name in ("margin", "margin_weight")] == [0.5, 3]
    assert {**of_control, **options} == of_control
    assert len(data_utils.load_indexed_dataset(str(data / "train.en-de.de"))) == 60 + 20
    origin = Origin.of(data)
    assert origin.checkpoint == str(checkpoint)
    assert [origin.settings[name] for name in ("candidates", "share", "sentences")] == [2, 0.25, 50]
    given = ["--from", checkpoint, "--data", binarized, "--out", own, "--updates", "2"]
    for changed, difference in (
        ("--beam 3", "--beam was 2 and is now 3"),
        ("--share 0.5", "--share was 0.25 and is now 0.5"),
    ):
        strategy = f"distillation --margin 0.5 {flags} --margin-weight=3 {changed}"
        assert f"other options: {difference};" in error_of("finetune", "--strategy", strategy, *given)
    again, _ = tune(tmp_path / "again", data, "distillation --margin-weight 3 --margin 0.5")
    assert again["data"] == str(data)
    assert_equal(parameters(own), parameters(tmp_path / "again"))
    for strategy, folder, sentence in (
        ("distillation --beam 2", data, f"--strategy has --beam, but --data is {data}, which has own translations"),
        ("recurrent --gold-ration 1", binarized, "fairseq-train: unrecognized arguments: --gold-ration 1"),
        ("recurrent --gold-ratio 7", binarized, "gift: error: --gold-ratio is 7"),
        ("weighted --weight-floor 2", binarized, "gift: error: --weight-floor is 2.0, but must be"),
        ("distillation --share 1", binarized, "--share is 1, but must be below 1: the gold pairs stay"),
        ("distillation --margin -1", binarized, "--margin is -1.0, but must be 0 or more"),
        ("distillation --margin x", data, "--margin: invalid float value: 'x'"),
        ("distillation --seed=2", binarized, "--strategy has --seed, but finetune sets it: leave it out there"),
        ("distillation --bean 2", binarized, "unrecognized arguments: --bean 2; see gift candidates --help"),
    ):
        given = ["--from", checkpoint, "--data", folder, "--out", tmp_path / "never" / "x"]
        assert sentence in error_of("finetune", "--strategy", strategy, *given)
    given = ["--from", checkpoint, "--data", binarized, "--out", tmp_path / "never" / "standard"]
    assert "which is also the folder of the control" in error_of("finetune", "--strategy", "recurrent", *given)
    said = error_of("finetune", *given, "--control", tmp_path / "x", "--no-control")
    assert f"--control is {tmp_path / 'x'}, but --no-control says that there is none" in said
    given[-1] = tmp_path / "never" / "x"
    assert "--max-update stands after --" in error_of("finetune", *given, "--", "--max-update", "7")
    assert not (tmp_path / "never").exists()


def test_without_a_strategy_gold_is_weighted(run, binarized, tmp_path, capsys):
    checkpoint = run / "checkpoints" / "checkpoint_best.pt"
    gift("finetune", "--from", checkpoint, "--data", binarized, "--out", tmp_path / "new", "--dry-run")
    commands = [line for line in capsys.readouterr().out.splitlines() if "fairseq-train" in line]
    criterions = ["gift_standard", "gift_weighted"]  # the control first
    assert [command.split("--criterion ")[1].split()[0] for command in commands] == criterions


def test_the_control_starts_from_the_same_model(run, binarized, tmp_path):
    """Not only from the same path, whose file a training that goes on replaces."""
    checkpoint = tmp_path / "baseline" / "checkpoints" / "checkpoint_best.pt"
    shutil.copytree(run / "checkpoints", checkpoint.parent)
    given = ["finetune", "--from", checkpoint, "--data", binarized, "--updates", "1", "--out"]
    flags = ["--", "--num-workers", "0", "--dropout", "0"]
    gift(*given, tmp_path / "standard", "--strategy", "standard", *flags)
    shutil.copy(checkpoint.with_name("checkpoint_average.pt"), checkpoint)
    said = error_of(*given, tmp_path / "mine", *flags)
    assert f"--control is {tmp_path}/standard, which was made with other options: what --from holds was" in said
    assert not (tmp_path / "mine").exists()


def test_a_checkpoint_that_changes_before_its_turn_is_not_started_from(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"one")
    start = tmp_path / "x.pt", digest_of(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(b"another")
    words = "--arch transformer --optimizer adam --criterion gift_standard --max-tokens 9".split()
    training = Training("finetune", tmp_path, tmp_path / "run", 1, words, MACHINE, start=start)
    with pytest.raises(UserError, match=f"--from is {tmp_path}/x.pt, which has changed since this command began"):
        training.run()


def test_checkpoints_that_it_did_not_make_stay(run, binarized, tmp_path):
    """fairseq-train would go on with them, and replace them."""
    folder = tmp_path / "plain" / "checkpoints"
    shutil.copytree(run / "checkpoints", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    flags = ["--data", binarized, "--updates", "20", "--", "--num-workers", "0"]
    sentence = f"is {tmp_path}/plain, but {folder}/checkpoint1.pt is there and was not made by gift"
    said = error_of("train", "--out", tmp_path / "plain", *flags, *MODEL)
    assert f"--out {sentence} train: choose another folder" in said
    start = ["finetune", "--from", run / "checkpoints" / "checkpoint_best.pt"]
    assert f"--out {sentence} finetune" in error_of(*start, "--out", tmp_path / "plain", *flags)
    said = error_of(*start, "--out", tmp_path / "mine", "--control", tmp_path / "plain", *flags)
    assert f"--control {sentence} finetune" in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in (tmp_path / "plain").iterdir()] == ["checkpoints"] == [folder.name]


# ---- mistakes

GOOD = "--data . --out x"
FROM = f"{GOOD} --from x.pt"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("train --out x", "the following arguments are required: --data; see gift train --help"),
        ("train --data nowhere --out x", "--data is nowhere, but that is no data folder"),
        (f"train {GOOD}", "--data is ., but that is no data folder: prepare one with gift prepare"),
        (f"train {GOOD} --precision fp8", "argument --precision: invalid choice: 'fp8' (choose from"),
        (f"train {GOOD} --patience -1", "--patience is '-1', but must be a whole number, 0 or more"),
        (f"train {GOOD} --master h", "--master is 'h', but must be HOST:PORT"),
        (f"train {GOOD} --lr fast", "--lr is 'fast', but must be a number above 0"),
        (f"train {GOOD} --lr inf", "--lr is 'inf', but must be a number above 0"),
        (f"train {GOOD} --dropout 0.1", "unrecognized arguments: --dropout 0.1; see gift train --help"),
        (f"finetune {FROM} --strategy base", "--strategy is 'base', but must be standard, auxiliary,"),
        (f"finetune {FROM} --strategy '", '--strategy is "\'", but every quote and backslash in it must be closed'),
        (f"compare {GOOD} --from r/checkpoints/x.pt --evaluate '--beam", '--evaluate is "\'--beam", but every quote'),
        (f"finetune {GOOD} --strategy standard", "the following arguments are required: --from"),
        (f"finetune {FROM} --strategy standard", "--data is ., but that is no data folder"),
        (f"compare {FROM} --seeds one", "--seeds is 'one', but must be whole numbers with blanks between"),
        (f"compare {FROM} --nodes 2", "unrecognized arguments: --nodes 2"),
        (f"compare {FROM}", "--from is x.pt, but must be RUN/checkpoints/FILE.pt"),
        (f"compare {GOOD} --from run/checkpoints/x.pt", "--data is ., but that is no data folder"),
        ("trian --out x", "COMMAND is trian, but must be one of prepare, train, "),
        ("user-dir -- --lr 1", "--lr stands after --, but user-dir takes nothing there"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in error_of(*arguments.split())
    assert not list(tmp_path.iterdir())


def test_a_seed_that_is_named_twice():
    assert "--seeds is '3 1 3', but no number may be given twice" in error_of("compare", "--seeds", "3 1 3")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("--nodes 2", "--master is needed for more than one node: HOST:PORT of machine 0"),
        ("--nodes 2 --master h:1 --node-rank 2", "--node-rank is 2, but must be below --nodes, 2"),
        ("-- --dropout high", "fairseq-train: argument --dropout: invalid float value: 'high'"),
        ("-- --dropuot 0.1", "fairseq-train: unrecognized arguments: --dropuot 0.1"),
        ("--arch transformers", "fairseq-train: argument --arch/-a: invalid choice: 'transformers'"),
        ("--criterion cross_entropy", "--criterion is cross_entropy, but must be label_smoothed_cross_entropy or"),
        ("--criterion x", "--criterion is x, but must be label_smoothed_cross_entropy or gift_STRATEGY"),
        ("--criterion gift_recurrent -- --gold-ratio 7", "gift: error: --gold-ratio is 7, but must be"),
        *((f"-- {flag}=x", f"{flag} stands after --, which is not taken there: gift sets it") for flag in SET_HERE),
    ],
)
def test_what_does_not_go_together(binarized, tmp_path, arguments, sentence):
    """Said before anything is made, whether it is a dry run or not."""
    own, flags = split_flags(["--data", binarized, "--out", tmp_path / "x", *arguments.split()])
    assert sentence in error_of("train", *own, "--", *flags) == error_of("train", *own, "--dry-run", "--", *flags)
    assert not list(tmp_path.iterdir())


def test_help_of_fairseq(binarized, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        gift("train", "--data", binarized, "--out", tmp_path / "x", "--", "--help")
    assert end.value.code == 0 and "usage: " in capsys.readouterr().out


@pytest.mark.parametrize("module", ["tensorboard", "tensorboardX"])
def test_either_tensorboard_will_do(tmp_path, monkeypatch, module):
    options = argparse.Namespace(**{**vars(MACHINE), "gpus": None, "tensorboard": True})
    with pytest.raises(UserError, match="--tensorboard needs tensorboard: .* -m pip install tensorboard"):
        Machine.of(options)
    (tmp_path / module).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="--tensorboard needs tensorboard"):  # a folder of logs is no module
        Machine.of(options)
    (tmp_path / module / "__init__.py").touch()
    importlib.invalidate_caches()
    assert Machine.of(options).tensorboard


def test_a_machine_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runs.provenance()["commit"] == ""
