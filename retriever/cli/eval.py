"""`retriever eval`: measure runs against judgements, and against each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retriever.eval.corrections import Correction
from retriever.eval.significance import Test

if TYPE_CHECKING:
    from rich.console import Console

    from retriever.eval.report import Row

Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure", "-m", help="A measure by ir-measures' name; repeatable.", show_default="nDCG@10, R@100, RR@10"
    ),
]
DropIdentical = Annotated[
    bool, typer.Option("--drop-identical", help="Take out results whose id is the query's own (ArguAna, Quora).")
]


def evaluate_command(  # noqa: PLR0913 - one parameter an option
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run files: TREC, MS MARCO or Tevatron; .gz and .zst too. The first is the baseline."),
    ],
    qrels: Annotated[Path, typer.Option(help="Judgements: BEIR, TREC or MS MARCO; .gz and .zst too.")],
    measure: Measures = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, all digits.")] = False,
    per_query: Annotated[
        bool,
        typer.Option("--per-query", help="Print measure, query and value instead of the table; with --json, add them."),
    ] = False,
    drop_identical: DropIdentical = False,
    test: Annotated[Test, typer.Option(help="The paired test: t or randomisation.")] = "t",
    correction: Annotated[
        Correction, typer.Option(help="For the number of tests: holm or bh (Benjamini-Hochberg).")
    ] = "holm",
) -> None:
    """Measure runs against judgements.

    Every judged query counts, one without results as zero.

    Of several runs, * marks those that differ from the first: p < .05 in a paired test, corrected over all of them.

    Piped, the tables are tab-separated.
    """
    from retriever.eval import report
    from retriever.eval.measures import DEFAULT_MEASURES, parse_measures
    from retriever.eval.run_files import evaluate_file
    from retriever.eval.significance import Statistics
    from retriever.runs import Qrels

    measures = measure or DEFAULT_MEASURES
    parse_measures(measures)  # a wrong name is told before any file is read
    statistics = Statistics(test, correction)
    judgements = Qrels.read(qrels)
    rows = report.report(
        [(str(path), evaluate_file(path, judgements, measures, drop_identical=drop_identical)) for path in runs],
        statistics,
    )
    for line in _notes(rows):
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(report.as_json(rows, per_query=per_query), ensure_ascii=False))
    elif per_query:
        typer.echo("\n".join(report.per_query_lines(rows)))
    else:
        _print_tables(rows)


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """What a reader of the numbers must know of each run, and of the comparison."""
    from retriever.eval.significance import cautions

    for row in rows:
        yield from (f"{row.name}: {note}" for note in row.results.notes())
        yield from (f"{row.name}: {note}" for note in cautions(row.results.judged, row.versus_first))


def _print_tables(rows: Sequence[Row]) -> None:
    """Drawn on a terminal, tab-separated elsewhere."""
    from rich.console import Console

    from retriever.eval import report

    console = Console()
    if not console.is_terminal:
        typer.echo(report.as_text(rows))
        return
    for table in filter(None, (report.values_table(rows), report.differences_table(rows))):
        _print_table(console, table)


def _print_table(console: Console, lines: Sequence[Sequence[str]]) -> None:
    """A line that the terminal is too narrow for runs on; no number is ever broken or cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in lines[0]:
        table.add_column(Text(heading), no_wrap=True, justify="left" if heading in ("run", "measure") else "right")
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    wide = console.options.update(max_width=10_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
