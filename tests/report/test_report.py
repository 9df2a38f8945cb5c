"""The report of hand-made runs: what is one system, its numbers in all forms, what is missing, what is escaped."""

import csv
import json
import math
import re
import shutil
from argparse import Namespace
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
from conftest import TRANSFORMER, error_of, fairseq_train, gift
from report_runs import (
    NAMES,
    SENTENCES,
    hypotheses,
    log_line,
    make_report,
    make_run,
    make_runs,
    references,
    train_options,
)

from gift_fairseq.errors import UserError
from gift_fairseq.own_translations.origin import Origin
from gift_fairseq.report import runs, samples, systems, table
from gift_fairseq.report.folder import write_report
from gift_fairseq.training.launch import typed_options
from gift_fairseq.training.log import Log


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("a blank and ü")
    make_runs(root)
    return root


@pytest.fixture(scope="module")
def out(root):
    return make_report(root)


@pytest.fixture(scope="module")
def rows(out):
    return {row["name"]: row for row in json.loads((out / "results.json").read_text())["systems"]}


def test_the_options_of_a_strategy():
    """What it has beyond the control's, with its default; not what it only reads of fairseq's."""
    assert runs.own_options("gift_auxiliary") == {"auxiliary_ratio": 0.1}
    own = runs.own_options("gift_recurrent")
    assert {"rollout_dtype", "gold_ratio", "passes", "anchor"} < set(own) and "finetune_from_model" not in own
    assert own["passes"] == 1
    assert runs.own_options("gift_standard") == runs.own_options("label_smoothed_cross_entropy") == {}


def shown(score):
    """How the table shows a score of results.json."""
    return table.bleu_cell(systems.SystemScore(**score)).text


def test_what_one_system_is(rows):
    """The options decide: strategy and what is its own; not the name, not the seed."""
    assert list(rows) == ["baseline", "standard", "recurrent --passes 2", "generative", "auxiliary"]
    assert [run["seed"] for run in rows["recurrent --passes 2"]["runs"]] == [1, 2, 3]


def test_another_rate_is_another_system_and_another_control(root, tmp_path):
    shutil.copytree(root / "runs", tmp_path / "runs")
    for name in ("standard-2", "recurrent-2"):
        file = tmp_path / "runs" / name / "run.json"
        record = json.loads(file.read_text())
        record["fairseq"].update(lr=[1e-4], seed=1)
        file.write_text(json.dumps(record))
    found = [runs.read_run(tmp_path / "runs" / name) for name in NAMES[:-1]]
    groups = systems.group(found)
    strategies = ("standard", "recurrent --passes 2")
    assert [group.name for group in groups][-2:] == [f"{strategy}, lr 0.0001" for strategy in strategies]
    assert {f"{strategy}, lr 0.0005" for strategy in strategies} < {group.name for group in groups}
    by_name = {run.name: run for run in found}
    for control, name in (("standard-1", "recurrent-1"), ("standard-2", "recurrent-2")):
        assert systems.control_of(by_name[name], found) is by_name[control]
    assert systems.control_of(by_name["standard-1"], found) is systems.control_of(by_name["baseline"], found) is None
    del found[1]  # the only control left serves both
    assert systems.control_of(by_name["recurrent-1"], found) is by_name["standard-2"]
    moved = systems.baseline_of(by_name["recurrent-1"], found)  # copied to another folder, but the only one
    assert moved is by_name["baseline"]


