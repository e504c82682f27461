"""An experiment as Markdown, as LaTeX (booktabs), and as tables on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from retriever.bench import summary
from retriever.bench.outcome import Collection, Experiment
from retriever.eval import report

if TYPE_CHECKING:
    from rich.console import Console

_LATEX = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # T1 alone has a straight one, and babel may give it a meaning
    "[": "{[}",  # behind the end of a line it would begin an option, and a star would be one
    "*": "{*}",
}

_NAMES = ("run", "system", "measure", "source", "runs on")
_NARROWEST = 12


def markdown(experiment: Experiment) -> str:
    """Means over all collections; per collection the values, published numbers, costs and notes."""
    return "\n\n".join(_markdown(experiment)) + "\n"


def _markdown(experiment: Experiment) -> Iterator[str]:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", experiment.command)), default=0))
    yield f"{fence}\n{experiment.command}\n{fence}"
    yield f"{experiment.machine}; {experiment.date}."
    yield (
        "Bold: best. \\*: differs from the first system, p < .05, paired t-test, Holm's correction over all "
        "comparisons on the collection."
    )
    if len(experiment.collections) > 1:
        yield "## Means over the collections"
        yield _pipes(_averages(experiment))
    for collection in experiment.collections:
        yield from _markdown_collection(experiment, collection)


def _markdown_collection(experiment: Experiment, collection: Collection) -> Iterator[str]:
    outcomes = experiment.of(collection.name)
    yield f"## {_plain(collection.name)}"
    yield f"{summary.size(collection, outcomes)}."
    if not outcomes:
        yield "No system ran on it."
        return
    rows = summary.compared(experiment, collection.name)
    yield _pipes([["system", *experiment.measures], *(_values(experiment, row, rows) for row in rows)])
    for table in (report.differences_table(rows), _published(experiment, collection), summary.costs_table(outcomes)):
        if len(table) > 1:
            yield _pipes([table[0], *([f"`{line[0]}`", *line[1:]] for line in table[1:])])
    told = [
        f"- `{row.name}`: {_plain(note)}"
        for outcome, row in zip(outcomes, rows, strict=True)
        for note in summary.notes(outcome, row)
    ]
    if told:
        yield "\n".join(told)


def _values(experiment: Experiment, row: report.Row, rows: Sequence[report.Row]) -> list[str]:
    return [
        f"`{row.name}`",
        *(
            _bold(
                row.value(measure), row.name in summary.best({each.name: each.results.means[measure] for each in rows})
            )
            for measure in experiment.measures
        ),
    ]


def _bold(value: str, best: bool) -> str:
    digits, star = value.rstrip("*"), "\\*" if value.endswith("*") else ""
    return f"**{digits}**{star}" if best else f"{digits}{star}"


def _averages(experiment: Experiment) -> list[list[str]]:
    averages = summary.averages(experiment)
    lines = [["system", *experiment.measures, "collections"]]
    for each in averages:
        values = [
            _bold(f"{each.means[measure]:.4f}", each.system in _best(averages, measure)) if each.means else "–"
            for measure in experiment.measures
        ]
        lines.append([f"`{each.system}`", *values, f"{each.collections} of {len(experiment.collections)}"])
    return lines


def _best(averages: Sequence[summary.Average], measure: str) -> set[str]:
    return summary.best({each.system: each.means[measure] for each in averages if each.means})


def _published(experiment: Experiment, collection: Collection) -> list[list[str]]:
    """Ours beside theirs; what is outside its tolerance is said in a word, so that it can be searched for."""
    return [
        ["system", "measure", "ours", "published", "difference", "tolerance", "verdict", "source"],
        *(
            [
                outcome.system,
                measure,
                f"{ours:.4f}",
                f"{published.value:.4f}",
                f"{ours - published.value:+.4f}",
                f"{published.tolerance:.4f}",
                "within" if published.within else "OUTSIDE",
                published.source,
            ]
            for outcome in experiment.of(collection.name)
            for measure, published in outcome.published.items()
            if (ours := outcome.results.means.get(measure)) is not None
        ),
    ]


def _pipes(table: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown, numbers to the right."""
    right = [all(re.match(r"[*+\-–\d]", cell) for cell in column) for column in zip(*table[1:], strict=True)]
    rule = ["---:" if each else "---" for each in right]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in (table[0], rule, *table[1:])
    )


def _plain(text: str) -> str:
    """Text as one line without meaning for Markdown or HTML."""
    return re.sub(r"([\\`*_<>\[\]#|])", r"\\\1", " ".join(text.split()))


def latex(experiment: Experiment) -> str:
    r"""A table for each measure, for \usepackage{booktabs}: systems down, collections across, their mean last."""
    names = [each.name for each in experiment.collections if experiment.of(each.name)]
    compared = {name: summary.compared(experiment, name) for name in names}
    return "\n\n".join(_latex(experiment, compared, measure) for measure in experiment.measures) + "\n"


def _latex(experiment: Experiment, compared: Mapping[str, Sequence[report.Row]], measure: str) -> str:
    columns = [_latex_column(rows, measure) for rows in compared.values()]
    averages = summary.averages(experiment)
    means = {each.system: each.means[measure] for each in averages if each.means}
    columns.append(
        {system: _latex_value(f"{value:.4f}", system in summary.best(means)) for system, value in means.items()}
    )
    heads = ["System", *map(_escaped, compared), "Mean"]
    lines = [[_escaped(system), *(column.get(system, "--") for column in columns)] for system in experiment.systems]
    caption = (
        f"{_escaped(measure)}. Bold: best. $^*$: differs from the first system, $p < .05$, paired $t$-test, "
        "Holm's correction over all comparisons on the collection."
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_column(rows: Sequence[report.Row], measure: str) -> dict[str, str]:
    best = summary.best({row.name: row.results.means[measure] for row in rows})
    return {row.name: _latex_value(row.value(measure), row.name in best) for row in rows}


def _latex_value(value: str, best: bool) -> str:
    digits, star = value.rstrip("*"), "$^*$" if value.endswith("*") else ""
    return f"\\textbf{{{digits}}}{star}" if best else f"{digits}{star}"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(each, each) for each in text)


def terminal(experiment: Experiment, console: Console) -> None:
    """Print each collection's values and costs; tab-separated where the console is no terminal."""
    for collection in experiment.collections:
        outcomes = experiment.of(collection.name)
        console.print(f"{collection.name}: {summary.size(collection, outcomes)}", markup=False, highlight=False)
        if outcomes:
            values = report.values_table(summary.compared(experiment, collection.name))
            for table in (values, _published(experiment, collection), summary.costs_table(outcomes)):
                if len(table) > 1:
                    _print(table, console)


def _print(lines: Sequence[Sequence[str]], console: Console) -> None:
    """Headings and names are folded where the terminal is narrow; no number is ever broken or cut."""
    from rich.table import Table
    from rich.text import Text

    if not console.is_terminal:
        console.file.write("".join("\t".join(line) + "\n" for line in lines))  # print would turn tabs into spaces
        return
    table, needed = Table(box=None, pad_edge=False), 0
    for heading, *cells in zip(*lines, strict=True):
        name = heading in _NAMES
        words = max(map(len, heading.split()))
        least = max(words, _NARROWEST) if name else max(words, *map(len, cells))
        table.add_column(Text(heading), min_width=least, overflow="fold", justify="left" if name else "right")
        needed += least + 2
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    console.width = max(console.width, needed)
    console.print(table)
