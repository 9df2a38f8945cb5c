"""See on a GPU what only a GPU can show, and write one report: OUT/gpu-check.md and OUT/gpu-check.json.

In three parts, of at most 5, 7 and 8 minutes, each in a process of its own: checks (losses, gradients, half precision,
CUDA graphs, memory), benchmark (what an update of a base model costs, against targets), run (prepare, train, fine-tune
by all strategies, evaluate, report). What fails stops nothing else. Run again, it goes on with what is not done.
"""

import argparse
import contextlib
import datetime
import functools
import json
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

from gift_fairseq import runs
from gift_fairseq.cli import options as shared
from gift_fairseq.cli import run_command
from gift_fairseq.errors import UserError
from gift_fairseq.io import quiet, read_json, say, write_whole, written_whole

MINUTES = {"checks": 5, "benchmark": 7, "run": 8}  # at most
FINE_TUNINGS = {  # what run fine-tunes by
    "standard": "standard",
    "auxiliary": "auxiliary",
    "recurrent": "recurrent",
    "generative": "generative",
    "graphs": "generative --rollout-cuda-graphs",
    "best": "generative --targets best --choose sample --candidates 4",
    "weighted": "weighted",
    "consistency": "consistency",
    "risk": "risk",
    "distillation": "distillation --sentences 2000 --min-score 0",
}
REHEARSED = ("graphs", "distillation")
TINY = [
    f"--{side}-{what}" for side in ("encoder", "decoder") for what in ("layers=1", "embed-dim=16", "ffn-embed-dim=32")
]
SMALL = [f"--{side}-{what}" for side in ("encoder", "decoder") for what in ("layers=3", "embed-dim=256")]


class OutOfTime(BaseException):
    """No ``Exception``: nothing that is under way may take it for a failure of its own."""


Work = Dict[str, Callable[[], Any]]  # by what is done: what it found, or an exception


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_out(parser, "folder of the report")
    parser.add_argument("--part", choices=PARTS, help="only this one, in this process; the report has what is there")
    parser.add_argument(
        "--text",
        type=Path,
        metavar="DIR",
        help="folder with {train,valid,test}.{en,de} for part run; default: a made-up pair",
    )
    parser.add_argument("--rehearse", action="store_true", help="go through it on the CPU, in tiny sizes")


def run(options: argparse.Namespace, flags: List[str]) -> None:
    import torch

    if not (options.rehearse or torch.cuda.is_available()):
        raise UserError("torch sees no CUDA device here: --rehearse goes through it on the CPU")
    if options.part:
        record = {"command": "gpu-check", "settings": runs.settings_of(options, ["out"])}
        with runs.begin(options.out / options.part, record) as begun:
            with at_most(MINUTES[options.part]):
                go_through(begun.folder / "found.json", PARTS[options.part](options, begun.folder))
    else:
        for part in PARTS:
            words = [sys.executable, "-m", "gift_fairseq", "gpu-check", "--part", part, "--out", str(options.out)]
            words += ["--text", str(options.text)] if options.text else []
            words += ["--rehearse"] if options.rehearse else []
            with contextlib.suppress(subprocess.TimeoutExpired):  # it ends by itself, unless the GPU hangs
                subprocess.run(words, timeout=60 * MINUTES[part] + 30)
    found = write_report(options.out)
    parts = {part: found[part] for part in ([options.part] if options.part else PARTS)}
    failed = [part for part, work in parts.items() if not work]
    failed += [name for work in parts.values() for name, it in work.items() if not it["passed"]]
    say(f"the report is {options.out / 'gpu-check.md'}")
    if failed:
        raise UserError(f"failed: {', '.join(failed)}; see {options.out / 'gpu-check.md'}")


