"""Training of a sentence encoder on rows that are drawn beforehand, one for each place of each batch.

So what a step sees depends on the seed and on its number alone: a training that goes on where it was killed sees the
same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.errors import InputError
from retriever.training import course
from retriever.training.data import Collection, read_collection
from retriever.training.dev import MEASURE, dev_part, measure_vectors
from retriever.training.nested import unmark
from retriever.training.start import quiet

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from retriever.training.settings import TextTraining


def load_encoder(folder: Path, seed: int = 0) -> SentenceTransformer:
    """A sentence encoder to train. On a CPU its attention is the plain one, the quickest there with dropout.

    seed: of weights that the folder lacks, as BERT's pooler, which a masked language model has not.

    Raises: InputError where sentence-transformers cannot load it, or it is no transformer.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(seed)
    try:
        with quiet():
            model = SentenceTransformer(str(folder), local_files_only=True, device="cpu")
    except (OSError, ValueError, KeyError) as problem:
        raise InputError(f"{folder}: sentence-transformers cannot load it: {problem}") from None
    if not hasattr(model[0], "auto_model"):
        raise InputError(f"{folder}: has no transformer that could be trained")
    if not torch.cuda.is_available():
        model[0].auto_model.set_attn_implementation("eager")
    unmark(model)
    return model


def dev_parts(folders: Sequence[str], seed: int) -> list[Collection]:
    """What is measured between steps. Raises: InputError naming file and line."""
    return [dev_part(read_collection(Path(folder), measured=True), seed) for folder in folders]


def trainer(
    kind: type,
    settings: TextTraining,
    out: Path,
    loss: Any,
    rows: Mapping[str, Sequence[int]],
    collator: Any,
    dev: list[Collection],
    **more: Any,
) -> Any:
    """A trainer, to be run by `course.train`. kind: sentence-transformers' or a child; loss: a module with the `model`.

    rows: columns of numbers, in the order of training. collator: rows to a batch. more: arguments of the training.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainingArguments

    told = course.arguments(settings, out, measure=MEASURE if dev else None, batch_sampler=in_order, **more)
    return course.without_cards(kind, loss.model)(
        model=loss.model,
        args=SentenceTransformerTrainingArguments(**told),
        train_dataset=Dataset.from_dict(dict(rows)),
        loss=loss,
        data_collator=collator,
        evaluator=course.evaluator(partial(measure_vectors, collections=dev), bfloat16=told["bf16"]) if dev else None,
        callbacks=course.callbacks(out, measured=bool(dev)),
    )


def in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
    """Batches of a data set as it stands. What sentence-transformers' trainer calls for its sampler."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)
