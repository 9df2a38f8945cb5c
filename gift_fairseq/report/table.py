"""The tables of a report as Markdown, and the results as CSV: other forms of the rows that results.json holds."""

import csv
import io
from dataclasses import astuple, fields
from typing import List, NamedTuple, Optional, Sequence, Union

from gift_fairseq.evaluation.scores import Score
from gift_fairseq.evaluation.significance import LEVEL
from gift_fairseq.report.runs import CONTROL
from gift_fairseq.report.systems import SystemRow, SystemScore, Training

DASH = "–"
MARKS = {"control": "*", "baseline": "†"}


class Cell(NamedTuple):
    """What a table shows, and the number it stands for (None: text, or nothing known)."""

    text: str
    value: Optional[float] = None


class Table(NamedTuple):
    """``text_columns``: how many of the first columns are text, not numbers; the first one names the row."""

    title: str
    heads: List[str]
    rows: List[List[Cell]]
    text_columns: int = 1


def number(value: Optional[float], digits: int = 0, sign: str = "") -> Cell:
    """A dash where ``value`` is None: never a zero for what is not known."""
    return Cell(DASH) if value is None else Cell(f"{value:{sign},.{digits}f}", value)


def seconds(value: Optional[float]) -> Cell:
    """Three digits, as a bar's label has them: whole seconds from 100 on, milliseconds below 1."""
    return number(value, 0 if value is None else 3 - sum(value >= limit for limit in (1, 10, 100)))


def column_title(column: str) -> str:
    """``test.beam5`` as a reader likes it."""
    name, _, search = column.rpartition(".")
    return f"{name}, {search.replace('beam', 'beam ')}"


def bleu_cell(score: Optional[SystemScore]) -> Cell:
    """BLEU, half its confidence interval, the spread over seeds, and the marks of what differs significantly."""
    if score is None:
        return Cell(DASH)
    words = [f"{score.bleu:.1f} ± {score.bleu_ci:.1f}"]
    if score.sd is not None:
        words.append(f"(sd {score.sd:.1f})")
    for kind, mark in MARKS.items():
        test = getattr(score, f"against_{kind}")
        if test and test.significant:
            words.append(mark if test.tested == 1 else f"{mark}{test.significant}/{test.tested}")
    return Cell(" ".join(words), score.bleu)


def results(rows: Sequence[SystemRow], columns: Sequence[str]) -> Table:
    """The main table, a row for every system, whatever it lacks."""
    heads = ["Strategy", *(f"BLEU {column_title(column)}" for column in columns)]
    heads += ["Updates", "Epoch time (s)", "Avg memory (MiB)", "Max memory (MiB)", "Tokens/s"]
    cells = []
    for row in rows:
        line = [Cell(row.name), *(bleu_cell(row.scores.get(column)) for column in columns)]
        took = row.training
        line += [number(took.updates), seconds(took.epoch_seconds), number(took.average_memory_mib)]
        cells.append([*line, number(took.maximum_memory_mib), number(took.tokens_per_second)])
    return Table("Results", heads, cells)


def measures(rows: Sequence[SystemRow], columns: Sequence[str]) -> Table:
    heads = ["Strategy", "Test set", "chrF2", "TER", "Length ratio", "Repetition (%)", "Over greedy (BLEU)"]
    cells = []
    for column in columns:
        scored = [(row.name, row.scores[column]) for row in rows if column in row.scores]
        for name, score in scored:
            line = [Cell(name), Cell(column_title(column)), number(score.chrf, 1), number(score.ter, 1)]
            line += [number(score.length_ratio, 3), number(score.repetition_rate, 2)]
            cells.append([*line, number(score.gain_over_greedy, 1, "+")])
        if scored:
            rate = number(scored[0][1].reference_repetition_rate, 2)
            line = [Cell("(reference)"), Cell(column_title(column)), *[Cell("")] * 3, rate, Cell("")]
            cells.append(line)
    return Table("Further measures", heads, cells, 2)


def forgetting(rows: Sequence[SystemRow]) -> Table:
    heads = ["Strategy", "Set", "Before", "After", "Change"]
    cells = []
    for row in rows:
        for name, nll in row.gold_nll.items():
            line = [Cell(row.name), Cell(name), number(nll.before, 3), number(nll.after, 3)]
            cells.append([*line, number(nll.after - nll.before, 3, "+")])
    return Table("NLL on gold prefixes before and after fine-tuning (nats a token)", heads, cells, 2)


def comparisons(rows: Sequence[SystemRow], columns: Sequence[str]) -> Table:
    """Every run by itself: its BLEU, and its tests."""
    heads = ["Run", "Test set", "Seed", "BLEU"]
    heads += [head for kind in MARKS for head in (f"Over the {kind}", f"p ({kind})")]
    cells = []
    for column in columns:
        for run in (run for row in rows for run in row.runs if column in run.scores):
            score = run.scores[column]
            seed = Cell(DASH if run.seed is None else str(run.seed), run.seed)
            line = [Cell(run.name), Cell(column_title(column)), seed, number(score.bleu, 2)]
            for kind in MARKS:
                test = score.against.get(kind)
                line += [number(test.difference, 2, "+"), number(test.p, 4)] if test else [Cell(DASH)] * 2
            cells.append(line)
    return Table("Each run and its tests", heads, cells, 2)


