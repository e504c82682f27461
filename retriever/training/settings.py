"""What a training is told; apart from the training itself, so that `--help` can show the defaults at no cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SparseTraining:
    """Everything that decides the trained weights, beside the files that it names.

    base: model name or path. data: BEIR folders trained on. dev: BEIR folders measured on (`read_collection`).
    negatives: irrelevant texts beside each relevant one. query_weight, document_weight: of the FLOPS regularisers.
    train_length, max_length: tokens of a text read in training and by the finished model.
    evaluate_every: steps between checkpoints, and between measurements on `dev`.
    precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    base: str
    data: tuple[str, ...]
    dev: tuple[str, ...] = ()
    steps: int = 600
    batch_size: int = 16
    negatives: int = 1
    learning_rate: float = 1e-4
    query_weight: float = 0.3
    document_weight: float = 0.05
    train_length: int = 128
    max_length: int = 256
    evaluate_every: int = 100
    seed: int = 0
    precision: str = "auto"
