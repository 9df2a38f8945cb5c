"""Stopped in the middle of an epoch and resumed equals never stopped."""

import pytest
import torch
from conftest import TRANSFORMER, assert_equal, fairseq_train
from fairseq.logging import metrics

FLAGS = f"{TRANSFORMER} --dropout 0.3 --disable-validation --max-tokens 40"
SAVING = "--save-interval-updates 5 --keep-interval-updates 1"
GROWING = "--consistency-ratio 0.3 --consistency-weight linear:0:1:9"
SHARE = "--generate-ratio 0.3 --mle-weight 0.2"
LOGGED = ("loss", "nll_loss", "replaced", "risk", "candidates", "right_tokens", "anchor", "divergence", "gnorm")
CONTINUED = {
    "generative": "--criterion gift_generative --generate-ratio 0.3",
    "recurrent": "--criterion gift_recurrent --gold-ratio linear:1:0:8 --choose sample",
    "oracle": f"--criterion gift_generative --targets oracle --choose sample {SHARE}",
    "risk": f"--criterion gift_risk {SHARE}",
    "regularised": "--criterion gift_recurrent --anchor l2 --anchor-weight 0.1 --finetune-from-model",
    "consistency": f"--criterion gift_consistency --own-ratio 0.3 {GROWING}",
}


@pytest.mark.cli
@pytest.mark.parametrize("task", ["gift_translation", "translation"])
@pytest.mark.parametrize("strategy", CONTINUED)
def test_resumed_equals_never_stopped(binarized, tmp_path, strategy, task):
    """Weights, the optimizer's state and what every update logs. It stops at update 5; 3 and 6 generate, counted
    afresh they would be 3 and 8. The initial model is that of the file again."""
    flags = f"{FLAGS} {SAVING} --task {task} {CONTINUED[strategy]}"
    if strategy == "regularised":
        fairseq_train(binarized, tmp_path / "start", f"{FLAGS} --criterion gift_standard --max-update 1")
        flags += f" {tmp_path / 'start' / 'checkpoint_last.pt'}"
    lines = {}
    for run, updates in (("whole", 9), ("parts", 5), ("parts", 9)):
        metrics.reset()  # as a new process has it
        lines[run] = fairseq_train(binarized, tmp_path / run, f"{flags} --max-update {updates}")
    final = [torch.load(tmp_path / run / "checkpoint_last.pt") for run in ("whole", "parts")]
    assert final[0]["extra_state"]["train_iterator"]["epoch"] == 1  # it stopped inside an epoch
    for part in ("model", "last_optimizer_state"):
        assert_equal(final[0][part], final[1][part])
    found = [
        {line["num_updates"]: [line.get(key) for key in LOGGED] for line in lines[run] if "update" in line}
        for run in ("whole", "parts")
    ]
    assert len(found[0]) == 9 and found[0] == found[1]
