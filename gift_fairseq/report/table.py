"""The tables of a report as Markdown, and the results as CSV: other forms of what results.json holds."""

import csv
import io
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from gift_fairseq.evaluation.scores import Score, search_of, testset_of
from gift_fairseq.evaluation.significance import LEVEL
from gift_fairseq.report.comparisons import AGAINST, CLAIMED, Claim
from gift_fairseq.report.systems import SystemRow, SystemScore
from gift_fairseq.runs import AVERAGED

DASH = "–"


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


def search_title(search: str) -> str:
    """``beam5-average`` as a reader likes it."""
    return search.replace("beam", "beam ").replace(AVERAGED, ", averaged")


def column_title(column: str) -> str:
    """``test.beam5`` as a reader likes it."""
    return f"{testset_of(column)}, {search_title(search_of(column))}"


def bleu_cell(score: Optional[SystemScore]) -> Cell:
    """BLEU, half its confidence interval, and the spread over seeds."""
    if score is None:
        return Cell(DASH)
    spread = "" if score.sd is None else f" (sd {score.sd:.1f})"
    return Cell(f"{score.bleu:.1f} ± {score.bleu_ci:.1f}{spread}", score.bleu)


def claim_cell(claim: Optional[Claim]) -> Cell:
    """The difference, half its interval over seeds, and a mark where it is significant."""
    if claim is None:
        return Cell(DASH)
    difference, half = claim.seeds.difference, claim.seeds.half_width
    rest = " (one seed)" if half is None else f" ± {half:.1f}" + " *" * claim.significant
    return Cell(f"{difference:+.1f}{rest}", difference)


def results(rows: Sequence[SystemRow], columns: Sequence[str], claims: Sequence[Claim]) -> Table:
    """The main table, a row for every system, whatever it lacks."""
    over: Dict[Tuple[str, str], Dict[str, Claim]] = {}
    for claim in (c for c in claims if c.metric == "bleu" and c.against != "baseline" and not c.testset):
        over.setdefault((claim.against, claim.search), {})[claim.system] = claim
    heads = ["Strategy", *(f"BLEU {column_title(column)}" for column in columns)]
    heads += [f"Over the {against}, {search_title(search)}" for against, search in over]
    heads += ["Updates", "Epoch time (s)", "Avg memory (MiB)", "Max memory (MiB)", "Tokens/s"]
    cells = []
    for row in rows:
        line = [Cell(row.name), *(bleu_cell(row.scores.get(column)) for column in columns)]
        line += [claim_cell(found.get(row.name)) for found in over.values()]
        took = row.training
        line += [number(took.updates), seconds(took.epoch_seconds), number(took.average_memory_mib)]
        cells.append([*line, number(took.maximum_memory_mib), number(took.tokens_per_second)])
    return Table("Results", heads, cells)


def over_seeds(claims: Sequence[Claim]) -> Table:
    heads = ["Strategy", "Search", "Against", "Metric", "Seeds", "Difference", "95% ±", "p", "p (Holm)"]
    cells = []
    for claim in (claim for claim in claims if not claim.testset):
        line = [Cell(claim.system), Cell(search_title(claim.search)), Cell(f"the {claim.against}")]
        cells.append([*line, Cell(CLAIMED[claim.metric]), *_over_seeds(claim), number(claim.p_holm, 4)])
    return Table("Strategies, the seed being random", heads, cells, 4)


def each_test_set(claims: Sequence[Claim]) -> Table:
    heads = ["Strategy", "Test set", "Search", "Metric", "Seeds", "Difference", "95% ±", "p"]
    cells = []
    for claim in (claim for claim in claims if claim.testset):
        line = [Cell(claim.system), Cell(claim.testset), Cell(search_title(claim.search))]
        cells.append([*line, Cell(CLAIMED[claim.metric]), *_over_seeds(claim)])
    return Table("Each test set, the seed being random", heads, cells, 4)


def _over_seeds(claim: Claim) -> List[Cell]:
    over = claim.seeds
    return [number(over.seeds), number(over.difference, 2, "+"), number(over.half_width, 2), number(over.p, 4)]


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


def over_sentences(rows: Sequence[SystemRow], columns: Sequence[str]) -> Table:
    """Every run by itself: its BLEU, and its tests."""
    heads = ["Run", "Test set", "Seed", "BLEU"]
    heads += [head for against in AGAINST for head in (f"Over the {against}", f"p ({against})")]
    cells = []
    for column in columns:
        for run in (run for row in rows for run in row.runs if column in run.scores):
            seed = Cell(DASH if run.seed is None else str(run.seed), run.seed)
            line = [Cell(run.name), Cell(column_title(column)), seed, number(run.scores[column].bleu, 2)]
            for against in AGAINST:
                test = run.tests.get(column, {}).get(against)
                line += [number(test.difference, 2, "+"), number(test.p, 4)] if test else [Cell(DASH)] * 2
            cells.append(line)
    return Table("Each run, and tests of two given systems", heads, cells, 2)


