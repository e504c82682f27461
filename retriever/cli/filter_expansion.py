"""`retriever filter-expansion`: keep the generated queries that a reranker finds relevant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retriever.cli.add import Columns, SkipBad, column_names, tell_skipped

if TYPE_CHECKING:
    from retriever.errors import InputError


def filter_expansion_command(  # noqa: PLR0913 - one parameter an option
    corpus: Annotated[str, typer.Argument(help="The corpus that was expanded.")],
    expansions: Annotated[Path, typer.Argument(help="The file that `retriever expand` made.")],
    out: Annotated[Path, typer.Argument(help="The file for the queries that are kept; replaced if it is there.")],
    reranker: Annotated[str, typer.Option("--with", help="What scores the queries: cross-encoder(MODEL).")],
    keep: Annotated[float | None, typer.Option(help="The share of all queries to keep, as 0.3.")] = None,
    threshold: Annotated[float | None, typer.Option(help="The least score to keep, instead of --keep.")] = None,
    columns: Columns = None,
    skip_bad: SkipBad = False,
) -> None:
    """Drop the generated queries that have little to do with their documents (doc2query--).

    The scores are kept in EXPANSIONS.scores: the command goes on where it was interrupted, and another --keep or
    --threshold scores nothing again.
    """
    from retriever.corpus import read_corpus
    from retriever.expansion.filtering import filter_expansion
    from retriever.progress import bar

    problems: list[InputError] = []
    documents = read_corpus(corpus, columns=column_names(columns), on_bad=problems.append if skip_bad else None)
    with bar("scoring", "documents") as progress:
        report = filter_expansion(progress.follow(documents), expansions, out, reranker, keep=keep, threshold=threshold)
    tell_skipped(problems)
    skipped = f", {len(problems):,} bad records skipped" if problems else ""
    typer.echo(f"{expansions}: {report.scored:,} documents scored, {report.known:,} were scored{skipped}", err=True)
    share = f" ({report.kept / report.queries:.1%})" if report.queries else ""
    kept = f"{report.kept:,} of {report.queries:,} queries kept{share}"
    typer.echo(f"{out}: {kept}, those with a score of {report.threshold} and more", err=True)
    if report.left_out:
        typer.echo(f"{out}: {report.left_out:,} documents left out, which {corpus} has not as they are there", err=True)