def test_settings_tell_systems_of_one_strategy_apart(root):
    """Whatever differs stands in all names; updates without what follows from them; no paths."""
    found = [runs.read_run(root / "runs" / name) for name in NAMES]
    first, second = (next(run for run in found if run.name == f"standard-{seed}") for seed in (1, 2))

    def names(**changed):
        second.settings.update(changed)
        return [group.name for group in systems.group(found) if group.name.startswith("standard")]

    first.settings["dropout"] = 0.0
    assert names(dropout=0.1) == ["standard, dropout 0", "standard, dropout 0.1"]
    first.settings["clip_norm"] = 0.0
    assert names(dropout=0.0, clip_norm=1.0) == ["standard, clip-norm 0", "standard, clip-norm 1"]
    second.settings["clip_norm"] = 0.0
    assert names(dropout=0.0, max_update=7, total_num_update=7) == ["standard, updates 3", "standard, updates 7"]
    assert names(clip_norm=1.0, patience=2, bf16=True) == ["standard (standard-1)", "standard (standard-2)"]
    for name in ("max_update", "total_num_update", "clip_norm", "patience", "bf16"):
        first.settings[name] = second.settings[name]
    assert names() == ["standard"]
    assert names(finetune_from_model="/another/x.pt") == ["standard (standard-1)", "standard (standard-2)"]


def test_the_seeds_of_two_steps_are_one_system(root, tmp_path):
    """Each seed goes on from its own first step, on own translations of that; other candidates are another system."""
    shutil.copytree(root / "runs", tmp_path / "runs")

    def make(name, **changed):
        folder = tmp_path / "runs" / name
        shutil.copytree(tmp_path / "runs" / "standard-1", folder)
        record = json.loads((folder / "run.json").read_text())
        record["fairseq"].update(changed)
        (folder / "run.json").write_text(json.dumps(record))
        return runs.read_run(folder)

    found = []
    for seed in (1, 2):
        start = str(tmp_path / "runs" / f"standard-{seed}" / "checkpoints" / "checkpoint_last.pt")
        for beam in (4, 5):
            data = tmp_path / f"data-{beam}-{seed}"
            data.mkdir()
            Origin("gold", start, 1.5 * seed, 60, {"candidates": beam}).write(data)
            own = {"criterion": "gift_distillation", "data": str(data)}
            found.append(make(f"own-{beam}-{seed}", seed=seed, finetune_from_model=start, **own))
        of_control = {"seed": seed, "finetune_from_model": start, "data": "gold"}
        found += [make(f"more-{seed}", **of_control), make(f"clipped-{seed}", **of_control, clip_norm=9.0)]
    found.append(make("best", finetune_from_model=start.replace("last", "best"), data="gold"))
    grouped = {group.runs[0].name: [run.name for run in group.runs] for group in systems.group(found)}
    assert grouped == {
        "own-4-1": ["own-4-1", "own-4-2"], "own-5-1": ["own-5-1", "own-5-2"], "more-1": ["more-1", "more-2"],
        "clipped-1": ["clipped-1", "clipped-2"], "best": ["best"],
    }  # fmt: skip
    by_name = {run.name: run for run in found}
    for seed in (1, 2):
        assert systems.control_of(by_name[f"own-4-{seed}"], found) is by_name[f"more-{seed}"]


def test_controls_of_the_same_time(root, tmp_path):
    """One system although its seeds made other numbers of updates; no control of the same updates, even where it made
    as many."""
    shutil.copytree(root / "runs", tmp_path / "runs")
    for seed, updates in ((1, 3), (2, 5)):
        folder = tmp_path / "runs" / f"longer-{seed}"
        shutil.copytree(tmp_path / "runs" / f"standard-{seed}", folder)
        record = json.loads((folder / "run.json").read_text())
        record["fairseq"].update(max_update=updates)
        (folder / "run.json").write_text(json.dumps({**record, "same_time_as": {"run": f"recurrent-{seed}"}}))
    found = [runs.read_run(tmp_path / "runs" / name) for name in ("longer-1", "longer-2", *NAMES)]
    by_name = {run.name: run for run in found}
    name = "control, same time as recurrent --passes 2"
    assert [run.name for run in systems.group(found)[0].runs] == ["longer-1", "longer-2"]
    assert systems.group(found)[0].name == name
    assert systems.control_of(by_name["recurrent-1"], found) is by_name["standard-1"]
    assert systems.same_time_control_of(by_name["recurrent-2"], found) is by_name["longer-2"]
    assert systems.same_time_control_of(by_name["generative"], found) is None


