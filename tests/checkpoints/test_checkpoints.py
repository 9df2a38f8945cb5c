"""What is made of checkpoints: their mean, an export for other programs, the flags to go on with."""

import argparse
import shutil
import subprocess
import sys
from argparse import Namespace
from collections import OrderedDict
from dataclasses import asdict

import pytest
import torch
from conftest import ARCHITECTURES, TRANSFORMER, error_of, fairseq_generate, fairseq_train, gift, lines_of
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.models.transformer import TransformerConfig

from gift_fairseq.checkpoints import average
from gift_fairseq.checkpoints import flags as finetune_flags
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation.translate import GENERATOR_FLAGS


def saved(path, **tensors):
    torch.save({"model": OrderedDict(tensors), "last_optimizer_state": {"a": 1}, "epoch": path.name}, path)
    return path


def test_average_by_hand(tmp_path):
    one, two = (
        saved(tmp_path / name, w=torch.tensor(w), h=torch.tensor([h]).half(), n=torch.tensor(n))
        for name, w, h, n in (("checkpoint9.pt", [1.0, 2.0], 1.0, 3), ("checkpoint10.pt", [4.0, 0.0], 2.0, 5))
    )
    saved(tmp_path / "checkpoint8.pt", w=torch.tensor([9.0, 9.0]))
    saved(tmp_path / "checkpoint_last.pt", w=torch.tensor([9.0, 9.0]))
    assert average.last_epochs(tmp_path, 2) == [one, two]  # by number, not by name
    gift("average", "--last", 2, "--out", tmp_path / "mean.pt", tmp_path)
    state = torch.load(tmp_path / "mean.pt")
    assert state["model"]["w"].tolist() == [2.5, 1.0] and state["model"]["n"] == 5
    assert state["model"]["h"] == 1.5 and state["model"]["h"].dtype == torch.float16
    assert state["epoch"] == "checkpoint10.pt" and state["last_optimizer_state"] is None
    other = saved(tmp_path / "other.pt", w=torch.zeros(2), h=torch.zeros(1), n=torch.tensor(1), more=torch.zeros(1))
    for paths in ([one, other], [other, one]):
        with pytest.raises(UserError, match=f"CHECKPOINT is {paths[0]}, but {paths[1]} differs in more: all must have"):
            average.average(paths)
    with pytest.raises(UserError, match="differs in w: all must have the same tensors"):
        average.average([saved(other, w=torch.zeros(3), h=torch.zeros(1), n=torch.tensor(1)), one])
    with pytest.raises(UserError, match="has no checkpoint of an epoch"):
        average.last_epochs(tmp_path / "nowhere", 2)
    assert "but with --last it must be one folder" in error_of("average", "--last", 2, "--out", tmp_path / "x.pt", one)
    gift("average", "--out", tmp_path / "both.pt", one, two)
    assert torch.load(tmp_path / "both.pt")["model"]["w"].tolist() == [2.5, 1.0]
    before = two.read_bytes()
    assert f"--out is {two}, which is one of the checkpoints" in error_of("average", "--out", two, one, two)
    assert two.read_bytes() == before


@pytest.mark.parametrize(
    "updates, number, kept",
    [(12, 3, [8, 10, 12]), (136, 4, [85, 102, 119, 136]), (7, 2, [6, 7]), (3, 8, [2, 3]), (9, 1, [9]), (9, 0, [])],
)
def test_the_second_half_by_hand(updates, number, kept):
    assert average.second_half(updates, number) == kept


