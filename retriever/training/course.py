"""What trainings share: the folder and what is read; with sentence-transformers, log, checkpoints and the trainer."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from retriever.errors import InputError, MissingDependencyError, RetrieverError
from retriever.progress import advance
from retriever.store.files import replacing
from retriever.training.curve import curve
from retriever.training.data import Collection, Examples, read_collection
from retriever.training.dev import MEASURE
from retriever.training.settings import AdapterTraining, HeadTraining, HmdeTraining, TextTraining, Training

AnyTraining = Training | TextTraining | AdapterTraining | HeadTraining | HmdeTraining
SETTINGS, LOG, CURVE, CHECKPOINTS = "training.json", "log.jsonl", "curve.svg", "checkpoints"
WARM_UP = 0.06
LOG_EVERY = 10
EAGER = 512
"""Up to so many tokens the plain attention is trained faster on a CPU than the fused one."""
PATIENCE = 3
"""Training ends early when so many measurements in a row bring no better one."""


class Trained(NamedTuple):
    """out: the finished model's folder. notes: what was left out or cut, in words; none but one when it was there."""

    out: Path
    notes: list[str]


class Read(NamedTuple):
    """trained, measured: the collections of `data` and of `dev`."""

    trained: list[Collection]
    measured: list[Collection]


def begin(settings: Training, out: Path) -> Read | None:
    """Check the settings and the folder, and read the collections; none where the model is finished already.

    Raises: InputError for bad data or settings, and where `out` holds something else or a training with other settings;
    MissingDependencyError without the extra `train`.
    """
    check(settings)
    return read(settings, out)


def read(settings: Training | AdapterTraining | HeadTraining | HmdeTraining, out: Path) -> Read | None:
    """Check the folders, and read the collections; none where the model is finished already.

    Raises: InputError for bad data, and where `out` holds something else or a training with other settings.
    """
    if not settings.data:
        raise InputError("there is nothing to train on: give at least one folder with data")
    if is_finished(settings, out):
        return None
    dev = {Path(folder).resolve() for folder in settings.dev}
    folders = dict.fromkeys(Path(folder).resolve() for folder in (*settings.data, *settings.dev))
    collections = {folder: read_collection(folder, measured=folder in dev) for folder in folders}
    _distinct(collections.values())
    trained, measured = (
        [collections[Path(folder).resolve()] for folder in given] for given in (settings.data, settings.dev)
    )
    for each in trained:
        if not each.train:
            raise InputError(f"{each.name}: has no train queries: expected qrels/train.tsv, with more than --dev takes")
    return Read(trained, measured)


def is_finished(settings: AnyTraining, out: Path) -> bool:
    """Whether the model is there already.

    Raises: InputError where `out` holds something else or a training with other settings.
    """
    _refuse_others(out, settings)
    return (out / SETTINGS).exists() and not (out / CHECKPOINTS).exists() and any(out.glob("*.safetensors"))


def finished(out: Path) -> Trained:
    """What a training says that found its model there."""
    return Trained(out, [f"{out} is finished already; give another folder to train anew"])


def check(settings: Training | TextTraining) -> None:
    """Raises: InputError for numbers that cannot be; MissingDependencyError without the extra `train`."""
    for package in ("accelerate", "datasets"):
        if find_spec(package) is None:
            raise MissingDependencyError("training", package, "train")
    for name in ("steps", "batch_size", "train_length", "max_length", "evaluate_every"):
        if getattr(settings, name, 1) < 1:
            raise InputError(f"{name} must be at least 1, not {getattr(settings, name)}")
    if isinstance(settings, Training) and settings.negatives < 0:
        raise InputError(f"negatives must be at least 0, not {settings.negatives}")


def _distinct(collections: Iterable[Collection]) -> None:
    names = [collection.name for collection in collections]
    if len({*names}) < len(names):
        raise InputError(f"two folders have one name: {', '.join(names)}; rename one")


