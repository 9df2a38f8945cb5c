"""Differences of systems: paired by seed, corrected, over all test sets and on each; a baseline not converged."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from gift_fairseq.evaluation.significance import Comparison
from gift_fairseq.report import comparisons, systems, table


def system(name, seeds, criterion="gift_recurrent", same_time_as="", **bleus):
    """A system whose runs have the scores ``bleus``, by column, a list of one for each seed; chrF2 is twice as much."""
    role = "baseline" if name == "baseline" else "same-time control" if same_time_as else ""
    role = role or ("control" if criterion == "gift_standard" else "")
    found = []
    for index, seed in enumerate(seeds):
        scores = {
            c.replace("_", ".", 1).replace("_", "-"): SimpleNamespace(bleu=b[index], chrf=2 * b[index])
            for c, b in bleus.items()
        }
        same = {"rest": {}, "of_control": {}, "options": {"max_update": 9}}
        run = SimpleNamespace(seed=seed, criterion=criterion, scores=scores, **same)
        run.name, run.same_time_as = f"{name}-{seed}", f"{same_time_as}-{seed}" if same_time_as else ""
        run.role = role
        run.started_from = "" if name == "baseline" else "baseline/checkpoints/x.pt"
        run.folder = Path(f"{name}-{seed}")
        found.append(run)
    return systems.System(name, found)


def test_claims_by_hand():
    """Paired by seed, the mean over test sets first; Holm over the strategies; another search and metric apart."""
    made = [
        system("baseline", [1], a_beam5=[10.0], b_beam5=[20.0], a_greedy=[9.0], b_greedy=[19.0]),
        system("standard", [1, 2, 3], "gift_standard", a_beam5=[10, 12, 14], b_beam5=[20, 20, 26]),
        system("one", [3, 1, 2], a_beam5=[15, 12, 12], b_beam5=[28, 21, 22]),  # +1.5, +1.5, +1
        system("two", [1, 2, 3], a_beam5=[12, 10, 15], b_beam5=[20, 24, 26]),  # +1, +1, +0.5
        system("longer", [1, 2], "gift_standard", "one", a_beam5=[12, 14], b_beam5=[22, 26]),
        system("new", [1], a_beam5=[20], b_beam5=[30], a_greedy=[10], b_greedy=[20]),
        system("part", [1, 2], a_beam5=[20, 30]),  # not scored on b
    ]
    every = [run for one in made for run in one.runs]
    claims = comparisons.claims(made, every, ["a.beam5", "b.beam5", "a.greedy", "b.greedy"])
    found = {(c.system, c.search, c.metric): c for c in claims if c.against == "control" and not c.testset}
    assert [key[0] for key in found if key[1:] == ("beam5", "bleu")] == ["one", "two", "new"]
    assert ("new", "greedy", "bleu") not in found  # there is no control
    one, two = found["one", "beam5", "bleu"], found["two", "beam5", "bleu"]
    # sd 1/sqrt(12), standard error 1/6; t = 8 and 5, of two degrees of freedom: p = 1 - t / sqrt(2 + t^2)
    assert (one.seeds.difference, two.seeds.difference) == pytest.approx((4 / 3, 5 / 6))
    assert one.seeds.half_width == two.seeds.half_width == pytest.approx(4.302653 / 6)
    ps = 1 - 8 / math.sqrt(66), 1 - 5 / math.sqrt(27)
    assert (one.seeds.p, two.seeds.p) == pytest.approx(ps) and ps[0] < 0.025 < ps[1] < 0.05
    assert (one.p_holm, two.p_holm) == pytest.approx((2 * ps[0], ps[1])) and one.significant and two.significant
    assert found["one", "beam5", "chrf"].seeds.difference == pytest.approx(8 / 3)
    assert found["one", "beam5", "chrf"].p_holm == pytest.approx(2 * ps[0])
    cells = [table.claim_cell(found[name, "beam5", "bleu"]).text for name in ("one", "two", "new")]
    assert cells == ["+1.3 ± 0.7 *", "+0.8 ± 0.7 *", "+10.0 (one seed)"]
    on_each = {(c.system, c.testset): c for c in claims if (c.search, c.metric) == ("beam5", "bleu") and c.testset}
    assert list(on_each) == [(name, testset) for name in ("one", "two", "new") for testset in ("a", "b")]
    one = on_each["one", "b"]  # +1, +2, +2: t = 5 of two degrees of freedom, and nothing is corrected
    assert one.seeds.difference == pytest.approx(5 / 3) and one.seeds.p == pytest.approx(ps[1]) and one.p_holm is None
    shown = table.each_test_set(claims).rows
    assert [cell.text for cell in shown[1]] == ["one", "b", "beam 5", "BLEU", "3", "+1.67", "1.43", "0.0377"]
    assert len(shown) == 12 == 2 * len(on_each) and len(table.over_seeds(claims).rows) == len(claims) - 12
    (longer,) = [c for c in claims if (c.against, c.metric) == ("same-time control", "bleu")]
    assert (longer.system, longer.seeds.seeds, longer.seeds.difference) == ("one", 2, -1.75)  # -0.5 and -3
    control = next(c for c in claims if c.system == "standard")
    assert control.against == "baseline" and control.p_holm == control.seeds.p


def test_the_averaged_are_compared_with_the_averaged_control_and_the_plain_baseline():
    made = [system("baseline", [1], a_beam5=[10.0])]
    made.append(system("standard", [1, 2], "gift_standard", a_beam5=[11, 11], a_beam5_average=[12, 13]))
    made.append(system("one", [1, 2], a_beam5=[20, 20], a_beam5_average=[14, 16]))
    claims = comparisons.claims(made, [run for s in made for run in s.runs], ["a.beam5", "a.beam5-average"])
    found = {
        (c.system, c.against): c.seeds.difference for c in claims if (c.search, c.metric) == ("beam5-average", "bleu")
    }
    assert found == {("one", "control"): 2.5, ("standard", "baseline"): 2.5, ("one", "baseline"): 5.0}
    assert table.column_title("a.beam5-average") == "a, beam 5, averaged"


@pytest.mark.parametrize(
    "seeds, p, warned", [([11, 11.1, 11.2], 1, "beam5 +1.1, p = 0.0027"), ([9, 9.1, 9.2], 1, ""), ([9, 13, 11], 1, ""),
                         ([11], 0.02, "a.beam5 +1.0, p = 0.04"), ([11], 0.03, ""), ([9], 0.001, "")],
)  # fmt: skip
def test_a_control_that_beats_the_baseline_is_warned_of(seeds, p, warned):
    """Over seeds; with one seed over sentences, here with a second test of p = 1 beside it, so that Holm doubles p."""
    made = [system("baseline", [1], a_beam5=[10.0])]
    made.append(system("standard", range(len(seeds)), "gift_standard", a_beam5=seeds))
    said = comparisons.claims(made, [run for one in made for run in one.runs], ["a.beam5"])
    tests = {"a.beam5": {"baseline": Comparison(seeds[0] - 10, p)}, "b.beam5": {"baseline": Comparison(0.1, 1.0)}}
    row = SimpleNamespace(name="standard", criterion="gift_standard", runs=[SimpleNamespace(tests=tests)])
    found = comparisons.unconverged([row], said)
    assert bool(found) == bool(warned) and all(f"(BLEU, {warned})" in line for line in found)


def measured(name, updates=9, started_from="x.pt", exposure=(), **scores):
    """A run that made ``updates``; ``scores`` and ``exposure`` are the checkpoints' names and updates."""
    scores = {c.replace("_", "."): SimpleNamespace(checkpoint=file, updates=n) for c, (file, n) in scores.items()}
    exposure = {"a": {"checkpoint": f"checkpoints/{exposure[0]}", "updates": exposure[1]}} if exposure else {}
    log, folder = SimpleNamespace(updates=updates), Path(name)
    return SimpleNamespace(
        name=name, started_from=started_from, log=log, folder=folder, scores=scores, exposure=exposure
    )