@pytest.mark.cli
def test_snapshots_are_the_models_after_their_updates(binarized, tmp_path):
    """Those of fairseq's own checkpoints after 6 and 7 updates, one of them an epoch's last, of two micro-batches each;
    none of the first half."""
    flags = f"{TRANSFORMER} --task gift_translation --criterion gift_standard --disable-validation --update-freq 2"
    fairseq_train(binarized, tmp_path / "run", f"{flags} --max-update 8 --snapshots 3")
    assert [path.name for path in average.snapshots(tmp_path / "run")] == ["snapshot_6.pt", "snapshot_7.pt"]
    places = []
    for updates in (6, 7):
        fairseq_train(binarized, tmp_path / f"own{updates}", f"{flags} --max-update {updates}")
        one, other = (
            torch.load(tmp_path / n) for n in (f"run/snapshot_{updates}.pt", f"own{updates}/checkpoint_last.pt")
        )
        assert all(torch.equal(one["model"][name], tensor) for name, tensor in other["model"].items())
        places.append(other["extra_state"]["train_iterator"]["iterations_in_epoch"])
    assert 0 in places


@pytest.mark.cli
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flags_are_those_of_the_training(binarized, tmp_path, architecture):
    """Also options that are not the architecture's defaults; and the settings of the training, at 0.3 of its rate."""
    more = "--dropout 0.25 --label-smoothing 0.2 --update-freq 5,3 --batch-size 7 --adam-betas (0.8,0.9) "
    more += "--clip-norm 2.5"
    if "transformer" in architecture:
        more += " --share-all-embeddings --decoder-normalize-before --activation-fn gelu --no-scale-embedding"
    fairseq_train(
        binarized,
        tmp_path,
        f"{ARCHITECTURES[architecture]} --task translation --criterion gift_recurrent --max-update 1 "
        f"--disable-validation {more}",
    )
    words = finetune_flags.flags_of(str(tmp_path / "checkpoint_last.pt"), binarized)
    arguments = [str(binarized), *"--task gift_translation --criterion gift_standard --optimizer adam".split(), *words]
    args = options.parse_args_and_arch(options.get_training_parser(), input_args=arguments)
    cfg = convert_namespace_to_omegaconf(args)
    state = torch.load(tmp_path / "checkpoint_last.pt")
    before = vars(state["cfg"]["model"])
    own = argparse.ArgumentParser()
    ARCH_MODEL_REGISTRY[args.arch].add_args(own)
    names = [action.dest for action in own._actions if before.get(action.dest) is not None]
    assert {name: getattr(args, name) for name in names} == {name: before[name] for name in names}, words
    assert (cfg.criterion.label_smoothing, list(cfg.optimization.update_freq)) == (0.2, [3])
    assert (list(cfg.optimization.lr), cfg.optimization.clip_norm) == ([3e-4], 2.5)
    assert (cfg.dataset.max_tokens, cfg.dataset.batch_size) == (200, 7)
    assert cfg.optimizer.adam_betas == "(0.8,0.9)"


def test_flags_of_a_checkpoint_of_fairseq_hydra_train(binarized, checkpoint, tmp_path):
    """It keeps the model's options in groups; the flags mean the same as where they are not."""
    state = torch.load(checkpoint)
    flat = state["cfg"]["model"]
    grouped = asdict(TransformerConfig.from_namespace(flat))
    assert grouped["encoder"]["embed_dim"] == 16 and "encoder_embed_dim" not in grouped
    state["cfg"]["model"] = {**grouped, "_name": "transformer"}
    torch.save(state, tmp_path / "hydra.pt")
    state["cfg"]["model"] = Namespace(**{**vars(flat), "arch": "transformer", "_name": "transformer"})
    torch.save(state, tmp_path / "flat.pt")
    given = [str(binarized), *"--task gift_translation --criterion gift_standard --optimizer adam".split()]
    hydra, plain = (
        options.parse_args_and_arch(
            options.get_training_parser(),
            input_args=[*given, *finetune_flags.flags_of(str(tmp_path / f"{name}.pt"), binarized)],
        )
        for name in ("hydra", "flat")
    )
    assert plain.encoder_embed_dim == 16 and plain.decoder_attention_heads == 2
    assert {name: value for name, value in vars(hydra).items() if name in vars(plain)} == vars(plain)