def test_another_control_is_named(root, tmp_path):
    """Both seeds of it; the fine-tunings by standard are then compared with it, on the named test sets alone."""
    folders = [root / "runs" / name for name in NAMES]
    warnings = write_report(tmp_path / "out", "title", folders, ["news"], root / "runs" / "recurrent-2")
    assert not warnings
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["name"]: row["role"] for row in found["systems"]} == {
        "baseline": "baseline", "standard": "", "recurrent --passes 2": "control", "generative": "", "auxiliary": ""
    }  # fmt: skip
    scores = {row["name"]: [run.get("scores", {}) for run in row["runs"]] for row in found["systems"]}
    pairs = zip(scores["standard"], scores["recurrent --passes 2"])
    gains = [one["news.greedy"]["bleu"] - other["news.greedy"]["bleu"] for one, other in pairs]
    claims = {(c["system"], c["search"], c["metric"]): c for c in found["claims"] if c["against"] == "control"}
    assert claims["standard", "greedy", "bleu"]["difference"] == pytest.approx(sum(gains) / 2)
    assert {claim["system"] for claim in claims.values()} == {"standard", "generative"}
    assert "Over the control (recurrent --passes 2: same" in (tmp_path / "out" / "results.md").read_text()


def score_on(folder, name, **changed):
    """Gives the run ``folder`` the scores on news as those on the set ``name`` too, ``changed`` in so far."""
    found = json.loads((folder / "scores.json").read_text())
    of_set = {**found["news.beam5"], **changed}
    (folder / "scores.json").write_text(json.dumps({**found, f"{name}.beam5": of_set}))
    shutil.copy(folder / "generate" / "news.beam5.txt", folder / "generate" / f"{name}.beam5.txt")
    for language in ("en", "de"):
        shutil.copy(folder / "raw" / f"news.{language}", folder / "raw" / f"{name}.{language}")


def test_the_validation_set_is_shown_only_where_it_is_named(root, tmp_path):
    """Settings are selected on it: otherwise it has no column, and no share in the means and the claims.

    There it was translated with different flags, which the report warns of.
    """
    shutil.copytree(root / "runs", tmp_path / "runs")
    folders = [tmp_path / "runs" / name for name in NAMES[:2]]
    for folder in folders:
        score_on(folder, "valid", flags=folder.name)

    def report(*testsets):
        write_report(tmp_path / "out", "title", folders, testsets)
        return json.loads((tmp_path / "out" / "results.json").read_text())

    assert report()["columns"] == ["news.beam5", "news.greedy"]
    found = report("valid")
    assert found["columns"] == ["valid.beam5"] and found["systems"][0]["notes"] == []
    assert "on valid.beam5 runs were evaluated with different flags" in found["warnings"][0]
    for column in ("news.beam5", "news.greedy"):
        (folders[0] / "generate" / f"{column}.txt").unlink()
    assert report()["systems"][0]["notes"] == ["evaluated on valid alone, which only --testset valid shows"]


def test_a_set_of_the_baseline_alone_takes_no_claim_away(root, out, tmp_path):
    """A baseline that was fine-tuned on other data before has the test sets of those fine-tunings too."""
    shutil.copytree(root / "runs", tmp_path / "runs")
    folders = [tmp_path / "runs" / name for name in NAMES]
    score_on(folders[0], "other")
    shutil.copy(folders[0] / "exposure" / "news.json", folders[0] / "exposure" / "other.json")

    def report(folders, *testsets):
        write_report(tmp_path / "out", "title", folders, testsets)
        return json.loads((tmp_path / "out" / "results.json").read_text())

    found, without = report(folders), json.loads((out / "results.json").read_text())
    assert found["claims"] == without["claims"] != [] and found["columns"] == without["columns"]
    assert {path.name for path in (out / "plots").iterdir()} == {
        path.name for path in (tmp_path / "out/plots").iterdir()
    }
    assert report(folders, "other")["columns"] == ["other.beam5"]
    assert report(folders[:1])["columns"] == ["news.beam5", "news.greedy", "other.beam5"]


