"""Options that several trainings have, and what each says at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retriever.training.settings import LOSSES

if TYPE_CHECKING:
    from retriever.training.course import Trained

Data = Annotated[list[str], typer.Option("--data", help="A BEIR folder to train on, with qrels/train.tsv; repeatable.")]
Dev = Annotated[
    list[str] | None,
    typer.Option(
        "--dev",
        help="A BEIR folder to measure on: its qrels/dev.tsv, or else a tenth of its train queries, which are then not "
        "trained on; repeatable.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for the model, its settings and log; until it is done, checkpoints.")]
Steps = Annotated[int, typer.Option(help="Batches to train on.")]
BatchSize = Annotated[int, typer.Option(help="Queries of a batch.")]
LearningRate = Annotated[float, typer.Option(help="Its highest value.")]
EvaluateEvery = Annotated[int, typer.Option(help="Steps between checkpoints, and measurements on --dev.")]
TrainLength = Annotated[int, typer.Option(help="Tokens of a text, or a pair of them, read in training.")]
MaxLength = Annotated[int, typer.Option(help="The same, read by the finished model.")]
Seed = Annotated[int, typer.Option(help="The same seed and data give the same model.")]
LOSS = f"One of {', '.join(LOSSES)}; the last two learn from --teacher."


def say(trained: Trained, what: str) -> None:
    """What was taken and left out, and what is in the folder now."""
    for note in trained.notes:
        typer.echo(note, err=True)
    typer.echo(f"{trained.out}: {what}", err=True)
