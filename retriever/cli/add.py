"""`retriever add`: add a corpus to an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from retriever.engine import Retriever
    from retriever.errors import InputError

Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="Name a column or field: id=doc_no, text=abstract, title=name; repeatable."),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out bad records, naming and counting them, instead of stopping.")
]
SHOWN = 20
"""So many bad records are named; the rest is only counted."""


def add_command(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    corpus: Annotated[str, typer.Argument(help="What to add, in any form that `retriever index` reads.")],
    columns: Columns = None,
    skip_bad: SkipBad = False,
) -> None:
    """Add documents; one whose id is in the index replaces it."""
    from retriever.engine import Retriever

    add_corpus(Retriever(index), corpus, columns, skip_bad=skip_bad)


def add_corpus(index: Retriever, source: str, columns: list[str] | None, *, skip_bad: bool) -> None:
    """Read, add, and report on standard error."""
    from retriever.corpus import read_corpus
    from retriever.progress import bar

    problems: list[InputError] = []
    documents = read_corpus(source, columns=column_names(columns), on_bad=problems.append if skip_bad else None)
    with bar("indexing", "documents") as progress:
        report = index.add(progress.follow(documents), problems.append if skip_bad else None)
    tell_skipped(problems)
    counts = [f"{report.added:,} added", f"{report.updated:,} updated", f"{report.unchanged:,} unchanged"]
    if problems:
        counts.append(f"{len(problems):,} bad records skipped")
    typer.echo(f"{index.path}: {', '.join(counts)}; {len(index):,} documents in all", err=True)
    for view, count in report.truncated.items():
        typer.echo(f"view {view}: {count:,} documents are longer than its encoder reads and were cut", err=True)


def tell_skipped(problems: list[InputError]) -> None:
    """Name the first bad records, and count the others."""
    for problem in problems[:SHOWN]:
        typer.echo(f"skipped: {problem}", err=True)
    if len(problems) > SHOWN:
        typer.echo(f"skipped: ... and {len(problems) - SHOWN:,} more", err=True)


def column_names(given: list[str] | None) -> dict[str, str] | None:
    """What --column gave, by field. Raises: InputError for another form or field."""
    from retriever.errors import InputError

    pairs = [pair.partition("=") for pair in given or []]
    for key, _, name in pairs:
        if key not in ("id", "title", "text") or not name:
            raise InputError(f"--column takes id=NAME, title=NAME or text=NAME, not {key!r}")
    return {key: name for key, _, name in pairs} or None
