"""Further pre-training: a model goes on learning to fill in masked words, on the texts that it will search.

With self-distillation (Lee et al., ICLR 2023, of whom only the scheme could be read) a first round makes a teacher. The
second starts from the same base again; its loss is that of the masked words plus the distance of its last hidden states
from the teacher's. Two things are ours: both read the masked text, and the distance is the mean over tokens of the
squared Euclidean one.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.encoders.models import find_model
from retriever.encoders.pretrained import load_model, load_tokenizer
from retriever.errors import InputError
from retriever.progress import bar
from retriever.training import course
from retriever.training.course import Trained
from retriever.training.settings import MaskedTraining
from retriever.training.start import START_TEXTS, quiet, sparse_encoder
from retriever.training.texts import masked

if TYPE_CHECKING:
    from torch import Tensor

AROUND = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
"""What makes a folder sentence-transformers', beside the folders of its other modules."""


def train_mlm(settings: MaskedTraining, out: Path) -> Trained:
    """Train and save a masked language model in `out`, beside its settings and log; goes on where a kill stopped it.

    A base without a head gets one (`start.sparse_encoder`). Pooling and whatever else sentence-transformers keeps with
    the base comes along, so the result can take the base's place everywhere. What is saved is the checkpoint with the
    least loss on the blocks that are held out.

    Raises: InputError for bad data or settings, a teacher of another base, and where `out` holds something else.
    """
    course.check(settings)
    if course.is_finished(settings, out):
        return course.finished(out)
    base, teacher = find_model(settings.base), _teacher(settings)
    tokenizer, texts = load_tokenizer(base), masked.read_texts(settings.texts)
    blocks = masked.token_blocks(texts, tokenizer, settings.train_length)
    given = masked.parts(blocks, settings.steps, settings.batch_size, settings.seed)
    model = _model(settings, texts, course.newest_checkpoint(out))
    beside = partial(from_teacher, teacher=teacher) if teacher else None
    trainer = masked.trainer(model, settings, out, tokenizer, given, beside)
    course.keep(settings, out)
    with quiet(), bar("training", "steps", total=settings.steps):
        course.train(trainer, out)
        _finish(model, tokenizer, base, out)
    return Trained(out, [masked.note(blocks, given)])


def _model(settings: MaskedTraining, texts: Sequence[str], checkpoint: Path | None) -> Any:
    """The model to go on with."""
    from transformers import AutoModelForMaskedLM

    if checkpoint:
        return load_model(AutoModelForMaskedLM, checkpoint, "masked language model")
    chosen = random.Random(settings.seed).sample(texts, min(START_TEXTS, len(texts)))
    return sparse_encoder(settings.base, chosen, settings.train_length)[0].auto_model


def _teacher(settings: MaskedTraining) -> Any:
    """The first round's model, frozen; none where there is no teacher."""
    from transformers import AutoModelForMaskedLM

    if settings.self_distillation is None:
        return None
    folder = Path(settings.self_distillation)
    try:
        base = json.loads((folder / course.SETTINGS).read_text(encoding="utf-8"))["base"]
    except (OSError, ValueError, KeyError):
        raise InputError("is no teacher: expected what `retriever train mlm` made of the same base", folder) from None
    if base != settings.base:
        raise InputError(
            f"is of the base {base}, not of {settings.base}: a teacher starts where its pupil does", folder
        )
    return load_model(AutoModelForMaskedLM, folder, "masked language model").requires_grad_(False)


def from_teacher(hidden: Tensor, inputs: Mapping[str, Any], teacher: Any) -> Tensor:
    """||f_s(x) - sg(f_t(x))||^2, mean over the tokens. hidden: f_s(x), float32 [n, length, d]."""
    import torch

    features = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        wanted = teacher.base_model(**features)[0]
    distances = (hidden.float() - wanted.float()).square().sum(dim=-1)  # [n, length]
    mean: Tensor = distances[inputs["attention_mask"].bool()].mean()
    return mean


def _finish(model: Any, tokenizer: Any, base: Path, out: Path) -> None:
    """Save the model, and around it what sentence-transformers keeps in the base's folder; remove the checkpoints."""
    with course.saving(out):
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    for name in AROUND:
        if (base / name).exists():
            shutil.copyfile(base / name, out / name)
    listed = json.loads((base / AROUND[0]).read_text(encoding="utf-8")) if (base / AROUND[0]).exists() else []
    for module in listed:
        if module["path"] and (base / module["path"]).is_dir():
            shutil.copytree(base / module["path"], out / module["path"], dirs_exist_ok=True)
    shutil.rmtree(out / course.CHECKPOINTS)
