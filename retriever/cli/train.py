"""`retriever train`: train the models that views and stages use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retriever.training.settings import SparseTraining

train_app = typer.Typer(
    name="train", help="Train models on BEIR folders; needs the extra `train`.", no_args_is_help=True
)

Data = Annotated[list[str], typer.Option("--data", help="A BEIR folder to train on, with qrels/train.tsv; repeatable.")]
Dev = Annotated[
    list[str] | None,
    typer.Option(
        "--dev",
        help="A BEIR folder to measure on: its qrels/dev.tsv, or else a tenth of its train queries, which are then not "
        "trained on; repeatable.",
    ),
]


@train_app.command("sparse")
def train_sparse_command(  # noqa: PLR0913 - one parameter an option
    base: Annotated[str, typer.Option(help="The model to start from: a masked language model, or any BERT encoder.")],
    data: Data,
    out: Annotated[
        Path, typer.Option(help="Folder for the model, its settings and log; until it is done, checkpoints.")
    ],
    dev: Dev = None,
    steps: Annotated[int, typer.Option(help="Batches to train on.")] = SparseTraining.steps,
    batch_size: Annotated[int, typer.Option(help="Queries of a batch.")] = SparseTraining.batch_size,
    negatives: Annotated[int, typer.Option(help="Irrelevant documents for each query.")] = SparseTraining.negatives,
    learning_rate: Annotated[float, typer.Option(help="Its highest value.")] = SparseTraining.learning_rate,
    query_weight: Annotated[
        float, typer.Option(help="Of the FLOPS regulariser: higher means fewer terms.")
    ] = SparseTraining.query_weight,
    document_weight: Annotated[float, typer.Option(help="The same for documents.")] = SparseTraining.document_weight,
    train_length: Annotated[int, typer.Option(help="Tokens of a text read in training.")] = SparseTraining.train_length,
    max_length: Annotated[
        int, typer.Option(help="Tokens of a text read by the finished model.")
    ] = SparseTraining.max_length,
    evaluate_every: Annotated[
        int, typer.Option(help="Steps between checkpoints, and measurements on --dev.")
    ] = SparseTraining.evaluate_every,
    seed: Annotated[int, typer.Option(help="The same seed and data give the same model.")] = SparseTraining.seed,
) -> None:
    """Train a SPLADE encoder.

    The same command goes on where it was stopped, and saves the checkpoint that is best on --dev.
    """
    from retriever.training.sparse import train_sparse

    settings = SparseTraining(
        base=base,
        data=tuple(data),
        dev=tuple(dev or ()),
        steps=steps,
        batch_size=batch_size,
        negatives=negatives,
        learning_rate=learning_rate,
        query_weight=query_weight,
        document_weight=document_weight,
        train_length=train_length,
        max_length=max_length,
        evaluate_every=evaluate_every,
        seed=seed,
    )
    trained = train_sparse(settings, out)
    for note in trained.notes:
        typer.echo(note, err=True)
    typer.echo(f"{trained.out}: a model that sentence-transformers' SparseEncoder loads", err=True)
