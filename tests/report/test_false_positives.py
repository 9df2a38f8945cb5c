"""examples/study/false_positives.py: how often a strategy differs from itself, by each test."""

import random

import false_positives
import pytest
from report_runs import hypotheses, log_line, make_data, make_run, references, train_options

from gift_fairseq.errors import UserError

COLUMN = "news.greedy"


def test_over_seeds_of_one_strategy():
    """About 5 % of normally distributed scores."""
    draw = random.Random(3)
    scores = [draw.gauss(30, 0.5) for _ in range(40)]
    assert false_positives.over_seeds(scores, 4000) == pytest.approx(0.05, abs=0.015)
    assert false_positives.over_seeds([30.0] * 10, 50) == 0  # no difference, no claim


def test_the_whole_of_it(tmp_path, capsys):
    """Ten runs, of which one is far worse: it differs from all others over sentences."""
    make_data(tmp_path, references())
    log = log_line(1, 3) + "done training in 3 seconds\n"

    def run(seed, wrong, **what):
        options, texts = train_options(tmp_path, "x", seed=seed, **what), {COLUMN: hypotheses(wrong, "same")}
        return str(make_run(tmp_path, f"run-{seed}", options, log, texts, tmp_path / "data"))

    runs = [run(seed, 0.9 if seed == 1 else 0.3) for seed in range(1, 11)]
    other, faster = run(11, 0.3, criterion="gift_recurrent"), run(12, 0.3, lr=[1e-3])
    false_positives.main([*runs, "--column", COLUMN])
    said = capsys.readouterr().out
    assert f"{COLUMN}, 10 seeds: " in said and "over sentences, all pairs: 20.0% below 0.05" in said  # 9 of 45
    for given, sentence in (
        (runs[1:], "there must be 10 runs or more, each with a seed of its own"),
        ([*runs[1:], runs[1]], "there must be 10 runs or more, each with a seed of its own"),
        ([*runs, other], f"{other} differs from {runs[0]} in more than the seed"),
        ([*runs, faster], f"{faster} differs from {runs[0]} in more than the seed"),
        ([*runs, str(tmp_path)], f"{tmp_path} has no scores of {COLUMN}: not trained"),
    ):
        with pytest.raises(UserError) as refused:
            false_positives.main([*given, "--column", COLUMN])
        assert str(refused.value) == sentence