@contextlib.contextmanager
def at_most(minutes: float) -> Iterator[None]:
    """Ends the block when its time is over; what it started ends with it."""

    def over(*_):
        raise OutOfTime

    signal.signal(signal.SIGALRM, over)
    # then every second: Python drops what is raised while it frees an object
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes, 1)
    try:
        yield
    except OutOfTime:
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(f"stopped after {minutes} minutes; run again to go on")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def go_through(file: Path, work: Work) -> None:
    """Does what has not passed yet, and writes what was found, with seconds and machine, after each into ``file``."""
    found = {name: {"passed": False, "found": "not done"} for name in work}
    found.update(read_json(file) or {})
    write_whole(str(file), json.dumps(found, indent=1) + "\n")
    for name, call in work.items():
        if found[name]["passed"]:
            continue
        say(name)
        start = time.perf_counter()
        try:
            one = {"passed": True, "found": call()}
        except (Exception, SystemExit) as error:  # whatever it is: the others can still be seen
            if isinstance(error, SystemExit) and not isinstance(error.code, str):
                raise  # not a sentence: the process is told to end
            one = {"passed": False, "found": f"{type(error).__name__}: {error}"}
            say(f"{name} failed: {error}")
        found[name] = {**one, "seconds": round(time.perf_counter() - start, 1), **machine()}
        write_whole(str(file), json.dumps(found, indent=1) + "\n")


@functools.lru_cache(maxsize=1)
def machine() -> Dict[str, Any]:
    import torch

    on = "CPU"
    if torch.cuda.is_available():
        it = torch.cuda.get_device_properties(0)
        on = f"{it.name}, {it.total_memory / 2**30:.0f} GiB, capability {it.major}.{it.minor}"
    made = runs.provenance()
    versions = [one for one in made["versions"] if re.match("(python|torch|numpy|fairseq.*)==", one)]
    versions += [f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"] if torch.version.cuda else []
    versions += [f"commit {made['commit'][:12]}"] if made["commit"] else []
    return {"device": on, "versions": ", ".join(versions), "date": datetime.date.today().isoformat()}


# ---- the parts


def checks(options: argparse.Namespace, folder: Path) -> Work:
    import torch

    from gift_fairseq.evaluation import gpu_checks

    def check(name: str) -> str:
        with quiet():
            return gpu_checks.CHECKS[name](torch.device("cpu" if options.rehearse else "cuda"))

    return {name: partial(check, name) for name in (gpu_checks.REHEARSED if options.rehearse else gpu_checks.CHECKS)}


def benchmark(options: argparse.Namespace, folder: Path) -> Work:
    words = "--device cuda --vocabulary 32000 --sentences 256 --length 32 --no-uncached --vocabularies".split()
    model: List[str] = []
    if options.rehearse:
        words = "--device cpu --vocabulary 50 --sentences 4 --length 6 --rounds 1 --no-uncached".split()
        words, model = [*words, "--lengths", "--batches", "--vocabularies"], ["--", *TINY]

    def measured(dtype: str) -> Dict[str, Any]:
        file = folder / f"{dtype}.json"
        with written_whole(str(folder / f"{dtype}.md")) as (out,), contextlib.redirect_stdout(out):
            run_command(["benchmark", *words, "--dtype", dtype, "--json", str(file), *model])
        return read_json(file)

    return {dtype: partial(measured, dtype) for dtype in (("fp32",) if options.rehearse else ("fp16", "bf16"))}


def short_run(options: argparse.Namespace, folder: Path) -> Work:
    tiny = options.rehearse
    text, baseline = options.text or folder / "text", folder / "baseline"
    trained = [folder / name for name in (REHEARSED if tiny else FINE_TUNINGS)]
    start, *tuned = (str(runs.RunFolder(run).checkpoint("last")) for run in (baseline, *trained))
    data = ["--data", str(folder / "prepared" / "data")]
    half = ["--precision", "fp32" if tiny else "fp16"]

    def prepare() -> None:
        if not options.text:
            write_text(text, *((100, 10) if tiny else (50000, 500)))
        words = [word for split in ("train", "valid", "test") for word in (f"--{split}", str(text / split))]
        size = "60" if tiny else "8000"
        run_command(["prepare", *words, "--vocab-size", size, "--out", str(folder / "prepared")])

    def train() -> None:
        words = f"--updates {4 if tiny else 1000} --warmup {1 if tiny else 250} --max-tokens 8192".split()
        model = [*(TINY if tiny else SMALL), "--share-all-embeddings", "--num-workers", "0" if tiny else "2"]
        run_command(["train", *data, "--out", str(baseline), *words, *half, "--", *model])

    def finetune(run: Path) -> None:
        words = ["--strategy", FINE_TUNINGS[run.name], "--from", start, "--out", str(run), "--no-control", *half]
        run_command(["finetune", *data, *words, "--updates", "2" if tiny else "100", "--", "--num-workers", "0"])

    def evaluate() -> None:
        with written_whole(str(folder / "scores.txt")) as (out,), contextlib.redirect_stdout(out):
            run_command(["evaluate", *data, "--search", "greedy" if tiny else "both", start, *tuned])

    def report() -> str:
        run_command(["report", "--out", str(folder / "report"), *map(str, (baseline, *trained))])
        return (folder / "report" / "results.md").read_text(encoding="utf-8").split("\n\n", 1)[0]

    tunings = {f"fine-tune: {run.name}": partial(finetune, run) for run in trained}
    return {"prepare": prepare, "train": train, **tunings, "evaluate": evaluate, "report": report}


PARTS: Dict[str, Callable[[argparse.Namespace, Path], Work]] = {
    "checks": checks,
    "benchmark": benchmark,
    "run": short_run,
}


def write_text(folder: Path, train: int, others: int) -> None:
    """A made-up pair of so many lines: the target is the source from its end to its start, in other words."""
    draw = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    syllables = [c + v for c in "bdfgklmnprst" for v in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randrange(1, 4))) for _ in range(3000)]
    often = [1 / rank for rank in range(1, len(words) + 1)]  # as words are in text
    for split, count in (("train", train), ("valid", others), ("test", others)):
        with written_whole(*(str(folder / f"{split}.{language}") for language in ("en", "de"))) as (source, target):
            for _ in range(count):
                line = draw.choices(words, often, k=draw.randrange(4, 25))
                source.write(" ".join(line) + "\n")
                target.write(" ".join(word[::-1].capitalize() for word in reversed(line)) + "\n")


