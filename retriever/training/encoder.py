"""Training of a dense bi-encoder: what sentence-transformers' trainer is given, and what is kept of its work.

Each query comes with one relevant text and `negatives` others. The model's similarities are its dot products, or its
cosines times SCALE:

- in-batch: softmax cross-entropy of the relevant text among its negatives and all other texts of the batch, which holds
  texts of one collection, none twice (Karpukhin et al. 2020, arXiv 2004.04906).
- cached: the same, with memory for MINI_BATCH texts at a time, for large batches (Gao et al. 2021, arXiv 2101.06983).
- margin-mse (Hofstätter et al. 2020, arXiv 2010.02666): the mean square of what the differences relevant - negative
  miss of the teacher's.
- kl: the Kullback-Leibler divergence of the softmax over a query's own texts from the teacher's.

With `dimensions` the loss is the sum of those of the vectors' first so many dimensions, each brought to unit length
(Matryoshka, Kusupati et al., NeurIPS 2022, arXiv 2205.13147). With `nested` the first units of the feed-forward layers
learn to encode queries alone (`training.nested`).

Another training of the same losses and data on a model of its own (adapters, say) is these functions with its own in
place of `load_encoder` and `course.finish`, and settings that are a subclass of EncoderTraining:

    check(settings)
    if (read := course.begin(settings, out)) is None: return course.finished(out)
    model = ...                                  # a SentenceTransformer as `load_encoder` gives it, then changed
    material = make_material(settings, read)     # the same at each start, so a training can go on
    notes = course.notes(read.trained, material.examples, model.tokenizer, settings.train_length)
    course.keep(settings, out)
    with quiet(), bar("training", "steps", total=settings.steps):
        course.train(make_trainer(settings, out, model, material), out)

A trainer goes on by itself from the newest checkpoint in `out`, for whose weights it asks the model's class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.encoders.matformer import feed_forward_layers
from retriever.encoders.models import check_tokenizer, find_model
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder, as_stated, prompt
from retriever.encoders.state_space import end_with_eos
from retriever.encoders.stated import Stated
from retriever.errors import InputError
from retriever.progress import advance, bar
from retriever.training import course
from retriever.training.course import Read, Trained
from retriever.training.data import Collection, Examples, Judge, Search, columns, make_examples, some
from retriever.training.dev import MEASURE, dev_part, measure_vectors
from retriever.training.nested import ASKED, Nesting, nest, nested_loss, unmark
from retriever.training.settings import ENCODER_LOSSES, ENCODER_POOLINGS, EncoderTraining
from retriever.training.start import quiet
from retriever.training.teacher import TAUGHT, Teacher, check_taught

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SCALE = 20.0
"""What cosines are multiplied by, sentence-transformers' own number: in [-1, 1] a softmax could not become sure."""
MINI_BATCH = 32


def train_encoder(settings: EncoderTraining, out: Path) -> Trained:
    """Train and save a dense encoder in `out`, beside its settings and its log; goes on where a kill stopped it.

    Checkpoints are kept in `out` until the model is finished. With `dev`, the best checkpoint is what is saved.

    Raises: as `course.begin` and `course.train`.
    """
    check(settings)
    if (read := course.begin(settings, out)) is None:
        return course.finished(out)
    model = load_encoder(course.newest_checkpoint(out) or find_model(settings.base), settings)
    material = make_material(settings, read)
    notes = course.notes(read.trained, material.examples, model.tokenizer, settings.train_length)
    course.keep(settings, out)
    if settings.nested:
        asked = {example.query for taken in material.examples.values() for example in taken.examples}
        nest(model, some(asked, ASKED, settings.seed))
    with quiet(), bar("training", "steps", total=settings.steps):
        course.train(make_trainer(settings, out, model, material), out)
    course.finish(model, settings.max_length, out)
    return Trained(out, [*notes, *course.kept(out)])


