"""From a checkpoint to scores: what fairseq-generate wrote is read in order, and scored against the raw references."""

import pytest
import sacrebleu

from gift_fairseq.data import testsets
from gift_fairseq.evaluation import scores, translate
from gift_fairseq.options import UserError


def test_the_best_hypothesis_of_every_sentence_in_order(tmp_path):
    path = tmp_path / "out.log"
    path.write_text("S-1\tx\nH-1\t-0.1\tDas ist gut .\nH-1\t-0.9\tanders\nD-0\t-1\twrong\nH-0\t-0.5\tEin \u2028 Haus\n")
    assert translate.read_best(path) == ["Ein \u2028 Haus", "Das ist gut ."]
    path.write_text("H-1\t-0.1\tDas ist gut.\n")
    with pytest.raises(UserError, match="lacks sentences"):
        translate.read_best(path)


def test_scores_by_hand():
    perfect = ["Ein Haus steht dort.", "Das ist gut."]
    score = scores.bleu(perfect, [perfect])
    assert score["bleu"] == pytest.approx(100) and "tok:13a" in score["signature"] and "nrefs:1" in score["signature"]
    two = scores.bleu(perfect, [["Ein Haus steht dort.", "x"], ["x", "Das ist gut."]])
    assert two["bleu"] > scores.bleu(perfect, [["Ein Haus steht dort.", "x"]])["bleu"] and "nrefs:2" in two["signature"]
    with pytest.raises(UserError, match="1 hypotheses, but 2 references"):
        scores.bleu(["a"], [["a", "b"]])


def test_compounds_are_split_as_the_literature_does():
    """Only a hyphen between two characters; then every part counts as a token of its own."""
    hypotheses, references = ["Der E-Mail-Dienst (neu) ist gut ."], ["Der E-Mail-Server (neu) ist gut ."]
    split = "Der E ##AT##-##AT## Mail ##AT##-##AT## {} ( neu ) ist gut ."
    expected = sacrebleu.corpus_bleu([split.format("Dienst")], [[split.format("Server")]], tokenize="none", force=True)
    assert scores.compound_split_bleu(hypotheses, [references], "de") == pytest.approx(expected.score)
    assert expected.score > scores.bleu(hypotheses, [references])["bleu"]


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
        (["--beam", "1", "RUN/checkpoints/a.pt"], "--beam is 1, but must be 2 or more"),
        (["a.pt"], "CHECKPOINT is a.pt, but must be RUN/checkpoints/FILE.pt, or --out name the folder"),
        (["--testset", "olds", "RUN/checkpoints/a.pt"], "--testset is olds, but must be one of news, valid"),
        (["--out", "x", "a.pt", "b.pt"], "--out is x, but there are 2 checkpoints"),
    ],
)
def test_bad_options_of_translate(data, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        translate.main([str(data), *arguments])


def test_a_run_that_generated_nothing(data, tmp_path):
    with pytest.raises(UserError, match="has no generate/TESTSET.SEARCH.txt"):
        scores.main([str(data), str(tmp_path)])
    (tmp_path / "generate").mkdir()
    (tmp_path / "generate" / "news.beam5.txt").write_text("Haus\n")
    with pytest.raises(UserError, match="raw/news.de is missing"):
        scores.main([str(data), str(tmp_path)])
    (data / "raw" / "news.de").write_text("Haus\n")
    scores.main([str(data), str(tmp_path)])
    assert set(scores.score_run(tmp_path, data)) == {"news.beam5"}
