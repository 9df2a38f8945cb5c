"""candidates: the hypotheses of the training text, which of them are chosen, and the data folder of it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from conftest import error_of, fairseq_generate, fairseq_train, gift, lines_of
from fairseq.data import Dictionary, data_utils
from sacrebleu.metrics import CHRF
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gift_fairseq.cli import parser_of
from gift_fairseq.cli.candidates import proposing_of
from gift_fairseq.errors import UserError
from gift_fairseq.own_translations import propose
from gift_fairseq.own_translations.origin import Origin

BEAM = ["--beam", "3", "--length-tolerance", "1", "--min-score", "30", "--score", "chrf", "--max-tokens", "60"]
TRAINED = "--task gift_translation --arch transformer_wmt_en_de --criterion gift_standard --share-all-embeddings "
TRAINED += "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32 --decoder-embed-dim 32 "
TRAINED += "--encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
TRAINED += "--decoder-attention-heads 2 --lr 5e-3 --max-update 40"


@pytest.fixture(scope="module")
def trained(binarized, tmp_path_factory):
    """The checkpoint of a model that has learnt a little."""
    folder = tmp_path_factory.mktemp("trained")
    fairseq_train(binarized, folder, TRAINED)
    return folder / "checkpoint_last.pt"


def candidates(trained, data, out, *more):
    gift("candidates", "--from", trained, "--data", data, "--out", out, *more)
    return out


@pytest.fixture(scope="module")
def proposed(trained, binarized, tmp_path_factory):
    return candidates(trained, binarized, tmp_path_factory.mktemp("proposed") / "a blank", *BEAM)


def lines(out):
    found = [json.loads(line) for file in sorted((out / "hypotheses").glob("*.jsonl")) for line in file.open()]
    return {line["sentence"]: line for line in found}


def pairs(data, split):
    """Source and target of every pair, as ids."""
    words = Dictionary.load(str(data / "dict.de.txt"))
    sides = (data_utils.load_indexed_dataset(str(data / f"{split}.en-de.{side}"), words) for side in ("en", "de"))
    return list(zip(*([text.tolist() for text in side] for side in sides)))


def chosen(out):
    return pairs(out / "data", "train")[60:]


def contents(out):
    files = [*(out / "hypotheses").glob("*.jsonl"), *(out / "data").glob("train*")]
    return {file.name: file.read_bytes() for file in files}


def ids(text, words):
    return [words.index(word) for word in text.split()]


class LinearTypes(TorchFunctionMode):
    """The types in which linear layers compute."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_function__(self, function, _types, arguments=(), options=None):
        output = function(*arguments, **(options or {}))
        if function is functional.linear:
            self.found.add(output.dtype)
        return output


@pytest.mark.parametrize("how", [[], ["--sample", "2"]])
@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_encoder_and_decoder_compute_in_the_precision(trained, binarized, how, precision, dtype):
    words = ["--from", str(trained), "--data", str(binarized), "--out", "unused", "--precision", precision, *how]
    proposer = propose.Proposer(proposing_of(parser_of("candidates").parse_args(words)))
    with LinearTypes() as types:
        next(proposer.lines(proposer.chunks(100, None)[0][0]))
    assert types.found == {dtype}


def test_hypotheses_are_those_of_fairseqs_beam(trained, binarized, proposed, tmp_path):
    """But where fairseq's go on beyond twice the gold length."""
    flags = ["--path", trained, "--gen-subset", "train", "--beam", "3", "--nbest", "3"]
    said = fairseq_generate(tmp_path, binarized, "--task", "gift_translation", *flags)
    found, compared = {}, 0
    for line in said.split("\n"):
        if line.startswith("H-"):
            number, _, text = line.split("\t")
            found.setdefault(int(number[2:]), []).append(f"{text} </s>".strip())
    gold = [len(target) for _, target in pairs(binarized, "train")]
    for number, line in lines(proposed).items():
        if all(len(text.split()) < 2 * gold[number] for text in found[number]):
            assert line["hypotheses"] == found[number]
            compared += 1
    assert compared > 30 and len(found) == 60 == len(lines(proposed))


