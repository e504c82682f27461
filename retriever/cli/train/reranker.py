"""`retriever train reranker`: a cross-encoder."""

from __future__ import annotations

from typing import Annotated

import typer

from retriever.cli.train.options import (
    LOSS,
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
from retriever.training.settings import RerankerTraining


def train_reranker_command(  # noqa: PLR0913 - one parameter an option
    base: Annotated[str, typer.Option(help="The model to start from: a cross-encoder, or any encoder.")],
    data: Data,
    out: Out,
    dev: Dev = None,
    loss: Annotated[str, typer.Option(help=LOSS)] = RerankerTraining.loss,
    teacher: Annotated[
        str | None, typer.Option(help='A reranker of pairs to learn from, as in "cross-encoder(MODEL)".')
    ] = None,
    mine: Annotated[
        str, typer.Option(help="The pipeline whose results are negatives, and what is reranked on --dev.")
    ] = RerankerTraining.mine,
    view: Annotated[
        list[str] | None,
        typer.Option("--view", help="A view that --mine searches; repeatable.", show_default="bm25"),
    ] = None,
    steps: Steps = RerankerTraining.steps,
    batch_size: BatchSize = RerankerTraining.batch_size,
    negatives: Annotated[int, typer.Option(help="Irrelevant texts for each query.")] = RerankerTraining.negatives,
    learning_rate: LearningRate = RerankerTraining.learning_rate,
    train_length: TrainLength = RerankerTraining.train_length,
    max_length: MaxLength = RerankerTraining.max_length,
    evaluate_every: EvaluateEvery = RerankerTraining.evaluate_every,
    seed: Seed = RerankerTraining.seed,
) -> None:
    """Train a cross-encoder.

    The same command goes on where it was stopped, and saves the checkpoint that is best on --dev.
    """
    from retriever.training.reranker import train_reranker

    settings = RerankerTraining(
        base=base,
        data=tuple(data),
        dev=tuple(dev or ()),
        loss=loss,
        teacher=teacher,
        views=tuple(view or RerankerTraining.views),
        mine=mine,
        steps=steps,
        batch_size=batch_size,
        negatives=negatives,
        learning_rate=learning_rate,
        train_length=train_length,
        max_length=max_length,
        evaluate_every=evaluate_every,
        seed=seed,
    )
    say(train_reranker(settings, out), "a model that sentence-transformers' CrossEncoder loads")