def test_states_of_checkpoints_that_do_not_compare_are_warned_of(root, tmp_path):
    """The logs end after 3 updates; one of the runs was scored by its best checkpoint, another before it ended."""
    shutil.copytree(root / "runs", tmp_path / "runs")
    folders = [tmp_path / "runs" / name for name in ("standard-1", "recurrent-1")]
    for folder, by in zip(folders, ({"checkpoint": "checkpoint_best.pt"}, {"checkpoint": runs.LAST, "updates": 2})):
        found = json.loads((folder / "scores.json").read_text())
        found["news.greedy"].update(by)
        (folder / "scores.json").write_text(json.dumps(found))
    unlike, outdated = write_report(tmp_path / "out", "title", folders)
    assert f"checkpoint_best.pt of standard-1; {runs.LAST} of recurrent-1" in unlike
    assert "recurrent-1 was measured on news.greedy after 2 updates, but its training ended after 3" in outdated
    text = (tmp_path / "out" / "results.md").read_text()
    assert unlike in text and outdated in text


def test_what_is_compared_with_nothing_is_said():
    """A control of another seed alone; two settings of the control, none of them chosen."""
    scores = {"a.beam5": SimpleNamespace(seeds=1)}
    control, one = (SimpleNamespace(name=name, notes=[], scores=scores, role="") for name in ("standard", "one"))
    control.role = "control"
    said = table.legend([control, one], [])
    assert said[-1] == "Without a control of the same updates and seed among the runs: one."
    one.role = "control"
    said = table.legend([control, one], [])
    assert "Over the control (standard or one: same" in said[1] and said[2].startswith(
        "With --control RUN one of these"
    )


def test_means_and_spread(rows, out):
    """Against sacreBLEU called directly; seed 2 against the control of seed 2, by Student's t, a Cauchy for two."""
    score = rows["recurrent --passes 2"]["scores"]["news.beam5"]
    bleus = [
        sacrebleu.corpus_bleu(hypotheses(w, f"recurrent-{s}"), [references()]).score for s, w in ((1, 0.1), (2, 0.3))
    ]
    assert score["bleu"] == pytest.approx(sum(bleus) / 2) and score["seeds"] == 2
    assert score["sd"] == pytest.approx(abs(bleus[0] - bleus[1]) / math.sqrt(2))
    controls = [sacrebleu.corpus_bleu(hypotheses(0.29, f"standard-{s}"), [references()]).score for s in (1, 2)]
    claims = json.loads((out / "results.json").read_text())["claims"]
    claims = {(c["system"], c["search"], c["against"]): c for c in claims if c["metric"] == "bleu"}
    claim = claims["recurrent --passes 2", "beam5", "control"]
    gains = [bleu - control for bleu, control in zip(bleus, controls)]
    # of two seeds: the mean is half their sum, its standard error half their distance, t has one degree of freedom
    t = abs(sum(gains)) / abs(gains[0] - gains[1])
    assert claim["difference"] == pytest.approx(sum(gains) / 2) and claim["seeds"] == 2
    assert claim["half_width"] == pytest.approx(math.tan(math.pi * 0.475) * abs(gains[0] - gains[1]) / 2)
    assert claim["p"] == pytest.approx(1 - 2 * math.atan(t) / math.pi)
    alone = rows["generative"]["scores"]["news.beam5"]
    assert set(rows["generative"]["runs"][0]["tests"]["news.beam5"]) == {"control", "baseline"}
    assert not any(run["tests"] for run in rows["recurrent --passes 2"]["runs"])  # the seeds speak
    assert "sd" not in alone and shown(alone) == f"{alone['bleu']:.1f} ± {alone['bleu_ci']:.1f}"
    assert "p" not in claims["generative", "beam5", "control"] and ("generative", "greedy", "control") not in claims
    assert shown(score) == f"{score['bleu']:.1f} ± {score['bleu_ci']:.1f} (sd {score['sd']:.1f})"
    greedy = rows["baseline"]["scores"]["news.greedy"]["bleu"]
    beam = rows["baseline"]["scores"]["news.beam5"]
    assert beam["gain_over_greedy"] == pytest.approx(beam["bleu"] - greedy)