def test_scores_and_choice_by_hand(binarized, proposed):
    """The scores are sacreBLEU's on whole words; the nearest one that is near enough and no longer than twice."""
    words, gold = Dictionary.load(str(binarized / "dict.de.txt")), pairs(binarized, "train")
    expected = []
    for number, line in lines(proposed).items():
        rows, (source, target) = [ids(text, words) for text in line["hypotheses"]], gold[number]
        whole = [words.string(row) for row in rows]
        by_hand = [CHRF().sentence_score(text, [words.string(target)]).score for text in whole]
        assert line["scores"] == pytest.approx(by_hand, abs=0.006)
        near = [i for i in range(3) if line["scores"][i] >= 30 and len(rows[i]) <= 2 * len(target)]
        if near:
            expected.append((source, rows[max(near, key=lambda i: line["scores"][i])]))
    assert 10 < len(expected) < 60 and [target for _, target in expected] != [target for _, target in gold]
    counts = Counter(map(str, chosen(proposed)))  # as many as there are gold pairs
    assert counts.keys() == set(map(str, expected)) and sum(counts.values()) == 60
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_data_folder_trains_on_gold_and_chosen_pairs(proposed, binarized, tmp_path):
    data = proposed / "data"
    assert pairs(data, "train")[:60] == pairs(binarized, "train") and pairs(data, "valid") == pairs(binarized, "valid")
    fairseq_train(data, tmp_path / "run", TRAINED.replace("--max-update 40", "--max-epoch 1"))
    flags = ["--task", "gift_translation", "--gen-subset", "train", "--beam", "1"]
    said = fairseq_generate(tmp_path, data, "--path", tmp_path / "run" / "checkpoint_last.pt", *flags)
    words = Dictionary.load(str(data / "dict.de.txt"))
    assert lines_of(said, "T") == [words.string(target) for _, target in pairs(data, "train")]


def test_choosing_again_does_not_translate_again(trained, binarized, proposed):
    once, before = chosen(proposed), [path.stat().st_mtime_ns for path in proposed.glob("hyp*/*")]
    candidates(trained, binarized, proposed, *BEAM, "--share", "0.75")
    assert len(chosen(proposed)) == 180 and set(map(str, chosen(proposed))) == set(map(str, once))
    candidates(trained, binarized, proposed, *BEAM, "--share", "0.05")
    assert len(chosen(proposed)) == 3
    candidates(trained, binarized, proposed, *BEAM, "--pick", "first")
    first = chosen(proposed)
    assert len(set(map(str, first))) == len(set(map(str, once))) and first != once
    candidates(trained, binarized, proposed, *BEAM)
    assert chosen(proposed) == once
    assert [path.stat().st_mtime_ns for path in proposed.glob("hyp*/*")] == before
    assert "--beam was 3 and is now 4" in error_of(
        *("candidates", "--from", trained, "--data", binarized, "--out", proposed, *BEAM, "--beam", "4")
    )


def test_translations_of_two_models_do_not_mix(trained, binarized, tmp_path):
    """The checkpoint was trained further under the same name."""
    checkpoint = tmp_path / "checkpoint_last.pt"
    shutil.copy(trained, checkpoint)
    candidates(checkpoint, binarized, tmp_path / "out", *BEAM, "--min-score", "0")
    torch.save({**torch.load(checkpoint), "more": 1}, checkpoint)
    given = ["--from", checkpoint, "--data", binarized, "--out", tmp_path / "out", *BEAM, "--min-score", "0"]
    assert "which was made with other options: what --from holds was " in error_of("candidates", *given)


def test_what_is_chosen_stays_until_an_option_changes(trained, binarized, proposed):
    """A training may read the folder."""
    candidates(trained, binarized, proposed, *BEAM)
    before = (proposed / "data").stat().st_ino
    candidates(trained, binarized, proposed, *BEAM)
    assert (proposed / "data").stat().st_ino == before
    candidates(trained, binarized, proposed, *BEAM, "--share", "0.4")
    assert (proposed / "data").stat().st_ino != before
    candidates(trained, binarized, proposed, *BEAM)


def test_a_sentence_longer_than_a_batch_is_translated(trained, binarized):
    words = ["--from", str(trained), "--data", str(binarized), "--out", "unused"]
    proposer = propose.Proposer(proposing_of(parser_of("candidates").parse_args(words)))
    batches = [batch for chunk in proposer.chunks(1, None) for batch in chunk]
    assert sorted(place for batch in batches for place in batch) == list(range(60))
    lengths = [[proposer.dataset.num_tokens(place) for place in batch] for batch in batches]
    longest = max(map(max, lengths))
    assert all(len(batch) * max(batch) <= longest for batch in lengths) and max(map(len, lengths)) > 1