LAST, BEST = "checkpoint_last.pt", "checkpoint_best.pt"


def test_unlike_checkpoints_are_warned_of():
    """Of fine-tunings; the baseline's is the one they started from; an earlier version does not say which it was."""
    alike = [
        measured("baseline", started_from="", a_beam5=(BEST, 5), exposure=(BEST, 5)),
        measured("old", a_beam5=(None, None)),
        measured("standard", a_beam5=(LAST, 9), b_beam5=(LAST, 9), exposure=(LAST, 9)),
    ]
    assert comparisons.unlike_checkpoints(alike) == []
    other = measured("other", a_beam5=(BEST, 6), b_beam5=(LAST, 9), exposure=(BEST, 6))
    evaluated, exposed = comparisons.unlike_checkpoints([*alike, other])
    for found, start in ((evaluated, "Warning: on a.beam5 evaluate took"), (exposed, "Warning: on a exposure took")):
        assert found.startswith(start) and found.endswith(f": {LAST} of standard; {BEST} of other.")


def test_a_baseline_that_was_measured_by_another_checkpoint_than_was_fine_tuned_is_warned_of():
    """Of two baselines each is held against the fine-tunings from its own folder; what is not known is not said."""
    first = measured("first", started_from="", a_beam5=(LAST, 9), a_greedy=(LAST, 9), b_beam5=(BEST, 5))
    second = measured("second", started_from="", a_beam5=(LAST, 9), b_beam5=(None, None), exposure=(LAST, 9))
    from_first = str(Path("first/checkpoints").resolve() / BEST)
    from_second = str(Path("second/checkpoints").resolve() / LAST)
    tuned = [measured(f"one-{seed}", started_from=from_first, a_beam5=(LAST, 9)) for seed in (1, 2)]
    tuned.append(measured("two", started_from=from_second, a_beam5=(LAST, 9)))
    assert comparisons.another_start([first, second, *tuned]) == [
        f"Warning: first was measured on a.beam5, a.greedy by {LAST}, but {BEST} was fine-tuned: run evaluate with "
        "that one."
    ]
    second_tuning = measured("again", started_from=str(Path("one-1/checkpoints").resolve() / BEST), a_beam5=(LAST, 9))
    assert comparisons.another_start([second, *tuned, second_tuning]) == []  # not from one of its checkpoints


