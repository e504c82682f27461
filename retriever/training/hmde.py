"""Training of HMDE's hierarchy over a sentence encoder (`encoders.hmde`; arXiv 2305.07016).

The loss is the paper's (`contrastive`). A batch holds different documents, each with one of its queries; what else is
relevant to a query counts for nothing. With queries=documents, a collection whose queries are documents gives the
paper's own pairs; their hard negatives, from Wikipedia's categories, are not made here.

The sentence encoder stays as it is, unless it is given a learning rate. So it reads each segment once, and what it
makes of them is kept beside the checkpoint; the rest is plain torch, and a step takes milliseconds.
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.encoders.hierarchy import LOWER, save_hierarchy, upper
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.errors import InputError
from retriever.progress import advance, bar
from retriever.store.files import replacing
from retriever.training import course
from retriever.training.course import Trained
from retriever.training.data import Collection, Example, Search, make_examples
from retriever.training.dev import MEASURE, dev_part, measured
from retriever.training.settings import HmdeTraining
from retriever.training.start import quiet
from retriever.training.towers import Towers
from retriever.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

SCALE = 20.0
WEIGHT_DECAY = 1e-5
STATE = "state.pt"
AT_ONCE = 8
"""Texts that are measured at once: a document may have thousands of tokens."""


class Material(NamedTuple):
    """examples: by collection. relevant: the documents that are, by query. dev: what is measured. notes: in words."""

    examples: dict[str, list[Example]]
    relevant: dict[str, set[str]]
    dev: list[Collection]
    notes: list[str]


@dataclass
class State:
    """How far a training is. best: the weights that measured best so far, and their measure."""

    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] | None = None


def train_hmde(settings: HmdeTraining, out: Path) -> Trained:
    """Train a hierarchy and make `out` its folder, which a view names as its model; goes on where a kill stopped it.

    With `dev`, the weights that measured best are kept, be it those of the start: without layers, and before the first
    step in the layout `residual`, a document is the mean of its segments' vectors.

    Raises: InputError for bad data or settings, a base that cannot be loaded, a loss that is no number any more, and
    where `out` holds something else.
    """
    import torch

    _check(settings)
    if not settings.layers:
        return _untrained(settings, out)
    if (read := course.read(settings, out)) is None:
        return course.finished(out)
    towers = Towers(settings, out / course.CHECKPOINTS)
    material = _material(settings, read)
    course.keep(settings, out)
    (out / course.CHECKPOINTS).mkdir(exist_ok=True)
    cut = _prepare(towers, material)
    with torch.random.fork_rng(devices=[]):
        _fit(towers, material, settings, out)
    _write(settings, towers.modules, out)
    return Trained(out, [*material.notes, *cut])


def contrastive(first: Tensor, second: Tensor, pairs: int, spare: Tensor) -> Tensor:
    """HMDE's loss: the mean cross-entropy of SCALE times the cosine in both directions, summed.

    first, second: float32 [pairs + a, d] and [pairs + b, d], of length 1: row i of one belongs to row i of the other,
    and rows from `pairs` on are negatives alone. spare: bool [pairs + a, pairs + b], what counts for nothing.
    """
    there = _one_way(first[:pairs], second, spare[:pairs])
    return there + _one_way(second[:pairs], first, spare[:, :pairs].T)


def _one_way(one: Tensor, other: Tensor, spare: Tensor) -> Tensor:
    import torch

    logits = (SCALE * one @ other.T).masked_fill(spare, float("-inf"))  # [pairs, pairs + b]
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(one), device=one.device))


def _check(settings: HmdeTraining) -> None:
    _ = settings.splitting
    for name, least in (("steps", 1), ("batch_size", 1), ("negatives", 0), ("evaluate_every", 1)):
        if getattr(settings, name) < least:
            raise InputError(f"{name} must be at least {least}, not {getattr(settings, name)}")
    if settings.batch_size == 1 and not settings.negatives:
        raise InputError("a batch of one query without negatives teaches nothing; raise batch_size or negatives")
    if settings.learning_rate <= 0 or settings.lower_learning_rate < 0:
        raise InputError("learning_rate must be above 0, and lower_learning_rate at least 0")


def _untrained(settings: HmdeTraining, out: Path) -> Trained:
    """The mean of the segments' vectors."""
    import torch

    if course.is_finished(settings, out):
        return course.finished(out)
    dimension = SentenceTransformerEncoder(settings.base).dimension
    course.keep(settings, out)
    _write(settings, torch.nn.ModuleDict({"upper": upper(settings, dimension)}), out)
    return Trained(out, ["without layers there is nothing to train: a document is the mean of its segments' vectors"])


