"""Work in several processes: how far is read ahead, and what happens where one of them, or the parent, is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest

from gift_fairseq.data.workers import in_order, workers
from gift_fairseq.errors import UserError


def test_no_more_is_read_ahead_than_said():
    """An executor's own map would read the whole corpus while the first chunk is worked on."""
    read = []

    def submit(work, item):
        return SimpleNamespace(result=lambda: work(item))

    items = (read.append(number) or number for number in range(100))
    results = in_order(submit, lambda number: number * number, items, ahead=5)
    for number in range(100):
        assert next(results) == number * number
        assert len(read) <= number + 6


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_while_it_answers(_):
    """The length of an answer (256), and no more than its first bytes."""
    Connection.send = lambda self, answer: killed(os.write(self.fileno(), b"\0\0\1\0half"))


@pytest.mark.parametrize("work", [killed, killed_while_it_answers])
def test_a_killed_worker_is_one_sentence(work):
    with pytest.raises(UserError, match="--workers is 2, but one of them has ended early: .* give fewer"):
        with workers(2, int) as submit:
            list(in_order(submit, work, range(9), ahead=4))
    assert not multiprocessing.active_children()


def test_workers_end_with_their_parent():
    """Killed, it can tell them nothing; what waits for its output waits for theirs too."""
    code = "import os, signal, time; from gift_fairseq.data.workers import workers\n"
    code += "with workers(3, int): os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == -signal.SIGKILL