def test_time_memory_and_forgetting_by_hand(rows):
    """Weighted by updates; another run's epoch is as long as the baseline's first one, 5 updates."""
    baseline = rows["baseline"]
    assert (baseline["updates"], baseline["epoch_seconds"]) == (10, 45.0)
    assert (baseline["average_memory_mib"], baseline["maximum_memory_mib"]) == (150, 300)
    generative = rows["generative"]
    assert generative["epoch_seconds"] == pytest.approx(10 / 3 * 5) and generative["tokens_per_second"] == 1000
    # bits to nats; the baseline's best epoch, which was fine-tuned, not its last
    assert generative["gold_nll"]["valid"] == pytest.approx({"before": 2.0 * math.log(2), "after": 2.1 * math.log(2)})
    assert rows["recurrent --passes 2"]["gold_nll"]["news"] == {"before": 1.5, "after": 1.75}
    assert baseline["gold_nll"] == {}


@pytest.mark.parametrize(
    "names, updates",  # of the epoch that all times are of
    [("long short standard baseline", 50), ("long short standard", 12), ("long short", 24), ("short long", 18)],
)
def test_epoch_times_compare_without_the_log_of_the_baseline(tmp_path, names, updates):
    """All runs make an update in a second; they end inside their first epoch, after unlike numbers of updates."""
    made = {"long": ("gift_recurrent", 24), "short": ("gift_weighted", 18), "standard": ("gift_standard", 12)}
    made["baseline"] = ("cross_entropy", 50)
    for name, (criterion, number) in made.items():
        log = log_line(1, number, seconds=number) + "done training\n"
        make_run(tmp_path, name, train_options(tmp_path, name, criterion, updates=number), log)
    if "baseline" not in names:  # it was trained elsewhere, and is among the runs without a log
        shutil.rmtree(tmp_path / "runs" / "baseline")
        make_run(tmp_path, "baseline")
    write_report(
        tmp_path / "out", "title", [tmp_path / "runs" / name for name in dict.fromkeys([*names.split(), "baseline"])]
    )
    found = json.loads((tmp_path / "out" / "results.json").read_text())["systems"]
    assert {row["epoch_seconds"] for row in found} - {None} == {updates}
    assert len([row for row in found if row["epoch_seconds"]]) == len(names.split())


def test_epoch_time_is_of_the_seconds_of_updates_that_the_plugin_measured():
    """4 updates of 1.25 ms and 6 of 2.5 ms, in epochs of 4: 8 ms, where fairseq logs 0 s; without, fairseq's time."""
    entries = [{"train_num_updates": 4, "train_train_wall": 0, "train_update_seconds": 0.00125}]
    entries += [{"train_num_updates": 10, "train_train_wall": 0, "train_update_seconds": 0.0025}]
    lines = [json.dumps({"epoch": epoch, **entry}) for epoch, entry in enumerate(entries, 1)]
    log = Log("\n".join([*lines, "done training in 0.1 seconds"]))
    assert systems.training_cost(SimpleNamespace(log=log), None).epoch_seconds == pytest.approx(0.008)
    assert systems.training_cost(SimpleNamespace(log=log), 100).epoch_seconds == pytest.approx(0.2)
    texts = [table.seconds(value).text for value in (None, 0.008, 1.2345, 12.345, 1234.5)]
    assert texts == ["–", "0.008", "1.23", "12.3", "1,234"]
    log.train[1] = {"train_num_updates": 10, "train_train_wall": 7}
    log.train[0]["train_train_wall"] = 3
    assert systems.training_cost(SimpleNamespace(log=log), None).epoch_seconds == pytest.approx(4)


