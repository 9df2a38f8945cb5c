"""A fine-tuning begins with the checkpoint's own model, whatever it is; one that would not is refused."""

import pytest
import torch
from conftest import ARCHITECTURES, TRANSFORMER, fairseq_train, recipe, run_tool
from fairseq_cli import preprocess, train

from gift_fairseq.checkpoints.flags import flags_of

UNSHARED = TRANSFORMER  # over a joint dictionary, but fairseq shares nothing unless it is told to
CHECKPOINTS = {
    "separate dictionaries": TRANSFORMER,
    "unshared": UNSHARED,
    "decoder shared": f"{TRANSFORMER} --share-decoder-input-output-embed",
    "all shared": f"{TRANSFORMER} --share-all-embeddings",
    "transformer": TRANSFORMER.replace("transformer_wmt_en_de", "transformer") + " --encoder-learned-pos",
    "transformer_align": f"{ARCHITECTURES['transformer_align']} --share-decoder-input-output-embed",
    "lightconv": f"{ARCHITECTURES['lightconv']} --share-all-embeddings",
    "lstm": f"{ARCHITECTURES['lstm']} --share-all-embeddings",
    "lstm unshared": ARCHITECTURES["lstm"],
    "fconv": ARCHITECTURES["fconv"],
}
TRAINING = (
    "--cpu --num-workers 0 --optimizer adam --lr 1e-2 --max-tokens 200 --max-update 8 --no-epoch-checkpoints "
    "--log-format json --label-smoothing 0.1 --seed 1"
)


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
    """fairseq-train as it is without the plugin; the path of the checkpoint, and its validation loss in bits."""
    log = folder / "plain.log"
    more = "--task translation --criterion label_smoothed_cross_entropy"
    run_tool(train, data, "--save-dir", folder, "--log-file", log, *f"{flags} {more} {TRAINING}".split())
    return folder / "checkpoint_last.pt", valid_loss(log)


def valid_loss(log):
    """Bits a token on the validation set, as logged last."""
    line = [line for line in log.read_text().splitlines() if '"valid_nll_loss"' in line][-1]
    return line.split('"valid_nll_loss": "')[1].split('"')[0]


def assert_same_model(one, other):
    one, other = (torch.load(path)["model"] for path in (one, other))
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.cli
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_fine_tuning_begins_with_the_checkpoints_own_model(binarized, separate, tmp_path, name):
    """At a learning rate of 0 every tensor stays what it was loaded as, and so does the loss on valid."""
    data = separate if name == "separate dictionaries" else binarized
    checkpoint, loss = plain_fairseq(data, tmp_path, CHECKPOINTS[name])
    words = flags_of(str(checkpoint), data)
    fairseq_train(
        data,
        tmp_path / "tuned",
        "--task gift_translation --criterion gift_recurrent --max-update 1 --lr 0",
        *("--finetune-from-model", checkpoint, *words),
    )
    assert_same_model(checkpoint, tmp_path / "tuned" / "checkpoint_last.pt")
    assert valid_loss(tmp_path / "tuned" / "train.log") == loss


@pytest.mark.system
@pytest.mark.parametrize("name", ["separate dictionaries", "lstm unshared"])
def test_the_recipe_adds_no_architecture_flag(binarized, separate, tmp_path, name):
    data = separate if name == "separate dictionaries" else binarized
    checkpoint, loss = plain_fairseq(data, tmp_path, CHECKPOINTS[name])
    arguments = ["--strategy", "generative", "--from", checkpoint, "--data", data, "--out", tmp_path / "runs" / "mine"]
    done = recipe("scripts/finetune.sh", *arguments, "--updates", "1", "--", "--num-workers", "0", "--lr", "0")
    assert done.returncode == 0, done.stderr
    for run in ("mine", "standard"):
        assert_same_model(checkpoint, tmp_path / "runs" / run / "checkpoints" / "checkpoint_last.pt")
        assert valid_loss(tmp_path / "runs" / run / "train.log") == loss


@pytest.mark.cli
@pytest.mark.parametrize(
    "trained, built, sentence",
    [
        # fairseq itself would load the output projection over both tables
        (
            "",
            "--share-all-embeddings",
            "where encoder.embed_tokens.weight, decoder.embed_tokens.weight, decoder.output_projection.weight are "
            "different, but in the model they are one: leave out --share-decoder-input-output-embed "
            "--share-all-embeddings",
        ),
        ("", "--share-decoder-input-output-embed", "are different, but in the model they are one"),
        # and would go on with three matrices where there was one
        (
            "--share-all-embeddings",
            "",
            "in the model each is its own: add --share-decoder-input-output-embed --share-all-embeddings",
        ),
        (
            "--share-decoder-input-output-embed",
            "",
            "where decoder.embed_tokens.weight, decoder.output_projection.weight are one, but in the model each is its "
            "own: add --share-decoder-input-output-embed",
        ),
        (
            "--decoder-normalize-before",
            "",
            "which has decoder.layer_norm.bias, decoder.layer_norm.weight that the model lacks: add "
            "--decoder-normalize-before",
        ),
        (
            "--encoder-ffn-embed-dim 40",
            "",
            "where encoder.layers.0.fc1.weight has the shape (40, 16), but in the model (32, 16): add "
            "--encoder-ffn-embed-dim 40",
        ),
        ("", "--encoder-layers 3", "which lacks encoder.layers.2.fc1.bias"),
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
