"""`retriever export`: write a view's weighted terms for other systems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    view: Annotated[str, typer.Argument(help="A view with weighted terms: bm25, splade, impacts, ...")],
    out: Annotated[Path, typer.Argument(help="The file: .jsonl (Anserini's JSON vectors) or .ciff; .gz and .zst too.")],
    scale: Annotated[
        float | None,
        typer.Option(
            help="Multiply the weights by this and round them to whole numbers, which CIFF and Anserini need."
        ),
    ] = None,
) -> None:
    """Write the documents with their weights by term.

    `retriever index OUT INDEX2 --view impacts` reads such a file. Weights that are rounded to 0 are left out.
    """
    from retriever.engine import Retriever
    from retriever.interchange.export import export
    from retriever.progress import bar

    retriever = Retriever(index)
    description = f"{retriever.info()['views'].get(view, {}).get('spec', view)}, by retriever-engine"
    with bar("exporting", "documents", len(retriever)):
        done = export(retriever.weighted_terms(view), out, scale, description)
    note = f"; {done.dropped:,} weights rounded to 0 were left out" if done.dropped else ""
    typer.echo(f"{out}: {done.documents:,} documents, {done.weights:,} weights{note}", err=True)
    if done.empty:
        typer.echo(f"{out}: {done.empty:,} of the documents have no terms", err=True)
