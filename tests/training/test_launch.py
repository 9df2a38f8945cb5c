"""How many processes a training starts, and that what it starts ends with it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import MACHINE
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed.utils import infer_init_method

import gift_fairseq.criterions  # noqa: F401  registers
from gift_fairseq.tasks import gift_translation  # noqa: F401  registers
from gift_fairseq.training.launch import Training, ended_with_block


def test_one_process_is_one_whatever_the_machine_has(monkeypatch):
    """fairseq's own default is a process for every GPU that it sees."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    words = "--criterion gift_standard --arch transformer --max-tokens 100".split()
    words = Training("train", Path("data"), Path("out"), 5, words, replace(MACHINE, on_cpu=False)).launched_words()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words[1:]))
    infer_init_method(cfg.distributed_training)
    assert cfg.distributed_training.distributed_world_size == 1
    assert cfg.distributed_training.distributed_init_method is None


def test_what_ends_the_block_ends_the_process():
    with pytest.raises(ZeroDivisionError):
        with ended_with_block(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])) as process:
            1 / 0  # noqa: B018
    assert process.returncode == -15
