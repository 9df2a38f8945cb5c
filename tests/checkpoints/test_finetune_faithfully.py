"""A fine-tuning begins with the checkpoint's own model, whatever it is; one that would not is refused."""

import pytest
import torch
from conftest import ARCHITECTURES, TRANSFORMER, assert_equal, fairseq_train, run_tool
from fairseq_cli import preprocess

from gift_fairseq.checkpoints import flags as finetune_flags
from gift_fairseq.checkpoints.flags import flags_of

CHECKPOINTS = {
    "separate dictionaries": TRANSFORMER,
    "unshared": TRANSFORMER,  # over a joint dictionary, but fairseq shares nothing unless it is told to
    "decoder shared": f"{TRANSFORMER} --share-decoder-input-output-embed",
    "all shared": f"{TRANSFORMER} --share-all-embeddings",
    "transformer": TRANSFORMER.replace("transformer_wmt_en_de", "transformer") + " --encoder-learned-pos",
    "transformer_align": f"{ARCHITECTURES['transformer_align']} --share-decoder-input-output-embed",
    "lightconv": f"{ARCHITECTURES['lightconv']} --share-all-embeddings",
    "lstm": f"{ARCHITECTURES['lstm']} --share-all-embeddings",
    "lstm unshared": ARCHITECTURES["lstm"],
    "fconv": ARCHITECTURES["fconv"],
}
PLAIN = "--task translation --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --lr 1e-2 --max-update 8"


@pytest.fixture(scope="module")
def separate(binarized, tmp_path_factory):
    """The corpus of ``binarized`` with a dictionary for each language."""
    folder, raw = tmp_path_factory.mktemp("separate"), binarized.parent
    run_tool(
        preprocess,
        *("-s", "en", "-t", "de", "--workers", "1", "--destdir", folder),
        *("--trainpref", raw / "train", "--validpref", raw / "valid"),
    )
    return folder


def plain_fairseq(data, folder, flags):
    """fairseq's own task and criterion; the path of the checkpoint, and its validation loss in bits."""
    lines = fairseq_train(data, folder, f"{flags} {PLAIN}")
    return folder / "checkpoint_last.pt", validated(lines)["valid_nll_loss"]


def validated(lines):
    """What the last validation logged."""
    return [line for line in lines if "valid_nll_loss" in line][-1]


@pytest.mark.cli
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_fine_tuning_begins_with_the_checkpoints_own_model(binarized, separate, tmp_path, name):
    """At a learning rate of 0 every tensor stays what it was loaded as, and so does the loss on valid."""
    data = separate if name == "separate dictionaries" else binarized
    checkpoint, loss = plain_fairseq(data, tmp_path, CHECKPOINTS[name])
    words = ["--finetune-from-model", checkpoint, *flags_of(str(checkpoint), data)]
    flags = "--criterion gift_generative --generate-ratio 1 --eval-free-running --max-update 1 --lr 0"
    lines = fairseq_train(data, tmp_path / "tuned", f"--task gift_translation {flags}", *words)
    models = (torch.load(path)["model"] for path in (checkpoint, tmp_path / "tuned" / "checkpoint_last.pt"))
    assert_equal(*models, equal_nan=True)  # a dynamic convolution keeps a bias that nothing sets or reads: any bytes
    assert validated(lines)["valid_nll_loss"] == loss and "valid_free_running_accuracy" in validated(lines)
    assert lines[0]["replaced"] > 50


@pytest.mark.cli
@pytest.mark.parametrize(
    "trained, built, sentence",
    [
        # fairseq itself would load the output projection over both tables, and go on with three matrices for one
        ("", "--share-all-embeddings", "are different, but in the model they are one: leave out --share-decoder-input"),
        ("--share-all-embeddings", "", "one, but in the model each is its own: add --share-decoder-input-output-embed"),
        ("--share-decoder-input-output-embed", "", "decoder.output_projection.weight are one, but in the model each"),
        ("--decoder-normalize-before", "", "decoder.layer_norm.weight that the model lacks: add --decoder"),
        ("--encoder-ffn-embed-dim 40", "", "the shape (40, 16), but in the model (32, 16): add --encoder"),
        ("", "--encoder-layers 3", "which lacks encoder.layers.2.fc1.bias"),
        # no tensor shows these
        ("", "--decoder-attention-heads 4", "decoder_attention_heads is 2, but in the model 4: add --decoder-att"),
        ("--activation-fn gelu", "", "activation_fn is gelu, but in the model relu: add --activation-fn gelu"),
        ("--no-scale-embedding", "", "no_scale_embedding is True, but in the model False: add --no-scale-embedding"),
    ],
)
def test_a_model_that_is_not_the_checkpoints_is_refused(binarized, tmp_path, trained, built, sentence):
    """With plain fairseq-train, as README shows it; nothing is left behind but the log."""
    checkpoint, _ = plain_fairseq(binarized, tmp_path, f"{TRANSFORMER} {trained}")
    with pytest.raises(SystemExit) as stopped:
        fairseq_train(
            binarized,
            tmp_path / "tuned",
            f"{TRANSFORMER} {built} --task gift_translation --criterion gift_standard --max-update 1",
            *("--finetune-from-model", checkpoint),
        )
    message = str(stopped.value)
    assert message.startswith(f"gift_fairseq: error: --finetune-from-model is {checkpoint}, ") and sentence in message
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {"train.log"}


@pytest.mark.cli
def test_a_run_goes_on_although_its_model_has_left_the_checkpoint(binarized, tmp_path):
    """What is compared is the model's form, not the run's own newest weights; other dropout is no other model."""
    checkpoint, _ = plain_fairseq(binarized, tmp_path, CHECKPOINTS["all shared"])
    flags = f"{CHECKPOINTS['all shared']} --task gift_translation --criterion gift_standard --dropout 0.3"
    for updates in (2, 4):
        fairseq_train(
            binarized, tmp_path / "tuned", f"{flags} --max-update {updates}", "--finetune-from-model", checkpoint
        )
    state = torch.load(tmp_path / "tuned" / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == 4


def test_equal_vectors_are_not_one_matrix():
    """fairseq's dynamic convolutions keep biases that they neither set nor read: (1, 1, C) of what was in memory."""
    vector, matrix = torch.randn(1, 1, 8), torch.randn(1, 3, 8)
    saved = {"a": vector, "b": vector.clone(), "c": matrix, "d": matrix.clone()}
    own = {name: torch.zeros_like(tensor) for name, tensor in saved.items()}
    assert list(finetune_flags._misfits(saved, own)) == ["where c, d are one, but in the model each is its own"]