def test_a_rate_of_another_optimizer_means_nothing_to_adam(binarized, checkpoint, tmp_path):
    state = torch.load(checkpoint)
    state["cfg"]["optimizer"]["_name"] = "nag"
    torch.save(state, tmp_path / "nag.pt")
    with pytest.raises(UserError, match="which nag trained, but fine-tuning is by Adam, .* give --lr, for instance"):
        finetune_flags.flags_of(str(tmp_path / "nag.pt"), binarized)
    assert "--lr" not in finetune_flags.flags_of(str(tmp_path / "nag.pt"), binarized, rate_is_given=True)


@pytest.fixture(scope="module")
def checkpoint(binarized, tmp_path_factory):
    """A model trained by the plugin until it has learned something."""
    folder = tmp_path_factory.mktemp("run with a blank")
    flags = f"{TRANSFORMER} --share-all-embeddings --task gift_translation --criterion gift_recurrent --gold-ratio 0.5"
    fairseq_train(binarized, folder, f"{flags} --max-update 200 --lr 1e-2 --disable-validation")
    return folder / "checkpoint_last.pt"


@pytest.mark.parametrize(
    "words, sentence",
    [
        (slice(None, None, -1), "was trained with .*dict.en.txt, but .*dict.en.txt has other words or another order"),
        (slice(1, None), "whose encoder has a vocabulary of"),
    ],
)
def test_flags_for_data_that_does_not_fit(binarized, checkpoint, tmp_path, words, sentence):
    lines = (binarized / "dict.en.txt").read_text().splitlines(keepends=True)[words]
    for name in ("dict.en.txt", "dict.de.txt", "train.en-de.en.idx"):
        (tmp_path / name).write_text("".join(lines))
    with pytest.raises(UserError, match=sentence):
        finetune_flags.flags_of(str(checkpoint), tmp_path)
    with pytest.raises(UserError, match="--data is .*nowhere, but that is no data folder"):
        finetune_flags.flags_of(str(checkpoint), tmp_path / "nowhere")
    with pytest.raises(UserError, match="--from is nowhere.pt, but there is no such file"):
        finetune_flags.flags_of("nowhere.pt", tmp_path)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "deep er" / "model.pt"
    gift("export", checkpoint, path)
    return path


def test_an_export_does_not_replace_its_checkpoint(checkpoint, tmp_path):
    one, other = tmp_path / "model.pt", tmp_path / ".." / tmp_path.name / "model.pt"
    shutil.copy(checkpoint, one)
    assert f"OUT is {other}, which is CHECKPOINT" in error_of("export", one, other)
    assert one.read_bytes() == checkpoint.read_bytes()


def elsewhere(code, *arguments):
    """What ``code`` prints in a process that never heard of the plugin."""
    words = ["-Wignore", "-c", f"import sys; {code}; assert 'gift_fairseq' not in sys.modules", *map(str, arguments)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.cli
def test_an_export_works_in_plain_fairseq(binarized, checkpoint, exported, tmp_path):
    """Translates the same, is fine-tuned on, loads with from_pretrained; nothing of the training's machine is in it."""
    before = fairseq_generate(tmp_path, binarized, "--beam", 3, "--path", checkpoint, "--task", "gift_translation")
    command = "from fairseq_cli import {0}; {0}.cli_main()"
    words = [binarized, "--beam", 3, "--cpu", *GENERATOR_FLAGS.split(), "--path", exported]
    after = elsewhere(command.format("generate"), *words)
    assert lines_of(after) == lines_of(before)
    elsewhere(
        command.format("train"),
        *(binarized, "--finetune-from-model", exported, "--save-dir", tmp_path / "on", "--cpu", "--num-workers", "0"),
        *f"{TRANSFORMER} --share-all-embeddings --optimizer adam --max-tokens 200 --max-update 1".split(),
    )
    state = torch.load(exported, weights_only=True)
    assert "gift" not in str(state["cfg"]) and str(binarized) not in str(state["cfg"])
    assert "last_optimizer_state" not in state
    code = "from fairseq.models.transformer import TransformerModel as T; "
    code += "print(T.from_pretrained(sys.argv[1], 'model.pt', sys.argv[2]).translate('w1 w2 w3', beam=3))"
    assert elsewhere(code, exported.parent, binarized).strip()


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
