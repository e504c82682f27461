"""`retriever train sparse`: a SPLADE encoder."""

from __future__ import annotations

from typing import Annotated

import typer

from retriever.cli.train.options import (
    BatchSize,
    Data,
    Dev,
    EvaluateEvery,
    LearningRate,
    MaxLength,
    Out,
    Seed,
    Steps,
    TrainLength,
    say,
)
from retriever.training.settings import SparseTraining


def train_sparse_command(  # noqa: PLR0913 - one parameter an option
    base: Annotated[str, typer.Option(help="The model to start from: a masked language model, or any BERT encoder.")],
    data: Data,
    out: Out,
    dev: Dev = None,
    steps: Steps = SparseTraining.steps,
    batch_size: BatchSize = SparseTraining.batch_size,
    negatives: Annotated[int, typer.Option(help="Irrelevant documents for each query.")] = SparseTraining.negatives,
    learning_rate: LearningRate = SparseTraining.learning_rate,
    query_weight: Annotated[
        float, typer.Option(help="Of the FLOPS regulariser: higher means fewer terms.")
    ] = SparseTraining.query_weight,
    document_weight: Annotated[float, typer.Option(help="The same for documents.")] = SparseTraining.document_weight,
    train_length: TrainLength = SparseTraining.train_length,
    max_length: MaxLength = SparseTraining.max_length,
    evaluate_every: EvaluateEvery = SparseTraining.evaluate_every,
    seed: Seed = SparseTraining.seed,
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
    say(train_sparse(settings, out), "a model that sentence-transformers' SparseEncoder loads")
