"""Preparation: what stays of a corpus, what is fixed, what is refused, and that a second start changes nothing."""

import fcntl
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import time

import language as toy_language
import pytest
from conftest import ROOT, error_of, gift
from fairseq import options

from gift_fairseq.data import prepare, testsets
from gift_fairseq.data.segmentation import Segmentation, Segmenter, Tokenizer
from gift_fairseq.errors import UserError

PAIRS = [
    ("a good house", "ein gutes Haus"),
    ("", "leer"),
    ("one", "eins"),
    ("a good house", "ein gutes Haus"),
    ("one two three four five six", "1 2 3 4 5 6"),
    ("one two", "1 2 3 4 5"),
    ("a good house", "ein anderes Haus"),
]


def write(folder, name, pairs, ending=""):
    folder.mkdir(exist_ok=True)
    for language, side in zip(("en", "de"), zip(*pairs)):
        text = "".join(line + "\n" for line in side).encode()
        (folder / f"{name}.{language}{ending}").write_bytes(gzip.compress(text) if ending else text)


@pytest.fixture
def corpus(tmp_path):
    """Prefixes of a small corpus in a folder with a difficult name, as command-line arguments."""
    folder = tmp_path / "a blank and ü"
    write(folder, "train", PAIRS)
    write(folder, "valid", PAIRS[:1])
    write(folder, "test", PAIRS[2:4])
    return folder


def splits(folder):
    return [word for name in ("train", "valid", "test") for word in (f"--{name}", folder / name)]


def prepared(folder, out, subword="sentencepiece", tokenizer="none", limits=(), **what):
    """All stages but that of fairseq-preprocess."""
    segmentation = Segmentation("en", "de", tokenizer, subword=subword)
    what = {"tests": [folder / "test"], "vocab_size": 30, "limits": prepare.Limits(*limits), **what}
    preparation = prepare.Preparation(folder / "train", folder / "valid", out=out, segmentation=segmentation, **what)
    for stage in (prepare.clean, prepare.learn, prepare.apply):
        stage(preparation)


def cleaned(out, name="train"):
    sides = [(out / "clean" / f"{name}.{language}").read_text().splitlines() for language in ("en", "de")]
    return list(zip(*sides))


def test_filtered_by_hand(corpus, tmp_path, monkeypatch):
    """Chunks of two lines: a duplicate is found across them; order stays; only training pairs are filtered."""
    monkeypatch.setattr(prepare, "CHUNK", 2)
    prepared(corpus, tmp_path / "out", vocab_size=20, limits=(2, 5, 2))
    assert cleaned(tmp_path / "out") == [PAIRS[0], PAIRS[6]]
    assert cleaned(tmp_path / "out", "test") == PAIRS[2:4]
    counts = json.loads((tmp_path / "out" / "clean" / "filtered.json").read_text())
    reasons = {"empty": 1, "too short": 1, "duplicate": 1, "too long": 1, "lengths too different": 1}
    assert counts["train"] == {"read": 7, "kept": 2, **reasons}
    assert counts["test"] == {"read": 2, "kept": 2}
    assert not list(tmp_path.rglob("*.partial*"))


def test_limits_are_inclusive():
    limits = prepare.Limits(min_len=2, max_len=4, max_ratio=2)
    assert limits.reason_against("a b", "a b c d") is None
    assert limits.reason_against("a b", "a b c d e") == "too long"
    assert limits.reason_against("a", "a b") == "too short"
    assert prepare.Limits(max_ratio=1.5).reason_against("a b", "a b c d") == "lengths too different"