def test_own_translations_are_not_taken_for_gold(trained, proposed, tmp_path):
    given = ["--from", trained, "--data", proposed / "data", "--out", tmp_path / "out"]
    assert "has own translations already: it was made from " in error_of("candidates", *given)


def test_data_that_it_did_not_make_stays(trained, binarized, tmp_path):
    corpus, other = tmp_path / "corpus", tmp_path / "other"
    for folder in (corpus, other):
        shutil.copytree(binarized, folder / "data")
    given = ["candidates", "--from", trained, "--data", corpus / "data", *BEAM, "--out"]
    sentence = "data is there and was not made by gift candidates: choose another folder"
    for folder in (corpus, other):
        assert f"--out is {folder}, but {folder}/{sentence}" in error_of(*given, folder)
        assert [path.name for path in folder.iterdir()] == ["data"] and contents(folder) == contents(binarized.parent)


def test_training_text_in_several_files_is_refused(trained, binarized, tmp_path):
    """fairseq-train joins train1 to train; OUT/data would be without it."""
    shutil.copytree(binarized, tmp_path / "data")
    for path in binarized.glob("train.*"):
        shutil.copy(path, tmp_path / "data" / path.name.replace("train", "train1", 1))
    said = error_of("candidates", "--from", trained, "--data", tmp_path / "data", *BEAM, "--out", tmp_path / "out")
    assert f"--data is {tmp_path}/data, whose training text goes on in train1." in said and "--trainpref" in said
    assert not (tmp_path / "out").exists()


