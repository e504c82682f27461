"""`retriever train`: a command for each training, and an option for each field of its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from importlib import import_module
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

import typer

from retriever.training import settings
from retriever.training.settings import HEADS, LOSSES

if TYPE_CHECKING:
    from retriever.training.course import Trained


class Command(NamedTuple):
    """settings: their class. train: "module:function" that takes them and a folder. made: what is in the folder then.
    about: the command's help.
    """

    settings: type
    train: str
    made: str
    about: str


GOES_ON = "The same command goes on where it was stopped, and saves the checkpoint that is best on --dev."
COMMANDS = {
    "sparse": Command(
        settings.SparseTraining,
        "retriever.training.sparse:train_sparse",
        "a model that sentence-transformers' SparseEncoder loads",
        f"Train a SPLADE encoder.\n\n{GOES_ON}",
    ),
    "reranker": Command(
        settings.RerankerTraining,
        "retriever.training.reranker:train_reranker",
        "a model that sentence-transformers' CrossEncoder loads",
        f"Train a cross-encoder.\n\n{GOES_ON}",
    ),
    "head": Command(
        settings.HeadTraining,
        "retriever.training.heads:train_head",
        "a cross-encoder with a head",
        "Train a small part on top of a cross-encoder: PARADE, CEDR, IDCM's selector (ck), early exit.\n\n"
        "Keeps the epoch that is best on --dev. It takes minutes, and starts again where it was stopped.",
    ),
}
ARGUMENTS = {"method"}
NAMES = {"views": "--view"}
"""Options that are not called as their field is."""
HELP = {
    "aggregator": "Of parade: max, avg, attention or transformer (the default).",
    "base": "The model to start from, a name or a folder.",
    "batch_size": "Examples of a batch.",
    "data": "A BEIR folder to train on, with qrels/train.tsv; repeatable.",
    "dev": "A BEIR folder to measure on: its qrels/dev.tsv, or else a tenth of its train queries, which are then not "
    "trained on; repeatable.",
    "document_weight": "Of the documents' FLOPS regulariser: higher means fewer terms.",
    "epochs": "How often each example is trained on.",
    "evaluate_every": "Steps between checkpoints, and measurements on --dev.",
    "learning_rate": "Its highest value.",
    "limit": "The most examples taken of a folder.",
    "loss": f"One of {', '.join(LOSSES)}; the last two learn from --teacher.",
    "max_length": "Tokens of a text, or a pair of them, read by the finished model.",
    "method": f"One of {', '.join(HEADS)}.",
    "mine": "The pipeline whose results are negatives, and what is reranked on --dev.",
    "negatives": "Irrelevant texts for each query.",
    "precision": "auto (bfloat16 where the hardware has it) or float32.",
    "query_weight": "Of the queries' FLOPS regulariser: higher means fewer terms.",
    "seed": "The same seed and data give the same model.",
    "steps": "Batches to train on.",
    "teacher": 'A reranker of pairs to learn from, as in "cross-encoder(MODEL)".',
    "train_length": "Tokens of a text, or a pair of them, read in training.",
    "views": "A view that --mine searches; repeatable.",
}
"""Of each field: it means the same in all trainings."""


def _made(command: Command) -> Callable[..., None]:
    """The function that typer reads: its parameters are the settings' fields, and `out`."""

    def run(out: Path, **given: Any) -> None:
        module, _, name = command.train.partition(":")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        trained: Trained = getattr(import_module(module), name)(command.settings(**values), out)
        for note in trained.notes:
            typer.echo(note, err=True)
        typer.echo(f"{trained.out}: {command.made}", err=True)

    parameters = sorted(_parameters(command.settings), key=lambda each: each.default is not Parameter.empty)
    run.__doc__ = command.about
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _parameters(owner: type) -> Iterator[Parameter]:
    hints = get_type_hints(owner)
    for field in fields(owner):
        several = hints[field.name] == tuple[str, ...]
        told = typer.Argument if field.name in ARGUMENTS else typer.Option
        flags = () if field.name in ARGUMENTS else (NAMES.get(field.name, f"--{field.name.replace('_', '-')}"),)
        kind = Annotated[list[str] if several else hints[field.name], told(*flags, help=HELP[field.name])]  # type: ignore[valid-type]
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=_default(field, several=several), annotation=kind)
    about = "Folder for the model, its settings and log; until it is done, checkpoints."
    yield Parameter("out", Parameter.KEYWORD_ONLY, annotation=Annotated[Path, typer.Option(help=about)])


def _default(field: Field[Any], *, several: bool) -> Any:
    if field.default is MISSING:
        return Parameter.empty
    return list(field.default) if several else field.default


train_app = typer.Typer(
    name="train", help="Train models on BEIR folders; all but `head` need the extra `train`.", no_args_is_help=True
)
for _name, _command in COMMANDS.items():
    train_app.command(_name)(_made(_command))