@pytest.mark.parametrize(
    "flags, best",
    [
        ({}, 2),  # of an earlier version, which recorded no such flags: fairseq's default, the loss
        ({"best_checkpoint_metric": "loss", "maximize_best_checkpoint_metric": False}, 2),
        ({"best_checkpoint_metric": "bleu", "maximize_best_checkpoint_metric": True}, 4),
        ({"best_checkpoint_metric": "ppl", "maximize_best_checkpoint_metric": False}, None),
    ],
)
def test_forgetting_is_from_the_checkpoint_that_was_best_by_the_runs_own_metric(tmp_path, flags, best):
    """By loss that of epoch 2, by BLEU of epoch 4; of equal ones fairseq keeps the later. None: it was not logged."""
    lines = []
    for epoch, loss, bleu in ((1, 5, 20), (2, 4, 30), (3, 6, 40), (4, 7, 40), (5, 8, 10)):
        valid = {"valid_loss": loss, "valid_bleu": bleu, "valid_nll_loss": epoch, "valid_num_updates": epoch}
        lines.append(json.dumps({"epoch": epoch, **valid}) + "\n")
    whole = "".join(lines) + "done training\n"
    make_run(tmp_path, "baseline", {**train_options(tmp_path, "baseline"), **flags}, whole)
    make_run(tmp_path, "standard", train_options(tmp_path, "standard"), whole)
    baseline, tuned = (runs.read_run(tmp_path / "runs" / name) for name in ("baseline", "standard"))
    found = systems.forgetting(tuned, baseline)
    assert found == ({"valid": systems.GoldNLL(best * math.log(2), 5 * math.log(2))} if best else {})


def test_the_last_line_of_an_epoch_counts():
    """An epoch that was begun, then stopped and gone on with, is logged twice; a line without end is left out."""
    epochs = log_line(1, 100, 999, 1, 1) + log_line(1, 100, 50, 200, 300) + log_line(2, 150, 40, 500, 290)
    log = Log("other\n" + epochs + '{"epoch": 3, "train_num_updates": "160", "train_tr')
    found = systems.training_cost(SimpleNamespace(log=log), None)
    assert found == systems.TrainingCost(150, 60.0, 300.0, 300.0, 1000.0)
    assert not log.finished and Log("").updates == 0
    foreign = Log(epochs.replace("train_mem_mib", "other"))  # of a criterion that does not measure it
    assert systems.training_cost(SimpleNamespace(log=foreign), None).average_memory_mib is None


def test_fine_tunings_by_fairseq_train_itself_are_told_from_baselines(root, out, tmp_path):
    """Without run.json, by the options in the last or the best checkpoint: the same rows and claims as with it."""
    shutil.copytree(root / "runs", tmp_path / "runs")
    folders = [tmp_path / "runs" / name for name in NAMES]
    for folder, name in zip(folders, ("last", "best", "last", "best", "last", "best", "last", "best")):
        record = folder / "run.json"
        options = json.loads(record.read_text())["fairseq"]
        record.unlink()
        options.update(_name="transformer", save_dir=str(folder), distributed_port=len(str(folder)))
        (folder / "checkpoints").mkdir()
        state = {"model": {}, "cfg": {"model": Namespace(**options)}}
        torch.save(state, folder / "checkpoints" / f"checkpoint_{name}.pt")
    write_report(tmp_path / "out", "title", folders)
    before, after = (json.loads((folder / "results.json").read_text()) for folder in (out, tmp_path / "out"))
    assert after["claims"] == before["claims"] != []
    for key in ("name", "role", "criterion"):
        assert [row[key] for row in after["systems"][1:]] == [row[key] for row in before["systems"][1:]]
    baseline = after["systems"][0]
    assert (baseline["name"], baseline["role"], baseline["criterion"]) == ("baseline", "baseline", "")
    for file in ("scores.json", "train.log"):
        (folders[1] / file).unlink()
    assert runs.read_run(folders[1]).reason == "not evaluated"
    (folders[1] / "checkpoints" / "checkpoint_best.pt").write_bytes(b"half")
    assert runs.read_run(folders[1]).options == {}