def check(settings: EncoderTraining) -> None:
    """Raise InputError for settings that cannot go together."""
    if settings.loss not in ENCODER_LOSSES:
        raise InputError(f"loss is one of {', '.join(ENCODER_LOSSES)}, not {settings.loss!r}")
    if settings.pooling not in (None, *ENCODER_POOLINGS):
        raise InputError(f"pooling is one of {', '.join(ENCODER_POOLINGS)}, not {settings.pooling!r}")
    if settings.drop_above < 0:
        raise InputError(f"drop_above must be at least 0, not {settings.drop_above}")
    check_taught(settings.loss, settings.teacher)
    if settings.loss in TAUGHT and settings.negatives < 1:
        raise InputError(f"loss {settings.loss} compares a query's own texts: negatives must be at least 1")
    if settings.batch_size == 1 and settings.negatives < 1:
        raise InputError("a batch of one query without negatives teaches nothing; raise batch_size or negatives")
    if settings.teacher and settings.loss not in TAUGHT and not (settings.negatives and settings.drop_above):
        raise InputError(f"loss {settings.loss} reads no teacher, and there are no negatives to judge; leave it out")


def load_encoder(folder: Path, settings: EncoderTraining) -> SentenceTransformer:
    """A model in float32 with the settings' pooling and prefixes, its texts cut at `train_length`, without dropout.

    Raises: InputError where it cannot be loaded, or not with these settings.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    torch.manual_seed(settings.seed)  # of layers that the folder lacks, as BERT's pooler, which nothing reads
    try:
        with quiet():
            model = SentenceTransformer(str(folder), local_files_only=True, device="cpu").float()
    except (OSError, ValueError, KeyError, RuntimeError) as problem:
        raise InputError(f"{folder}: sentence-transformers cannot load it: {problem}") from None
    check_tokenizer(folder)
    if not (folder / "modules.json").exists():
        model = SentenceTransformer(modules=[*model, Normalize()], device="cpu")
    if model.similarity_fn_name not in ("cosine", "dot"):
        raise InputError(f"{folder}: compares by {model.similarity_fn_name} distance; training needs cosine or dot")
    _check_dimensions(model, settings.dimensions, folder)
    as_stated(model, _stated(settings, settings.max_length), str(folder))
    as_stated(model, Stated(max_length=settings.train_length), str(folder))
    if settings.pooling == "eos":
        end_with_eos(model.tokenizer)
    if hasattr(model[0], "auto_model"):
        course.steady(model, model[0].auto_model, settings.train_length)
    if settings.nested:
        feed_forward_layers(getattr(model[0], "auto_model", None), "the base")  # refused before anything is mined
    else:
        unmark(model)
    return model


def _stated(settings: EncoderTraining, length: int) -> Stated:
    return Stated(settings.pooling, settings.query_prefix, settings.document_prefix, length)


def _check_dimensions(model: SentenceTransformer, dimensions: Sequence[int], folder: Path) -> None:
    whole = model.get_embedding_dimension()
    if dimensions and (min(dimensions) < 1 or max(dimensions) != whole):
        told = ",".join(map(str, dimensions))
        raise InputError(f"{folder}: dimensions go from its own, {whole}, downwards, not {told}")


@dataclass(frozen=True)
class Material:
    """What is trained on, by collection; the teacher of taught losses; what is measured on."""

    examples: dict[str, Examples]
    teacher: Teacher | None
    dev: list[Collection]


def make_material(settings: EncoderTraining, read: Read) -> Material:
    """The examples, with negatives mined and judged."""
    teacher = Teacher(settings.teacher) if settings.teacher else None
    judge = _judge(settings, teacher) if settings.negatives and settings.drop_above else None
    examples = {}
    for each in read.trained:
        with Search(each, settings.views, settings.mine) as search:
            examples[each.name] = make_examples(search, settings.negatives, settings.seed, judge)
    return Material(examples, teacher, [dev_part(each, settings.seed) for each in read.measured])


def _judge(settings: EncoderTraining, teacher: Teacher | None) -> Judge:
    name, score = ("the teacher", teacher.probabilities) if teacher else ("the base model", _similarity(settings))
    return Judge(f"above {settings.drop_above:g} of the relevant text's score by {name}", score, settings.drop_above)


def _similarity(settings: EncoderTraining) -> Callable[[Sequence[tuple[str, str]]], list[float]]:
    """Scores of pairs by the base model: it is at hand, and the same each time that a training is gone on with."""
    encoder = SentenceTransformerEncoder(settings.base, settings.precision, _stated(settings, settings.train_length))

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        queries, texts = (list(dict.fromkeys(part)) for part in zip(*pairs, strict=True))
        with bar("judging negatives", "documents", total=len(texts)):
            asked = dict(zip(queries, encoder.encode_queries(queries).vectors, strict=True))
            found = dict(zip(texts, encoder.encode_documents(texts, advance).vectors, strict=True))
        return [float(asked[query] @ found[text]) for query, text in pairs]

    return score


def make_trainer(settings: EncoderTraining, out: Path, model: SentenceTransformer, material: Material) -> Any:
    """sentence-transformers' trainer for this model, as the settings say; `course.train` runs it."""
    from sentence_transformers.base.sampler import BatchSamplers
    from sentence_transformers.sentence_transformer.trainer import SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

    tables = _tables(settings, material)
    dev = material.dev
    told = course.arguments(
        settings,
        out,
        measure=MEASURE if dev else None,
        batch_sampler=BatchSamplers.BATCH_SAMPLER if settings.loss in TAUGHT else BatchSamplers.NO_DUPLICATES,
        prompts=_prompts(model, tables),
    )
    encoders = Nesting(model).encoders() if settings.nested else None
    measure = partial(measure_vectors, collections=dev, dimensions=settings.dimensions, encoders=encoders)
    return course.without_cards(SentenceTransformerTrainer, model)(
        model=model,
        args=SentenceTransformerTrainingArguments(**told),
        train_dataset=tables,
        loss=_loss(settings, model),
        evaluator=course.evaluator(measure, bfloat16=told["bf16"]) if dev else None,
        callbacks=course.callbacks(out, measured=bool(dev)),
    )


