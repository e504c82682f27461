"""Training of a cross-encoder: what sentence-transformers' trainer is given, and what is kept of its work.

Each query comes with one relevant text and `negatives` others, and the losses see all of them at once:

- lce: localized contrastive estimation (Gao, Dai and Callan, ECIR 2021, arXiv 2101.08751): softmax cross-entropy of the
  relevant text's logit among those of the negatives, which come from the search that is to be reranked.
- pairwise: RankNet (Burges et al., ICML 2005): the logistic loss, in bits, of each difference relevant - negative.
- margin-mse (Hofstätter et al. 2020, arXiv 2010.02666): the mean square of what the differences relevant - negative
  miss of the teacher's.
- kl: the cross-entropy of the softmax over the texts with the teacher's (its Kullback-Leibler divergence, but for the
  teacher's own entropy, which no weight changes).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.encoders.models import find_model
from retriever.errors import InputError
from retriever.progress import bar
from retriever.training import course
from retriever.training.course import Read, Trained
from retriever.training.data import Example, Examples, Search, make_examples
from retriever.training.dev import MEASURE
from retriever.training.reranker_dev import Lists, dev_lists, measure_lists
from retriever.training.settings import LOSSES, RerankerTraining
from retriever.training.start import quiet
from retriever.training.teacher import TAUGHT, Teacher, check_taught

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

SURE = 100.0
"""A label so far above 0 that the softmax of labels is 1 for it and 0 for all others, in float32."""


def train_reranker(settings: RerankerTraining, out: Path) -> Trained:
    """Train and save a cross-encoder in `out`, beside its settings and its log; goes on where a kill stopped it.

    The model has one output, without an activation. Checkpoints are kept in `out` until it is finished. With `dev`, the
    best checkpoint is what is saved.

    Raises: as `course.begin`.
    """
    check(settings)
    if (read := course.begin(settings, out)) is None:
        return course.finished(out)
    checkpoint = course.newest_checkpoint(out)
    model = load_reranker(str(checkpoint or find_model(settings.base)), settings)
    examples, dev = mined(settings, read)
    notes = course.notes(read.trained, examples, model.tokenizer, settings.train_length)
    course.keep(settings, out)
    tables = make_tables(settings, examples)
    with quiet(), bar("training", "steps", total=settings.steps):
        course.train(make_trainer(settings, out, model, tables, dev), out)
    course.finish(model, settings.max_length, out)
    return Trained(out, [*notes, *course.kept(out)])


def mined(settings: RerankerTraining, read: Read) -> tuple[dict[str, Examples], list[Lists]]:
    """What is trained on, by collection, and what is measured on."""
    examples, dev = {}, []
    for each in {collection.name: collection for collection in (*read.trained, *read.measured)}.values():
        with Search(each, settings.views, settings.mine) as search:
            if each in read.trained:
                examples[each.name] = make_examples(search, settings.negatives, settings.seed)
            if each in read.measured:
                dev.append(dev_lists(search, settings.seed))
    return examples, dev


def check(settings: RerankerTraining) -> None:
    """Raise InputError for settings that cannot go together."""
    if settings.loss not in LOSSES:
        raise InputError(f"loss is one of {', '.join(LOSSES)}, not {settings.loss!r}")
    if settings.negatives < 1:
        raise InputError(f"negatives must be at least 1, not {settings.negatives}: a reranker learns by comparing")
    check_taught(settings.loss, settings.teacher)
    if settings.loss not in TAUGHT and settings.teacher is not None:
        raise InputError(f"loss {settings.loss} reads no teacher; take {' or '.join(TAUGHT)}, or leave the teacher out")


def load_reranker(name: str, settings: RerankerTraining) -> CrossEncoder:
    """The model to go on with, pairs cut at `train_length`; an encoder without a head gets a random one by the seed.

    Raises: InputError where it cannot be loaded or has more than one output.
    """
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(settings.seed)
    try:
        with quiet():
            model = CrossEncoder(
                name,
                num_labels=1,
                max_length=settings.train_length,
                activation_fn=torch.nn.Identity(),
                local_files_only=True,
                device="cpu",
            )
    except (OSError, ValueError, KeyError, RuntimeError) as problem:
        raise InputError(f"{name}: cannot be loaded as a cross-encoder with one output: {problem}") from None
    course.steady(model, model.model, settings.train_length)
    return model


def make_tables(settings: RerankerTraining, examples: dict[str, Examples]) -> Any:
    """A data set for each collection, in the columns that the loss reads."""
    from datasets import Dataset, DatasetDict

    teacher = Teacher(settings.teacher) if settings.teacher else None
    sure = [SURE, *[0.0] * settings.negatives]
    made = {}
    for name, each in examples.items():
        labels = teacher.taught(each.examples) if teacher else [sure] * len(each.examples)
        made[name] = Dataset.from_dict(_columns(settings, each.examples, labels))
    return DatasetDict(made)


def _columns(
    settings: RerankerTraining, examples: Sequence[Example], labels: Sequence[Sequence[float]]
) -> dict[str, Any]:
    queries = [example.query for example in examples]
    texts = [[example.positive, *example.negatives] for example in examples]
    if settings.loss != "margin-mse":
        return {"query": queries, "texts": texts, "labels": labels}
    places = {f"text_{i}": [row[i] for row in texts] for i in range(settings.negatives + 1)}
    return {"query": queries, **places, "labels": labels}


def make_trainer(settings: RerankerTraining, out: Path, model: CrossEncoder, tables: Any, dev: list[Lists]) -> Any:
    """sentence-transformers' trainer for this model, as the settings say; `course.train` runs it."""
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments, losses

    # a query's texts go through the model together, so that they are padded to the longest of them alone
    kinds = {
        "lce": partial(losses.ListNetLoss, mini_batch_size=settings.negatives + 1),
        "kl": partial(losses.ListNetLoss, mini_batch_size=settings.negatives + 1),
        "pairwise": partial(losses.RankNetLoss, mini_batch_size=settings.negatives + 1),
        "margin-mse": losses.MarginMSELoss,
    }
    told = course.arguments(settings, out, measure=MEASURE if dev else None)
    return course.without_cards(CrossEncoderTrainer, model)(
        model=model,
        args=CrossEncoderTrainingArguments(**told),
        train_dataset=tables,
        loss=kinds[settings.loss](model),
        evaluator=course.evaluator(partial(measure_lists, lists=dev), bfloat16=told["bf16"]) if dev else None,
        callbacks=course.callbacks(out, measured=bool(dev)),
    )
