"""The report as one page of HTML that needs nothing else: no network, no other file.

Everything that is not of this module goes through ``html.escape``, and the page's policy allows no script or style but
the page's own: text from test sets and models is shown, never run.
"""

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template
from typing import Dict, List, Sequence

from gift_fairseq.report.plots import Plot
from gift_fairseq.report.runs import Run
from gift_fairseq.report.samples import Output, Sample
from gift_fairseq.report.table import NOTES, Cell, Table, column_title

PACKAGES = ("fairseq-fixed", "fairseq", "torch", "numpy", "sacrebleu", "sentencepiece")  # shown without a click


def _part(ending: str) -> str:
    return Path(__file__).with_name(f"page.{ending}").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _table(table: Table) -> str:
    def kind(index: int) -> str:
        return "text" if index < table.text_columns else "number"

    def cell(index: int, cell: Cell) -> str:
        classes = "" if kind(index) == "number" else ' class="text"'
        value = "" if cell.value is None else f' data-value="{cell.value!r}"'
        tag, scope = ("td", "") if index else ("th", ' scope="row"')
        text = cell.text.replace(" ± ", "\u00a0±\u00a0").replace("(sd ", "(sd\u00a0")  # to wrap elsewhere
        return f"<{tag}{scope}{classes}{value}>{escape(text)}</{tag}>"

    heads = "".join(
        f'<th scope="col" class="{kind(i)}" data-kind="{kind(i)}" aria-sort="none">'
        f'<button type="button">{escape(head)}</button></th>'
        for i, head in enumerate(table.heads)
    )
    rows = "\n".join("<tr>" + "".join(cell(i, c) for i, c in enumerate(row)) + "</tr>" for row in table.rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}"><table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _notes(lines: Sequence[str]) -> str:
    return "\n".join(f'<p class="note">{escape(line)}</p>' for line in lines)


def _figure(plot: Plot) -> str:
    image = base64.b64encode(plot.svg.encode()).decode()
    return (
        f'<figure><h3>{escape(plot.title)}</h3><img alt="{escape(plot.title)}. {escape(plot.caption)}" '
        f'src="data:image/svg+xml;base64,{image}"><figcaption>{escape(plot.caption)}</figcaption></figure>'
    )


def _output(output: Output) -> str:
    words = []
    for text, differs in output.pieces:
        if differs and not text:
            words.append('<mark title="the reference has more here">∧</mark>')
        else:
            words.append(f"<mark>{escape(text)}</mark>" if differs else escape(text))
    return " ".join(words)


def _sample(sample: Sample) -> str:
    src, tgt = (f'lang="{escape(language)}" dir="auto"' for language in (sample.src, sample.tgt))
    lines = [f"<dt>Source</dt><dd {src}>{escape(sample.source)}</dd>"]
    lines += [f"<dt>Reference</dt><dd {tgt}>{escape(reference)}</dd>" for reference in sample.references]
    for output in sample.outputs:
        lines.append(f"<dt>{escape(output.system)} ({output.chrf:.0f})</dt><dd {tgt}>{_output(output)}</dd>")
    return f"<article><h3>Sentence {sample.number}</h3><dl>" + "\n".join(lines) + "</dl></article>"


def _details(summary: str, text: str) -> str:
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def _made(runs: Sequence[Run], signatures: Sequence[str]) -> str:
    """Signatures, versions and commands: what is needed to make it again."""
    lines = ["<h3>sacreBLEU's signatures</h3>", "<dl>"]
    for signature in signatures:
        name, rest = signature.split(": ", 1)
        lines.append(f"<dt>{escape(name)}</dt><dd><code>{escape(rest)}</code></dd>")
    lines += ["</dl>", "<h3>Versions</h3>"]
    same: Dict[str, List[str]] = {}
    for run in runs:
        commit = f"gift_fairseq at commit {run.commit}\n" if run.commit else ""
        same.setdefault(commit + run.versions, []).append(run.name)
    for versions, names in same.items():
        main = [line for line in versions.split("\n") if line.partition("==")[0] in PACKAGES]
        whose = "all runs" if len(same) == 1 else ", ".join(names)
        lines.append(f"<p>{escape(whose)}: {escape(', '.join(main) or 'not recorded')}</p>")
        if versions:
            lines.append(_details("commit and all packages", versions))
    lines.append("<h3>Commands</h3>")
    lines += [_details(run.name, run.command or "not recorded") for run in runs]
    return "\n".join(lines)


def page(
    title: str,
    tables: Sequence[Table],
    legend: Sequence[str],
    plots: Sequence[Plot],
    samples: Sequence[Sample],
    column: str,
    runs: Sequence[Run],
    signatures: Sequence[str],
) -> str:
    """The whole page; ``column`` is the TESTSET.SEARCH of the ``samples``."""
    parts = {"Results": _table(tables[0]) + _notes(legend)}
    if plots:
        parts["Figures"] = '<div class="figures">' + "\n".join(map(_figure, plots)) + "</div>"
    if samples:
        note = (
            f"The {len(samples)} sentences of {column_title(column)} on which the systems differ most: by the distance "
            "of the best and the worst sentence-level chrF2, which stands after the name. Marked is what differs from "
            "the (first) reference; ∧: words are missing there. Of several seeds the first is shown."
        )
        parts["Samples"] = _notes([note]) + "\n".join(map(_sample, samples))
    further = [f"<h3>{escape(t.title)}</h3>" + _table(t) + _notes([NOTES[t.title]]) for t in tables[1:]]
    if further:
        parts["Further tables"] = "\n".join(further)
    parts["How it was made"] = _made(runs, signatures)
    anchors = {name: name.lower().replace(" ", "-") for name in parts}
    style, script = _part("css"), _part("js")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
    policy += "base-uri 'none'; form-action 'none'"
    return Template(_part("html")).substitute(
        title=escape(title),
        policy=policy,
        style=style,
        script=script,
        links="".join(f'<a href="#{anchors[name]}">{name}</a>' for name in parts),
        sections="\n".join(f'<section id="{anchors[n]}"><h2>{n}</h2>\n{part}</section>' for n, part in parts.items()),
    )
