"""Training of a SPLADE encoder: what sentence-transformers' trainer is given, and what is kept of its work.

The loss is SPLADE's (Formal et al. 2021, arXiv 2109.10086): softmax cross-entropy of the dot products with the relevant
text, its negatives and all other texts of the batch, plus FLOPS regularisers of queries and documents whose weights
rise quadratically over the first third of the steps. A batch holds texts of one collection, none twice.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.errors import InputError, MissingDependencyError
from retriever.progress import advance, bar
from retriever.store.files import replacing
from retriever.training.data import Collection, Examples, make_examples, read_collection
from retriever.training.dev import MEASURE, dev_part, measure_dev
from retriever.training.maxima import maxima_first
from retriever.training.settings import SparseTraining
from retriever.training.start import quiet, sparse_encoder

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

SETTINGS, LOG, CHECKPOINTS = "training.json", "log.jsonl", "checkpoints"
START_TEXTS = 1024
"""Documents that the head of a base model without one is fitted to."""
BIAS_RATE = 30
"""Learning rate of the terms' biases, times that of the weights: they are logits, and far larger numbers."""
WARM_UP = 0.06
LOG_EVERY = 10
PATIENCE = 3
"""Training ends early when so many measurements in a row bring no better one."""


class Trained(NamedTuple):
    """out: the folder that `SparseEncoder` loads. notes: what was left out or cut, in words; none when it was there."""

    out: Path
    notes: list[str]


def train_sparse(settings: SparseTraining, out: Path) -> Trained:
    """Train and save a sparse encoder in `out`, beside its settings and its log; goes on where a kill stopped it.

    Checkpoints are kept in `out` until the model is finished. With `dev`, the best checkpoint is what is saved.

    Raises: InputError for bad data or settings, and where `out` holds a training with other settings;
    MissingDependencyError without the extra `train`.
    """
    _check(settings)
    _refuse_others(out, settings)
    if (out / "modules.json").exists() and not (out / CHECKPOINTS).exists():
        return Trained(out, [f"{out} is finished already; give another folder to train anew"])
    dev = {Path(folder).resolve() for folder in settings.dev}
    folders = dict.fromkeys(Path(folder).resolve() for folder in (*settings.data, *settings.dev))
    collections = {folder: read_collection(folder, measured=folder in dev) for folder in folders}
    _distinct(collections.values())
    trained = [collections[Path(folder).resolve()] for folder in settings.data]
    examples = {each.name: make_examples(each, settings.negatives, settings.seed) for each in trained}
    checkpoint = _newest(out / CHECKPOINTS)
    model = _model(settings, trained, checkpoint)
    notes = _notes(trained, examples, model, settings.train_length)
    measured = [dev_part(collections[Path(folder).resolve()], settings.seed) for folder in settings.dev]
    _keep(settings, out)
    with quiet(), maxima_first(model), bar("training", "steps", total=settings.steps):
        trainer = _trainer(settings, out, model, examples, measured)
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    model.max_seq_length = settings.max_length
    model.save_pretrained(str(out))
    shutil.rmtree(out / CHECKPOINTS)
    return Trained(out, notes)


def _check(settings: SparseTraining) -> None:
    for package in ("accelerate", "datasets"):
        if find_spec(package) is None:
            raise MissingDependencyError("training", package, "train")
    if not settings.data:
        raise InputError("there is nothing to train on: give at least one folder with data")
    for name in ("steps", "batch_size", "train_length", "max_length", "evaluate_every"):
        if getattr(settings, name) < 1:
            raise InputError(f"{name} must be at least 1, not {getattr(settings, name)}")
    if settings.negatives < 0:
        raise InputError(f"negatives must be at least 0, not {settings.negatives}")
    if settings.batch_size == 1 and not settings.negatives:
        raise InputError("a batch of one query without negatives teaches nothing; raise batch_size or negatives")


def _distinct(collections: Iterable[Collection]) -> None:
    names = [collection.name for collection in collections]
    if len({*names}) < len(names):
        raise InputError(f"two folders have one name: {', '.join(names)}; rename one")