def test_carriage_returns_and_control_characters_are_taken_out_and_told(corpus, tmp_path, capsys):
    text = "ein\x07 gutes\u2028Haus\r\n".encode() + b"leer\r\n" + "\ufeffeins\n".encode()
    (corpus / "train.de").write_bytes(text + b"".join(f"{side}\n".encode() for _, side in PAIRS[3:]))
    prepared(corpus, tmp_path / "out")
    assert cleaned(tmp_path / "out")[:2] == [("a good house", "ein gutes Haus"), ("one", "eins")]
    told = [line for line in capsys.readouterr().err.splitlines() if "train.de" in line]
    assert told == [
        f"{corpus}/train.de, line 1 ends in a carriage return: taken out there and wherever else",
        f"{corpus}/train.de, line 1 has control characters: taken out there and wherever else",
    ]


MISTAKES = [  # files with another content, or gone
    ({"train.de": b"eins\nzwei\n"}, "train.de ends after line 2, but .*train.en goes on"),
    ({"valid.de": b"eins\nzwei\n"}, "valid.en ends after line 1, but .*valid.de goes on"),
    ({"test.en": b"", "test.de": b""}, "test.en is empty"),
    ({"test.de": b"eins\n \n"}, "test.de, line 2 has no text"),
    ({"valid.en": b"caf\xe9\n"}, "valid.en, line 1 is not UTF-8: .* at byte 4"),
    ({"train.en": b"\n" * 7}, "no pair is left: 7 read, 7 empty"),
    ({"test.de": None}, "--test is .*test, but there is neither .*test.de nor"),
    ({"train.de": None, "train.de.gz": gzip.compress(b"eins\n" * 7)[:-9]}, "train.de.gz cannot be read to its end"),
    ({"train.de": None, "train.de.gz": b"eins\n"}, "train.de.gz cannot be read to its end: Not a gzipped file"),
]


