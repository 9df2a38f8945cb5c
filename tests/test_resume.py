"""Stopped in the middle of an epoch and resumed equals never stopped."""

import pytest
import torch
from conftest import TRANSFORMER, fairseq_train

FLAGS = f"{TRANSFORMER} --dropout 0.3 --disable-validation --max-tokens 40"
SAVING = "--save-interval-updates 5 --keep-interval-updates 1"
STRATEGIES = {
    "generative": "--criterion gift_generative --generate-ratio 0.3",
    "recurrent": "--criterion gift_recurrent --gold-ratio 0.5 --choose sample",
}


@pytest.mark.cli
@pytest.mark.parametrize("task", ["gift_translation", "translation"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resumed_equals_never_stopped(binarized, tmp_path, strategy, task):
    flags = f"{FLAGS} {SAVING} {STRATEGIES[strategy]} --task {task}"
    fairseq_train(binarized, tmp_path / "whole", f"{flags} --max-update 9")
    fairseq_train(binarized, tmp_path / "parts", f"{flags} --max-update 5")
    fairseq_train(binarized, tmp_path / "parts", f"{flags} --max-update 9")
    final = [torch.load(tmp_path / run / "checkpoint_last.pt") for run in ("whole", "parts")]
    # it stopped inside the first epoch; of updates 0 to 8, 3 and 6 generate, counted afresh they would be 3 and 8
    assert final[0]["extra_state"]["train_iterator"]["epoch"] == 1  # it stopped inside an epoch
    for name, weights in final[0]["model"].items():
        assert torch.equal(weights, final[1]["model"][name]), name
