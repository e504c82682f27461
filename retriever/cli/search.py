"""`retriever search`: one query for a person or a program, or a file of queries into a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retriever.query_expansion import QUERY_EXPANSIONS
from retriever.rerankers import RERANKERS

if TYPE_CHECKING:
    from retriever.engine import Retriever
    from retriever.types import Hit

PIPELINES = (
    'How to search: "bm25", "bm25(k=200) + dense(k=200) >> rrf >> cross-encoder(MODEL, depth=50)", '
    '"bm25 >> rm3 >> bm25", "by-language(de=german, else=bm25)". '
    f"Rerankers: {', '.join(RERANKERS)}. Expansions: {', '.join(QUERY_EXPANSIONS)}."
)


def search_command(  # noqa: PLR0913 - one parameter an option
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    queries: Annotated[
        str | None, typer.Option(help="Many queries: BEIR queries.jsonl or folder, queries.tsv, or ir:DATASET.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--hits", "--top-k", help="Results a query.")] = 10,
    run: Annotated[
        Path | None, typer.Option(help="Write a TREC run here (with --queries); else to standard output.")
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            help=PIPELINES,
            show_default="all views, fused by rrf",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Metadata filter: \"year >= 1950 and lang in ['en', 'de']\".")
    ] = None,
    language: Annotated[
        str, typer.Option(help="The query's, for a pipeline with by-language; --queries have a field of that name.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Search an index.

    A query gives a table with snippets, or --json lines. --queries gives a TREC run for `retriever eval`.
    """
    from retriever.engine import Retriever
    from retriever.errors import InputError
    from retriever.tallies import tallies, told

    if (query is None) == (queries is None):
        raise InputError("give a query, or --queries with a file of them")
    if run is not None and queries is None:
        raise InputError("--run writes the results of --queries; a single query is printed")
    retriever = Retriever(index)
    with tallies() as found:
        if query is not None:
            _print(retriever.search(query, k, where, pipeline, language), as_json=as_json)
        elif queries is not None:
            _run(retriever, queries, k, where, pipeline, run)
    for what, count in found.items():
        typer.echo(told(what, count), err=True)


def _run(
    retriever: Retriever, queries: str, k: int, where: str | None, pipeline: str | None, path: Path | None
) -> None:  # fmt: skip
    from retriever.corpus import read_queries
    from retriever.progress import bar

    asked = read_queries(queries)
    with bar("searching", "queries", len(asked)):
        run = retriever.run(asked, k, where, pipeline)
    if path is None:
        sys.stdout.writelines(f"{line}\n" for line in run.lines())
    else:
        run.write(path)
    empty = len(asked) - len(run)
    note = f", {empty:,} of them without results" if empty else ""
    typer.echo(f"{len(asked):,} queries searched with {run.tag}{note}" + (f"; {path}" if path else ""), err=True)


def _print(hits: list[Hit], *, as_json: bool) -> None:
    if as_json:
        for hit in hits:
            fields = {name: getattr(hit, name) for name in ("rank", "id", "score", "title", "text", "snippet")}
            typer.echo(json.dumps({**fields, "metadata": dict(hit.metadata)}, ensure_ascii=False))
        return
    if not hits:
        typer.echo("nothing found", err=True)
        return
    if not sys.stdout.isatty():
        for hit in hits:
            typer.echo(f"{hit.rank}\t{hit.score:.4f}\t{hit.id}\t{hit.title}\t{hit.snippet}")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "score", "id", "document"):
        table.add_column(name, justify="right" if name in ("", "score") else "left", overflow="fold")
    for hit in hits:
        title = f"[bold]{escape(hit.title)}[/bold]\n" if hit.title else ""
        table.add_row(str(hit.rank), f"{hit.score:.4f}", escape(hit.id), title + escape(hit.snippet))
    Console().print(table)
