"""Training of a SPLADE encoder: what sentence-transformers' trainer is given, and what is kept of its work.

The loss is SPLADE's (Formal et al. 2021, arXiv 2109.10086): softmax cross-entropy of the dot products with the relevant
text, its negatives and all other texts of the batch, plus FLOPS regularisers of queries and documents whose weights
rise quadratically over the first third of the steps. A batch holds texts of one collection, none twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.errors import InputError
from retriever.progress import bar
from retriever.training import course
from retriever.training.course import Trained
from retriever.training.data import Collection, Examples, Search, columns, make_examples
from retriever.training.dev import MEASURE, dev_part, measure_dev
from retriever.training.maxima import maxima_first
from retriever.training.settings import SparseTraining
from retriever.training.start import START_TEXTS, quiet, sparse_encoder

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

BIAS_RATE = 30
"""Learning rate of the terms' biases, times that of the weights: they are logits, and far larger numbers."""


def train_sparse(settings: SparseTraining, out: Path) -> Trained:
    """Train and save a sparse encoder in `out`, beside its settings and its log; goes on where a kill stopped it.

    Checkpoints are kept in `out` until the model is finished. With `dev`, the best checkpoint is what is saved.

    Raises: as `course.begin`.
    """
    if settings.batch_size == 1 and not settings.negatives:
        raise InputError("a batch of one query without negatives teaches nothing; raise batch_size or negatives")
    if (read := course.begin(settings, out)) is None:
        return course.finished(out)
    examples = {each.name: _examples(each, settings) for each in read.trained}
    model = _model(settings, read.trained, course.newest_checkpoint(out))
    notes = course.notes(read.trained, examples, model.tokenizer, settings.train_length)
    measured = [dev_part(each, settings.seed) for each in read.measured]
    course.keep(settings, out)
    with quiet(), maxima_first(model), bar("training", "steps", total=settings.steps):
        course.train(_trainer(settings, out, model, examples, measured), out)
    course.finish(model, settings.max_length, out)
    return Trained(out, [*notes, *course.kept(out)])


def _examples(collection: Collection, settings: SparseTraining) -> Examples:
    with Search(collection) as search:
        return make_examples(search, settings.negatives, settings.seed)


def _model(settings: SparseTraining, collections: Sequence[Collection], checkpoint: Path | None) -> SparseEncoder:
    """The model to go on with, its texts cut at `train_length`."""
    from sentence_transformers import SparseEncoder

    if checkpoint:
        return SparseEncoder(str(checkpoint), local_files_only=True, device="cpu")
    texts = [text for collection in collections for text in collection.documents.values()]
    chosen = random.Random(settings.seed).sample(texts, min(START_TEXTS, len(texts)))
    return sparse_encoder(settings.base, chosen, settings.train_length)


def _trainer(
    settings: SparseTraining, out: Path, model: SparseEncoder, examples: dict[str, Examples], dev: list[Collection]
) -> Any:
    from datasets import Dataset, DatasetDict
    from sentence_transformers.base.sampler import BatchSamplers
    from sentence_transformers.sparse_encoder import SparseEncoderTrainer, SparseEncoderTrainingArguments, losses
    from sentence_transformers.sparse_encoder.callbacks import SpladeRegularizerWeightSchedulerCallback

    loss = losses.SpladeLoss(
        model,
        losses.SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=settings.document_weight,
        query_regularizer_weight=settings.query_weight,
    )
    told = course.arguments(
        settings,
        out,
        measure=MEASURE if dev else None,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        learning_rate_mapping={r"predictions\.bias": BIAS_RATE * settings.learning_rate},
    )
    return course.without_cards(SparseEncoderTrainer, model)(
        model=model,
        args=SparseEncoderTrainingArguments(**told),
        train_dataset=DatasetDict({name: Dataset.from_dict(columns(each.examples)) for name, each in examples.items()}),
        loss=loss,
        evaluator=course.evaluator(partial(measure_dev, collections=dev), bfloat16=told["bf16"]) if dev else None,
        callbacks=[SpladeRegularizerWeightSchedulerCallback(loss), *course.callbacks(out, measured=bool(dev))],
    )
