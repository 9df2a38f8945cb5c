"""The lines of shell in examples/own_data do what they say, on a smaller text and with a smaller model."""

import json
import re
import subprocess

import language as toy_language
import pytest
from conftest import ROOT, TRANSFORMER

TINY = " ".join(TRANSFORMER.split()[2:]) + " --num-workers 0 --max-target-positions 120"  # it ends no sentence
SMALLER = {
    "TSV=pairs.tsv OUT=runs/mine": 'TSV="$HERE/pairs ü.tsv" OUT="$HERE/my runs"',
    "--vocab-size 8000": "--vocab-size 150",
    "--updates 20000 --patience 10": "--updates 6 --patience 10 --warmup 4",
    "-- --share-all-embeddings": f"-- --share-all-embeddings {TINY}",
    '--out "$OUT"\n': '--out "$OUT" --updates 2 -- --num-workers 0\n',
    "CHECKPOINT=model.pt DICTIONARY=dict.en.txt SUBWORDS=sentencepiece.model TEXT=runs/mine OUT=runs/adapted": (
        'DICTIONARY="$OUT/prepared/data/dict.en.txt" SUBWORDS="$OUT/prepared/data/subwords.model" TEXT="$OUT"\n'
        'CHECKPOINT="$OUT/runs/baseline/checkpoints/checkpoint_best.pt" OUT="$HERE/adapted"'
    ),
    '--out "$OUT/runs/weighted"\n': '--out "$OUT/runs/weighted" --updates 2 -- --num-workers 0\n',
}


@pytest.mark.system
def test_the_lines_of_the_page(tmp_path):
    toy_language.main(["--out", str(tmp_path / "text"), "--train", "400", "--valid", "1", "--test", "1"])
    sides = [(tmp_path / "text" / f"train.{language}").read_text().splitlines() for language in ("en", "de")]
    (tmp_path / "pairs ü.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in zip(*sides)))
    page = (ROOT / "examples" / "own_data" / "README.md").read_text()
    script = "".join(line[4:] + "\n" for line in re.findall(r"^ {4}.*$", page, flags=re.MULTILINE))
    for published, smaller in SMALLER.items():
        assert script.count(published) == 1, published
        script = script.replace(published, smaller)
    done = subprocess.run(
        ["bash", "-euc", f'HERE="$1"\n{script}', "page", str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "my runs"
    assert (out / "valid.en").read_text().splitlines() == sides[0][::50]
    assert (out / "test.de").read_text().splitlines() == sides[1][1::50]
    assert len((out / "translated.de").read_text().splitlines()) == 8
    scores = json.loads((out / "runs" / "recurrent" / "scores.json").read_text())
    assert scores["test.beam5"]["sentences"] == 8
    for run in ("standard", "weighted"):
        scores = json.loads((tmp_path / "adapted" / "runs" / run / "scores.json").read_text())
        assert {name: score["sentences"] for name, score in scores.items()} == {"test.beam5": 8, "test.greedy": 8}