@pytest.mark.parametrize("files, sentence", MISTAKES)
def test_bad_text_is_one_sentence_with_file_and_line(corpus, tmp_path, files, sentence):
    for name, content in files.items():
        (corpus / name).unlink() if content is None else (corpus / name).write_bytes(content)
    assert re.search(sentence, error_of("prepare", *splits(corpus), "--out", tmp_path / "out", "--workers", 1))
    assert not list(tmp_path.rglob("*.partial*")) and not (tmp_path / "out" / "done" / "clean").exists()
    assert not list(tmp_path.glob("out/clean/test.*"))


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--tgt", "en"], "--tgt is en, but must be another language than --src"),
        (["--tgt", "pt-BR"], "--tgt is pt-BR, but must be a name without '-', '.' and '/'"),
        (["--min-len", "9", "--max-len", "8"], "--max-len is 8, but must be 9 or more"),
        (["--max-ratio", "nan"], "--max-ratio is nan, but must be 1 or more"),
        (["--test", "a/x,b/x"], "--test names a set 'x', but each must have a name of its own"),
        (["--test", "a/valid"], "--test names a set 'valid', but"),
        (["--test", "a,"], "--test names a set '', but"),
        (["--dictionary", "nowhere"], "--dictionary is nowhere, but there is no such file"),
        (["--dictionary", __file__], f"--dictionary is {__file__}, but needs the --subword-model whose"),
        (["--train", "x"], "--train is x, but there is neither x.en nor x.en.gz"),
        (["--train", "x", "y"], "unrecognized arguments: y"),
        (["--", "--thresholdsrc", "x"], "fairseq-preprocess: argument --thresholdsrc: invalid int value: 'x'"),
        (["--", "--treshold", "2"], "fairseq-preprocess: unrecognized arguments: --treshold 2"),
        (["--subword", "word"], "--subword: invalid choice: 'word'"),
    ],
)
def test_bad_options(corpus, tmp_path, more, sentence):
    assert sentence in error_of("prepare", *splits(corpus), "--out", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_more_pieces_than_the_text_has(corpus, tmp_path):
    with pytest.raises(UserError, match="--vocab-size is 9999, which does not fit the text"):
        prepared(corpus, tmp_path / "out", vocab_size=9999)


def test_a_stage_that_fails_tells_what_takes_other_options(corpus, tmp_path, capsys):
    arguments = ["prepare", *splits(corpus), "--out", tmp_path / "out", "--vocab-size"]
    assert "--vocab-size is 9999, which does not fit the text" in error_of(*arguments, 9999)
    said = capsys.readouterr().err
    assert f"stage learn failed in {tmp_path}/out; run again to resume, or with other options in another" in said
    assert "--vocab-size was 9999 and is now 30; choose another folder" in error_of(*arguments, 30)


def test_a_killed_worker_ends_the_command(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(Tokenizer, "tokenize", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    arguments = ["prepare", *splits(corpus), "--out", tmp_path / "out", "--workers", 1]
    assert "--workers is 1, but one of them has ended early" in error_of(*arguments)
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize(
    "subword, content, sentence",
    [
        ("sentencepiece", b"#version: 0.2\ne i\n", "is not a model of sentencepiece"),
        ("bpe", b"e i 12\n", "is not codes of subword-nmt, two symbols a line"),  # as fastBPE's
        ("bpe", b"\n\xff\x08", "is not codes of subword-nmt, two symbols a line"),
    ],
)
def test_a_subword_model_of_another_kind(corpus, tmp_path, capfd, subword, content, sentence):
    (tmp_path / "model").write_bytes(content)
    more = ["--subword", subword, "--subword-model", tmp_path / "model", "--out", tmp_path / "out"]
    said = error_of("prepare", *splits(corpus), *more)
    assert said == f"gift: error: --subword is {subword}, but {tmp_path / 'model'} {sentence}"
    assert not (tmp_path / "out").exists() and not capfd.readouterr().err


@pytest.mark.parametrize("subword", ["sentencepiece", "bpe"])
@pytest.mark.parametrize("tokenizer", ["moses", "moses-bare", "none"])
def test_decoding_undoes_encoding(tmp_path, subword, tokenizer):
    text = [
        (f'He said: "well-known houses {n}, aren\'t they?"', f"Er sagte, Häuser ({n}) seien “gut”.") for n in range(50)
    ]
    for name in ("train", "valid", "test"):
        write(tmp_path / "text", name, text)
    prepared(tmp_path / "text", tmp_path / "out", subword, tokenizer, vocab_size=50)
    assert Segmentation.read(tmp_path / "out") == Segmentation("en", "de", tokenizer, False, subword)
    for language, side in zip(("en", "de"), zip(*text)):
        segmenter = Segmenter(tmp_path / "out", language)
        pieces = [segmenter.encode(line) for line in side]
        assert pieces == (tmp_path / "out" / "pieces" / f"train.{language}").read_text().splitlines()
        # Moses' detokenizer does not know that this mark closes
        opens, closes = {"moses": ('"', '"'), "moses-bare": ("“", " ”"), "none": ("“", "”")}[tokenizer]
        expected = [line.replace("“", opens).replace("”", closes) for line in side]
        assert [segmenter.decode(line) for line in pieces] == expected


@pytest.mark.parametrize(
    "tokenizer, expected",
    [
        ("moses", 'the well @-@ known " house " isn \'t big .'),
        ("moses-bare", "the well-known “ house ” isn &apos;t big ."),
        ("none", "the well-known “house” isn't big."),
    ],
)
def test_tokenizers_by_hand(tokenizer, expected):
    segmentation = Segmentation("en", "de", tokenizer=tokenizer, lowercase=True)
    assert Tokenizer(segmentation, "en").tokenize("The well-known  “house” isn't big.") == expected


def test_the_raw_test_sets_are_kept_with_their_names_and_references(corpus, tmp_path):
    """Gzipped, with carriage returns, with a second reference; in the order of fairseq's subsets."""
    write(corpus, "news", [("one\r", "eins\r"), ("t\rwo\u2028", "zwei")], ".gz")
    (corpus / "news.de.1").write_text("1\n2\n")
    tests = [corpus / "test", corpus / "news"]
    prepared(corpus, tmp_path / "out", tests=tests)
    out = tmp_path / "out"
    assert testsets.names(out) == ["test", "news"]
    assert [testsets.subset_of(out, name) for name in ("test", "news", "valid")] == ["test", "test1", "valid"]
    assert testsets.raw_lines(out, "news", "en") == ["one", "t\rwo\u2028"]
    assert testsets.references(out, "news", "de") == [["eins", "zwei"], ["1", "2"]]
    assert testsets.references(out, "valid", "de") == [["ein gutes Haus"]]
    with pytest.raises(UserError, match="--testset is train, but must be one of test, news, valid"):
        testsets.subset_of(out, "train")
    (corpus / "news.de.1").write_text("1\n")
    with pytest.raises(UserError, match="news.de.1 has 1 lines, but .*news.en.gz has 2|news.de.gz has 2"):
        prepared(corpus, tmp_path / "again", tests=tests)


@pytest.mark.parametrize("subword", ["sentencepiece", "bpe"])
def test_subwords_and_dictionary_of_another_model(corpus, tmp_path, subword):
    prepared(corpus, tmp_path / "one", subword)
    model = Segmentation("en", "de", subword=subword).subword_file(tmp_path / "one")
    (tmp_path / "dict").write_text("ein 3\n")
    write(corpus, "train", [("other words", "andere Worte")])
    prepared(corpus, tmp_path / "two", subword, subword_model=model, dictionary=tmp_path / "dict")
    assert (tmp_path / "two" / model.name).read_bytes() == model.read_bytes()
    assert (tmp_path / "two" / "dictionary.txt").read_text() == "ein 3\n"
    one, two = ((tmp_path / out / "pieces" / "test.de").read_text() for out in ("one", "two"))
    assert one == two


@pytest.mark.system
def test_a_disk_that_is_full_is_one_sentence_with_the_file(tmp_path):
    """A limit on the size of files fails a write as a full disk does: in the middle, without a file's name."""
    text = tmp_path / "text"
    toy_language.main(["--out", str(text), "--train", "2000", "--valid", "9", "--test", "9", "--test-long", "9"])
    words = shlex.join(map(str, ["bash", ROOT / "scripts/prepare.sh", *splits(text), "--out", tmp_path / "out"]))
    command = f"ulimit -f 60; exec {words}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert re.search(r"error: .*(train\.(en|de)|\.partial): File too large$|error: .*\.partial: disk", last), last
    assert not list(tmp_path.rglob("*.partial*")) and not list((tmp_path / "out" / "clean").iterdir())


def test_two_runs_do_not_share_a_folder(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        message = error_of("prepare", *splits(corpus), "--out", tmp_path / "out")
    assert message == f"gift: error: --out is {tmp_path}/out, but another process works there"


def test_the_command_of_fairseq_is_printed_and_nothing_is_done(corpus, tmp_path, capsys):
    write(corpus, "test.x", PAIRS[:1])
    (tmp_path / "codes").write_text("#version: 0.2\ne i\n")
    files = ["--subword", "bpe", "--subword-model", tmp_path / "codes", "--dictionary", corpus / "test.en"]
    more = ["--test", corpus / "test.x", *files, "--workers", 3]
    gift("prepare", *splits(corpus), *more, "--out", tmp_path / "out", "--dry-run", "--", "--thresholdsrc", 2)
    words, out = shlex.split(capsys.readouterr().out), tmp_path / "out"
    assert words[0] == "fairseq-preprocess" and words[-2:] == ["--thresholdsrc", "2"]
    parsed = options.get_preprocessing_parser().parse_args(words[1:])
    assert (parsed.source_lang, parsed.target_lang, parsed.workers) == ("en", "de", 3) and parsed.joined_dictionary
    assert (parsed.testpref, parsed.destdir) == (f"{out}/pieces/test,{out}/pieces/test1", f"{out}/data")
    assert parsed.srcdict == str(out / "dictionary.txt") and not out.exists()


@pytest.mark.parametrize("folder", ["clean", "pieces", "data"])
def test_data_that_it_did_not_make_stays(corpus, tmp_path, monkeypatch, folder):
    """Refused before anything starts, and again; what an interrupted run has made is its own."""
    write(tmp_path / folder, "train", PAIRS)
    monkeypatch.chdir(tmp_path)
    sentence = f"--out is ., but {folder} is there and was not made by gift prepare: choose another folder"
    for _ in range(2):
        assert sentence in error_of("prepare", *splits(corpus), "--out", ".")
    assert {path.name for path in (tmp_path / folder).iterdir()} == {"train.en", "train.de"}
    assert not (tmp_path / "run.json").exists() and not (tmp_path / "done").exists()


@pytest.mark.cli
def test_the_command_resumes_by_what_was_meant(corpus, tmp_path, monkeypatch, capsys):
    """Another order, a relative path, a default spelled out and other workers are no difference; a value is."""
    out = tmp_path / "out"
    arguments = ["prepare", *splits(corpus), "--out", out, "--vocab-size", 30]
    message = error_of(*arguments, "--", "--srcdict", "nowhere")
    assert "fairseq-preprocess failed with status 1" in message and "'nowhere'" in message
    assert {path.name for path in (out / "done").iterdir()} == {"clean", "learn", "apply"}
    assert 'what follows -- was ["--srcdict", "nowhere"] and is now []' in error_of(*arguments)
    (out / "run.json").unlink()
    gift(*arguments)
    kept = {path.name for path in (out / "data").iterdir()}
    assert {"segmentation.json", "subwords.model", "raw", "dict.en.txt", "test.en-de.de.bin"} <= kept
    assert testsets.raw_lines(out / "data", "test", "de") == [target for _, target in PAIRS[2:4]]
    before = files(out)
    (out / "done" / "binarize").unlink()  # as if killed before it was stamped
    (out / "data" / "raw" / "testsets.txt").unlink()
    gift(*arguments)
    assert files(out) == before
    monkeypatch.chdir(corpus)
    capsys.readouterr()
    again = "--vocab-size=30 --min-len=1 --test=test --workers=1 --valid=valid --train=train"
    gift("prepare", *again.split(), f"--out={out}")
    assert files(out) == before and "cleaning" not in capsys.readouterr().err
    sentence = "--max-ratio was 3.0 and is now 4.0; choose another folder, or the value of before"
    assert sentence in error_of(*arguments, "--max-ratio", 4)


def files(folder):
    """What is in them, by name; without those that tell when and by what they were made."""
    kept = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept if p.name not in ("run.json", "lock")}


@pytest.mark.system
def test_killed_at_any_moment_it_ends_in_the_same_files(tmp_path):
    """SIGKILL after ever more seconds, then once more to the end: the files of a run that nobody stopped."""
    text = tmp_path / "a blank and ü"
    toy_language.main(["--out", str(text), "--train", "2000", "--valid", "20", "--test", "20", "--test-long", "9"])
    command = ["bash", ROOT / "scripts/prepare.sh", *splits(text), "--vocab-size", "400", "--workers", "2"]

    def start(out):
        return subprocess.Popen(
            [str(word) for word in (*command, "--out", out)],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def finish(out):
        process = start(out)
        _, said = process.communicate()
        assert process.returncode == 0, said

    begun = time.monotonic()
    finish(tmp_path / "whole")
    seconds = time.monotonic() - begun
    for share in (0.3, 0.5, 0.7, 0.85):
        stopped = start(tmp_path / "stopped")
        time.sleep(share * seconds)
        os.killpg(stopped.pid, signal.SIGKILL)
        stopped.communicate()
    finish(tmp_path / "stopped")
    once, again = files(tmp_path / "whole"), files(tmp_path / "stopped")
    assert once.keys() == {name for name in again if ".partial" not in name}
    assert {name: again[name] for name in once} == once
