"""Through fairseq's own commands: every criterion with both tasks, both searches, hydra."""

import io
import sys

import pytest
import torch
from conftest import PLUGIN, STRATEGIES, TRANSFORMER, fairseq_train, run_tool
from fairseq_cli import generate, interactive

from gift_fairseq.evaluation.translate import GENERATOR_FLAGS

pytestmark = pytest.mark.cli


@pytest.fixture(scope="module")
def baseline(binarized, tmp_path_factory):
    """A checkpoint that fairseq trained without the plugin's criterions and task."""
    folder = tmp_path_factory.mktemp("baseline")
    fairseq_train(
        binarized,
        folder,
        f"{TRANSFORMER} --task translation --criterion label_smoothed_cross_entropy --max-update 2 "
        "--disable-validation",
    )
    return folder / "checkpoint_last.pt"


@pytest.mark.parametrize("task", ["gift_translation", "translation"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fine_tuning_from_a_plain_checkpoint(binarized, baseline, tmp_path, caplog, strategy, task):
    """What comes out is an ordinary checkpoint: same architecture, same parameters by name, others by value."""
    lines = fairseq_train(
        binarized,
        tmp_path,
        f"{TRANSFORMER} --task {task} {STRATEGIES[strategy]} --max-update 2",
        "--finetune-from-model",
        baseline,
    )
    before, after = torch.load(baseline)["model"], torch.load(tmp_path / "checkpoint_last.pt")["model"]
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    shares = [line["replaced"] for line in lines if "replaced" in line]
    plain = strategy in ("standard", "auxiliary", "weighted")
    least = 0 if strategy == "best" else 50  # gold where no hypothesis is near enough
    assert all(share == 0 if plain else share > least for share in shares) and shares
    counted = "updates are counted by the criterion" in caplog.text
    assert counted == (not plain and task == "translation")


@pytest.mark.parametrize("task", ["gift_translation", "translation"])
def test_bf16_is_not_for_a_tpu_alone(binarized, tmp_path, task):
    fairseq_train(binarized, tmp_path, f"{TRANSFORMER} --task {task} {STRATEGIES['generative']} --bf16 --max-update 2")
    weights = torch.load(tmp_path / "checkpoint_last.pt")["model"].values()
    assert all(torch.equal(weight, weight.bfloat16().float()) and weight.isfinite().all() for weight in weights)


def test_hydra_train(binarized, tmp_path, monkeypatch):
    from fairseq_cli import hydra_train

    monkeypatch.chdir(tmp_path)
    run_tool(
        hydra_train,
        *("task=gift_translation", f"task.data='{binarized}'", "task.source_lang=en", "task.target_lang=de"),
        *("criterion=gift_recurrent", "criterion.gold_ratio=0.5", "criterion.label_smoothing=0.1"),
        *("+model._name=transformer_wmt_en_de", "+model.encoder_layers=1", "+model.decoder_layers=1"),
        *("+model.encoder_embed_dim=16", "+model.decoder_embed_dim=16", "+model.decoder_attention_heads=2"),
        *("+model.encoder_attention_heads=2", "+model.encoder_ffn_embed_dim=32"),
        *("optimizer=adam", "optimization.lr=[0.001]", "lr_scheduler=fixed", "optimization.max_update=2"),
        *("dataset.max_tokens=200", "dataset.num_workers=0", "common.cpu=true", f"common.user_dir={PLUGIN}"),
        *(f"checkpoint.save_dir='{tmp_path / 'checkpoints'}'", "checkpoint.no_epoch_checkpoints=true"),
    )
    state = torch.load(tmp_path / "checkpoints" / "checkpoint_last.pt")
    assert state["cfg"]["criterion"]["gold_ratio"] == "0.5"  # a text: it may be a schedule


def hypotheses(text):
    return [line for line in text.splitlines() if line.startswith("H-")]


@pytest.mark.parametrize("task", ["gift_translation", "translation"])
def test_generate_by_beam_and_greedy(binarized, baseline, capsys, task):
    """Every sentence: fairseq's default batches of a multiple of 8 leave out those that remain."""
    found = {}
    for beam in (5, 1):
        run_tool(
            generate,
            *(binarized, "--user-dir", PLUGIN, "--task", task, "--path", baseline, "--cpu"),
            *f"--gen-subset valid --beam {beam} {GENERATOR_FLAGS} --max-tokens 60".split(),
        )
        found[beam] = hypotheses(capsys.readouterr().out)
    assert len(found[5]) == len(found[1]) == 11


def test_interactive(binarized, baseline, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("w1 w2 w3\nw4\n"))
    run_tool(
        interactive,
        *(binarized, "--user-dir", PLUGIN, "--task", "gift_translation", "--path", baseline, "--cpu"),
        *"--source-lang en --target-lang de --beam 1".split(),
    )
    assert len(hypotheses(capsys.readouterr().out)) == 2
