"""Training of the small parts on top of a cross-encoder (`rerankers.heads`).

The cross-encoder stays as it is. So it reads each text once, before, and what it makes of them is kept in memory; the
head is then trained on that in seconds. Both are plain torch with Adam: the trainers of sentence-transformers train
transformers, on texts, and would run the whole model anew in every epoch.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.components import load_class
from retriever.encoders.models import find_model
from retriever.errors import InputError
from retriever.progress import advance, bar
from retriever.rerankers.classifier import check_scores_pairs
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.heads import SETTINGS, WEIGHTS, Head, save_head
from retriever.runs import Qrels
from retriever.spec import suggest
from retriever.store.files import sync_folder
from retriever.tallies import tallies, told
from retriever.training import course
from retriever.training.course import Trained
from retriever.training.curve import LOSS, curve
from retriever.training.data import Collection, Example, Examples, Search, make_examples, some
from retriever.training.settings import HEADS, HeadTraining
from retriever.training.start import quiet

if TYPE_CHECKING:
    from torch import Tensor

DEV = 200
"""Dev examples of one collection, at most."""
AT_ONCE = 256
"""Pairs that the cross-encoder reads in one call."""
PANELS = {**LOSS, "dev_loss": "loss on dev"}
Log = list[dict[str, float]]


class Case(NamedTuple):
    """One example as a head is trained on it. features: of each text. teacher: float32 [texts], where it has one."""

    features: list[Any]
    teacher: Tensor | None


class Material(NamedTuple):
    """Examples to train on and to measure on, and what was taken and left out, in words."""

    train: list[Example]
    dev: list[Example]
    notes: list[str]


def train_head(settings: HeadTraining, out: Path) -> Trained:
    """Train a head, and make `out` its head folder: the cross-encoder's files, the head's, the settings and the log.

    With `dev`, the epoch with the lowest loss there is what is kept, be it the start. `out` appears when all is done:
    a training that was interrupted has left nothing there and starts again.

    Raises: InputError for bad data or settings, a base that is no cross-encoder or that the head cannot be put on, and
    where `out` holds something else.
    """
    import torch

    _check(settings)
    base = find_model(settings.base)
    check_scores_pairs(base)
    if (read := course.read(settings, out)) is None:
        return course.finished(out)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(settings.seed)
        head: Head = load_class(HEADS[settings.method])(base, **_options(settings))
        material = _material(settings, read)
        with tallies() as counted:
            train, dev = _cases(head, base, material)
        log = _fit(head, train, dev, settings)
    _write(settings, base, head, log, out)
    cut = [told(what, count) for what, count in counted.items()]
    return Trained(out, [*material.notes, *cut, *_chosen(log)])


def _check(settings: HeadTraining) -> None:
    if settings.method not in HEADS:
        raise InputError(f"no head is called {settings.method!r}; {suggest(settings.method, HEADS)}")
    if settings.aggregator is not None and settings.method != "parade":
        raise InputError(f"aggregator belongs to parade; {settings.method} has none")
    for name in ("limit", "epochs", "batch_size", "negatives"):
        if getattr(settings, name) < 1:
            raise InputError(f"{name} must be at least 1, not {getattr(settings, name)}")
    if not settings.learning_rate > 0:
        raise InputError(f"learning_rate must be above 0, not {settings.learning_rate}")


def _options(settings: HeadTraining) -> dict[str, str]:
    return {} if settings.aggregator is None else {"aggregator": settings.aggregator}


def _material(settings: HeadTraining, read: course.Read) -> Material:
    train, notes = [], []
    for collection in read.trained:
        taken = _examples(collection, collection.train, settings, settings.limit)
        train += taken.examples
        total = sum(grade > 0 for row in collection.train.values() for grade in row.values())
        notes.append(
            f"{collection.name}: {len(taken.examples):,} of {total:,} examples; negatives: {taken.labelled:,} judged "
            f"irrelevant, {taken.mined:,} by {taken.pipeline}, {taken.drawn:,} at random; left out: "
            f"{taken.unanswered:,} queries without a relevant document"
        )
    if not train:
        raise InputError(f"no train query has from 1 to {settings.limit} relevant documents; raise limit")
    dev = [_examples(each, each.dev, settings, DEV).examples for each in read.measured]
    return Material(train, [example for part in dev for example in part], notes)


def _examples(collection: Collection, qrels: Qrels, settings: HeadTraining, limit: int) -> Examples:
    """At most so many examples of a split, all of a query or none. The seed chooses, before negatives are mined."""
    chosen, left = {}, limit
    for query in some(qrels, len(qrels), settings.seed):
        relevant = sum(grade > 0 for grade in qrels[query].values())
        if relevant <= left:
            chosen[query] = qrels[query]
            left -= relevant
    with Search(replace(collection, train=Qrels(chosen))) as search:
        return make_examples(search, settings.negatives, settings.seed)


def _cases(head: Head, base: Path, material: Material) -> tuple[list[Case], list[Case]]:
    """What the cross-encoder makes of all texts, each of which it reads once with its query."""
    examples = [*material.train, *material.dev]
    texts = [head.texts(each.positive, each.negatives) for each in examples]
    owned = [[(each.query, text) for text in found] for each, found in zip(examples, texts, strict=True)]
    pairs = list(dict.fromkeys(pair for found in owned for pair in found))
    features, teacher = _read(head, base, pairs)
    places = {pair: i for i, pair in enumerate(pairs)}
    cases = []
    for found in owned:
        rows = [places[pair] for pair in found]
        cases.append(Case([features[i] for i in rows], None if teacher is None else teacher[rows]))
    return cases[: len(material.train)], cases[len(material.train) :]


def _read(head: Head, base: Path, pairs: Sequence[tuple[str, str]]) -> tuple[list[Any], Tensor | None]:
    """Of each pair the features, and where the head asks for it the cross-encoder's logit."""
    import numpy as np
    import torch

    teacher = CrossEncoder(CrossEncoderConfig(str(base))) if head.teacher else None
    features: list[Any] = []
    logits = []
    with bar("features", "pairs", total=len(pairs)):
        for first in range(0, len(pairs), AT_ONCE):
            part = pairs[first : first + AT_ONCE]
            features += head.features(part)
            if teacher:
                logits.append(teacher.logits(part))
            advance(len(part))
    return features, torch.from_numpy(np.concatenate(logits)) if teacher else None


