"""What a training starts ends with it."""

import subprocess
import sys

import pytest

from gift_fairseq.training.launch import ended_with_block


def test_what_ends_the_block_ends_the_process():
    with pytest.raises(ZeroDivisionError):
        with ended_with_block(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])) as process:
            1 / 0  # noqa: B018
    assert process.returncode == -15