def test_scores_of_a_checkpoint_that_was_trained_on_are_warned_of():
    """Only checkpoint_last.pt has to be of the training's end; where a number is not known nothing is said."""
    current = [
        measured("new", 2400, a_beam5=(LAST, 2400), a_greedy=(BEST, 1200), b_beam5=(LAST, None), b_greedy=(None, None)),
        measured("without a log", 0, a_beam5=(LAST, 1200)),
    ]
    assert comparisons.outdated(current) == []
    old = measured("old", 2400, a_beam5=(LAST, 1200), a_greedy=(LAST, 1200), b_greedy=(LAST, 2400), exposure=(LAST, 7))
    assert comparisons.outdated([*current, old]) == [
        "Warning: old was measured on a.beam5, a.greedy after 1,200 updates, but its training ended after 2,400: run "
        "evaluate again.",
        "Warning: old was measured on a after 7 updates, but its training ended after 2,400: run exposure again.",
    ]


def test_unlike_flags_are_warned_of():
    """Of a column, averaged or not; what an earlier version scored does not say its flags."""

    def run(name, **flags):
        scores = {c.replace("_", ".", 1).replace("_", "-"): SimpleNamespace(flags=f) for c, f in flags.items()}
        return SimpleNamespace(name=name, scores=scores)

    old, plain = run("old", a_beam5=None), run("plain", a_beam5="", b_beam5="")
    assert comparisons.unlike_flags([old, plain, run("more", a_beam5="", a_beam5_average="")]) == []
    (found,) = comparisons.unlike_flags([old, plain, run("other", a_beam5_average="--max-len-b 3", b_beam5="")])
    assert "on a.beam5 runs" in found and found.endswith(": plain with none; other with --max-len-b 3.")
