"""Training of a cross-encoder: what sentence-transformers' trainer is given, and what is kept of its work.

Each query comes with one relevant text and `negatives` others, and the losses see all of them at once:

- lce: localized contrastive estimation (Gao, Dai and Callan, ECIR 2021, arXiv 2101.08751): softmax cross-entropy of the
  relevant text's logit among those of the negatives, which come from the search that is to be reranked.
- pairwise: RankNet (Burges et al., ICML 2005): the logistic loss, in bits, of each difference relevant - negative.
- margin-mse (Hofstätter et al. 2020, arXiv 2010.02666): the mean square of what the differences relevant - negative
  miss of the teacher's.
- kl: the cross-entropy of the softmax over the texts with the teacher's (its Kullback-Leibler divergence, but for the
  teacher's own entropy, which no weight changes).

There is no dropout, and on a CPU attention is the plain one: drawing the random numbers and the fused attention's
gradient take as long as all the rest of a step (benchmarks/training_step.py), and no text is seen often enough to be
learnt by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.encoders.models import find_model
from retriever.errors import InputError
from retriever.progress import advance, bar
from retriever.rerankers.nested import pointwise
from retriever.training import course
from retriever.training.course import Read, Trained
from retriever.training.data import Example, Examples, Search, make_examples
from retriever.training.reranker_dev import MEASURE, Lists, dev_lists, measure_lists
from retriever.training.settings import LOSSES, RerankerTraining
from retriever.training.start import quiet

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

TAUGHT = ("margin-mse", "kl")
"""Losses that read a teacher's scores."""
SURE = 100.0
"""A label so far above 0 that the softmax of labels is 1 for it and 0 for all others, in float32."""
AT_ONCE = 1024
"""Examples whose texts a teacher scores in one call."""


def train_reranker(settings: RerankerTraining, out: Path) -> Trained:
    """Train and save a cross-encoder in `out`, beside its settings and its log; goes on where a kill stopped it.

    The model has one output, without an activation. Checkpoints are kept in `out` until it is finished. With `dev`, the
    best checkpoint is what is saved.

    Raises: as `course.begin`.
    """
    _check(settings)
    if (read := course.begin(settings, out)) is None:
        return course.finished(out)
    checkpoint = course.newest_checkpoint(out)
    model = _model(str(checkpoint or find_model(settings.base)), settings)
    examples, dev = _mined(settings, read)
    notes = course.notes(read.trained, examples, model.tokenizer, settings.train_length)
    course.keep(settings, out)
    tables = _tables(settings, examples)
    with quiet(), bar("training", "steps", total=settings.steps):
        course.train(_trainer(settings, out, model, tables, dev), out)
    course.finish(model, settings.max_length, out)
    return Trained(out, notes)


def _mined(settings: RerankerTraining, read: Read) -> tuple[dict[str, Examples], list[Lists]]:
    """What is trained on, by collection, and what is measured on."""
    examples, dev = {}, []
    for each in {collection.name: collection for collection in (*read.trained, *read.measured)}.values():
        with Search(each, settings.views, settings.mine) as search:
            if each in read.trained:
                examples[each.name] = make_examples(search, settings.negatives, settings.seed)
            if each in read.measured:
                dev.append(dev_lists(search, settings.seed))
    return examples, dev


def _check(settings: RerankerTraining) -> None:
    if settings.loss not in LOSSES:
        raise InputError(f"loss is one of {', '.join(LOSSES)}, not {settings.loss!r}")
    if settings.negatives < 1:
        raise InputError(f"negatives must be at least 1, not {settings.negatives}: a reranker learns by comparing")
    if settings.loss in TAUGHT and settings.teacher is None:
        raise InputError(f"loss {settings.loss} learns from a teacher: give one, as in 'cross-encoder(MODEL)'")
    if settings.loss not in TAUGHT and settings.teacher is not None:
        raise InputError(f"loss {settings.loss} reads no teacher; take {' or '.join(TAUGHT)}, or leave the teacher out")


def _model(name: str, settings: RerankerTraining) -> CrossEncoder:
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
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if not torch.cuda.is_available():
        model.model.set_attn_implementation("eager")
    return model


def _tables(settings: RerankerTraining, examples: dict[str, Examples]) -> Any:
    """A data set for each collection, in the columns that the loss reads."""
    from datasets import Dataset, DatasetDict

    teacher = pointwise(settings.teacher) if settings.teacher else None
    score = getattr(teacher, "logits", None) or (teacher.score if teacher else None)
    made = {}
    for name, each in examples.items():
        labels = _taught(each.examples, score) if score else [[SURE, *[0.0] * settings.negatives]] * len(each.examples)
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


def _taught(examples: Sequence[Example], score: Any) -> list[list[float]]:
    """The teacher's score of each example's relevant text and negatives."""
    rows: list[list[float]] = []
    with bar("teacher's scores", "queries", total=len(examples)):
        for first in range(0, len(examples), AT_ONCE):
            part = examples[first : first + AT_ONCE]
            pairs = [(each.query, text) for each in part for text in (each.positive, *each.negatives)]
            rows += score(pairs).reshape(len(part), -1).tolist()
            advance(len(part))
    return rows


def _trainer(settings: RerankerTraining, out: Path, model: CrossEncoder, tables: Any, dev: list[Lists]) -> Any:
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
