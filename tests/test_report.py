"""The report of hand-made runs: what is one system, its numbers in all forms, what is missing, what is escaped."""

import csv
import json
import math
import re
import shutil
from types import SimpleNamespace

import pytest
import sacrebleu
from report_runs import NAMES, SENTENCES, hypotheses, log_line, make_report, make_run, make_runs, references
from test_recipes import recipe

from gift_fairseq.options import UserError
from gift_fairseq.report import __main__ as report
from gift_fairseq.report import runs, samples, systems, table


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


def test_flags_of_a_command_line():
    command = (
        "torchrun --standalone --nproc-per-node 2 --no-python bash -c 'exec \"$@\" --x' worker fairseq-train 'a b' "
    )
    flags = runs.read_flags(command + "--lr 1 --fp16 --adam-betas '(0.9, 0.98)' --lr=2 --seed 3")
    assert flags == {"data": "a b", "--lr": "2", "--fp16": "", "--adam-betas": "(0.9, 0.98)", "--seed": "3"}
    assert runs.read_flags("fairseq-train 'half") == runs.read_flags("") == runs.read_flags("ls") == {}
    assert runs.own_flags("gift_auxiliary") == ["--auxiliary-ratio"]
    own = runs.own_flags("gift_recurrent")
    assert {"--rollout-dtype", "--gold-ratio", "--passes", "--anchor"} < set(own) and "--finetune-from-model" not in own
    assert runs.own_flags("gift_standard") == runs.own_flags("label_smoothed_cross_entropy") == []


def test_what_one_system_is(rows):
    """The command line decides: strategy and its flags; not the name, not the seed."""
    assert list(rows) == ["baseline", "standard", "recurrent --passes 2", "generative", "auxiliary"]
    assert [run["seed"] for run in rows["recurrent --passes 2"]["runs"]] == [1, 2, 3]


def test_another_rate_is_another_system_and_another_control(root, tmp_path):
    shutil.copytree(root / "runs", tmp_path / "runs")
    for name in ("standard-2", "recurrent-2"):
        command = tmp_path / "runs" / name / "command.sh"
        command.write_text(command.read_text().replace("5e-4", "1e-4").replace("--seed 2", "--seed 1"))
    found = [runs.read_run(tmp_path / "runs" / name) for name in NAMES[:-1]]
    groups = systems.group(found)
    assert [group.name for group in groups][-2:] == ["standard (standard-2)", "recurrent --passes 2 (recurrent-2)"]
    by_name = {run.name: run for run in found}
    for control, name in (("standard-1", "recurrent-1"), ("standard-2", "recurrent-2")):
        assert systems.control_of(by_name[name], found) is by_name[control]
    assert systems.control_of(by_name["standard-1"], found) is systems.control_of(by_name["baseline"], found) is None
    del found[1]  # the only control left serves both
    assert systems.control_of(by_name["recurrent-1"], found) is by_name["standard-2"]
    moved = systems.baseline_of(by_name["recurrent-1"], found)  # copied to another folder, but the only one
    assert moved is by_name["baseline"]


def test_means_spread_and_marks(rows, root):
    """Against sacreBLEU called directly; the seeds' tests apart, seed 2 against the control of seed 2."""
    score = rows["recurrent --passes 2"]["scores"]["news.beam5"]
    bleus = [
        sacrebleu.corpus_bleu(hypotheses(w, f"recurrent-{s}"), [references()]).score for s, w in ((1, 0.1), (2, 0.3))
    ]
    assert score["bleu"] == pytest.approx(sum(bleus) / 2) and score["seeds"] == 2
    assert score["sd"] == pytest.approx(abs(bleus[0] - bleus[1]) / math.sqrt(2))
    controls = [sacrebleu.corpus_bleu(hypotheses(0.29, f"standard-{s}"), [references()]).score for s in (1, 2)]
    assert score["against_control"]["difference"] == pytest.approx((sum(bleus) - sum(controls)) / 2)
    assert (score["against_control"]["significant"], score["against_control"]["tested"]) == (1, 2)
    alone = rows["generative"]["scores"]["news.beam5"]
    assert alone["sd"] is None and alone["against_baseline"]["significant"] == 1
    assert table.bleu_cell(alone).text == f"{alone['bleu']:.1f} ± {alone['bleu_ci']:.1f} * †"
    expected = f"{score['bleu']:.1f} ± {score['bleu_ci']:.1f} (sd {score['sd']:.1f}) *1/2 †1/2"
    assert table.bleu_cell(score).text == expected
    greedy = rows["baseline"]["scores"]["news.greedy"]["bleu"]
    beam = rows["baseline"]["scores"]["news.beam5"]
    assert beam["gain_over_greedy"] == pytest.approx(beam["bleu"] - greedy) and "against_control" not in beam


