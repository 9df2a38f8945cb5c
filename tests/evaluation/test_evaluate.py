"""Scores of what a run generated, against the raw references."""

import json
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace

import pytest
import sacrebleu
from conftest import error_of

from gift_fairseq.cli.options import runs_of
from gift_fairseq.data import testsets
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation import scores
from gift_fairseq.runs import RunFolder


def test_each_metric_by_hand():
    """BLEU from its four precisions 4/5, 3/4, 2/3, 1/2; TER: a substitution and an insertion, then one shift."""
    score = scores.corpus_scores(["a b c d e"], [["a b c d f"]])
    assert score["bleu"] == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert scores.corpus_scores(["a b c d"], [["a b c d e"]])["length_ratio"] == pytest.approx(4 / 5)
    assert scores.corpus_scores(["a b c d"], [["a b c e f"]])["ter"] == pytest.approx(100 * 2 / 5)
    other = scores.corpus_scores(["d a b c"], [["a b c d"]])
    assert other["ter"] == pytest.approx(100 * 1 / 4) and "tok:tercom" in other["ter_signature"]
    # one of two letters, none of one pair of letters; the mean over the lengths there are
    assert scores.corpus_scores(["ab"], [["ac"]])["chrf"] == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert other["chrf_signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")


def test_scores_are_sacrebleus_own():
    hypotheses = [f"the {word} sat on the mat , number {i}" for i, word in enumerate(["cat", "dog", "red fox"] * 5)]
    references = [[f"the {w} lay on a mat, number {i}" for i in range(15)] for w in ("cat", "dog")]
    found = scores.corpus_scores(hypotheses, references)
    assert found["bleu"] == sacrebleu.corpus_bleu(hypotheses, references).score
    assert found["chrf"] == sacrebleu.corpus_chrf(hypotheses, references).score
    assert found["ter"] == sacrebleu.corpus_ter(hypotheses, references).score
    said = sacrebleu.BLEU().corpus_score(hypotheses, references, n_bootstrap=1000).format()
    assert f"± {found['bleu_ci']:.2f})" in said and found["bleu_ci"] > 0
    assert (
        "bs:1000|seed:12345" in found["signature"]
        and "tok:13a" in found["signature"]
        and "nrefs:2" in found["ter_signature"]
    )
    with pytest.raises(UserError, match="there are no hypotheses"):
        scores.corpus_scores([], [[]])
    with pytest.raises(UserError, match="1 hypotheses, but 2 references"):
        scores.corpus_scores(["a"], [["a", "b"]])


def test_repetition_by_hand():
    """Of the 4-grams abcd bcda cdab dabc abcd the last was there before; lines are summed, not averaged."""
    assert scores.repetition_rate(["a b c d a b c d"]) == pytest.approx(100 / 5)
    assert scores.repetition_rate(["a b c d a b c d", "e f g h", "a b c d", "short", ""]) == pytest.approx(100 / 7)
    assert scores.repetition_rate(["no no no", ""]) == 0.0
    assert scores.repetition_rate([" ".join(["again,"] * 100)]) > 98


def test_bleu_by_source_length():
    sources = ["", "a b c d e", "a b c d e f", " ".join("s" * 61)]
    hypotheses = ["x y z u v", "1 2 3 4 5", "1 2 3 4 5 6", "p q r s t"]
    references = [["x y z u v", "1 2 3 4 5", "6 5 4 3 2 1", "p q r s s"]]
    found = scores.bleu_by_length(sources, hypotheses, references)
    assert [(b.from_, b.to, b.sentences) for b in found] == [(1, 5, 2), (6, 10, 1), (61, None, 1)]
    assert found[0].bleu == pytest.approx(100)
    for bucket, i in ((found[1], 2), (found[2], 3)):
        assert bucket.bleu == sacrebleu.corpus_bleu([hypotheses[i]], [[references[0][i]]]).score


def test_compounds_are_split_as_the_literature_does():
    """Only a hyphen between two characters; then every part counts as a token of its own."""
    hypotheses, references = ["Der E-Mail-Dienst (neu) ist gut ."], ["Der E-Mail-Server (neu) ist gut ."]
    split = "Der E ##AT##-##AT## Mail ##AT##-##AT## {} ( neu ) ist gut ."
    expected = sacrebleu.corpus_bleu([split.format("Dienst")], [[split.format("Server")]], tokenize="none", force=True)
    assert scores.compound_split_bleu(hypotheses, [references], "de") == pytest.approx(expected.score)
    assert expected.score > scores.corpus_scores(hypotheses, [references])["bleu"]


