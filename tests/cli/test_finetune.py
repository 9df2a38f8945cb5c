"""What all fine-tunings of a comparison share: the learning rate."""

from types import SimpleNamespace

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim import build_optimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler

from gift_fairseq.cli import finetune


def rates(data, updates, flags=()):
    """What fairseq's own scheduler gives to the updates 1, 2, ... of a fine-tuning at a peak of 1, and after them."""
    start = finetune.Start(
        data / "x.pt", data, updates, [*"--arch transformer --lr 1 --max-tokens 100".split(), *flags]
    )
    machine = SimpleNamespace(patience=0, average=0, precision="fp32", seed=1, on_cpu=True, node_rank=0)
    machine.tensorboard = machine.wandb = None
    words = start.training(data / "out", ["standard"], machine).fairseq_words()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words[1:]))
    optimizer = build_optimizer(cfg.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    scheduler = build_lr_scheduler(cfg.lr_scheduler, optimizer)
    return [scheduler.step_update(made) for made in range(updates + 1)]


@pytest.mark.parametrize("updates, warmup", [(136, 20), (100, 20), (60, 12), (5, 1), (4, 0), (1, 0)])
def test_the_rate_rises_to_its_peak_then_falls_to_zero(tmp_path, updates, warmup):
    """Linearly both times, and the last update still moves."""
    expected = [made / warmup for made in range(warmup)]
    expected += [1 - made / (updates - warmup) for made in range(updates - warmup + 1)]
    assert rates(tmp_path, updates) == pytest.approx(expected)
    assert max(expected) == 1 and expected[-2] > 0 == expected[-1]


def test_a_scheduler_after_the_dashes_replaces_it(tmp_path):
    assert set(rates(tmp_path, 30, ["--lr-scheduler=fixed"])) == {1.0}
    assert rates(tmp_path, 30, ["--end-learning-rate", "0.5"])[-1] == 0.5
