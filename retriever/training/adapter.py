"""Training of adapters: the model stays as it is, and a small part that is put on it learns.

- A language adapter learns to fill in masked words of texts in that language.
- A ranking adapter learns what an encoder or a reranker learns, by the same losses from the same data; with `under`, on
  top of other adapters that stay as they are, as a language's (Litschko et al., COLING 2022, arXiv 2204.02292). That of
  a reranker brings the head, which is trained whole, with it.

Of the three kinds, LoRA and bottlenecks are trained at once; masks in two phases (LT-SFT, Ansell et al., ACL 2022): the
whole body learns; the places that moved most are chosen; everything but the chosen places goes back and stays.

Not proven against the papers' numbers, which are of multilingual BERT, MS MARCO and weeks of training. Of their recipe
these differ: linear warm-up over 6 % of the steps, no weight decay, no dropout, the losses of `encoder` and `reranker`
where theirs is binary cross-entropy; a pooler learns with the head and not by the mask; the output embeddings move with
the word embeddings that they are tied to.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from retriever.encoders.adapters.files import (
    KINDS,
    AdapterSettings,
    body_digest,
    body_parameters,
    head_parameters,
    save_adapter,
)
from retriever.encoders.adapters.stack import Adapters
from retriever.encoders.models import find_model
from retriever.encoders.pretrained import load_tokenizer
from retriever.errors import InputError
from retriever.progress import bar
from retriever.store.files import replacing
from retriever.training import course, encoder, reranker
from retriever.training.course import Read, Trained
from retriever.training.learners import LEARNERS, MaskLearner
from retriever.training.settings import (
    ADAPTER_ROLES,
    AdapterTraining,
    EncoderTraining,
    RerankerTraining,
    TextTraining,
    Training,
)
from retriever.training.small_checkpoints import small_checkpoints
from retriever.training.start import START_TEXTS, quiet, sparse_encoder
from retriever.training.texts import masked

FIRST, MASK = "first", "mask.safetensors"
"""Within the checkpoints' folder: that of a mask's first phase, and what the first phase chose."""
FIRST_LOG = "first-log.jsonl"
Other = TypeVar("Other")


class Task(NamedTuple):
    """What is learnt. model: of transformers; headed: its head learns too. trainer: made for settings and a folder."""

    model: Any
    headed: bool
    trainer: Callable[[AdapterTraining, Path], Any]
    notes: list[str]


def train_adapter(settings: AdapterTraining, out: Path) -> Trained:
    """Train an adapter and save it in `out`, beside its settings and its log; goes on where a kill stopped it.

    Checkpoints, of what is trained alone, are kept in `out` until the adapter is finished. The best one is what is
    saved: by `dev`, or a language's by the loss on texts that are held out.

    Raises: as `course.begin` and `course.train`; InputError where the base is none that this kind fits, and for
    adapters under it that are of another base; MissingDependencyError for a LoRA without PEFT.
    """
    import torch

    _check(settings)
    if course.is_finished(settings, out):
        return course.finished(out)
    task = {"language": _language, "encoder": _encoder, "reranker": _reranker}[settings.role](settings, out)
    model, weights = task.model, body_digest(task.model)
    if settings.under:
        Adapters(model, settings.base).use(settings.under)
    total = sum(value.numel() for value in body_parameters(model).values())
    head = dict(head_parameters(model)) if task.headed else {}
    model.requires_grad_(False)
    for value in head.values():
        value.requires_grad_(True)
    torch.manual_seed(settings.seed)
    learner = LEARNERS[settings.kind](model, settings)
    course.keep(settings, out)
    steps = settings.steps + (_first_steps(settings) if settings.kind == "mask" else 0)
    with quiet(), bar("training", "steps", total=steps):
        if isinstance(learner, MaskLearner):
            _first_phase(settings, out, task, learner)
        course.train(small_checkpoints(task.trainer(settings, out)), out)
    role = "language" if settings.role == "language" else "ranking"
    options = {**learner.options, **({"under": settings.under} if settings.under else {})}
    tensors = {**learner.save(out), **{f"head.{name}": value for name, value in head.items()}}
    save_adapter(out, AdapterSettings(settings.kind, role, settings.base, weights, options), tensors)
    shutil.rmtree(out / course.CHECKPOINTS)
    return Trained(out, [*task.notes, *course.kept(out), _size(learner.size, total, head)])


def _size(trained: int, total: int, head: dict[str, Any]) -> str:
    beside = f", and a head of {sum(value.numel() for value in head.values()):,}" if head else ""
    return f"the adapter has {trained:,} parameters, {trained / total:.2%} of the model's {total:,}{beside}"


def _check(settings: AdapterTraining) -> None:
    if settings.kind not in KINDS:
        raise InputError(f"an adapter is {', '.join(KINDS)}, not {settings.kind!r}")
    if settings.role not in ADAPTER_ROLES:
        raise InputError(f"role is one of {', '.join(ADAPTER_ROLES)}, not {settings.role!r}")
    for name in ("rank", "reduction", "first_steps"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    if settings.l1 < 0:
        raise InputError(f"l1 must be at least 0, not {settings.l1}")
    wrong = ("data", "dev") if settings.role == "language" else ("texts",)
    if given := [name for name in wrong if getattr(settings, name)]:
        raise InputError(f"a {settings.role} adapter does not read {' or '.join(given)}: leave it out")


def _first_steps(settings: AdapterTraining) -> int:
    return settings.first_steps or settings.steps


def _first_phase(settings: AdapterTraining, out: Path, task: Task, learner: MaskLearner) -> None:
    """Train everything, choose what is to be trained, and go back to the start; what is done is not done again."""
    chosen, folder = out / course.CHECKPOINTS / MASK, out / course.CHECKPOINTS / FIRST
    if not chosen.exists():
        folder.mkdir(parents=True, exist_ok=True)
        told = replace(settings, steps=_first_steps(settings))
        course.train(small_checkpoints(task.trainer(told, folder)), folder)
        with replacing(out / FIRST_LOG) as temporary:
            shutil.copyfile(folder / course.LOG, temporary)
        learner.select(chosen)
    shutil.rmtree(folder, ignore_errors=True)
    learner.rewind(chosen)


def _language(settings: AdapterTraining, out: Path) -> Task:
    """Masked-language modelling; the head is the base's, or one that is fitted to it, and stays as it is."""
    told = _as(TextTraining, settings)
    course.check(told)
    tokenizer, texts = load_tokenizer(find_model(settings.base)), masked.read_texts(settings.texts)
    blocks = masked.token_blocks(texts, tokenizer, settings.train_length)
    chosen = random.Random(settings.seed).sample(texts, min(START_TEXTS, len(texts)))
    with quiet():
        model = sparse_encoder(settings.base, chosen, settings.train_length)[0].auto_model
    course.steady(model, model, settings.train_length)
    given = masked.parts(blocks, settings.steps, settings.batch_size, settings.seed)

    def trainer(told_now: AdapterTraining, folder: Path) -> Any:
        now = replace(told, steps=told_now.steps)
        parts = masked.parts(blocks, now.steps, now.batch_size, now.seed)
        return masked.trainer(model, now, folder, tokenizer, parts)

    return Task(model, False, trainer, [masked.note(blocks, given)])


