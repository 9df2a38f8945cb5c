"""The recipe for WMT14 on archives of the same layout: from them to the table, and every way a download goes wrong."""

import http.server
import io
import json
import re
import shutil
import sys
import tarfile
import threading
from collections import Counter
from types import SimpleNamespace

import language as toy_language
import pytest
import torch
from conftest import ROOT, TRANSFORMER, fairseq_train, gift, recipe
from sacrebleu.dataset.fake_sgml import FakeSGMLDataset

from gift_fairseq.data import testsets

TINY = [*TRANSFORMER.split()[2:], "--num-workers", "0", "--warmup-updates", "4", "--lr", "1e-2"]
CORPORA = {  # as they lie in the archives
    "training-parallel-europarl-v7.tgz": "training/europarl-v7.de-en",
    "training-parallel-commoncrawl.tgz": "commoncrawl.de-en",
    "training-parallel-nc-v9.tgz": "training/news-commentary-v9.de-en",
}
SETS = {
    "test.tgz": {"en": "test/newstest2013-src.en.sgm", "de": "test/newstest2013-src.de.sgm"},
    "test-full.tgz": {"en": "test-full/newstest2014-deen-src.en.sgm", "de": "test-full/newstest2014-deen-ref.de.sgm"},
}
MODEL = "wmt16.en-de.joined-dict.transformer"
PLACES = {
    name: "wmt14" if name in ("training-parallel-nc-v9.tgz", "test-full.tgz") else "wmt13" for name in CORPORA | SETS
}
PLACES[f"{MODEL}.tar.bz2"] = "fairseq"


