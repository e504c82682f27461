"""`retriever train`: train the models that views and stages use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retriever.training.settings import HEADS, LOSSES, HeadTraining, RerankerTraining, SparseTraining

if TYPE_CHECKING:
    from retriever.training.course import Trained

train_app = typer.Typer(
    name="train", help="Train models on BEIR folders; all but `head` need the extra `train`.", no_args_is_help=True
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
Out = Annotated[Path, typer.Option(help="Folder for the model, its settings and log; until it is done, checkpoints.")]
Steps = Annotated[int, typer.Option(help="Batches to train on.")]
BatchSize = Annotated[int, typer.Option(help="Queries of a batch.")]
LearningRate = Annotated[float, typer.Option(help="Its highest value.")]
EvaluateEvery = Annotated[int, typer.Option(help="Steps between checkpoints, and measurements on --dev.")]
TrainLength = Annotated[int, typer.Option(help="Tokens of a text, or a pair of them, read in training.")]
MaxLength = Annotated[int, typer.Option(help="The same, read by the finished model.")]
Seed = Annotated[int, typer.Option(help="The same seed and data give the same model.")]
LOSS = f"One of {', '.join(LOSSES)}; the last two learn from --teacher."


@train_app.command("sparse")
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
    _say(train_sparse(settings, out), "a model that sentence-transformers' SparseEncoder loads")


@train_app.command("reranker")
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
    _say(train_reranker(settings, out), "a model that sentence-transformers' CrossEncoder loads")


@train_app.command("head")
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
    _say(train_head(settings, out), f"a cross-encoder with a head for {method}")


def _say(trained: Trained, what: str) -> None:
    """What was taken and left out, and what is in the folder now."""
    for note in trained.notes:
        typer.echo(note, err=True)
    typer.echo(f"{trained.out}: {what}", err=True)
