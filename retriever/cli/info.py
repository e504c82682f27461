"""`retriever info`: what an index holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def info_command(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what an index holds: documents, views, the engine and encoder behind each, sizes."""
    from retriever.engine import Retriever

    info = Retriever(index).info()
    if as_json:
        typer.echo(json.dumps(info))
        return
    typer.echo(f"{info['path']}: {info['documents']:,} documents, {info['bytes'] / 1e6:,.1f} MB")
    typer.echo(f"  generation {info['generation']}; {info['deleted']:,} deleted documents still take space")
    for view in info["views"].values():
        typer.echo(f"view {view['spec']}")
        cut = f", {view['truncated']:,} cut to the encoder's length" if view["truncated"] else ""
        typer.echo(f"  {view['engine']}: {view['documents']:,} rows, {view['bytes'] / 1e6:,.1f} MB{cut}")
        if encoder := view["encoder"]:
            typer.echo("  encoder: " + ", ".join(f"{key} {value}" for key, value in encoder.items()))
