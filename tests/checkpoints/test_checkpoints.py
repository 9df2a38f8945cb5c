"""What is made of checkpoints: their mean, an export for other programs, the flags to go on with."""

import argparse
import re
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from conftest import ARCHITECTURES, TRANSFORMER, error_of, fairseq_generate, fairseq_train, gift, lines_of
from fairseq import options, tasks
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from gift_fairseq.checkpoints import average
from gift_fairseq.checkpoints import flags as finetune_flags
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation.translate import GENERATOR_FLAGS


def saved(path, **tensors):
    torch.save({"model": OrderedDict(tensors), "last_optimizer_state": {"a": 1}, "epoch": path.name}, path)
    return path


def test_average_by_hand(tmp_path):
    one = saved(
        tmp_path / "checkpoint9.pt", w=torch.tensor([1.0, 2.0]), h=torch.tensor([1.0]).half(), n=torch.tensor(3)
    )
    two = saved(
        tmp_path / "checkpoint10.pt", w=torch.tensor([4.0, 0.0]), h=torch.tensor([2.0]).half(), n=torch.tensor(5)
    )
    saved(tmp_path / "checkpoint8.pt", w=torch.tensor([9.0, 9.0]))
    saved(tmp_path / "checkpoint_last.pt", w=torch.tensor([9.0, 9.0]))
    assert average.last_epochs(tmp_path, 2) == [one, two]  # by number, not by name
    gift("average", "--last", 2, "--out", tmp_path / "mean.pt", tmp_path)
    state = torch.load(tmp_path / "mean.pt")
    assert state["model"]["w"].tolist() == [2.5, 1.0] and state["model"]["n"] == 5
    assert state["model"]["h"] == 1.5 and state["model"]["h"].dtype == torch.float16
    assert state["epoch"] == "checkpoint10.pt" and state["last_optimizer_state"] is None
    with pytest.raises(UserError, match="checkpoint8.pt, whose w|checkpoint8.pt, whose h|w the others have not"):
        average.average([one, saved(tmp_path / "other.pt", w=torch.zeros(3))])
    with pytest.raises(UserError, match="has no checkpoint of an epoch"):
        average.last_epochs(tmp_path / "nowhere", 2)
    assert "but with --last it must be one folder" in error_of("average", "--last", 2, "--out", tmp_path / "x.pt", one)
    gift("average", "--out", tmp_path / "both.pt", one, two)
    assert torch.load(tmp_path / "both.pt")["model"]["w"].tolist() == [2.5, 1.0]


def flags_on(data, checkpoint):
    """The options that the flags for ``checkpoint`` make."""
    words = finetune_flags.flags_of(str(checkpoint), data)
    parser = options.get_training_parser()
    arguments = [str(data), "--task", "gift_translation", "--criterion", "gift_standard", "--optimizer", "adam", *words]
    return words, options.parse_args_and_arch(parser, input_args=arguments)


@pytest.mark.cli
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flags_make_the_same_model_again(binarized, tmp_path, architecture):
    """Also options that are not the architecture's defaults; and the settings of the training, at half its rate."""
    more = "--dropout 0.25 --label-smoothing 0.2 --update-freq 3 --adam-betas (0.8,0.9) --clip-norm 2.5"
    if "transformer" in architecture:
        more += " --share-all-embeddings --decoder-normalize-before --activation-fn gelu --no-scale-embedding"
    fairseq_train(
        binarized,
        tmp_path,
        f"{ARCHITECTURES[architecture]} --task translation --criterion label_smoothed_cross_entropy --max-update 1 "
        f"--disable-validation {more}",
    )
    words, args = flags_on(binarized, tmp_path / "checkpoint_last.pt")
    cfg = convert_namespace_to_omegaconf(args)
    state = torch.load(tmp_path / "checkpoint_last.pt")
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in state["model"].items()
    }
    before = vars(state["cfg"]["model"])
    own = argparse.ArgumentParser()
    type(model).add_args(own)
    names = [action.dest for action in own._actions if before.get(action.dest) is not None]
    assert {name: getattr(args, name) for name in names} == {name: before[name] for name in names}, words
    assert (cfg.criterion.label_smoothing, list(cfg.optimization.update_freq)) == (0.2, [3])
    assert (list(cfg.optimization.lr), cfg.optimization.clip_norm, cfg.dataset.max_tokens) == ([5e-4], 2.5, 200)
    assert cfg.optimizer.adam_betas == "(0.8,0.9)"


