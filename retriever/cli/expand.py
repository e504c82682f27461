"""`retriever expand`: write the words down that a corpus is to be expanded by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retriever.cli.add import Columns, SkipBad, column_names, tell_skipped

if TYPE_CHECKING:
    from retriever.errors import InputError


def expand_command(
    corpus: Annotated[str, typer.Argument(help="The corpus, in any form that `retriever index` reads.")],
    out: Annotated[Path, typer.Argument(help="The file of expansions; made if it is not there.")],
    expansion: Annotated[
        str, typer.Option("--with", help='doc2query(MODEL), "doc2query(MODEL, n=40, seed=0)", "tilde(MODEL, n=200)".')
    ],
    columns: Columns = None,
    skip_bad: SkipBad = False,
) -> None:
    """Expand a corpus by a model; the file then serves any view: --view "bm25(expansion='OUT')".

    The command can be repeated: it goes on where it was interrupted, and adds what is new in the corpus.
    """
    from retriever.corpus import read_corpus
    from retriever.expansion.documents import expand
    from retriever.progress import bar

    problems: list[InputError] = []
    documents = read_corpus(corpus, columns=column_names(columns), on_bad=problems.append if skip_bad else None)
    with bar("expanding", "documents") as progress:
        report = expand(progress.follow(documents), out, expansion)
    tell_skipped(problems)
    skipped = f", {len(problems):,} bad records skipped" if problems else ""
    typer.echo(f"{out}: {report.expanded:,} documents expanded, {report.known:,} were there{skipped}", err=True)
    if report.truncated:
        typer.echo(f"{out}: {report.truncated:,} of them are longer than the model reads and were cut", err=True)
