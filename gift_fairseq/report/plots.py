"""The figures of a report. A system has the same colour, marker and line style in all of them, so that it is known
without colours too; the colours are those of Okabe and Ito (2008, Color Universal Design)."""

import io
import math
import textwrap
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gift_fairseq.evaluation.scores import testset_of
from gift_fairseq.io import write_whole, written_whole
from gift_fairseq.report.runs import Run
from gift_fairseq.report.systems import System, SystemRow, baseline_of

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
LINES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (10, 2)))
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "oo")
FEW = 20  # tokens: a mean over fewer is left out
STYLE = {"font.size": 12, "svg.hashsalt": "gift_fairseq", "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}


class Plot(NamedTuple):
    """``name`` is that of its files, ``caption`` what it shows, in words."""

    name: str
    title: str
    caption: str
    svg: str


def _text(text: str) -> str:
    """``text`` without a meaning for matplotlib, which reads formulas between dollars."""
    return text.replace("$", r"\$")


def look(index: int) -> Dict[str, Any]:
    """How lines of system number ``index`` look."""
    return {"color": COLOURS[index % 7], "marker": MARKERS[index % 7], "linestyle": LINES[index % 5], "markersize": 5}


class Painter:
    """Makes figures, and writes them to ``folder`` as NAME.png and NAME.svg."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.plots: List[Plot] = []

    def start(self, x: str, y: str, height: float = 4.4) -> Tuple[Figure, Axes]:
        figure = Figure(figsize=(5.3, height), layout="constrained")
        axes = figure.add_subplot(xlabel=x, ylabel=y)
        return figure, axes

    def finish(self, figure: Figure, name: str, title: str, caption: str, legend: bool = True) -> None:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if legend and handles:
            columns = 1 if max(map(len, labels)) > 26 else 2
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(str(self.folder / f"{name}.png"), binary=True) as (out,):
            figure.savefig(out, format="png", dpi=160)
        write_whole(str(self.folder / f"{name}.svg"), svg.getvalue())
        self.plots.append(Plot(name, title, caption, svg.getvalue()))


def paint(systems: Sequence[System], rows: Sequence[SystemRow], columns: Sequence[str], folder: Path) -> List[Plot]:
    """All figures for which there is something to show, written to ``folder``."""
    painter = Painter(folder)
    with matplotlib.rc_context(STYLE):
        learning_curves(painter, systems)
        for number, name in enumerate(dict.fromkeys(testset_of(column) for column in columns)):
            searches = [column for column in columns if testset_of(column) == name]
            column = next((one for one in searches if not one.endswith(".greedy")), searches[0])
            bleu_by_length(painter, rows, column, number)
        for number, name in enumerate(dict.fromkeys(n for s in systems for run in s.runs for n in run.exposure)):
            accuracy_by_position(painter, systems, name, number)
        bars(painter, rows, "epoch-time", "Time", "Epoch time (s)", {"epoch_seconds": ""})
        memory = {"average_memory_mib": "average", "maximum_memory_mib": "maximum"}
        bars(painter, rows, "memory", "Memory", "Memory (MiB)", memory)
    return painter.plots


NLL = {"valid": ("valid_num_updates", "valid_nll_loss"), "inner": ("num_updates", "nll_loss")}  # by the entries of Log


def learning_curves(painter: Painter, systems: Sequence[System]) -> None:
    """NLL against updates: of the fine-tunings in validation and in training, and of the baselines in both."""
    runs = [run for system in systems for run in system.runs]
    numbered = [(index, run) for index, system in enumerate(systems) for run in system.runs]

    def curves(name: str, title: str, caption: str, lines: Iterable[Tuple[int, Run, str, Dict[str, Any]]]) -> None:
        """``lines``: number of the system, run, entries of its log, and how the line looks beside :func:`look`."""
        figure, axes = painter.start("Updates", "NLL (nats a token)")
        named = set()
        for index, run, kind, style in lines:
            x, y = _curve(run, kind, baseline_of(run, runs))
            label = _text(systems[index].name) + ("" if run.trained else " (unfinished)") + style.pop("label", "")
            if x:
                every = max(1, len(x) // 12)
                axes.plot(x, y, label="" if label in named else label, markevery=every, **{**look(index), **style})
                named.add(label)
        if named:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
            painter.finish(figure, name, title, caption)

    tuned = [(index, run) for index, run in numbered if run.started_from]
    curves(
        "learning-validation",
        "Fine-tuning: validation",
        "NLL on gold prefixes of the validation set, a line for each run; update 0 is the baseline. Less is better.",
        ((index, run, "valid", {}) for index, run in tuned),
    )
    curves(
        "learning-training",
        "Fine-tuning: training",
        "NLL on the decoder inputs of each strategy in training: after model-generated prefixes it is higher, so "
        "levels do not compare across strategies.",
        ((index, run, "inner", {}) for index, run in tuned),
    )
    looks = (("inner", {"label": ", training", "marker": "", "linestyle": "--"}), ("valid", {"label": ", validation"}))
    curves(
        "learning-baseline",
        "Baseline: training and validation",
        "NLL on gold prefixes while the baseline was trained: of the training set (dashed) and of the validation set.",
        ((i, run, kind, dict(look)) for i, run in numbered if not run.started_from for kind, look in looks),
    )


def _curve(run: Run, kind: str, baseline: Optional[Run]) -> Tuple[List[float], List[float]]:
    """Updates and NLL, nats a token, of what fairseq logged in bits; in validation from ``baseline`` on."""
    (updates, key), entries = NLL[kind], getattr(run.log, kind)
    points = [(entry[updates], entry[key] * math.log(2)) for entry in entries if key in entry]
    before = baseline.log.gold_nll(Path(run.started_from).name) if baseline and kind == "valid" else None
    if points and before is not None:
        points.insert(0, (0.0, before))
    return [x for x, _ in points], [y for _, y in points]


def bleu_by_length(painter: Painter, rows: Sequence[SystemRow], column: str, number: int) -> None:
    """BLEU of buckets of source length, by the ``column`` TESTSET.SEARCH."""
    scored = [(index, row, row.scores[column].bleu_by_length) for index, row in enumerate(rows) if column in row.scores]
    if not scored:
        return
    name, _, search = column.rpartition(".")
    figure, axes = painter.start("Source length (words; below: sentences)", "BLEU")
    for index, row, buckets in scored:
        x = [i + 0.03 * (index - (len(rows) - 1) / 2) for i in range(len(buckets))]
        axes.plot(x, [bucket.bleu for bucket in buckets], label=_text(row.name), **look(index))
    buckets = scored[0][2]
    words = [f"{b.from_}–{b.to}" if b.to else f"{b.from_}+" for b in buckets]
    axes.set_xticks(range(len(buckets)), [f"{w}\n({b.sentences})" for w, b in zip(words, buckets)])
    axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))
    caption = (
        f"BLEU by source length on {name} ({search.replace('beam', 'beam ')}). Buckets with few sentences are noisy."
    )
    painter.finish(figure, f"bleu-by-length-{number + 1}", f"BLEU by length: {name}", caption)


def accuracy_by_position(painter: Painter, systems: Sequence[System], name: str, number: int) -> None:
    """Accuracy at each target position, mean over the seeds: solid teacher-forced, dashed free-running."""
    figure, axes = painter.start("Target position (tokens)", "Accuracy (%)")
    for index, system in enumerate(systems):
        exposures = [run.exposure[name] for run in system.runs if name in run.exposure]
        for kind, style in (("teacher_forced", "-"), ("free_running", "--")):
            x, y = _accuracy([exposure.get(kind, {}) for exposure in exposures])
            if x:
                label = _text(system.name) if kind == "teacher_forced" else ""
                every = max(1, len(x) // 8)
                axes.plot(x, y, label=label, markevery=every, **{**look(index), "linestyle": style, "markersize": 4})
    if axes.lines:
        axes.plot([], [], color="grey", linestyle="-", label="solid: teacher-forced")
        axes.plot([], [], color="grey", linestyle="--", label="dashed: free-running")
        caption = (
            f"Share of oracle-optimal next tokens at each position of {name}: in teacher-forced decoding (solid), "
            "where that is the reference's token, and in free-running greedy decoding (dashed). Positions with fewer "
            f"than {FEW} tokens are left out."
        )
        painter.finish(figure, f"accuracy-by-position-{number + 1}", f"Accuracy by position: {name}", caption)


def _accuracy(curves: Sequence[Dict[str, List[Optional[float]]]]) -> Tuple[List[float], List[float]]:
    """Positions and the mean accuracy there, %, as far as every curve has tokens enough."""
    x, y = [], []
    for values in zip(*(zip(c.get("position", []), c.get("tokens", []), c.get("accuracy", [])) for c in curves)):
        enough = all((tokens or 0) >= min(FEW, curves[0]["tokens"][0] or 0) for _, tokens, _ in values)
        if enough and all(accuracy is not None for _, _, accuracy in values):
            x.append(values[0][0])
            y.append(100 * fmean(accuracy for _, _, accuracy in values))
    return x, y


def bars(painter: Painter, rows: Sequence[SystemRow], name: str, title: str, unit: str, keys: Dict[str, str]) -> None:
    """A group of bars for every system; ``keys`` are fields of TrainingCost, with the words for the legend."""
    values = [[getattr(row.training, key) for key in keys] for row in rows]
    if all(value is None for row in values for value in row):
        return
    figure, axes = painter.start(unit, "", height=1.2 + 0.5 * len(rows))
    thickness = 0.8 / len(keys)
    longest = max(value or 0 for row in values for value in row)
    for index, row in enumerate(values):
        for place, (value, word) in enumerate(zip(row, keys.values())):
            y = index + (place - (len(keys) - 1) / 2) * thickness
            style = {"color": COLOURS[index % 7], "alpha": 0.45 if place else 0.85, "hatch": HATCHES[index % 7]}
            axes.barh(y, value or 0, thickness * 0.92, edgecolor="white", **style)
            label = "missing" if value is None else f"{value:{',.0f' if value >= 100 else '.3g'}} {word}"
            axes.text((value or 0) + longest * 0.01, y, label, va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [_text(textwrap.fill(row.name, 22)) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.35)
    axes.grid(axis="y", visible=False)
    caption = f"{unit} of each strategy; the table says how it is measured."
    painter.finish(figure, name, title, caption, legend=False)
