"""`retriever compact`: give back the space of deleted documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compact_command(index: Annotated[Path, typer.Argument(help="The index's folder.")]) -> None:
    """Rewrite an index without its deleted documents. Nothing is encoded again."""
    from retriever.engine import Retriever

    retriever = Retriever(index)
    before = retriever.info()
    retriever.compact()
    after = retriever.info()
    saved = (before["bytes"] - after["bytes"]) / 1e6
    typer.echo(f"{index}: {before['deleted']:,} deleted documents removed, {saved:,.1f} MB given back", err=True)