def _material(settings: HmdeTraining, read: course.Read) -> Material:
    examples, notes = {}, []
    relevant: dict[str, set[str]] = defaultdict(set)
    for collection in read.trained:
        with Search(collection) as search:
            found = make_examples(search, settings.negatives, settings.seed)
        examples[collection.name] = found.examples
        for each in found.examples:
            relevant[each.query].add(each.positive)
        documents = len({each.positive for each in found.examples})
        notes.append(
            f"{collection.name}: {len(found.examples):,} examples over {documents:,} documents; left out: "
            f"{found.unanswered:,} queries without a relevant document"
        )
    if not any(examples.values()):
        raise InputError("no train query has a relevant document")
    return Material(examples, relevant, [dev_part(each, settings.seed) for each in read.measured], notes)


def _prepare(towers: Towers, material: Material) -> list[str]:
    """Let the sentence encoder read all texts, if it stays as it is; says what was cut."""
    examples = [each for part in material.examples.values() for each in part]
    documents = [text for each in examples for text in (each.positive, *each.negatives)]
    queries = [each.query for each in examples]
    for collection in material.dev:
        documents += collection.documents.values()
        queries += collection.queries.values()
    return [*towers.prepare(documents, "document"), *towers.prepare(queries, "query")]


def _fit(towers: Towers, material: Material, settings: HmdeTraining, out: Path) -> None:
    """Train in place, to the weights that are kept; from the checkpoint on, where there is one."""
    optimizer, path = _optimizer(towers, settings), out / course.CHECKPOINTS / STATE
    begun = path.exists()
    state = _read(path, towers, optimizer) if begun else State()
    started = time.monotonic() - max((entry["seconds"] for entry in state.log), default=0.0)
    losses: list[float] = []

    def measure(**found: float) -> None:
        """Log, measure, and keep it all."""
        for entry in (found, _measured(towers, material.dev)):
            if entry:
                seconds = round(time.monotonic() - started, 1)
                state.log.append({"step": state.step, **entry, "seconds": seconds})
        _choose(towers, state)
        _keep(path, towers, optimizer, state)
        course.write_log(state.log, out)

    with bar("training", "steps", total=settings.steps):
        advance(state.step)
        if not begun:
            measure()
        while state.step < settings.steps and not _settled(state):
            losses.append(_step(towers, material, optimizer, settings, state.step + 1))
            state.step += 1
            advance(1)
            if state.step % settings.evaluate_every == 0 or state.step == settings.steps:
                measure(loss=sum(losses) / len(losses))
                losses.clear()
    if state.best:
        towers.modules.load_state_dict(state.best["weights"])


def _optimizer(towers: Towers, settings: HmdeTraining) -> Any:
    import torch

    rates = {"upper": settings.learning_rate, "lower": settings.lower_learning_rate}
    groups = [{"params": list(part.parameters()), "highest": rates[name]} for name, part in towers.modules.items()]
    return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)