def test_subwords_may_hold_white_space_of_other_kinds(tmp_path):
    words = Dictionary()
    ids = [words.add_symbol(word) for word in ("\u2581a", "\u00a0", "b\u2028", "\u3000c")]
    texts = [" ".join(words[i] for i in [*row, words.eos()]) for row in (ids, ids[:1])]
    line = {"sentence": 5, "scores": [50.0, 25.5], "hypotheses": texts}
    (tmp_path / "x.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    places, tokens, scores = propose.read(tmp_path / "x.jsonl", words)
    assert places == [5] and scores.tolist() == [[50, 25.5]]
    assert tokens.tolist() == [[[*ids, words.eos()], [ids[0], words.eos(), *[words.pad()] * 3]]]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("gift_fairseq.own_translations.propose.CHUNK", 12)


SAMPLED = ["--sample", "4", "--temperature", "0.7", "--length-tolerance", "1", "--min-score", "0", "--max-tokens", "60"]


def test_resumed_it_is_the_same_to_the_byte(trained, binarized, tmp_path, small_chunks):
    whole = candidates(trained, binarized, tmp_path / "whole", *SAMPLED)
    files = sorted((whole / "hypotheses").glob("*.jsonl"))
    assert len(files) > 3
    resumed = tmp_path / "resumed" / "hypotheses"
    resumed.mkdir(parents=True)
    shutil.copy(files[1], resumed)
    os.utime(resumed / files[1].name, (1, 1))
    candidates(trained, binarized, resumed.parent, *SAMPLED)
    assert contents(resumed.parent) == contents(whole)
    assert [file.name for file in resumed.iterdir() if file.stat().st_mtime == 1] == [files[1].name]


@pytest.mark.system
def test_two_processes_write_what_one_does(trained, binarized, tmp_path, small_chunks):
    one, two = (candidates(trained, binarized, tmp_path / n, *SAMPLED, "--gpus", n) for n in "12")
    assert contents(one) == contents(two)


@pytest.mark.system
def test_with_several_processes_they_alone_take_a_gpu(trained, binarized, tmp_path, monkeypatch):
    """Where only the process that starts them believes that there is one, nothing is moved to it."""
    words = ["--from", str(trained), "--data", str(binarized), "--out", "unused"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    propose.propose(proposing_of(parser_of("candidates").parse_args(words)), tmp_path / "hypotheses", 60, None, 2)
    assert len(lines(tmp_path)) == 60


@pytest.fixture
def within_two_minutes():
    """What waits for ever fails."""

    def over(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


ENDED_EARLY = "one of the 2 processes that translate has ended early"


class OfThisProcess(type(Path())):
    """A path that no other process finds."""

    def __reduce__(self):
        return Path, ("nowhere.pt",)


def test_a_process_that_cannot_start_ends_the_run(trained, binarized, tmp_path, within_two_minutes, capfd):
    words = ["--from", str(trained), "--data", str(binarized), "--out", "unused"]
    what = proposing_of(parser_of("candidates").parse_args(words))._replace(checkpoint=OfThisProcess(trained))
    with pytest.raises(UserError, match=ENDED_EARLY):
        propose.propose(what, tmp_path / "hypotheses", 60, None, 2)
    assert "nowhere.pt, but there is no such file" in capfd.readouterr().err


def at_work(folder):
    """The processes that this one started and that write in ``folder``."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(Path(file.path).match(f"{folder}/*.partial") for file in process.open_files()):
                found.append(process)
    return found


def test_a_process_that_is_killed_ends_the_run_which_resumes(
    trained, binarized, tmp_path, small_chunks, within_two_minutes
):
    """SIGKILL, as where memory is out, to one that works while others are finished."""
    folder = tmp_path / "killed" / "hypotheses"

    def kill():
        while not (any(folder.glob("*.jsonl")) and (found := at_work(folder))):
            time.sleep(0.01)
        found[0].kill()

    threading.Thread(target=kill, daemon=True).start()
    slow = [*SAMPLED, "--max-tokens", 1]
    given = ["candidates", "--from", trained, "--data", binarized, "--out", folder.parent, *slow]
    assert ENDED_EARLY in error_of(*given, "--gpus", 2)
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("*.jsonl")}
    assert 0 < len(kept) < 5 and not list(folder.glob("*.partial"))
    gift(*given)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert contents(folder.parent) == contents(candidates(trained, binarized, tmp_path / "whole", *slow))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_processes_end_with_the_command(trained, binarized, tmp_path, sent):
    """All of them hold the pipe open. SIGINT goes to all, as at a terminal."""
    folder = tmp_path / "hypotheses"
    words = [sys.executable, "-m", "gift_fairseq", "candidates", "--from", trained, "--data", binarized]
    words += ["--out", tmp_path, "--sample", 64, "--max-tokens", 1, "--gpus", 2]
    command = subprocess.Popen(
        list(map(str, words)),
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # which a background job ignores
    )
    try:
        while not list(folder.glob("*.partial")) and command.poll() is None:
            time.sleep(0.01)
        (os.killpg if sent == signal.SIGINT else os.kill)(command.pid, sent)
        command.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
    assert command.returncode == -sent and not list(folder.glob("*.jsonl"))
    assert sent == signal.SIGKILL or not list(folder.glob("*.partial"))


def test_some_sentences_at_random(trained, binarized, tmp_path):
    some = {}
    for seed in (1, 1, 2):
        out = candidates(trained, binarized, tmp_path / f"{seed}-{len(some)}", *BEAM, "--sentences", 20, "--seed", seed)
        some.setdefault(seed, []).append(sorted(lines(out)))
    assert some[1][0] == some[1][1] != some[2][0] and len(some[2][0]) == 20
    assert len(set(some[2][0])) == 20


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (["--min-score", "101"], "--min-score is 101.0, but no score is above 100"),
        (["--length-tolerance", "-1"], "--length-tolerance is -1.0, but must be between 0 and 1"),
        (["--temperature", "0.5"], "--temperature is 0.5, but nothing is sampled: add --sample"),
        (["--beam", "3", "--sample", "3"], "not allowed with argument"),
        (["--sample", "1"], "--sample is '1', but must be a whole number, 2 or more"),
        (["--precision", "fp16"], "--precision is fp16, but this machine has no GPU"),
        (["--share", "1"], "--share is 1, but must be below 1: the gold pairs stay"),
        (["--share", "0"], "--share is 0.0, but must be above 0 and finite"),
        (["--min-score", "100", "--sentences", "1"], "--min-score is 100, but no translation of the text reaches it"),
        (["--from", "nowhere.pt"], "nowhere.pt, but there is no such file"),
        (["--from", "/"], "--from is /, but there is no such file"),
        (["--data", "/"], "--data is /, but that is no data folder"),
    ],
)
def test_mistakes(trained, binarized, tmp_path, wrong, sentence):
    given = ["--from", trained, "--data", binarized, "--out", tmp_path / "out", *wrong]  # of two the last one counts
    assert sentence in error_of("candidates", *given)
    assert not list(tmp_path.glob("out/data*"))


def test_a_folder_of_another_version_is_refused(tmp_path):
    (tmp_path / "candidates.json").write_text('{"data": "x", "checkpoint": "x.pt", "seconds": 1.5}')
    with pytest.raises(UserError, match="candidates.json was written by another version: run gift candidates again"):
        Origin.of(tmp_path)