def _refuse_others(out: Path, settings: SparseTraining) -> None:
    """Raises: InputError where the folder holds something else than this training."""
    kept = out / SETTINGS
    if kept.exists():
        before, wanted = json.loads(kept.read_text(encoding="utf-8")), _as_json(settings)
        if changed := [name for name in wanted if wanted[name] != before.get(name)]:
            others = f"other settings ({', '.join(changed)})"
            raise InputError(f"holds a training with {others}; give those, or another folder", out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is not an empty folder and holds no training; give another folder", out)


def _keep(settings: SparseTraining, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / SETTINGS) as temporary:
        temporary.write_text(json.dumps(_as_json(settings), indent=2) + "\n", encoding="utf-8")


def _as_json(settings: SparseTraining) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def _newest(checkpoints: Path) -> Path | None:
    """The last whole checkpoint; what a kill left of a later one is removed: it lacks the file written last."""
    for path in sorted(checkpoints.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2])):
        with suppress(OSError, ValueError):
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
        shutil.rmtree(path)
    return None


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
    from datasets import DatasetDict
    from sentence_transformers.sparse_encoder import SparseEncoderTrainer, losses
    from sentence_transformers.sparse_encoder.callbacks import SpladeRegularizerWeightSchedulerCallback
    from transformers import PrinterCallback

    class Trainer(SparseEncoderTrainer):  # type: ignore[misc]
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """None: the card would quote the data, and making it shows a bar in pipes."""

    # the trainer saves by this method, and a card for each checkpoint costs an encoding and a warning
    model.save_pretrained = partial(model.save_pretrained, create_model_card=False)

    loss = losses.SpladeLoss(
        model,
        losses.SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=settings.document_weight,
        query_regularizer_weight=settings.query_weight,
    )
    arguments = _arguments(settings, out, measured=bool(dev), fresh=_newest(out / CHECKPOINTS) is None)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=DatasetDict({name: _table(each, settings.negatives) for name, each in examples.items()}),
        loss=loss,
        evaluator=_evaluator(dev, arguments) if dev else None,
        callbacks=[SpladeRegularizerWeightSchedulerCallback(loss), *_callbacks(out, measured=bool(dev))],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _table(examples: Examples, negatives: int) -> Any:
    from datasets import Dataset

    columns = {
        "query": [example.query for example in examples.examples],
        "positive": [example.positive for example in examples.examples],
    }
    for number in range(negatives):
        columns[f"negative_{number + 1}"] = [example.negatives[number] for example in examples.examples]
    return Dataset.from_dict(columns)


def _arguments(settings: SparseTraining, out: Path, *, measured: bool, fresh: bool) -> Any:
    import torch
    from sentence_transformers.base.sampler import BatchSamplers, MultiDatasetBatchSamplers
    from sentence_transformers.sparse_encoder import SparseEncoderTrainingArguments

    from retriever.encoders.runtime import has_bfloat16

    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = {"load_best_model_at_end": True, "metric_for_best_model": f"eval_{MEASURE}", "eval_on_start": fresh}
    return SparseEncoderTrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        learning_rate_mapping={r"predictions\.bias": BIAS_RATE * settings.learning_rate},
        warmup_steps=round(WARM_UP * settings.steps),
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
        bf16=settings.precision == "auto" and has_bfloat16(device),
        use_cpu=device == "cpu",
        seed=settings.seed,
        logging_steps=min(LOG_EVERY, settings.evaluate_every),
        save_steps=settings.evaluate_every,
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        eval_strategy="steps" if measured else "no",
        eval_steps=settings.evaluate_every,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
        **(best if measured else {}),
    )


def _evaluator(dev: list[Collection], arguments: Any) -> Any:
    import torch
    from sentence_transformers.base.evaluation import BaseEvaluator

    class Dev(BaseEvaluator):  # type: ignore[misc]
        def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=arguments.bf16):
                return measure_dev(model, dev)

    return Dev()


def _callbacks(out: Path, *, measured: bool) -> list[Any]:
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
            with replacing(out / LOG) as temporary:
                lines = (json.dumps(entry) + "\n" for entry in state.log_history)
                temporary.write_text("".join(lines), encoding="utf-8")

    return [Log(), EarlyStoppingCallback(PATIENCE)] if measured else [Log()]


def _notes(
    trained: Sequence[Collection], examples: dict[str, Examples], model: SparseEncoder, length: int
) -> list[str]:
    """What training takes from each collection, and what it leaves out."""
    notes = []
    for collection in trained:
        taken = examples[collection.name]
        texts = list(collection.documents.values())
        cut = sum(len(ids) > length for ids in model.tokenizer(texts, verbose=False)["input_ids"])
        notes.append(
            f"{collection.name}: {len(taken.examples):,} examples; negatives: {taken.labelled:,} judged irrelevant, "
            f"{taken.mined:,} by BM25, {taken.drawn:,} at random; left out: {taken.unanswered:,} queries without a "
            f"relevant document; {cut:,} of {len(texts):,} documents are longer than {length} tokens and are cut"
        )
    return notes
