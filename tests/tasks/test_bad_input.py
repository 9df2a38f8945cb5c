"""A user's mistake ends in one sentence that names the option, the value and what is allowed; no traceback."""

import pickle
import subprocess
import sys

import pytest
import torch
from conftest import PLUGIN, TRANSFORMER, fairseq_train, run_tool
from fairseq.data import Dictionary
from fairseq.models import FairseqDecoder, FairseqLanguageModel
from fairseq_cli import generate, preprocess

from gift_fairseq.checkpoints.files import check_checkpoint
from gift_fairseq.errors import UserError
from gift_fairseq.substitution import check_autoregressive

pytestmark = pytest.mark.cli


def sentence_of(data, folder, flags, *more):
    """What fairseq-train says with ``flags``; it must leave nothing behind but its log."""
    with pytest.raises(SystemExit) as stopped:
        fairseq_train(data, folder, flags, *more)
    message = str(stopped.value)
    assert message.startswith("gift_fairseq: error: ") and "\n" not in message
    assert {path.name for path in folder.iterdir()} <= {"train.log"}
    return message


@pytest.mark.parametrize(
    "flags, option, value, allowed",
    [
        ("gift_recurrent --left-pad-target", "--left-pad-target", "True", "leave it False"),
        ("gift_standard --snapshots -1", "--snapshots", "-1", "0 or more"),
        ("gift_standard --snapshots 2", "--snapshots", "2", "needs --max-update"),
    ],
)
def test_options(binarized, tmp_path, flags, option, value, allowed):
    message = sentence_of(binarized, tmp_path, f"{TRANSFORMER} --task gift_translation --criterion {flags}")
    assert f"{option} is {value}" in message and allowed in message


@pytest.mark.parametrize("arch", ["lstm_lm", "transformer_lm"])
def test_decoder_only_model(binarized, tmp_path, arch):
    flags = f"--arch {arch} --task gift_translation --criterion gift_recurrent"
    message = sentence_of(binarized, tmp_path, flags)
    assert f"--arch is {arch}" in message and "encoder-decoder" in message
    with pytest.raises(UserError, match="has not one encoder and one decoder"):  # the criterion's own check
        check_autoregressive(FairseqLanguageModel(FairseqDecoder(Dictionary())))


@pytest.mark.parametrize("task", ["gift_translation", "translation"])
def test_non_autoregressive_model(binarized, tmp_path, task):
    flags = TRANSFORMER.replace("transformer_wmt_en_de", "nonautoregressive_transformer")
    message = sentence_of(binarized, tmp_path, f"{flags} --task {task} --criterion gift_recurrent")
    assert "NATransformerModel" in message and "left to right" in message


@pytest.mark.parametrize("criterion", ["gift_standard", "gift_recurrent"])
def test_adaptive_softmax(binarized, tmp_path, criterion):
    flags = f"{TRANSFORMER} --task gift_translation --criterion {criterion} --adaptive-softmax-cutoff 9,12"
    assert "--adaptive-softmax-cutoff is given" in sentence_of(binarized, tmp_path, flags)


def test_missing_and_empty_split(binarized, tmp_path):
    flags = f"{TRANSFORMER} --task gift_translation --criterion gift_standard"
    assert "'nosuch'" in sentence_of(binarized, tmp_path, f"{flags} --train-subset nosuch")
    text = tmp_path / "text"
    text.mkdir()
    for split, line in (("train", ""), ("valid", "w1 w2\n")):
        for language in ("en", "de"):
            (text / f"{split}.{language}").write_text(line)
    run_tool(
        preprocess,
        *("-s", "en", "-t", "de", "--srcdict", binarized / "dict.en.txt", "--joined-dictionary", "--workers", "1"),
        *("--trainpref", text / "train", "--validpref", text / "valid", "--destdir", text / "data"),
    )
    out = tmp_path / "out"
    assert "'train'" in sentence_of(text / "data", out, flags)


def test_missing_data(tmp_path):
    message = sentence_of(
        tmp_path / "nowhere",
        tmp_path / "out",
        f"{TRANSFORMER} --task gift_translation -s en -t de --criterion gift_standard",
    )
    assert "dict.en.txt is missing" in message


@pytest.fixture(scope="module")
def checkpoint(binarized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    flags = f"{TRANSFORMER} --task gift_translation --criterion gift_standard --max-update 1 --disable-validation"
    fairseq_train(binarized, folder, flags)
    return folder / "checkpoint_last.pt"


class Code:
    def __reduce__(self):
        return print, ("a checkpoint ran code",)


@pytest.mark.parametrize("option", ["--finetune-from-model", "--restore-file"])
def test_checkpoints_in_training(binarized, checkpoint, tmp_path, capsys, option):
    flags = f"{TRANSFORMER} --task gift_translation --criterion gift_standard"
    missing = tmp_path / "missing.pt"
    assert "no such file" in sentence_of(binarized, tmp_path / "1", flags, option, missing)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(checkpoint.read_bytes()[:-1000])
    assert "cut off" in sentence_of(binarized, tmp_path / "2", flags, option, cut)
    code = tmp_path / "code.pt"
    torch.save({"model": {}, "extra": Code()}, code)
    assert "carries code" in sentence_of(binarized, tmp_path / "3", flags, option, code)
    assert "ran code" not in capsys.readouterr().out


def test_generate_from_a_missing_checkpoint_and_with_another_vocabulary(binarized, checkpoint, tmp_path):
    common = ["--user-dir", PLUGIN, "--task", "gift_translation", "--cpu", "--path"]
    with pytest.raises(SystemExit, match="--path is .*missing.pt, but there is no such file"):
        run_tool(generate, binarized, *common, tmp_path / "missing.pt")
    words = Dictionary.load(str(binarized / "dict.en.txt"))
    words.add_symbol("one-more")
    with pytest.raises(UserError, match="has a vocabulary of .* binarize the data with"):
        check_checkpoint("--path", str(checkpoint), words, words)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"no": "model"})])
def test_files_that_are_no_checkpoints(tmp_path, content):
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no whole fairseq checkpoint"):
        check_checkpoint("--path", str(path), Dictionary(), Dictionary())


def test_exit_status_and_no_traceback(binarized, tmp_path):
    """Once in a process of its own: what the shell sees."""
    command = [sys.executable, "-m", "fairseq_cli.train", binarized, "--user-dir", PLUGIN, "--cpu"]
    command += f"{TRANSFORMER} --criterion gift_recurrent --gold-ratio 7 --optimizer adam --max-tokens 99".split()
    done = subprocess.run([*map(str, command), "--save-dir", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("gift_fairseq: error: --gold-ratio is 7, but must be between 0 and 1")
    assert "Traceback" not in done.stderr and not any((tmp_path / "out").iterdir())
