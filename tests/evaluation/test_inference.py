"""There is one way to translate, of raw text and of binarized test sets, and it is fairseq-generate's."""

import io
import json
import re
import shlex
import sys

import language as toy_language
import pytest
from conftest import error_of, fairseq_generate, fairseq_train, gift, lines_of, run_tool
from fairseq_cli import generate

from gift_fairseq.data.segmentation import Segmenter
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation.translate import Translator
from gift_fairseq.runs import RunFolder

MODEL = (
    "--arch transformer_wmt_en_de --share-all-embeddings --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32 "
    "--decoder-embed-dim 32 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --task gift_translation "
    "--criterion gift_standard --max-update 120 --lr 5e-3 --disable-validation --max-source-positions 60"
)
SUBWORDS = {"sentencepiece": "sentencepiece none", "bpe": "bpe moses"}


@pytest.fixture(scope="module", params=SUBWORDS)
def trained(request, tmp_path_factory):
    """Raw text, the data made of it, and the checkpoint of a model that has learned next to nothing."""
    folder = tmp_path_factory.mktemp("a blank and ü")
    text = folder / "text"
    toy_language.main(["--out", str(text), "--train", "300", "--valid", "9", "--test", "30", "--test-long", "3"])
    subword, tokenizer = SUBWORDS[request.param].split()
    gift(
        "prepare",
        *(word for name in ("train", "valid", "test") for word in (f"--{name}", text / name)),
        *("--subword", subword, "--tokenizer", tokenizer, "--vocab-size", 200, "--out", folder / "prepared"),
    )
    run = RunFolder(folder / "run")
    run.folder.mkdir()
    fairseq_train(folder / "prepared" / "data", run.checkpoints, MODEL)
    return text, folder / "prepared" / "data", run.checkpoint("last")


FLAGS = ["--cpu", "--max-len-b", 60]


def infer(monkeypatch, text, data, checkpoint, *more):
    class Stdin(io.TextIOWrapper):
        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(text)))
    return ["inference", "--data", data, "--checkpoint", checkpoint, *more, "--", *FLAGS]


def inferred(monkeypatch, capsys, *arguments):
    words = infer(monkeypatch, *arguments)
    capsys.readouterr()
    gift(*words)
    return capsys.readouterr().out.splitlines()


def generated(folder, data, checkpoint, *more):
    """What fairseq-generate writes, detokenized."""
    words = ["--task", "gift_translation", "--path", checkpoint, "--max-len-b", 60, *more]
    segmenter = Segmenter(data, "de")
    return [segmenter.decode(line) for line in lines_of(fairseq_generate(folder, data, *words))]


@pytest.mark.cli
@pytest.mark.parametrize("search, beam", [("beam", 5), ("greedy", 1)])
def test_inference_is_fairseq_generate_on_raw_text(trained, tmp_path, monkeypatch, capsys, search, beam):
    text, data, checkpoint = trained
    expected = generated(tmp_path, data, checkpoint, "--beam", beam)
    raw = (text / "test.en").read_bytes()
    for buffer in (256, 7):
        given = inferred(monkeypatch, capsys, raw, data, checkpoint, "--search", search, "--buffer", buffer)
        assert given == expected and len(set(expected)) > 1


@pytest.mark.cli
@pytest.mark.parametrize("flags", [[], ["--lenpen", "9"], ["--batch-size", "3"], ["--prefix-size", "2"]])
def test_evaluate_is_fairseq_generate(trained, tmp_path, capsys, flags):
    """Both searches with one model, each as a process of fairseq-generate's own, in batches of any size."""
    _, data, checkpoint = trained
    words = ["--data", data, "--testset", "test,valid", "--search", "both", "--beam", 4]
    gift("evaluate", *words, "--out", tmp_path / "run", checkpoint, "--", *FLAGS, *flags)
    found = {}
    for subset in ("test", "valid"):
        for name, beam in (("beam4", 4), ("greedy", 1)):
            folder = tmp_path / f"{subset}.{name}"
            expected = generated(folder, data, checkpoint, "--gen-subset", subset, "--beam", beam, *flags)
            found[folder.name] = RunFolder(tmp_path / "run").translations(folder.name).read_text().splitlines()
            assert found[folder.name] == expected and len(set(expected)) > 1
    assert found["test.beam4"] != found["test.greedy"]
    scored = json.loads(RunFolder(tmp_path / "run").scores_file.read_text())
    by = {(score["checkpoint"], score["updates"], score["flags"]) for score in scored.values()}
    flags = shlex.join(map(str, [*FLAGS, *flags]))
    assert sorted(scored) == sorted(found) and by == {(checkpoint.name, 120, flags)}
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines() if line.startswith("run\t")]
    assert [line[1] for line in lines] == sorted(found) and all("version:" in line[3] for line in lines)