def _tables(settings: EncoderTraining, material: Material) -> Any:
    """A data set for each collection: the texts, and the teacher's scores where the loss reads them."""
    from datasets import Dataset, DatasetDict

    made = {}
    for name, taken in material.examples.items():
        table: dict[str, Any] = {**columns(taken.examples)}
        if material.teacher and settings.loss in TAUGHT:
            table["labels"] = material.teacher.taught(taken.examples)
        made[name] = Dataset.from_dict(table)
    return DatasetDict(made)


def _prompts(model: SentenceTransformer, tables: Any) -> dict[str, dict[str, str]] | None:
    """By collection and column, what the model is to read before the text; none where that is nothing."""
    before = {kind: prompt(model, kind) for kind in ("query", "document")}
    if not any(before.values()):
        return None
    return {
        name: {column: before["query" if column == "query" else "document"] for column in table.column_names}
        for name, table in tables.items()
    }


def _loss(settings: EncoderTraining, model: SentenceTransformer) -> Any:
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import cos_sim, dot_score, pairwise_cos_sim, pairwise_dot_score

    cosine = model.similarity_fn_name == "cosine"
    scale = SCALE if cosine else 1.0
    all_pairs = {"scale": scale, "similarity_fct": cos_sim if cosine else dot_score}
    row_by_row = pairwise_cos_sim if cosine else pairwise_dot_score
    own_pairs = {"similarity_fct": lambda queries, texts: scale * row_by_row(queries, texts)}
    kinds = {
        "in-batch": partial(losses.MultipleNegativesRankingLoss, **all_pairs),
        "cached": partial(losses.CachedMultipleNegativesRankingLoss, **all_pairs, mini_batch_size=MINI_BATCH),
        "margin-mse": partial(losses.MarginMSELoss, **own_pairs),
        "kl": partial(losses.DistillKLDivLoss, **own_pairs),
    }
    loss = kinds[settings.loss](model)
    if settings.dimensions:
        loss = losses.MatryoshkaLoss(model, loss, settings.dimensions)
    return nested_loss(model, loss) if settings.nested else loss