def test_seeds_that_disagree_do_not_add_up():
    """Significant in both seeds, but better in one and worse in the other: one counts, that of the mean."""
    tests = [{"p": 0.01, "difference": 2.0}, {"p": 0.01, "difference": -1.0}, {"p": 0.06, "difference": 5.0}]
    assert systems.together(tests) == {"difference": 2.0, "tested": 3, "significant": 1}


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


def test_epoch_time_is_of_the_seconds_of_updates_that_the_plugin_measured():
    """4 updates of 1.25 ms and 6 of 2.5 ms, in epochs of 4: 8 ms, where fairseq logs 0 s; without, fairseq's time."""
    entries = [{"train_num_updates": 4, "train_train_wall": 0, "train_update_seconds": 0.00125}]
    entries += [{"train_num_updates": 10, "train_train_wall": 0, "train_update_seconds": 0.0025}]
    lines = [json.dumps({"epoch": epoch, **entry}) for epoch, entry in enumerate(entries, 1)]
    log = runs.Log("\n".join([*lines, "done training in 0.1 seconds"]))
    assert systems.training(SimpleNamespace(log=log), None)["epoch_seconds"] == pytest.approx(0.008)
    assert systems.training(SimpleNamespace(log=log), 100)["epoch_seconds"] == pytest.approx(0.2)
    shown = [table.seconds(value).text for value in (None, 0.008, 1.2345, 12.345, 1234.5)]
    assert shown == ["–", "0.008", "1.23", "12.3", "1,234"]
    log.train[1] = {"train_num_updates": 10, "train_train_wall": 7}
    log.train[0]["train_train_wall"] = 3
    assert systems.training(SimpleNamespace(log=log), None)["epoch_seconds"] == pytest.approx(4)


def test_the_last_line_of_an_epoch_counts():
    """An epoch that was begun, then stopped and gone on with, is logged twice; a line without end is left out."""
    epochs = log_line(1, 100, 999, 1, 1) + log_line(1, 100, 50, 200, 300) + log_line(2, 150, 40, 500, 290)
    log = runs.Log("other\n" + epochs + '{"epoch": 3, "train_num_updates": "160", "train_tr')
    found = systems.training(SimpleNamespace(log=log), None)
    assert (found["updates"], found["epoch_seconds"], found["tokens_per_second"]) == (150, 60.0, 1000.0)
    assert (found["average_memory_mib"], found["maximum_memory_mib"]) == (300.0, 300.0)
    assert not log.finished and runs.Log("").updates == 0
    foreign = runs.Log(epochs.replace("train_mem_mib", "other"))  # of a criterion that does not measure it
    assert systems.training(SimpleNamespace(log=foreign), None)["average_memory_mib"] is None