def _step(towers: Towers, material: Material, optimizer: Any, settings: HmdeTraining, step: int) -> float:
    """One batch; its loss. All that is random in it depends on seed and step, so a training can go on anywhere."""
    import torch

    chosen = random.Random(f"{settings.seed} {step}")
    torch.manual_seed(chosen.getrandbits(63))
    batch = _batch(material, settings.batch_size, chosen)
    texts = list(dict.fromkeys([each.positive for each in batch] + [text for each in batch for text in each.negatives]))
    spare = [[text in material.relevant[each.query] - {each.positive} for text in texts] for each in batch]
    towers.modules.train()
    queries, documents = towers.encode([each.query for each in batch], "query"), towers.encode(texts, "document")
    loss = contrastive(queries, documents, len(batch), torch.tensor(spare, device=queries.device))
    value: float = loss.item()
    if not math.isfinite(value):
        raise InputError(
            f"the loss is {value} in step {step}; the last good checkpoint is kept; train anew in another folder with "
            "a lower learning rate"
        )
    optimizer.zero_grad()
    loss.backward()
    warm = max(1, round(course.WARM_UP * settings.steps))
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * min(step / warm, (settings.steps - step + 1) / (settings.steps - warm + 1))
    optimizer.step()
    return value


def _batch(material: Material, size: int, chosen: random.Random) -> list[Example]:
    """Examples of one collection; no two of one document or of one query."""
    names = list(material.examples)
    (name,) = chosen.choices(names, [len(material.examples[name]) for name in names])
    queries: set[str] = set()
    batch: dict[str, Example] = {}
    for each in chosen.sample(material.examples[name], len(material.examples[name])):
        if each.positive not in batch and each.query not in queries:
            batch[each.positive] = each
            queries.add(each.query)
        if len(batch) == size:
            break
    return list(batch.values())


def _measured(towers: Towers, collections: Sequence[Collection]) -> dict[str, float]:
    """MEASURE averaged over the collections and for each; nothing where there are none."""
    import torch

    def encode(texts: list[str], kind: str) -> Floats:
        parts = [towers.encode(texts[first : first + AT_ONCE], kind) for first in range(0, len(texts), AT_ONCE)]
        vectors: Floats = torch.cat(parts).cpu().numpy()
        return vectors

    def scores(collection: Collection) -> Floats:
        queries, documents = list(collection.queries.values()), list(collection.documents.values())
        return np.asarray(encode(queries, "query") @ encode(documents, "document").T)

    if not collections:
        return {}
    towers.modules.eval()
    with torch.inference_mode():
        return {f"eval_{name}": value for name, value in measured(collections, scores).items()}


def _choose(towers: Towers, state: State) -> None:
    """Remember the weights of now, where the last measurement is the best one."""
    found = state.log[-1].get(f"eval_{MEASURE}") if state.log else None
    if found is not None and (state.best is None or found > state.best["measure"]):
        weights = {name: tensor.clone() for name, tensor in towers.modules.state_dict().items()}
        state.best = {"measure": found, "step": state.step, "weights": weights}


def _settled(state: State) -> bool:
    """Whether the last PATIENCE measurements brought no better one."""
    if state.best is None:
        return False
    later = [entry for entry in state.log if f"eval_{MEASURE}" in entry and entry["step"] > state.best["step"]]
    return len(later) >= course.PATIENCE


def _keep(path: Path, towers: Towers, optimizer: Any, state: State) -> None:
    import torch

    whole = {"weights": towers.modules.state_dict(), "optimizer": optimizer.state_dict(), **vars(state)}
    with course.saving(path.parent), replacing(path) as temporary:
        torch.save(whole, temporary)


def _read(path: Path, towers: Towers, optimizer: Any) -> State:
    import torch

    whole = torch.load(path, map_location=towers.device, weights_only=True)
    towers.modules.load_state_dict(whole["weights"])
    optimizer.load_state_dict(whole["optimizer"])
    return State(whole["step"], whole["log"], whole["best"])


def _write(settings: HmdeTraining, modules: Any, out: Path) -> None:
    """Put the sentence encoder and the hierarchy in the folder; what was kept on the way goes last."""
    with quiet(), course.saving(out):
        lower = modules["lower"] if "lower" in modules else SentenceTransformerEncoder(settings.base).model
        lower.save_pretrained(str(out / LOWER), create_model_card=False)
        save_hierarchy(out, settings, modules["upper"])
    shutil.rmtree(out / course.CHECKPOINTS, ignore_errors=True)
