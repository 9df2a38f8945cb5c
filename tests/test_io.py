"""Progress: a bar with the time left at a terminal, one line a stage elsewhere."""

import io
import json
import sys
import time

import pytest
from conftest import TRANSFORMER, pair_dataset, sentences

from gift_fairseq.evaluation.translate import batches
from gift_fairseq.io import say
from gift_fairseq.training.launch import Machine, Training


class Terminal(io.StringIO):
    def isatty(self):
        return True


STREAMS = pytest.mark.parametrize("stream", [Terminal, io.StringIO])


def stderr_of(stream, monkeypatch):
    """In the test itself: pytest puts its own there after the fixtures."""
    monkeypatch.setattr("gift_fairseq.io.DELAY", 0)
    monkeypatch.setattr(sys, "stderr", stream())
    return sys.stderr


def bars(stream):
    """What a bar showed, one after the other; none where there is no terminal."""
    shown = [bar.strip() for bar in stream.getvalue().split("\r") if "%|" in bar]
    assert bool(shown) == stream.isatty() and (stream.isatty() or "\r" not in stream.getvalue())
    return shown


@STREAMS
def test_batches_show_how_far_they_are(build, stream, monkeypatch):
    stream = stderr_of(stream, monkeypatch)
    built = build(f"{TRANSFORMER} --criterion gift_standard")
    dataset = pair_dataset(built.task.target_dictionary, *zip(*sentences([(5, 5)] * 8)))
    for number, _ in enumerate(batches(built.task, dataset, 10, False, what="reading")):
        say(f"batch {number}")
    assert [line[-7:] for line in stream.getvalue().split("\n")[:-1]] == [f"batch {number}" for number in range(4)]
    assert all(bar.startswith("reading:") and "/8 [" in bar for bar in bars(stream))


@STREAMS
def test_training_shows_the_time_left_and_where_it_went_on(tmp_path, stream, monkeypatch):
    """Of 100 updates 40 were made before, half of the others now; what is no line of an update changes nothing."""
    stream = stderr_of(stream, monkeypatch)
    machine = Machine(0, 0, "fp32", 1, 1, True, 1, 0, None, False, None)
    log = [json.dumps({"epoch": 1, "nll_loss": "7.5", "num_updates": str(n)}) for n in (40, 70)]
    lines = [f"INFO | train_inner | {line}" for line in (log[0], '{"epoch": 1', log[1])] + [f"INFO | train | {log[0]}"]
    paced = (line for line in lines if not time.sleep(0.11))  # a bar is drawn ten times a second
    Training("train", tmp_path, tmp_path / "mine", 100, [], machine)._follow(paced)
    shown = bars(stream)
    if shown:
        assert "mine:  40%" in shown[0] and "mine:  70%" in shown[-1] and "70/100 [" in shown[-1]
        assert shown[-1].endswith("7.5 bits a token]") and "?" not in shown[-1]