def test_what_is_missing_is_said(rows, out):
    auxiliary = rows["auxiliary"]
    assert auxiliary["notes"] == ["training not finished: 2 of 3 updates"]
    assert auxiliary["scores"] == {} and auxiliary["updates"] is auxiliary["epoch_seconds"] is None
    assert rows["generative"]["notes"] == ["not evaluated on news.greedy"]
    assert rows["recurrent --passes 2"]["notes"] == ["recurrent-3: not evaluated"]
    assert rows["recurrent --passes 2"]["runs"][2]["epoch_seconds"] is not None  # it was trained
    text = (out / "results.md").read_text()
    assert "| auxiliary " + "| – " * 7 + "|\n" in text
    assert "\nMissing: auxiliary: training not finished: 2 of 3 updates.\n" in text
    assert (out / "plots" / "epoch-time.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_finished_is_a_report_too(tmp_path):
    (tmp_path / "new").mkdir()
    make_run(tmp_path, "begun", "fairseq-train data --max-update 5 --finetune-from-model x/checkpoints/y.pt")
    (tmp_path / "runs" / "begun" / "scores.json").write_text('{"news.beam5": {"bl')
    report.main(["--out", str(tmp_path / "out"), str(tmp_path / "new"), str(tmp_path / "runs" / "begun")])
    text = (tmp_path / "out" / "results.md").read_text()
    assert "Missing: baseline: not trained." in text and "training not finished: 0 of 5 updates" in text
    assert " 0 |" not in text and (tmp_path / "out" / "index.html").is_file()


def test_a_score_without_what_it_was_made_of_is_out_of_date(root, tmp_path):
    shutil.copytree(root / "runs" / "generative", tmp_path / "run")
    assert runs.read_run(tmp_path / "run").reason == ""
    (tmp_path / "run" / "generate" / "news.beam5.txt").write_text("one line\n")
    assert runs.read_run(tmp_path / "run").reason == "scores out of date: run scripts/evaluate.sh again"


def test_unlike_references_do_not_stand_in_one_table(root, tmp_path):
    shutil.copytree(root / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "generative" / "raw" / "news.de").write_text("anders\n" * SENTENCES)
    with pytest.raises(UserError, match="RUN .*generative was scored on another news than RUN .*baseline"):
        report.main(["--out", str(tmp_path / "out"), *(str(tmp_path / "runs" / name) for name in NAMES)])


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
                cell = table.bleu_cell(score).text
                shown = page.replace("\u00a0", " ")
                assert f'data-value="{score["bleu"]!r}">{cell}</td>' in shown and cell.replace("*", "\\*") in markdown
        assert lines[name]["epoch_seconds"] == ("" if row["epoch_seconds"] is None else repr(row["epoch_seconds"]))
    for signature in {score["signature"] for row in rows.values() for score in row["scores"].values()}:
        assert "version:" in signature and f"`{signature}`" in markdown and signature in page


def test_samples_differ_most_and_are_marked(root):
    found = [runs.read_run(root / "runs" / name) for name in NAMES]
    chosen = samples.most_different(systems.group(found), "news.beam5")
    assert len(chosen) == 20 and 8 in [sample.number for sample in chosen]  # EVIL
    spreads = [max(o.chrf for o in s.outputs) - min(o.chrf for o in s.outputs) for s in chosen]
    assert spreads == sorted(spreads, reverse=True)
    evil = next(sample for sample in chosen if sample.number == 8)
    assert [output.system for output in evil.outputs] == [
        "baseline",
        "standard",
        "recurrent --passes 2",
        "generative",
    ]
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
        (["--out", "x"], "there is no RUN; see --help"),
        (["run"], "--out is needed; see --help"),
        (["--out", "x", "--colour", "run"], "the option is --colour, which is none of this recipe; see --help"),
        (["--out", "x", "nowhere"], "RUN is nowhere, but must be the folder of a run"),
    ],
)
def test_bad_options_of_the_recipe(tmp_path, monkeypatch, arguments, sentence):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    done = recipe("scripts/report.sh", *arguments)
    assert done.returncode == 1 and sentence in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--out", "x", "run", "./run"], "RUN is run, but that run was named before"),
        (["--out", "file/x", "run"], "--out is file/x, but that folder cannot be made: Not a directory"),
        (["--out", "file", "run"], "--out is file, but that folder cannot be made: File exists"),
    ],
)
def test_bad_folders(tmp_path, monkeypatch, arguments, sentence):
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        report.main(arguments)