def archive(path, files, compression="gz"):
    with tarfile.open(path, f"w:{compression}") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def sgml(lines):
    segments = "".join(f'<seg id="{number}">{line}</seg>\n' for number, line in enumerate(lines, 1))
    head = '<srcset setid="newstest2013" srclang="any">\n<doc sysid="ref" docid="a" genre="news" origlang="en">\n<p>\n'
    return f"{head}{segments}</p>\n</doc>\n</srcset>\n".encode()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Three corpora of a hundred pairs, two of them without an end to the last line, and two sets with odd blanks."""
    folder = tmp_path_factory.mktemp("archives ü")
    text = folder / "text"
    toy_language.main(["--out", str(text), "--train", "300", "--valid", "9", "--test", "12"])
    lines = {
        (name, language): (text / f"{name}.{language}").read_text().splitlines()
        for name in ("train", "valid", "test")
        for language in ("en", "de")
    }
    for number, (name, member) in enumerate(CORPORA.items()):
        end = b"\n" if number == 2 else b""
        part = slice(100 * number, 100 * number + 100)
        content = {f"{member}.{side}": "\n".join(lines["train", side][part]).encode() + end for side in ("en", "de")}
        archive(folder / name, {**content, "README": b"x"})
    for (name, members), made_of in zip(SETS.items(), ("valid", "test")):
        sets = {language: [*lines[made_of, language], "  two\u00a0 blanks &amp; a\tquote' "] for language in members}
        archive(folder / name, {members[language]: sgml(sets[language]) for language in members})
    return SimpleNamespace(folder=folder, lines=lines)


def download(archives, out, *more):
    return recipe("examples/wmt14_en_de/download.sh", "--source", archives.folder, "--out", out, *more)


@pytest.mark.cli
def test_the_text_is_that_of_the_archives(archives, tmp_path):
    """Corpora one after the other in their order; test sets as sacreBLEU reads them; a second run does nothing."""
    done = download(archives, tmp_path / "out", "--unverified")
    assert done.returncode == 0, done.stderr
    text = tmp_path / "out" / "text"
    for language in ("en", "de"):
        assert (text / f"train.{language}").read_text().splitlines() == archives.lines["train", language]
        for name, archived in (("newstest2013", "test.tgz"), ("newstest2014", "test-full.tgz")):
            with tarfile.open(archives.folder / archived) as tar:
                (tmp_path / "in.sgm").write_bytes(tar.extractfile(SETS[archived][language]).read())
            FakeSGMLDataset("x", langpairs={})._convert_format(f"{tmp_path}/in.sgm", f"{tmp_path}/expected")
            assert (text / f"{name}.{language}").read_text() == (tmp_path / "expected").read_text()
    again = download(archives, tmp_path / "out", "--unverified")
    assert again.returncode == 0 and "unpacking" not in again.stderr
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.cli
def test_archives_that_are_not_to_be_taken(archives, tmp_path):
    def refused(sentence, *more, change=None):
        folder = SimpleNamespace(folder=tmp_path / "in")
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        shutil.copytree(archives.folder, tmp_path / "in")
        if change:
            change(tmp_path / "in")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        done = download(folder, tmp_path / "out", *more)
        assert done.returncode != 0 and re.search(sentence, done.stderr), done.stderr
        assert not list((tmp_path / "out" / "text").glob("newstest2014.*"))

    def cut(folder):
        path = folder / "test.tgz"
        path.write_bytes(path.read_bytes()[:-20])

    def another(folder):
        archive(folder / "training-parallel-nc-v9.tgz", {"README": b"x"})

    def unequal(folder):
        member = CORPORA["training-parallel-nc-v9.tgz"]
        archive(folder / "training-parallel-nc-v9.tgz", {f"{member}.en": b"a\nb\n", f"{member}.de": b"a\n"})

    refused(r"europarl-v7.tgz is not the published one \(sha256 [0-9a-f]{64}\)")
    refused("test.tgz is cut off or damaged", "--unverified", change=cut)
    refused("nc-v9.tgz has no training/news-commentary-v9.de-en.en: it is not", "--unverified", change=another)
    refused("news-commentary-v9.de-en.de has another number of lines", "--unverified", change=unequal)
    refused("test-full.tgz is missing there", "--unverified", change=lambda it: (it / "test-full.tgz").unlink())


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the archives in parts; ends the first connection for each of ``cuts`` halfway."""

    def do_GET(self):
        path = self.server.folder / self.path.rsplit("/", 1)[1]
        self.server.asked[self.path] += 1
        if not path.is_file() or self.path.split("/")[1] != PLACES[path.name]:
            return self.send_error(404)
        content = path.read_bytes()
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-")).group(1))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.server.starts[path.name].append(start)
        if path.name in self.server.cuts and not start:
            self.wfile.write(content[: len(content) // 2])
        else:
            self.wfile.write(content[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(archives, tmp_path):
    """On the loopback, over a copy of the archives, with a released model beside them."""
    folder = tmp_path / "served"
    shutil.copytree(archives.folder, folder)
    content = {f"{MODEL}/{name}": b"x" for name in ("model.pt", "bpecodes", "dict.en.txt", "dict.de.txt")}
    archive(folder / f"{MODEL}.tar.bz2", content, "bz2")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.folder, server.cuts, server.asked = folder, set(), Counter()
        server.starts = {name: [] for name in PLACES}
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.cli
def test_a_download_that_breaks_off_goes_on_where_it_was(server, tmp_path):
    options = ("--mirror", server.url, "--unverified", "--released", "--out", tmp_path / "out")
    arguments = ("examples/wmt14_en_de/download.sh", *options)
    server.cuts = {"training-parallel-commoncrawl.tgz"}
    half = (server.folder / "training-parallel-commoncrawl.tgz").stat().st_size // 2
    done = recipe(*arguments)
    if done.returncode:  # curl did not try again by itself
        assert "commoncrawl.tgz could not be downloaded from http" in done.stderr
        assert not (tmp_path / "out" / "archives" / "training-parallel-commoncrawl.tgz").exists()
        done = recipe(*arguments)
    assert done.returncode == 0, done.stderr
    assert server.starts["training-parallel-commoncrawl.tgz"] == [0, half]
    for name in PLACES:
        assert (tmp_path / "out" / "archives" / name).read_bytes() == (server.folder / name).read_bytes()
        assert name == "training-parallel-commoncrawl.tgz" or server.starts[name] == [0]
    before = sum(server.asked.values())
    assert recipe(*arguments).returncode == 0 and sum(server.asked.values()) == before


@pytest.mark.cli
def test_downloads_that_fail(server, tmp_path):
    """A missing file, a wrong one and a cut one stop with their names; the wrong ones are not kept."""
    arguments = ("examples/wmt14_en_de/download.sh", "--mirror", server.url, "--out", tmp_path / "out")
    done = recipe(*arguments)
    assert done.returncode != 0 and "europarl-v7.tgz is not the published one (sha256 " in done.stderr
    assert not list((tmp_path / "out" / "archives").iterdir())
    (server.folder / "training-parallel-nc-v9.tgz").unlink()
    arguments = (*arguments[:-1], tmp_path / "other", "--unverified")
    done = recipe(*arguments)
    assert done.returncode != 0 and "training-parallel-nc-v9.tgz could not be downloaded" in done.stderr
    (server.folder / "training-parallel-nc-v9.tgz").write_bytes(b"<html>Not here</html>")
    done = recipe(*arguments)
    assert done.returncode != 0 and "training-parallel-nc-v9.tgz is cut off or damaged, as it came from" in done.stderr
    assert len(server.starts["training-parallel-europarl-v7.tgz"]) == 2  # once for each folder


@pytest.mark.cli
@pytest.mark.parametrize("program, options", [("curl", ""), ("bzip2", "--released --source SOURCE")])
def test_a_program_that_is_missing(archives, tmp_path, program, options):
    """It is named before anything is made."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in {"bash", "basename", "curl", "date", "dirname", "gzip", "tar"} - {program}:
        (programs / name).symlink_to(shutil.which(name))
    words = [str(archives.folder) if word == "SOURCE" else word for word in options.split()]
    done = recipe("examples/wmt14_en_de/download.sh", "--out", tmp_path / "out", *words, PATH=str(programs))
    assert done.returncode != 0 and done.stderr == f"download.sh: error: there is no {program} here: install it\n"
    assert not (tmp_path / "out").exists()


SIZES = "--unverified --vocab-size 60 --updates 12 --finetune-updates 2 --max-tokens 1000 --gpus 1".split()


@pytest.mark.system
def test_from_the_archives_to_the_table(archives, tmp_path):
    arguments = ["--source", archives.folder, "--out", tmp_path / "out", *SIZES, "--", *TINY]
    done = recipe("examples/wmt14_en_de/run.sh", *arguments, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    trained = json.loads((tmp_path / "out" / "runs" / "baseline" / "run.json").read_text())["fairseq"]
    assert (trained["update_freq"], trained["adam_eps"], trained["keep_last_epochs"]) == ([25], 1e-9, 5)
    assert testsets.names(tmp_path / "out" / "prepared" / "data") == ["newstest2014"]
    for name in ("baseline", "standard", "auxiliary", "recurrent", "generative"):
        scores = json.loads((tmp_path / "out" / "runs" / name / "scores.json").read_text())
        assert set(scores) == {"newstest2014.beam4", "newstest2014.greedy"}
        assert all(score["sentences"] == 13 and "compound_split_bleu" in score for score in scores.values())
    state = torch.load(tmp_path / "out" / "runs" / "generative" / "checkpoints" / "checkpoint_last.pt")
    assert state["cfg"]["optimization"]["update_freq"] == [25] and state["cfg"]["optimizer"]["adam_eps"] == 1e-9
    assert "newstest2014" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.system
def test_from_the_released_model(archives, tmp_path):
    """An archive like fairseq's: a checkpoint of its earlier format, its dictionaries and codes, and nothing else."""
    prepared = tmp_path / "prepared"
    files = [word for name in ("train", "valid", "test") for word in (f"--{name}", archives.folder / "text" / name)]
    flags = ["--subword", "bpe", "--tokenizer", "moses-bare", "--vocab-size", 80, "--out", prepared]
    gift("prepare", *files, *flags)
    fairseq_train(
        prepared / "data",
        tmp_path / "trained",
        f"{TRANSFORMER} --share-all-embeddings --criterion label_smoothed_cross_entropy --max-update 3",
    )
    state = torch.load(tmp_path / "trained" / "checkpoint_last.pt")
    arguments = state["cfg"]["model"]  # that format has no cfg, and names files of a machine long gone
    arguments.data, arguments.lr = "/somewhere/data-bin", [0.0007]
    old = {key: state[key] for key in ("model", "optimizer_history", "extra_state", "last_optimizer_state")}
    torch.save({**old, "args": arguments}, tmp_path / "model.pt")
    names = {"model.pt": tmp_path / "model.pt", "bpecodes": prepared / "subwords.codes"}
    names.update({f"dict.{language}.txt": prepared / "data" / f"dict.{language}.txt" for language in ("en", "de")})
    shutil.copytree(archives.folder, tmp_path / "archives")
    content = {f"{MODEL}/{name}": path.read_bytes() for name, path in names.items()}
    archive(tmp_path / "archives" / f"{MODEL}.tar.bz2", content, "bz2")
    # comparing is tested elsewhere: here the command only tells how it was called
    project, environment = tmp_path / "project", tmp_path / "environment"
    for folder in ("scripts", "examples"):
        shutil.copytree(ROOT / folder, project / folder)
    (project / "scripts" / "setup_env.sh").write_text("")
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    told = f'case "$*" in *" compare "*) printf "%s\\n" "$@" ;; *) exec "{sys.executable}" "$@" ;; esac'
    python.write_text(f"#!/bin/sh\n{told}\n")
    python.chmod(0o755)
    arguments = ["--source", tmp_path / "archives", "--out", tmp_path / "out", "--released", *SIZES]
    done = recipe(project / "examples/wmt14_en_de/run.sh", *arguments, GIFT_VENV=str(environment))
    assert done.returncode == 0, done.stderr[-3000:]
    data = tmp_path / "out" / "prepared" / "data"
    assert (data / "dict.de.txt").read_text() == names["dict.de.txt"].read_text()
    assert (data / "subwords.codes").read_text() == names["bpecodes"].read_text()
    asked = done.stdout.splitlines()
    start, tuned = asked[asked.index("--from") + 1], tmp_path / "tuned"
    assert asked[asked.index("--data") + 1] == str(data) and start.endswith("runs/baseline/checkpoints/released.pt")
    assert not {"--share-all-embeddings", "--arch"} & set(asked)  # the checkpoint's model is the model
    gift("finetune", "--strategy", "standard", "--from", start, "--data", data, "--out", tuned, "--updates", 2)
    state = torch.load(tuned / "checkpoints" / "checkpoint_last.pt")
    assert state["cfg"]["optimization"]["lr"] == [0.00021] and state["cfg"]["model"].encoder_embed_dim == 16