# ---- the report


def write_report(out: Path) -> Dict[str, Dict[str, Any]]:
    """Writes both files from what the parts found; returns that, by part."""
    from gift_fairseq.evaluation.benchmark import judged

    found = {part: read_json(out / part / "found.json") or {} for part in PARTS}
    measured = {dtype: it["found"]["updates"] for dtype, it in found["benchmark"].items() if it["passed"]}
    verdicts = [{"type": dtype, **one} for dtype, updates in measured.items() for one in judged(updates)]
    lines = ["# GPU check", ""]
    lines += sorted(
        {
            f"{it['device']}; {it['versions']}; {it['date']}"
            for part in found.values()
            for it in part.values()
            if "date" in it
        }
    )
    for part, work in found.items():
        done = sum(it["passed"] for it in work.values())
        lines += ["", f"## {part}: {done} of {len(work)} passed" if work else f"## {part}: not run", ""]
        if work:
            lines += ["| what | | seconds | found |", "|---|---|---:|---|"]
        for name, it in work.items():
            says = it["found"] if part == "checks" or not it["passed"] else ""
            one_line = " ".join(str(says).split()).replace("|", "/")
            lines.append(
                f"| {name} | {'passed' if it['passed'] else 'FAILED'} | {it.get('seconds', '')} | {one_line} |"
            )
        if part == "benchmark":
            lines += ["", "| type | update | of updates | x standard | at most | |", "|---|---|---:|---:|---:|---|"]
            for it in verdicts:
                ratio = "–" if it["measured"] is None else f"{it['measured']:.2f}"
                cells = [it["type"], it["update"], f"{it['share']:.0%}", ratio, it["at most"], it["verdict"]]
                lines.append(f"| {' | '.join(map(str, cells))} |")
            for dtype in measured:
                lines += ["", f"### {dtype}", "", (out / part / f"{dtype}.md").read_text(encoding="utf-8").strip()]
        elif part == "run" and work.get("report", {}).get("passed"):
            lines += ["", work["report"]["found"]]
    write_whole(str(out / "gpu-check.md"), "\n".join(lines) + "\n")
    write_whole(str(out / "gpu-check.json"), json.dumps({**found, "verdicts": verdicts}, indent=1) + "\n")
    return found