@pytest.fixture(scope="module")
def checkpoint(binarized, tmp_path_factory):
    """A model trained by the plugin until it has learned something."""
    folder = tmp_path_factory.mktemp("run with a blank")
    flags = f"{TRANSFORMER} --share-all-embeddings --task gift_translation --criterion gift_recurrent --gold-ratio 0.5"
    fairseq_train(binarized, folder, f"{flags} --max-update 200 --lr 1e-2 --disable-validation")
    return folder / "checkpoint_last.pt"


@pytest.mark.parametrize("change", ["order", "size", "no data", "no checkpoint"])
def test_flags_for_data_that_does_not_fit(binarized, checkpoint, tmp_path, change):
    data, path = tmp_path / "data", str(checkpoint)
    data.mkdir()
    words = Dictionary.load(str(binarized / "dict.en.txt"))
    lines = [f"{symbol} 1" for symbol in words.symbols[words.nspecial :]]
    sentence = {
        "order": "was trained with .*dict.en.txt, but .*dict.en.txt has other words or another order",
        "size": "whose encoder has a vocabulary of",
        "no data": "--data is .*nowhere, but that is no data folder",
        "no checkpoint": "--from is nowhere.pt, but there is no such file",
    }[change]
    lines = {"order": lines[::-1], "size": lines[1:]}.get(change, lines)
    for language in ("en", "de"):
        (data / f"dict.{language}.txt").write_text("".join(line + "\n" for line in lines))
    (data / "train.en-de.en.bin").touch()
    (data / "train.en-de.en.idx").touch()
    if change == "no data":
        data = tmp_path / "nowhere"
    if change == "no checkpoint":
        path = "nowhere.pt"
    with pytest.raises(UserError, match=sentence):
        finetune_flags.flags_of(path, data)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "deep er" / "model.pt"
    gift("export", checkpoint, path)
    return path


def program(name, *arguments):
    """One of fairseq's commands in a process that never heard of the plugin."""
    code = f"import sys; from fairseq_cli.{name} import cli_main; cli_main(); assert 'gift_fairseq' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.cli
def test_an_export_works_in_plain_fairseq(binarized, checkpoint, exported, tmp_path):
    """Translates the same, is fine-tuned on, loads with from_pretrained; nothing of the training's machine is in it."""
    before = fairseq_generate(tmp_path, binarized, "--beam", 3, "--path", checkpoint, "--task", "gift_translation")
    after = program("generate", binarized, "--beam", 3, "--cpu", *GENERATOR_FLAGS.split(), "--path", exported)
    assert lines_of(after) == lines_of(before)
    program(
        "train",
        *(binarized, "--finetune-from-model", exported, "--save-dir", tmp_path / "on", "--cpu", "--num-workers", "0"),
        *f"{TRANSFORMER} --share-all-embeddings --optimizer adam --max-tokens 200 --max-update 1".split(),
    )
    state = torch.load(exported, weights_only=True)
    assert "gift" not in str(state["cfg"]) and str(binarized) not in str(state["cfg"])
    assert "last_optimizer_state" not in state
    code = (
        "import sys; from fairseq.models.transformer import TransformerModel as T; "
        "print(T.from_pretrained(sys.argv[1], 'model.pt', sys.argv[2]).translate('w1 w2 w3', beam=3))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(exported.parent), str(binarized)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]


@pytest.mark.cli
@pytest.mark.parametrize("beam", [1, 5])
def test_an_export_works_in_ctranslate2(binarized, exported, tmp_path, beam):
    """Converted by its own converter, it translates as fairseq-generate does, word for word."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    converter = ctranslate2.converters.FairseqConverter(str(exported), str(binarized), "en", "de")
    converter.convert(str(tmp_path / "model"))
    arguments = ["--task", "gift_translation", "--gen-subset", "train", "--beam", beam, "--path", exported]
    text = fairseq_generate(tmp_path / "out", binarized, *arguments)
    sources = [line.split() for line in lines_of(text, "S")]
    translator = ctranslate2.Translator(str(tmp_path / "model"), device="cpu", compute_type="float32")
    results = translator.translate_batch(sources, beam_size=beam, max_decoding_length=200)
    translations = [" ".join(result.hypotheses[0]) for result in results]
    assert translations == lines_of(text) and len(set(translations)) > 10


def test_export_of_what_is_no_checkpoint(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"nothing")
    message = error_of("export", tmp_path / "x.pt", tmp_path / "y.pt")
    assert re.search("CHECKPOINT is .*x.pt, which is no whole fairseq checkpoint", message)
    assert not (tmp_path / "y.pt").exists()
