"""`retriever train`: a command for each training, and an option for each field of its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from importlib import import_module
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

import typer

from retriever.errors import InputError
from retriever.training import settings
from retriever.training.settings import ENCODER_LOSSES, ENCODER_POOLINGS, HEADS, LOSSES

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
    "encoder": Command(
        settings.EncoderTraining,
        "retriever.training.encoder:train_encoder",
        "a model that sentence-transformers loads, for a view: dense(FOLDER)",
        f"Train a dense encoder.\n\n{GOES_ON}",
    ),
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
    "hmde": Command(
        settings.HmdeTraining,
        "retriever.training.hmde:train_hmde",
        "a hierarchical document encoder, for a view: dense(FOLDER)",
        f"Train HMDE: a transformer over a sentence encoder's vectors of a long document's segments.\n\n{GOES_ON}",
    ),
    "esimcse": Command(
        settings.EsimcseTraining,
        "retriever.training.texts.esimcse:train_esimcse",
        "a model that sentence-transformers loads",
        f"Train a sentence encoder on texts alone, by ESimCSE.\n\n{GOES_ON}",
    ),
    "mlm": Command(
        settings.MaskedTraining,
        "retriever.training.texts.mlm:train_mlm",
        "a masked language model, for the --base of other trainings",
        "Train a model further on texts alone, by masking words.\n\nThe same command goes on where it was stopped, and "
        "saves the checkpoint with the least loss on texts that are held out.",
    ),
    "lexical": Command(
        settings.LexicalTraining,
        "retriever.training.texts.lexical:train_lexical",
        "a model that sentence-transformers loads",
        f"Train an encoder on words that mean the same, from a thesaurus or a dictionary.\n\n{GOES_ON}",
    ),
    "student": Command(
        settings.StudentTraining,
        "retriever.training.texts.student:train_student",
        "a model that sentence-transformers loads, for a view: dense(FOLDER)",
        "Train a small student of --base on texts alone, by MiniLM's distillation. For an assistant between the two, "
        f"run it twice: the first student is the --base of the second.\n\n{GOES_ON}",
    ),
    "adapter": Command(
        settings.AdapterTraining,
        "retriever.training.adapter:train_adapter",
        "an adapter, for views and rerankers: dense(MODEL, adapters='FOLDER')",
        "Train an adapter, a small part on a model that stays as it is: for a language, on texts alone, or for ranking."
        f"\n\n{GOES_ON} A LoRA needs the extra `adapters`.",
    ),
    "head": Command(
        settings.HeadTraining,
        "retriever.training.heads:train_head",
        "a cross-encoder with a head",
        "Train a small part on top of a cross-encoder: PARADE, CEDR, IDCM's selector (ck), early exit.\n\n"
        "Keeps the epoch that is best on --dev. It takes minutes, and starts again where it was stopped.",
    ),
}
ARGUMENTS = {"kind", "method"}
NAMES = {"invertible": "--invertible/--no-invertible", "positions": "--positions/--no-positions", "views": "--view"}
"""Options that are not called as their field is."""
HELP = {
    "aggregator": "Of parade: max, avg, attention or transformer (the default).",
    "base": "The model to start from, a name or a folder.",
    "batch_size": "Examples of a batch.",
    "data": "A BEIR folder to train on, with qrels/train.tsv; repeatable.",
    "depth": "Layers of the student.",
    "dev": "A BEIR folder to measure on: its qrels/dev.tsv, or else a tenth of its train queries, which are then not "
    "trained on; repeatable.",
    "dimensions": "Of an encoder: the first so many are trained to do alone, as in 384,256,128; its own come first.",
    "document_prefix": "What stands before a document, where the base does not say so itself.",
    "document_weight": "Of the documents' FLOPS regulariser: higher means fewer terms.",
    "drop_above": "A mined text whose score, by the teacher or else by the base, is above this share of the relevant "
    "text's is no negative; 0: all are.",
    "dropout": "Of the hierarchy, in training.",
    "embedding": "Weight of the cosine distance to the teacher's vectors; 0: MiniLM's losses alone.",
    "epochs": "How often each example is trained on.",
    "evaluate_every": "Steps between checkpoints, and measurements on --dev.",
    "feed_forward": "Units of the hierarchy's feed-forward layers.",
    "first_steps": "Of a mask's first phase, which chooses what is trained (default: as --steps).",
    "heads": "Attention heads of the hierarchy.",
    "hidden": "Units of a student that begins with random weights (default: the teacher's units and weights).",
    "invertible": "Whether a language's bottlenecks have an invertible adapter around the embeddings too, in training.",
    "kind": "lora, bottleneck (Pfeiffer) or mask (LT-SFT).",
    "l1": "Of a mask: weight of the mean distance from the start.",
    "language_smoothing": "Pairs of languages are drawn as often as their pairs of words, to this power, say.",
    "layers": "Of the hierarchy; 0: the mean of the segments' vectors, and nothing to train.",
    "layout": "residual (begins as the mean of the segments' vectors) or bert (as in the paper, begins at random).",
    "learning_rate": "Its highest value.",
    "limit": "The most examples taken of a folder.",
    "loss": f"Of an encoder: {', '.join(ENCODER_LOSSES)}; of a reranker: {', '.join(LOSSES)}; the last two of each "
    "learn from --teacher.",
    "lower_learning_rate": "Of the sentence encoder; 0: it stays as it is.",
    "max_length": "Tokens of a text, or a pair of them, read by the finished model.",
    "method": f"One of {', '.join(HEADS)}.",
    "mine": "The pipeline whose results are negatives, and what a reranker reranks on --dev.",
    "momentum": "Of the encoder that makes the queue: how much it stays itself in a step.",
    "most_repeated": "And no more tokens than this.",
    "negatives": "Irrelevant texts for each query.",
    "nested": "The first units of feed-forward layers learn to encode queries, for dense(FOLDER, query_width=0.25).",
    "pooling": f"{', '.join(ENCODER_POOLINGS)}: of a model whose files do not say; of hmde mean, or dcls: a document "
    "token (of the layout bert).",
    "positions": "Whether the hierarchy is told the segments' order.",
    "precision": "auto (bfloat16 where the hardware has it) or float32.",
    "queries": "lower: the sentence encoder alone reads them; documents: as documents are read.",
    "query_prefix": "The same for a query.",
    "query_weight": "Of the queries' FLOPS regulariser: higher means fewer terms.",
    "queue": "Vectors of earlier sentences that are negatives.",
    "rank": "Of a LoRA.",
    "reduction": "The model's width by that of a bottleneck; a mask has as many places as these have parameters.",
    "repetition": "The share of a sentence's tokens that may be repeated.",
    "role": f"One of {', '.join(settings.ADAPTER_ROLES)}; the last two are for ranking.",
    "seed": "The same seed and data give the same model.",
    "segments": "The most of a document, evenly spaced where there are more.",
    "self_distillation": "The folder that the same training without this option made: its teacher.",
    "steps": "Batches to train on.",
    "stride": "Units between the beginnings of two segments (default: no overlap).",
    "taken": "The layers of --base that the student's begin as, as in 2,4,6 (default: evenly spaced).",
    "teacher": 'A reranker of pairs to learn from, as in "cross-encoder(MODEL)".',
    "temperature": "What cosines are divided by.",
    "texts": "A collection, as for `retriever index`, whose texts are trained on, without judgements; repeatable.",
    "train_length": "Tokens of a text, or a pair of them, read in training.",
    "under": "Adapters that it is trained on top of, and that stay as they are, as in 'LANGUAGE'.",
    "unit": "What a segment is counted in: words, sentences or tokens.",
    "views": "A view that --mine searches; repeatable.",
    "window": "Units of a segment (default: 150 words, 1 sentence or 225 tokens).",
    "words": "A TSV file: group, language (may be empty), word; or word, word; repeatable.",
}
"""Of each field: it means the same in all trainings."""
GIVEN: dict[Any, Any] = {tuple[str, ...]: list[str], tuple[int, ...]: str}
"""What typer reads for types that it does not know: an option that is repeatable, numbers with commas between them."""


def _made(command: Command) -> Callable[..., None]:
    """The function that typer reads: its parameters are the settings' fields, and `out`."""

    def run(out: Path, **given: Any) -> None:
        module, _, name = command.train.partition(":")
        hints = get_type_hints(command.settings)
        values = {name: _value(hints[name], value) for name, value in given.items()}
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
        hint = hints[field.name]
        told = typer.Argument if field.name in ARGUMENTS else typer.Option
        flags = () if field.name in ARGUMENTS else (NAMES.get(field.name, f"--{field.name.replace('_', '-')}"),)
        kind = Annotated[GIVEN.get(hint, hint), told(*flags, help=HELP[field.name])]  # type: ignore[valid-type]
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=_default(field, hint), annotation=kind)
    about = "Folder for the model, its settings and log; until it is done, checkpoints."
    yield Parameter("out", Parameter.KEYWORD_ONLY, annotation=Annotated[Path, typer.Option(help=about)])


def _default(field: Field[Any], hint: Any) -> Any:
    if field.default is MISSING:
        return Parameter.empty
    if hint == tuple[int, ...]:
        return ",".join(map(str, field.default))
    return list(field.default) if hint == tuple[str, ...] else field.default


def _value(hint: Any, given: Any) -> Any:
    """What typer gives, as the field has it."""
    if hint == tuple[str, ...]:
        return tuple(given)
    if hint != tuple[int, ...]:
        return given
    try:
        return tuple(int(number) for number in given.split(",") if number)
    except ValueError:
        raise InputError(f"expected whole numbers with commas between them, as in 384,256; found {given!r}") from None


train_app = typer.Typer(
    name="train",
    help="Train models on BEIR folders; all but `head` and `hmde` need the extra `train`.",
    no_args_is_help=True,
)
for _name, _command in COMMANDS.items():
    train_app.command(_name)(_made(_command))