def tables(rows: Sequence[SystemRow], columns: Sequence[str]) -> List[Table]:
    """All of them that have rows, the results first."""
    found = [results(rows, columns), measures(rows, columns), forgetting(rows), comparisons(rows, columns)]
    return [table for table in found if table.rows]


def legend(rows: Sequence[SystemRow], columns: Sequence[str]) -> List[str]:
    """What stands below the results: one sentence or two a line, plain text."""
    several = any(score.seeds > 1 for row in rows for score in row.scores.values())
    lines = [f"Missing: {row.name}: {note}." for row in rows for note in row.notes]
    lines += [
        "BLEU ± half the width of its 95% confidence interval (sacreBLEU's bootstrap, 1,000 resamples of the test set)"
        + (
            "; with several seeds the means of both, and sd, the standard deviation of BLEU over the seeds." * several
            or "."
        ),
        f"* differs from the control (standard: same start, updates and seed), † from the baseline, with p < {LEVEL}: "
        "sacreBLEU's paired approximate randomization, 10,000 trials, whose p counts larger differences only, plus "
        "2^(1-k) for those as large, k being the number of outputs that differ; no correction for several comparisons."
        + " *2/3: so in 2 of 3 seeds, each tested by itself, and in the direction of the mean difference."
        * several,
        "Epoch time: seconds in updates (no validation, no saving) per update, times the updates of the baseline's "
        "first epoch. Average memory is over all updates, maximum memory the highest peak; on a CPU of the process, "
        "with what its allocator keeps free for the next tensors. Tokens/s: target tokens, as fairseq logs them.",
    ]
    alone = [
        row.name
        for row in rows
        if row.criterion != CONTROL
        and any(score.against_baseline and not score.against_control for score in row.scores.values())
    ]
    if alone:
        lines.append(f"Without a control of the same updates and seed among the runs: {', '.join(alone)}.")
    return lines


NOTES = {  # below the further tables, by title
    "Further measures": "chrF2: more is better; TER: less is better. Length ratio: hypothesis tokens to reference "
    "tokens. Repetition: share of the 4-grams that their own sentence had before (seq-rep-4, Welleck et al. 2020). "
    "Over greedy: what the beam gains.",
    "NLL on gold prefixes before and after fine-tuning (nats a token)": "A positive change: fine-tuning made the model "
    "worse after gold prefixes. valid: the validation set, as training logged it, after the last update; the others: "
    "the checkpoint whose exposure bias was measured.",
    "Each run and its tests": "Differences in BLEU; p-values of the paired tests.",
}


def signatures(scores: Sequence[Union[Score, SystemScore]], tests: Sequence[str]) -> List[str]:
    """sacreBLEU's signatures of ``scores``, and ``tests``, those of the paired tests."""
    found = [f"BLEU: {score.signature}" for score in scores]
    found += [f"chrF2: {score.chrf_signature}" for score in scores]
    found += [f"TER: {score.ter_signature}" for score in scores]
    return [*dict.fromkeys(found), *(f"paired tests: {signature}" for signature in tests)]


def _escape(text: str) -> str:
    """Plain text as Markdown, within one cell."""
    for character in "\\`*|[]<>":
        text = text.replace(character, "&lt;" if character == "<" else "&gt;" if character == ">" else "\\" + character)
    return " ".join(text.split())


def markdown(tables: Sequence[Table], legend: Sequence[str], signatures: Sequence[str]) -> str:
    """All tables; the legend and the signatures below the first one."""
    lines: List[str] = []
    for index, table in enumerate(tables):
        if index:
            lines += [f"### {table.title}", ""]
        lines.append("| " + " | ".join(_escape(head) for head in table.heads) + " |")
        lines.append("|" + "---|" * table.text_columns + "---:|" * (len(table.heads) - table.text_columns))
        lines += ["| " + " | ".join(_escape(cell.text) for cell in row) + " |" for row in table.rows]
        lines.append("")
        if index:
            lines += [_escape(NOTES[table.title]), ""]
        else:
            lines += [line for sentence in legend for line in (_escape(sentence), "")]
            lines += [*(f"- sacreBLEU, {name}: `{rest}`" for name, rest in (s.split(": ", 1) for s in signatures)), ""]
    return "\n".join(lines)


def as_csv(rows: Sequence[SystemRow], columns: Sequence[str]) -> str:
    """A line for every system, numbers in full; what is not known is empty."""
    metrics = ("bleu", "sd", "bleu_ci", "seeds", "chrf", "ter", "length_ratio", "repetition_rate", "gain_over_greedy")
    tests = [(kind, key) for kind in MARKS for key in ("difference", "significant", "tested")]
    heads = [f"{column}.{metric}" for column in columns for metric in metrics]
    heads += [f"{column}.{key}_{kind}" for column in columns for kind, key in tests]
    heads += [key.name for key in fields(Training)]
    lines: List[List[Union[str, float, None]]] = [["strategy", *heads, "missing"]]
    for row in rows:
        scores = [row.scores.get(column) for column in columns]
        line = [row.name, *(getattr(score, metric, None) for score in scores for metric in metrics)]
        line += [getattr(getattr(score, f"against_{kind}", None), key, None) for score in scores for kind, key in tests]
        lines.append([*line, *astuple(row.training), "; ".join(row.notes)])
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
