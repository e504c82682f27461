"""`retriever delete`: take documents out of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def delete_command(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    ids: Annotated[list[str], typer.Argument(help="Document ids; - reads them from standard input, one a line.")],
) -> None:
    """Delete documents from every view. `retriever compact` gives their space back."""
    import sys

    from retriever.engine import Retriever

    wanted = list(dict.fromkeys(line.rstrip("\r\n") for line in sys.stdin) if ids == ["-"] else dict.fromkeys(ids))
    retriever = Retriever(index)
    count = retriever.delete(wanted)
    missing = f", {len(wanted) - count:,} not in the index" if count < len(wanted) else ""
    typer.echo(f"{index}: {count:,} deleted{missing}; {len(retriever):,} documents left", err=True)