@pytest.mark.cli
def test_a_checkpoint_holds_the_options_that_run_json_would(binarized, tmp_path, monkeypatch):
    """fairseq-train's own, of a relative path."""
    flags = f"{TRANSFORMER} --task gift_translation --disable-validation --max-update 1"
    monkeypatch.chdir(tmp_path)
    fairseq_train(binarized, tmp_path / "base", f"{flags} --criterion cross_entropy")
    (tmp_path / "run").mkdir()
    words = f"{flags} --criterion gift_weighted --weight-floor 0.4 --lr 7e-4 --seed 5"
    start = ["--finetune-from-model", "base/checkpoint_last.pt"]
    fairseq_train(binarized, tmp_path / "run" / "checkpoints", words, *start)
    run = runs.read_run(tmp_path / "run")
    assert (run.role, run.strategy) == ("", ("gift_weighted", "--weight-floor 0.4"))
    more = "--optimizer adam --max-tokens 200 --no-epoch-checkpoints".split()
    expected = typed_options(["fairseq-train", str(binarized), *more, *start, *words.split()])
    expected["finetune_from_model"] = str(tmp_path.resolve() / "base" / "checkpoint_last.pt")
    assert set(expected) <= set(run.options)  # fairseq adds a few when it makes the model
    assert {name: run.options[name] for name in expected if run.options[name] != expected[name]} == {}
    shutil.copytree(tmp_path / "base", tmp_path / "checkpoints")
    assert runs.read_run(tmp_path).options == {}  # it was not fine-tuned
    fine_tuned = {"finetune_from_model": "x.pt", "criterion": "label_smoothed_cross_entropy"}
    state = {"model": {}, "cfg": {"model": Namespace(**fine_tuned)}}
    torch.save(state, tmp_path / "checkpoints" / "checkpoint_last.pt")
    assert runs.read_run(tmp_path).role == "baseline"  # a user's own checkpoint