def tables(rows: Sequence[SystemRow], columns: Sequence[str], claims: Sequence[Claim]) -> List[Table]:
    """All of them that have rows, the results first."""
    found = [results(rows, columns, claims), over_seeds(claims), each_test_set(claims), measures(rows, columns)]
    return [table for table in (*found, forgetting(rows), over_sentences(rows, columns)) if table.rows]


def legend(rows: Sequence[SystemRow], claims: Sequence[Claim]) -> List[str]:
    """What stands below the results: one sentence or two a line, plain text."""
    several = any(score.seeds > 1 for row in rows for score in row.scores.values())
    tested = any(claim.p_holm is not None for claim in claims)
    controls = [row.name for row in rows if row.role == "control"]
    of_control = f"{' or '.join(controls) or 'standard'}: same start, updates and seed"
    lines = [f"Missing: {row.name}: {note}." for row in rows for note in row.notes]
    lines.append(
        "BLEU ± half the width of its 95% confidence interval (sacreBLEU's bootstrap, 1,000 resamples of the test set)"
        + "; with several seeds the means of both, and sd, the standard deviation of BLEU over the seeds" * several
        + "."
    )
    lines.append(
        f"Over the control ({of_control}): BLEU, the mean over the sets of this table"
        + (
            f" and seeds ± half its 95% t interval over the seeds; * p < {LEVEL} by the t test of the paired seeds, "
            "with Holm's correction for the number of strategies."
            if tested
            else ". One seed says nothing of a strategy: another seed of the same differs as much. Nothing is claimed."
        )
    )
    if len(controls) > 1:
        lines.append("With --control RUN one of these controls is the only one, and the others are compared with it.")
    if any(claim.against == "same-time control" for claim in claims):
        lines.append("Same-time control: standard for as many updates as took as long as those of the strategy.")
    lines.append(
        "Epoch time: seconds in updates (no validation, no saving) per update, times one number of updates for all "
        "rows: those of the baseline's first epoch, or where its log is missing of the control's, or without a control "
        "of the first run's, as far as that epoch went. Average memory is over all updates, maximum memory the highest "
        "peak; on a CPU of the process, with what its allocator keeps free for the next tensors. Tokens/s: target "
        "tokens, as fairseq logs them."
    )
    held = {claim.system for claim in claims if claim.against == "control"}
    alone = [row.name for row in rows if row.scores and not (row.role or row.notes or row.name in held)]
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
    "Strategies, the seed being random": "The difference of a seed is the mean over all sets of the first table, to "
    "the control of its seed. Interval and p: Student's t over the seeds; Holm: corrected for the number of "
    "strategies. One seed has neither.",
    "Each test set, the seed being random": "As above, to the control alone, on each test set by itself: p is not "
    "corrected for the number of strategies or of test sets.",
    "Each run, and tests of two given systems": "Tests of strategies with one run here: difference in BLEU and p by "
    "sacreBLEU's paired approximate randomization over sentences (10,000 trials; its p counts larger differences only, "
    "plus 2^(1-k) for those as large, k being the number of outputs that differ). It says whether these two systems "
    "differ, not whether their strategies do: two seeds of one do too. No correction for several comparisons.",
}


def signatures(scores: Sequence[Union[Score, SystemScore]], tests: Sequence[str]) -> List[str]:
    """sacreBLEU's signatures of ``scores``, and ``tests``, those of the tests over sentences."""
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


def as_csv(rows: Sequence[SystemRow], columns: Sequence[str], claims: Sequence[Claim]) -> str:
    """A line for every system, numbers in full; what is not known is empty."""
    metrics = ("bleu", "sd", "bleu_ci", "seeds", "chrf", "ter", "length_ratio", "repetition_rate", "gain_over_greedy")
    lines: List[Dict[str, Union[str, float, None]]] = []
    for row in rows:
        scores = {column: row.scores.get(column) for column in columns}
        line = {
            f"{column}.{metric}": getattr(score, metric, None) for column, score in scores.items() for metric in metrics
        }
        lines.append({"strategy": row.name, **line, **vars(row.training), "missing": "; ".join(row.notes)})
        for claim in (claim for claim in claims if claim.system == row.name):
            where = f"{claim.testset}.{claim.search}" if claim.testset else claim.search
            name = f"{where}.{claim.metric}_over_{claim.against}"
            lines[-1].update({name: claim.seeds.difference, f"{name}.p": claim.seeds.p})
            if not claim.testset:
                lines[-1][f"{name}.p_holm"] = claim.p_holm
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(head for line in lines for head in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