@pytest.mark.cli
def test_the_length_penalty_matters(trained, tmp_path):
    """So that what the test above says of it is not said of flags that are not read."""
    _, data, checkpoint = trained
    one, other = (
        generated(tmp_path / penalty, data, checkpoint, "--beam", 4, "--lenpen", penalty) for penalty in ("1", "9")
    )
    assert one != other


@pytest.mark.cli
def test_the_commands_that_a_user_can_paste(trained, tmp_path, capsys):
    _, data, checkpoint = trained
    gift("evaluate", "--data", data, "--search", "both", "--dry-run", checkpoint, "--", *FLAGS)
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 2 and not RunFolder(checkpoint.parent.parent).generated.exists()
    program, folder, *words = shlex.split(commands[1])
    assert program == "fairseq-generate" and folder == str(data)
    capsys.readouterr()
    run_tool(generate, folder, *words)
    segmenter = Segmenter(data, "de")
    pasted = [segmenter.decode(line) for line in lines_of(capsys.readouterr().out)]
    assert pasted == generated(tmp_path, data, checkpoint, "--beam", 1)


@pytest.mark.cli
def test_a_line_for_a_line(trained, monkeypatch, capsys):
    """Lines without text stay empty; the last line need not end; several hypotheses come with number and score."""
    _, data, checkpoint = trained
    lines = inferred(monkeypatch, capsys, b"the dog\n\n \nthe cat", data, checkpoint)
    assert len(lines) == 4 and lines[1] == lines[2] == "" and lines[0] and lines[3]
    rows = [
        line.split("\t")
        for line in inferred(monkeypatch, capsys, b"the dog\n\nthe cat\n", data, checkpoint, "--nbest", 3)
    ]
    assert [row[0] for row in rows] == ["1", "1", "1", "2", "3", "3", "3"]
    assert rows[0][2] == lines[0] and rows[4][2] == lines[3]
    scores = [float(row[1]) for row in rows]
    assert scores[0] >= scores[1] >= scores[2] and rows[3][1:] == ["0.0000", ""]


@pytest.mark.cli
@pytest.mark.parametrize(
    "text, more, sentence",
    [
        (b"good\ncaf\xe9\n", [], "line 2 is not UTF-8: .* at byte 4"),
        (b"dog\n" * 3 + b"dog " * 99, [], "line 4 has .* subwords, but the model takes at most 59"),
        (b"", ["--nbest", "6"], "--nbest is 6, but must not be above the beam size, 5"),
    ],
)
def test_bad_input(trained, monkeypatch, text, more, sentence):
    _, data, checkpoint = trained
    assert re.search(sentence, error_of(*infer(monkeypatch, text, data, checkpoint, *more)))


@pytest.mark.cli
def test_raw_text_has_no_prefixes(trained, monkeypatch):
    _, data, checkpoint = trained
    words = [*infer(monkeypatch, b"dog\n", data, checkpoint), "--prefix-size", 1]
    assert "--prefix-size is 1, but raw text has no references to take prefixes from" in error_of(*words)


def test_bad_folder(tmp_path):
    with pytest.raises(UserError, match="--data is .*, which has no segmentation.json: prepare the data"):
        Translator(tmp_path, tmp_path / "model.pt")


@pytest.mark.cli
@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--beam", 3], "--beam stands after --, which is not taken there: use fairseq-generate itself"),
        (["--lm-path=x"], "--lm-path stands after --, which is not taken there"),
        (["--remove-bpe"], "--remove-bpe stands after --, which is not taken there"),
        (["--bad"], "fairseq-generate: unrecognized arguments: --bad"),
        (["--lenpen", "x"], "fairseq-generate: argument --lenpen: invalid float value: 'x'"),
        (["--model-overrides", "{"], "--model-overrides is {, but must be options in braces, such as {'dropout': 0.1}"),
        (["--model-overrides", "foo"], "--model-overrides is foo, but must be options in braces"),
        (["--model-overrides", "3"], "--model-overrides is 3, but must be options in braces"),
        (["--sampling-topk", 5], "fairseq-generate: --sampling-topk requires --sampling"),
        (["--diverse-beam-groups", 2], "--diverse-beam-groups is 2, but the beam size, 5, must be a multiple of it"),
        (["--min-len", 300], "--min-len is 300, but a translation has at most 200 tokens: see --max-len-b"),
    ],
)
def test_bad_flags(trained, tmp_path, flags, sentence):
    _, data, checkpoint = trained
    assert sentence in error_of("evaluate", "--data", data, "--out", tmp_path, checkpoint, "--", *flags)


@pytest.mark.cli
def test_flags_that_fit(trained, tmp_path, monkeypatch, capsys):
    """At the bounds of the checks above."""
    _, data, checkpoint = trained
    fitting = ["--diverse-beam-groups", 5, "--min-len", 60, "--model-overrides", "{'dropout': 0.1}"]
    words = [*infer(monkeypatch, b"the dog\n", data, checkpoint), *fitting]
    gift(*words)
    assert len(Segmenter(data, "de").encode(capsys.readouterr().out.strip()).split()) > 20
