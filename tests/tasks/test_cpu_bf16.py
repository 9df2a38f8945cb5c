"""--cpu-bf16: the training pass in autocast, the rest as before."""

import pytest
import torch
from conftest import STRATEGIES, TRANSFORMER, batch_of, make


class Step:
    """fairseq's optimizer, as far as a training step calls it."""

    def backward(self, loss):
        loss.backward()


@pytest.mark.parametrize("strategy", ["standard", "generative"])
def test_trains_as_in_float32_to_the_precision_of_bfloat16(dictionaries, strategy):
    found, types = {}, {}
    for flags in ("", "--cpu-bf16"):
        built = make(dictionaries, f"{TRANSFORMER} {STRATEGIES[strategy]} {flags}", dtype=torch.float32)
        seen = []
        built.model.decoder.layers[0].fc1.register_forward_hook(lambda *hooked, seen=seen: seen.append(hooked[2].dtype))
        loss, *_ = built.task.train_step(batch_of(built), built.model, built.criterion, Step(), 9)
        assert all(one.dtype == one.grad.dtype == torch.float32 for one in built.model.parameters())
        types[flags] = seen[-1]
        found[flags] = loss.item(), [one.grad for one in built.model.parameters()]
    assert types == {"": torch.float32, "--cpu-bf16": torch.bfloat16}
    (loss, gradient), (other, others) = found.values()
    assert 0 < abs(loss - other) < 0.01 * loss
    norm = torch.cat([one.flatten() for one in gradient]).norm()
    assert torch.cat([(a - b).flatten() for a, b in zip(gradient, others)]).norm() < 0.05 * norm


def test_refused_where_the_batch_is_elsewhere(dictionaries):
    built = make(dictionaries, f"{TRANSFORMER} {STRATEGIES['standard']} --cpu-bf16", dtype=torch.float32)
    sample = {"target": torch.empty(1, 1, dtype=torch.long, device="meta")}
    with pytest.raises(SystemExit, match="--cpu-bf16 is given, but the model trains on a GPU: add --cpu"):
        built.task.train_step(sample, built.model, built.criterion, Step(), 0)
