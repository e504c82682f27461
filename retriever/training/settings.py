"""What a training is told; apart from the training itself, so that `--help` can show the defaults at no cost.

Everything that decides the trained weights, beside the files that it names.
"""

from __future__ import annotations

from dataclasses import dataclass

LOSSES = ("lce", "pairwise", "margin-mse", "kl")
HEADS = {
    "parade": "retriever.rerankers.parade:ParadeHead",
    "cedr": "retriever.rerankers.cedr:CedrHead",
    "ck": "retriever.rerankers.conv_knrm:CkHead",
    "early-exit": "retriever.rerankers.early_exit:EarlyExitHead",
}
"""What can be trained on top of a cross-encoder: see `rerankers.heads.Head`."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """base: model name or path. data: BEIR folders trained on. dev: BEIR folders measured on (`read_collection`).
    batch_size: queries. negatives: irrelevant texts beside each relevant one. train_length, max_length: tokens read in
    training and by the finished model. evaluate_every: steps between checkpoints, and between measurements on `dev`.
    precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    base: str
    data: tuple[str, ...]
    dev: tuple[str, ...] = ()
    steps: int
    batch_size: int
    negatives: int
    learning_rate: float
    train_length: int = 256
    max_length: int
    evaluate_every: int
    seed: int = 0
    precision: str = "auto"


@dataclass(frozen=True, kw_only=True)
class SparseTraining(Training):
    """base: a masked language model or a BERT encoder. query_weight, document_weight: of the FLOPS regularisers."""

    steps: int = 600
    batch_size: int = 16
    negatives: int = 1
    learning_rate: float = 1e-4
    query_weight: float = 0.3
    document_weight: float = 0.05
    train_length: int = 128
    max_length: int = 256
    evaluate_every: int = 100


@dataclass(frozen=True, kw_only=True)
class RerankerTraining(Training):
    """base: a cross-encoder, or an encoder, which gets a head. loss: one of LOSSES. teacher: the reranker of pairs that
    margin-mse and kl learn from, in its text form. views, mine: of the index, and the pipeline, whose results are
    negatives, and what is reranked for `dev`.
    """

    loss: str = "lce"
    teacher: str | None = None
    views: tuple[str, ...] = ("bm25",)
    mine: str = "bm25"
    steps: int = 1000
    batch_size: int = 8
    negatives: int = 7
    learning_rate: float = 5e-5
    max_length: int = 512
    evaluate_every: int = 200


@dataclass(frozen=True, kw_only=True)
class HeadTraining:
    """method: one of HEADS. base: a cross-encoder, which stays as it is. aggregator: PARADE's, and nobody else's.
    limit: the most examples of one collection. epochs: how often each is trained on. The rest as in `Training`.
    """

    method: str
    base: str
    data: tuple[str, ...]
    dev: tuple[str, ...] = ()
    aggregator: str | None = None
    limit: int = 2000
    epochs: int = 10
    batch_size: int = 16
    negatives: int = 3
    learning_rate: float = 1e-3
    seed: int = 0
