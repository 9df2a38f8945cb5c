"""Inference on raw text gives what fairseq-generate gives on the prepared data."""

import io
import sys

import pytest
from conftest import fairseq_train
from test_recipes import recipe

from gift_fairseq.data import toy_language
from gift_fairseq.data.segmentation import Segmenter
from gift_fairseq.evaluation import inference
from gift_fairseq.evaluation.translate import GENERATOR_FLAGS, fairseq_generate, read_best
from gift_fairseq.options import UserError

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
    done = recipe(
        "scripts/prepare.sh",
        *(word for name in ("train", "valid", "test") for word in (f"--{name}", text / name)),
        *("--subword", subword, "--tokenizer", tokenizer, "--vocab-size", 200, "--out", folder / "prepared"),
    )
    assert done.returncode == 0, done.stderr
    fairseq_train(folder / "prepared" / "data", folder / "run", MODEL)
    return text, folder / "prepared" / "data", folder / "run" / "checkpoint_last.pt"


def inferred(monkeypatch, capsys, text, data, checkpoint, *more):
    class Stdin(io.TextIOWrapper):
        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(text)))
    arguments = ["--data", data, "--checkpoint", checkpoint, *more, "--", "--cpu", "--max-len-b", 20]
    inference.main([str(word) for word in arguments])
    return capsys.readouterr().out.splitlines()


@pytest.mark.cli
@pytest.mark.parametrize("search", ["beam", "greedy"])
def test_same_as_fairseq_generate_on_the_prepared_data(trained, tmp_path, monkeypatch, capsys, search):
    text, data, checkpoint = trained
    beam = {"beam": "5", "greedy": "1"}[search]
    fairseq_generate(
        [str(data), "--task", "gift_translation", "--path", str(checkpoint), "--beam", beam, "--cpu"]
        + [*GENERATOR_FLAGS.split(), "--max-len-b", "20"],
        tmp_path / "out.txt",
    )
    segmenter = Segmenter(data, "de")
    expected = [segmenter.decode(line) for line in read_best(tmp_path / "out.txt")]
    raw = (text / "test.en").read_bytes()
    for buffer in (256, 7):
        capsys.readouterr()
        given = inferred(monkeypatch, capsys, raw, data, checkpoint, "--search", search, "--buffer", buffer)
        assert given == expected and len(set(expected)) > 1


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
        (b"", ["--beam", "1"], "--beam is 1, but must be 2 or more"),
        (b"", ["--buffer", "0"], "--buffer is 0, but must be 1 or more"),
    ],
)
def test_bad_input(trained, monkeypatch, capsys, text, more, sentence):
    _, data, checkpoint = trained
    with pytest.raises(UserError, match=sentence):
        inferred(monkeypatch, capsys, text, data, checkpoint, *more)


def test_bad_folder(tmp_path):
    with pytest.raises(UserError, match="has no segmentation.json: prepare the data"):
        inference.Translator(tmp_path, tmp_path / "model.pt", 5, 1, [])