@pytest.fixture
def data(tmp_path):
    """A data folder as far as evaluation looks at it before it translates."""
    testsets.raw_file(tmp_path / "data", "news", "de").parent.mkdir(parents=True)
    testsets.write_names(tmp_path / "data", ["news"])
    (tmp_path / "data" / "segmentation.json").write_text('{"src": "en", "tgt": "de", "subword": "bpe"}')
    (tmp_path / "data" / "subwords.codes").write_text("#version: 0.2\n")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--beam", "1", "RUN/checkpoints/a.pt"], "--beam is '1', but must be a whole number, 2 or more"),
        (["a.pt"], "CHECKPOINT is a.pt, but must be RUN/checkpoints/FILE.pt, or --out name the folder"),
        (["--testset", "olds", "RUN/checkpoints/a.pt"], "--testset is olds, but must be one of news, valid"),
        (["--out", "x", "a.pt", "--search", "both", "b.pt"], "--out is x, but there are 2 checkpoints"),
        (["RUN/checkpoints/a.pt", "RUN/checkpoints/b.pt"], "but must be the only one of RUN, whose results would mix"),
        (["RUN/checkpoints/a.pt"], "CHECKPOINT is RUN/checkpoints/a.pt, but there is no such file"),
        ([], "the following arguments are required: CHECKPOINT"),
    ],
)
def test_bad_options(data, arguments, sentence):
    assert sentence in error_of("evaluate", "--data", data, *arguments)


@pytest.mark.parametrize("command, variant", [("finetune", "-average"), ("train", "")])
def test_the_mean_of_a_fine_tuning_has_columns_of_its_own(tmp_path, command, variant):
    """Beside the last checkpoint; a baseline is one checkpoint, whichever it is. What a run is used for: the mean."""
    run = RunFolder(tmp_path)
    last, mean = run.checkpoint("last"), run.checkpoint("average")
    run.record_file.write_text(json.dumps({"command": command}))
    assert (run.variant(last), run.variant(mean), run.model()) == ("", variant, last)
    mean.parent.mkdir()
    mean.touch()
    assert run.model() == mean
    options = Namespace(out=None, checkpoints=[last, mean])
    if variant:
        assert set(runs_of(options, variants=True)) == {last, mean}
    for variants in (False, not variant):
        with pytest.raises(UserError, match="must be the only one of"):
            runs_of(options, variants)


def test_a_test_set_without_raw_text(data, tmp_path):
    sentence = "--data is nowhere, which has no raw/testsets.txt: prepare the data with gift prepare"
    for command in ("evaluate", "exposure"):
        assert sentence in error_of(command, "--data", "nowhere", "RUN/checkpoints/a.pt")
    translate(tmp_path, "news.beam5", "Haus")
    with pytest.raises(UserError, match="raw/news.de is missing"):
        scores.write_score(RunFolder(tmp_path), "news.beam5", data)
    (data / "raw" / "news.de").write_text("Haus\n")
    with pytest.raises(UserError, match="raw/news.en is missing"):
        scores.write_score(RunFolder(tmp_path), "news.beam5", data)


def translate(run, column, *lines):
    (run / "generate").mkdir(parents=True, exist_ok=True)
    (run / "generate" / f"{column}.txt").write_text("".join(line + "\n" for line in lines))


def write_text(data, name, source, *references):
    (data / "raw").mkdir(parents=True, exist_ok=True)
    (data / "raw" / f"{name}.en").write_text(source + "\n")
    for number, reference in enumerate(references):
        (data / "raw" / f"{name}.de{f'.{number}' if number else ''}").write_text(reference + "\n")


