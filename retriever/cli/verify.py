"""`retriever verify`: check every file of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify_command(index: Annotated[Path, typer.Argument(help="The index's folder.")]) -> None:
    """Read every file against its checksum. Exit code 1 when something is damaged."""
    from retriever.engine import verify_index
    from retriever.errors import CorruptIndexError

    problems = verify_index(index)
    if problems:
        raise CorruptIndexError("\n".join([*problems, "restore these files from a copy, or index the corpus again"]))
    typer.echo(f"{index}: every file is as it was written", err=True)