def test_what_is_missing_is_said(rows, out):
    auxiliary = rows["auxiliary"]
    assert auxiliary["notes"] == ["training not finished: 2 of 3 updates"]
    assert auxiliary["scores"] == {} and auxiliary["updates"] is auxiliary["epoch_seconds"] is None
    assert rows["generative"]["notes"] == ["not evaluated on news.greedy"]
    assert rows["recurrent --passes 2"]["notes"] == ["recurrent-3: not evaluated"]
    assert rows["recurrent --passes 2"]["runs"][2]["epoch_seconds"] is not None  # it was trained
    text = (out / "results.md").read_text()
    assert "| auxiliary " + "| – " * 9 + "|\n" in text
    assert "\nMissing: auxiliary: training not finished: 2 of 3 updates.\n" in text
    assert (out / "plots" / "epoch-time.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_finished_is_a_report_too(tmp_path):
    (tmp_path / "new").mkdir()
    make_run(tmp_path, "begun", {"max_update": 5, "finetune_from_model": "x/checkpoints/y.pt"})
    (tmp_path / "runs" / "begun" / "scores.json").write_text('{"news.beam5": {"bl')
    gift("report", "--out", tmp_path / "out", tmp_path / "new", tmp_path / "runs" / "begun")
    text = (tmp_path / "out" / "results.md").read_text()
    assert "Missing: baseline: not trained." in text and "training not finished: 0 of 5 updates" in text
    assert " 0 |" not in text and (tmp_path / "out" / "index.html").is_file()


def test_a_score_without_what_it_was_made_of_is_out_of_date(root, tmp_path):
    shutil.copytree(root / "runs" / "generative", tmp_path / "run")
    assert runs.read_run(tmp_path / "run").reason == ""
    (tmp_path / "run" / "generate" / "news.beam5.txt").write_text("one line\n")
    assert runs.read_run(tmp_path / "run").reason == "scores out of date: evaluate it again"


def test_unlike_references_do_not_stand_in_one_table(root, tmp_path):
    shutil.copytree(root / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "generative" / "raw" / "news.de").write_text("anders\n" * SENTENCES)
    with pytest.raises(UserError, match="RUN .*generative was scored on another news than RUN .*baseline"):
        write_report(tmp_path / "out", "title", [tmp_path / "runs" / name for name in NAMES])


def test_all_forms_hold_the_same_numbers(rows, out):
    lines = {line["strategy"]: line for line in csv.DictReader((out / "results.csv").open(encoding="utf-8"))}
    markdown = (out / "results.md").read_text()
    page = (out / "index.html").read_text()
    assert list(lines) == list(rows)
    for name, row in rows.items():
        for column in ("news.beam5", "news.greedy"):
            score = row["scores"].get(column)
            for key in ("bleu", "sd", "bleu_ci", "chrf", "ter", "length_ratio", "repetition_rate", "gain_over_greedy"):
                value = (score or {}).get(key)
                assert lines[name][f"{column}.{key}"] == ("" if value is None else repr(value))
            if score:
                cell = shown(score)
                blanks = page.replace("\u00a0", " ")
                assert f'data-value="{score["bleu"]!r}">{cell}</td>' in blanks and cell in markdown
        assert lines[name]["epoch_seconds"] == ("" if row["epoch_seconds"] is None else repr(row["epoch_seconds"]))
    claims = json.loads((out / "results.json").read_text())["claims"]
    for claim in (claim for claim in claims if "p" in claim):
        name = f"{claim['search']}.{claim['metric']}_over_{claim['against']}"
        assert [lines[claim["system"]][f"{name}{key}"] for key in ("", ".p", ".p_holm")] == [
            repr(claim[key]) for key in ("difference", "p", "p_holm")
        ]
    for signature in {score["signature"] for row in rows.values() for score in row["scores"].values()}:
        assert "version:" in signature and f"`{signature}`" in markdown and signature in page


def test_samples_differ_most_and_are_marked(root):
    found = [runs.read_run(root / "runs" / name) for name in NAMES]
    chosen = samples.most_different(systems.group(found), "news.beam5")
    assert len(chosen) == 20 and 8 in [sample.number for sample in chosen]  # EVIL
    spreads = [max(o.chrf for o in s.outputs) - min(o.chrf for o in s.outputs) for s in chosen]
    assert spreads == sorted(spreads, reverse=True)
    evil = next(sample for sample in chosen if sample.number == 8)
    assert [output.system for output in evil.outputs] == ["baseline", "standard", "recurrent --passes 2", "generative"]
    best = evil.outputs[2]
    assert best.chrf == sacrebleu.sentence_chrf(hypotheses(0.1, "recurrent-1")[7], [references()[7]]).score
    assert samples.pieces("der Hund bellt laut", "der Hund laut jetzt") == [
        ("der Hund", False), ("bellt", True), ("laut", False), ("", True)
    ]  # fmt: skip
    assert samples.most_different(systems.group(found[:1]), "news.beam5") == []


def test_text_is_escaped_and_the_policy_names_the_only_script(out):
    page = (out / "index.html").read_text()
    assert (
        page.count("<script>") == 1
        and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        and "alert(1)</script>" not in page
    )
    assert "default-src 'none'" in page and "unsafe" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page) and " style=" not in page


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--out", "x"], "the following arguments are required: RUN; see gift report --help"),
        (["run"], "the following arguments are required: --out; see gift report --help"),
        (["--out", "x", "--colour", "run"], "unrecognized arguments: --colour"),
        (["--out", "x", "nowhere"], "RUN is nowhere, but must be the folder of a run"),
        (["--out", "x", "run", "./run"], "RUN is run, but that run was named before"),
        (["--out", "x", "--testset", "test,no", "run"], "--testset is test,no, but RUN was scored on none"),
        (["--out", "x", "--control", "other", "run"], "--control is other, but must be one of RUN"),
        (
            ["--out", "x", "--control", "run", "run"],
            "--control is run, a baseline, but must be one of the fine-tunings",
        ),
        (["--out", "file/x", "run"], "--out is file/x, but that folder cannot be made: Not a directory"),
        (["--out", "file", "run"], "--out is file, but that folder cannot be made: File exists"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, arguments, sentence):
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert sentence in error_of("report", *arguments)
    assert not (tmp_path / "x").exists()
