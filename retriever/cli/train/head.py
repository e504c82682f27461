"""`retriever train head`: a small part on top of a cross-encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retriever.cli.train.options import Data, Dev, say
from retriever.training.settings import HEADS, HeadTraining


def train_head_command(  # noqa: PLR0913 - one parameter an option
    method: Annotated[str, typer.Argument(help=f"One of {', '.join(HEADS)}.")],
    base: Annotated[str, typer.Option(help="The cross-encoder, a BERT, which stays as it is.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the cross-encoder with the head, settings and log.")],
    dev: Dev = None,
    aggregator: Annotated[
        str | None, typer.Option(help="Of parade: max, avg, attention or transformer.", show_default="transformer")
    ] = None,
    limit: Annotated[int, typer.Option(help="The most examples taken of a folder.")] = HeadTraining.limit,
    epochs: Annotated[int, typer.Option(help="How often each example is trained on.")] = HeadTraining.epochs,
    batch_size: Annotated[int, typer.Option(help="Examples of a batch.")] = HeadTraining.batch_size,
    negatives: Annotated[int, typer.Option(help="Irrelevant texts for each query.")] = HeadTraining.negatives,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = HeadTraining.learning_rate,
    seed: Annotated[int, typer.Option(help="The same seed and data give the same head.")] = HeadTraining.seed,
) -> None:
    """Train a small part on top of a cross-encoder: PARADE, CEDR, IDCM's selector (ck), early exit.

    Keeps the epoch that is best on --dev. It takes minutes, and starts again where it was stopped.
    """
    from retriever.training.heads import train_head

    settings = HeadTraining(
        method=method,
        base=base,
        data=tuple(data),
        dev=tuple(dev or ()),
        aggregator=aggregator,
        limit=limit,
        epochs=epochs,
        batch_size=batch_size,
        negatives=negatives,
        learning_rate=learning_rate,
        seed=seed,
    )
    say(train_head(settings, out), f"a cross-encoder with a head for {method}")