def _refuse_others(out: Path, settings: AnyTraining) -> None:
    """Raises: InputError where the folder holds something else than this training."""
    kept = out / SETTINGS
    if kept.exists():
        before, wanted = json.loads(kept.read_text(encoding="utf-8")), _as_json(settings)
        if changed := [name for name in wanted if wanted[name] != before.get(name)]:
            others = f"other settings ({', '.join(changed)})"
            raise InputError(f"holds a training with {others}; give those, or another folder", out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is not an empty folder and holds no training; give another folder", out)


def keep(settings: AnyTraining, out: Path) -> None:
    """Write the settings into the folder, which is this training's from now on."""
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / SETTINGS) as temporary:
        temporary.write_text(json.dumps(_as_json(settings), indent=2) + "\n", encoding="utf-8")


def _as_json(settings: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def kept(out: Path) -> list[str]:
    """Which checkpoint the finished model is, where nDCG@10 on dev decided it, in words."""
    entries = [json.loads(line) for line in (out / LOG).read_text(encoding="utf-8").splitlines()]
    start, *later = [entry for entry in entries if f"eval_{MEASURE}" in entry] or [{}]
    if not later:
        return []
    best = max(later, key=lambda entry: entry[f"eval_{MEASURE}"])
    before, after = (entry[f"eval_{MEASURE}"] for entry in (start, best))
    warning = "; training made it no better than the base, so look before you use it" if before >= after else ""
    return [f"the model is step {best['step']}'s: {MEASURE} on dev {after:.4f}, of the base {before:.4f}{warning}"]


def newest_checkpoint(out: Path) -> Path | None:
    """The last whole checkpoint; what a kill left of a later one is removed: it lacks the file written last."""
    checkpoints = (out / CHECKPOINTS).glob("checkpoint-*")
    for path in sorted(checkpoints, key=lambda path: -int(path.name.partition("-")[2])):
        with suppress(OSError, ValueError):
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
        shutil.rmtree(path)
    return None


def finish(model: Any, max_length: int, out: Path) -> None:
    """Save the model where its checkpoints are, and remove those."""
    model.max_seq_length = max_length
    with saving(out):
        model.save_pretrained(str(out))
    shutil.rmtree(out / CHECKPOINTS)


@contextmanager
def saving(out: Path) -> Iterator[None]:
    """Say in our words what torch and safetensors say in theirs, which are no OSError, when a disk is full."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as problem:
        told = str(problem)
        if "Reader" in told or not any(sign in told for sign in ("I/O error", "inline_container", "StreamWriter")):
            raise
        advice = "is the disk full? Free some space and run the same command again: it goes on from the last checkpoint"
        raise RetrieverError(f"{out}: cannot be written: {problem}; {advice}") from None


def steady(model: Any, transformer: Any, length: int) -> None:
    """Take dropout out of a model and, on a CPU, give its transformer the plain attention.

    Drawing the random numbers and the fused attention's gradient take as long as all the rest of a step
    (benchmarks/training_step.py), and no text is seen often enough to be learnt by heart.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if not torch.cuda.is_available() and length <= EAGER:
        transformer.set_attn_implementation("eager")


def arguments(settings: Training | TextTraining, out: Path, *, measure: str | None, **more: Any) -> dict[str, Any]:
    """What the trainers of all kinds of models are told. measure: which decides the best checkpoint; none: the last."""
    import torch
    from sentence_transformers.base.sampler import MultiDatasetBatchSamplers

    from retriever.encoders.runtime import has_bfloat16

    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = {
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{measure}",
        "eval_on_start": newest_checkpoint(out) is None,
    }
    return {
        "output_dir": str(out / CHECKPOINTS),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "warmup_steps": round(WARM_UP * settings.steps),
        "multi_dataset_batch_sampler": MultiDatasetBatchSamplers.PROPORTIONAL,
        "bf16": settings.precision == "auto" and has_bfloat16(device),
        "use_cpu": device == "cpu",
        "seed": settings.seed,
        "logging_steps": min(LOG_EVERY, settings.evaluate_every),
        "save_steps": settings.evaluate_every,
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,
        "eval_strategy": "steps" if measure else "no",
        "eval_steps": settings.evaluate_every,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": False,
        **(best if measure else {}),
        **more,
    }


def evaluator(measure: Callable[[Any], dict[str, float]], *, bfloat16: bool) -> Any:
    """What a trainer calls between steps: `measure`, given the model, gives names and values."""
    import torch
    from sentence_transformers.base.evaluation import BaseEvaluator

    class Dev(BaseEvaluator):  # type: ignore[misc]
        def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
                return measure(model)

    return Dev()


def callbacks(out: Path, *, measured: bool) -> list[Any]:
    """The log and its picture, the progress bar and the early end."""
    from transformers import EarlyStoppingCallback, TrainerCallback

    class Log(TrainerCallback):  # type: ignore[misc]
        """Writes the whole log again after each entry: so a training that goes on has one without repetitions."""

        def on_train_begin(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            before = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
            self.start = time.monotonic() - before
            advance(state.global_step)

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            advance(1)

        def on_log(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            state.log_history[-1]["seconds"] = round(time.monotonic() - self.start, 1)
            write_log(state.log_history, out)

    return [Log(), EarlyStoppingCallback(PATIENCE)] if measured else [Log()]


def write_log(entries: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the whole log, and its picture."""
    for name, text in ((LOG, "".join(json.dumps(entry) + "\n" for entry in entries)), (CURVE, curve(entries))):
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def without_cards(trainer: type, model: Any) -> type:
    """The trainer's class without model cards, which would quote the data and show bars in pipes.

    The model is saved by the method that is replaced here: a card for each checkpoint costs an encoding and a warning.
    """
    model.save_pretrained = partial(model.save_pretrained, create_model_card=False)
    return type("Trainer", (trainer,), {"add_model_card_callback": lambda *_: None})


def train(trainer: Any, out: Path) -> None:
    """Run a trainer from the newest checkpoint on, without its own printing.

    Raises: InputError where the loss or the gradient is no number any more, before the weights are changed by it;
    RetrieverError or OSError where a checkpoint cannot be written.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    checkpoint = newest_checkpoint(out)
    for name in ("training_step", "_clip_grad_norm"):  # what they return: the loss, the gradient's norm
        setattr(trainer, name, partial(_finite, getattr(trainer, name), trainer, out))
    with saving(out):
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))


def _finite(compute: Callable[..., Any], trainer: Any, out: Path, *given: Any) -> Any:
    value = compute(*given)
    if value is not None and not math.isfinite(value):
        kept = newest_checkpoint(out)
        raise InputError(
            f"the loss or its gradient is {float(value)} in step {trainer.state.global_step + 1}; the last good "
            f"checkpoint is {kept or 'none yet'}; train anew in another folder with a lower learning rate"
        )
    return value


def notes(trained: Iterable[Collection], examples: Mapping[str, Examples], tokenizer: Any, length: int) -> list[str]:
    """What training takes from each collection, and what it leaves out."""
    lines = []
    for collection in trained:
        taken = examples[collection.name]
        texts = list(collection.documents.values())
        cut = sum(len(ids) > length for ids in tokenizer(texts, verbose=False)["input_ids"])
        lines.append(
            f"{collection.name}: {len(taken.examples):,} examples; negatives: {taken.labelled:,} judged irrelevant, "
            f"{taken.mined:,} by {taken.pipeline}, {taken.drawn:,} at random; left out: {taken.unanswered:,} queries "
            f"without a relevant document{_false(taken)}; {cut:,} of {len(texts):,} documents are longer than {length} "
            "tokens and are cut"
        )
    return lines


def _false(taken: Examples) -> str:
    if taken.judged is None:
        return ""
    return f", and {taken.false:,} mined negatives that may be relevant ({taken.judged})"