def _encoder(settings: AdapterTraining, out: Path) -> Task:
    told = _as(EncoderTraining, settings)
    encoder.check(told)
    read = _read(told, settings, out)
    model = encoder.load_encoder(find_model(settings.base), told)
    if not hasattr(model[0], "auto_model"):
        raise InputError(f"{settings.base}: has no transformer that an adapter could be put on")
    material = encoder.make_material(told, read)
    notes = course.notes(read.trained, material.examples, model.tokenizer, settings.train_length)
    for module in list(model)[1:]:
        module.requires_grad_(False)

    def trainer(now: AdapterTraining, folder: Path) -> Any:
        return encoder.make_trainer(replace(told, steps=now.steps), folder, model, material)

    return Task(model[0].auto_model, False, trainer, notes)


def _reranker(settings: AdapterTraining, out: Path) -> Task:
    told = _as(RerankerTraining, settings)
    reranker.check(told)
    read = _read(told, settings, out)
    model = reranker.load_reranker(str(find_model(settings.base)), told)
    examples, dev = reranker.mined(told, read)
    notes = course.notes(read.trained, examples, model.tokenizer, settings.train_length)
    tables = reranker.make_tables(told, examples)

    def trainer(now: AdapterTraining, folder: Path) -> Any:
        return reranker.make_trainer(replace(told, steps=now.steps), folder, model, tables, dev)

    return Task(model.model, True, trainer, notes)


def _read(told: Training, settings: AdapterTraining, out: Path) -> Read:
    course.check(told)
    read = course.read(settings, out)
    assert read is not None  # it is not finished
    return read


def _as(kind: type[Other], settings: AdapterTraining) -> Other:
    """The settings of another training, as far as these say."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    given = {name: getattr(settings, name, None) for name in names}
    if "max_length" in names:
        given["max_length"] = settings.train_length  # which only a finished model would read
    return kind(**{name: value for name, value in given.items() if value is not None})