def _fit(head: Head, train: Sequence[Case], dev: Sequence[Case], settings: HeadTraining) -> Log:
    """Train the head in place. The log has an entry for the start and for each epoch."""
    import torch

    parameters = [each for each in head.module.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    order = random.Random(settings.seed)
    measure = partial(_measured, head, dev, settings.batch_size)
    started, log = time.monotonic(), [{"epoch": 0, **measure()}]
    best = _best(log, head, None)
    with bar("training", "examples", total=settings.epochs * len(train)):
        for epoch in range(1, settings.epochs + 1):
            loss = _epoch(head, optimizer, order.sample(train, len(train)), settings.batch_size)
            seconds = round(time.monotonic() - started, 1)
            log.append({"epoch": epoch, "loss": loss, **measure(), "seconds": seconds})
            best = _best(log, head, best)
    head.module.load_state_dict(best)
    head.module.eval()
    return log


def _best(log: Log, head: Head, before: Any) -> Any:
    """The weights to keep so far: those of the last epoch where it is the best one or where none is measured."""
    return copy.deepcopy(head.module.state_dict()) if _kept(log) is log[-1] else before


def _kept(log: Log) -> dict[str, float]:
    """The entry of the epoch that is kept; the first among equal ones."""
    return min(log, key=lambda entry: entry["dev_loss"]) if "dev_loss" in log[0] else log[-1]


def _chosen(log: Log) -> list[str]:
    """What the measurements decided, in words."""
    if "dev_loss" not in log[0]:
        return []
    kept = _kept(log)
    of = f"epoch {kept['epoch']} of {log[-1]['epoch']}" if kept["epoch"] else "the start, which no epoch bettered,"
    return [f"{of} is kept: its loss on the dev examples is {kept['dev_loss']:.4f} (start: {log[0]['dev_loss']:.4f})"]


def _epoch(head: Head, optimizer: Any, cases: Sequence[Case], size: int) -> float:
    """The mean loss of all cases while they are trained on, in batches of so many."""
    import torch

    head.module.train()
    total = 0.0
    for batch in _batches(cases, size):
        optimizer.zero_grad()
        losses = torch.stack([_loss(head, *each) for each in zip(_scores(head, batch), batch, strict=True)])
        losses.mean().backward()
        optimizer.step()
        total += float(losses.detach().sum())
        advance(len(batch))
    if not math.isfinite(total):
        raise InputError(f"the loss is {total}: train anew with a lower learning rate; nothing is kept")
    return total / len(cases)


def _measured(head: Head, cases: Sequence[Case], size: int) -> dict[str, float]:
    """The mean loss of dev cases, and without a teacher the mean reciprocal rank of the relevant text, the first one.

    Nothing where there are no cases.
    """
    import torch

    if not cases:
        return {}
    head.module.eval()
    with torch.no_grad():
        scores = [part for batch in _batches(cases, size) for part in _scores(head, batch)]
        losses = [float(_loss(head, *each)) for each in zip(scores, cases, strict=True)]
    found = {"dev_loss": sum(losses) / len(cases)}
    if not head.teacher:
        found["dev_mrr"] = sum(1 / (1 + int((part[1:] >= part[0]).sum())) for part in scores) / len(cases)
    return found


def _scores(head: Head, batch: Sequence[Case]) -> Sequence[Tensor]:
    """Of each case float32 [texts, ...], by one run of the module."""
    scores = head.module([features for case in batch for features in case.features])
    parts: Sequence[Tensor] = scores.split([len(case.features) for case in batch])
    return parts


def _loss(head: Head, scores: Tensor, case: Case) -> Tensor:
    return head.loss(scores, None if case.teacher is None else case.teacher.to(scores.device))


def _batches(cases: Sequence[Case], size: int) -> Iterator[Sequence[Case]]:
    return (cases[first : first + size] for first in range(0, len(cases), size))


def _write(settings: HeadTraining, base: Path, head: Head, log: Log, out: Path) -> None:
    """Make the folder beside its place, and put it there when it is whole and on disk."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # what a kill left
    others = shutil.ignore_patterns(SETTINGS, WEIGHTS, course.SETTINGS, course.LOG, course.CURVE)
    try:
        shutil.copytree(base, temporary, ignore=others)
        with course.saving(out):
            save_head(temporary, head)
        course.keep(settings, temporary)
        (temporary / course.LOG).write_text("".join(json.dumps(entry) + "\n" for entry in log), encoding="utf-8")
        (temporary / course.CURVE).write_text(curve(log, "epoch", PANELS), encoding="utf-8")
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        temporary.replace(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