def test_scores_of_other_columns_stay(data, tmp_path):
    """Those on another text of the same name, of another data folder, do not; nor do its further references."""
    other, run = tmp_path / "other", tmp_path / "run"
    write_text(data, "news", "a house", "ein Haus", "ein Heim")
    write_text(data, "valid", "a tree", "ein Baum")
    write_text(other, "valid", "a dog", "ein Hund")
    (other / "segmentation.json").write_bytes((data / "segmentation.json").read_bytes())
    for column in ("news.greedy", "valid.greedy", "valid.beam5"):
        translate(run, column, "ein Haus")
        scores.write_score(RunFolder(run), column, data, compound_split=column == "news.greedy")
    found = json.loads((run / "scores.json").read_text())
    assert list(found) == ["news.greedy", "valid.beam5", "valid.greedy"]
    assert "compound_split_bleu" in found["news.greedy"]
    translate(run, "valid.beam5", "ein Hund")
    scores.write_score(RunFolder(run), "valid.beam5", other)
    now = json.loads((run / "scores.json").read_text())
    assert list(now) == ["news.greedy", "valid.beam5"] and now["news.greedy"] == found["news.greedy"]
    assert now["valid.beam5"]["chrf"] == pytest.approx(100) != found["valid.beam5"]["chrf"]
    assert (run / "raw" / "valid.de").read_text() == "ein Hund\n"
    write_text(other, "news", "a house", "ein Haus")
    scores.write_score(RunFolder(run), "news.greedy", other)
    assert not (run / "raw" / "news.de.1").exists()


def test_two_processes_may_score_one_run(data, tmp_path):
    """No column is lost and no file is missing, also where they begin with the run's copy of the raw text."""
    write_text(data, "news", "a house", "ein Haus")
    columns = [f"news.beam{beam}" for beam in range(2, 42)]
    for column in columns:
        translate(tmp_path / "run", column, "ein Haus")
    code = (
        "import sys; from pathlib import Path; from gift_fairseq.evaluation import scores; "
        "from gift_fairseq.runs import RunFolder; data, run, *columns = sys.argv[1:]; input(); "
        "[scores.write_score(RunFolder(Path(run)), column, Path(data)) for column in columns]"
    )
    words = [[sys.executable, "-c", code, str(data), str(tmp_path / "run"), *columns[part::2]] for part in (0, 1)]
    started = [subprocess.Popen(one, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for one in words]
    for process in started:  # both have imported what they need before either begins
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert all(not status for _, status in ended), ended
    assert set(json.loads((tmp_path / "run" / "scores.json").read_text())) == set(columns)


def test_scores_of_an_earlier_version_are_read(data, tmp_path):
    write_text(data, "news", "a house", "ein Haus")
    translate(tmp_path, "news.greedy", "ein Haus")
    by = "checkpoint_best.pt", "--max-len-b 3", 7
    score = scores.write_score(RunFolder(tmp_path), "news.greedy", data, False, *by)
    found = json.loads((tmp_path / "scores.json").read_text())["news.greedy"]
    assert scores.Score.of_json(found) == score and (score.checkpoint, score.flags, score.updates) == by
    del found["checkpoint"], found["flags"], found["updates"]
    assert scores.Score.of_json(found) == replace(score, checkpoint=None, flags=None, updates=None)


def test_a_run_keeps_what_a_report_needs(data, tmp_path):
    """Every score, and the raw text byte by byte, further references too; of the sets that were translated alone."""
    texts = {"news.en": "a  house \u2028\n", "news.de": "Haus ü\r\n", "news.de.1": "Ein Haus\n", "olds.de": "x\n"}
    for name, text in texts.items():
        (data / "raw" / name).write_bytes(text.encode())
    run, columns = tmp_path / "a run", ["news.greedy", "news.beam5"]
    for column in columns:
        translate(run, column, "Haus ü")
        scores.write_score(RunFolder(run), column, data, compound_split=True)
    found = json.loads((run / "scores.json").read_text())
    assert set(found) == {"news.beam5", "news.greedy"}
    for score in found.values():
        assert score["bleu"] == pytest.approx(sacrebleu.corpus_bleu(["Haus ü"], [["Haus ü"], ["Ein Haus"]]).score)
        assert (score["sentences"], score["src"], score["tgt"], score["ter"]) == (1, "en", "de", 0)
        assert "nrefs:2" in score["signature"] and "compound_split_bleu" in score
        assert score["bleu_by_length"][0]["sentences"] == 1 and score["repetition_rate"] == 0
    assert {path.name for path in (run / "raw").iterdir()} == {"news.en", "news.de", "news.de.1"}
    assert all(
        (run / "raw" / name).read_bytes() == texts[name].encode() for name in ("news.en", "news.de", "news.de.1")
    )
