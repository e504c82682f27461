"""What a training is told; apart from the training itself, so that `--help` can show the defaults at no cost.

Everything that decides the trained weights, beside the files that it names.
"""

from __future__ import annotations

from dataclasses import dataclass

from retriever.encoders.hierarchy import Hierarchy

LOSSES = ("lce", "pairwise", "margin-mse", "kl")
"""A reranker's."""
ADAPTER_ROLES = ("language", "encoder", "reranker")
ENCODER_LOSSES = ("in-batch", "cached", "margin-mse", "kl")
ENCODER_POOLINGS = ("mean", "cls", "last", "eos")
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
class EncoderTraining(Training):
    """base: an encoder of sentence-transformers, or a model of transformers, whose vectors are then brought to unit
    length. pooling: one of ENCODER_POOLINGS; query_prefix, document_prefix: what stands before the texts; None: as the
    base's files say. loss: one of ENCODER_LOSSES. teacher: the reranker of pairs, in its text form, that margin-mse and
    kl learn from, and that judges negatives. views, mine: of the index, and the pipeline, whose results are negatives.
    drop_above: of those, the ones whose score is above this share of the relevant text's, by the teacher or else by the
    base itself, are no negatives; 0: all are. dimensions: the first so many are trained to do alone; none: only all.
    nested: queries are read by the first units of the feed-forward layers alone, a share that is drawn for each batch
    (`encoders.matformer`).
    """

    loss: str = "in-batch"
    pooling: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    teacher: str | None = None
    views: tuple[str, ...] = ("bm25",)
    mine: str = "bm25"
    drop_above: float = 0.95
    dimensions: tuple[int, ...] = ()
    nested: bool = False
    steps: int = 1000
    batch_size: int = 32
    negatives: int = 1
    learning_rate: float = 2e-5
    train_length: int = 128
    max_length: int = 256
    evaluate_every: int = 100


@dataclass(frozen=True, kw_only=True)
class TextTraining:
    """base: model name or path. batch_size: examples. train_length: tokens of a text read in training, special ones
    included. evaluate_every and precision: as in `Training`.
    """

    base: str
    steps: int
    batch_size: int
    learning_rate: float
    train_length: int
    evaluate_every: int
    seed: int = 0
    precision: str = "auto"


@dataclass(frozen=True, kw_only=True)
class MaskedTraining(TextTraining):
    """texts: collections, as `read_corpus` reads them, whose texts are trained on; judgements are not read.
    self_distillation: the folder of a first round: what this training made of the same base without this field.
    """

    texts: tuple[str, ...]
    self_distillation: str | None = None
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 5e-5
    train_length: int = 128
    evaluate_every: int = 200


@dataclass(frozen=True, kw_only=True)
class EsimcseTraining(TextTraining):
    """texts: as in `MaskedTraining`. dev: as in `Training`. repetition: the share of a sentence's tokens that may be
    repeated; 0 is SimCSE's pair. most_repeated: and no more than so many (none: no limit). queue: vectors of earlier
    sentences that are negatives. momentum: of the encoder that made them. temperature: what cosines are divided by.
    """

    texts: tuple[str, ...]
    dev: tuple[str, ...] = ()
    repetition: float = 0.32
    most_repeated: int | None = None
    queue: int = 160
    momentum: float = 0.995
    temperature: float = 0.05
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 3e-5
    train_length: int = 32
    evaluate_every: int = 125


@dataclass(frozen=True, kw_only=True)
class LexicalTraining(TextTraining):
    """words: TSV files of words that mean the same (`texts.lexicon.read_words`). dev: as in `Training`.
    language_smoothing: a pair of languages with n pairs of words is drawn as often as n to this power says. batch_size:
    pairs of words.
    """

    words: tuple[str, ...]
    dev: tuple[str, ...] = ()
    temperature: float = 0.07
    language_smoothing: float = 0.5
    steps: int = 500
    batch_size: int = 256
    learning_rate: float = 5e-6
    train_length: int = 16
    evaluate_every: int = 100


@dataclass(frozen=True, kw_only=True)
class StudentTraining(TextTraining):
    """base: the teacher, a BERT or RoBERTa as a sentence encoder. texts: as in `MaskedTraining`. dev: as in `Training`.
    depth: layers of the student. taken: the teacher's layers that they begin as, counted from 1; none: evenly spaced,
    the last among them. hidden: units of a student whose weights are random instead; none: the teacher's.
    embedding: weight of the cosine distance to the teacher's vectors; 0: the paper's losses alone.
    """

    texts: tuple[str, ...]
    dev: tuple[str, ...] = ()
    depth: int = 3
    taken: tuple[int, ...] = ()
    hidden: int | None = None
    embedding: float = 1.0
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 2e-4
    train_length: int = 128
    evaluate_every: int = 100


@dataclass(frozen=True, kw_only=True)
class HmdeTraining(Hierarchy):
    """base: the sentence encoder. data: BEIR folders of long documents trained on; without layers none is read. dev:
    as in `Training`. batch_size: documents, each with one query. negatives: irrelevant documents for each query beside
    those of the batch. learning_rate: of the hierarchy; lower_learning_rate: of the sentence encoder, 0: it stays as it
    is and reads each segment once. The rest as in `Training`.
    """

    base: str
    data: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    steps: int = 600
    batch_size: int = 32
    negatives: int = 0
    learning_rate: float = 3e-4
    lower_learning_rate: float = 0.0
    evaluate_every: int = 50
    seed: int = 0
    precision: str = "auto"


@dataclass(frozen=True, kw_only=True)
class AdapterTraining:
    """kind: lora, bottleneck or mask. role: one of ADAPTER_ROLES: language, or a ranking adapter for an encoder or a
    reranker. texts: of a language, as in `MaskedTraining`. data, dev: of a ranking adapter, as in `Training`. under: a
    stack of adapters that it is trained on top of. rank: of a LoRA. reduction: the model's width by that of a
    bottleneck; a mask has as many places as the bottlenecks of this reduction have parameters. invertible: a language's
    bottlenecks have an invertible adapter too (and its mask as many places more). l1: weight of a mask's penalty.
    first_steps: of a mask's first phase; none: as many as of the second, `steps`. loss, teacher, views, mine: as in
    `EncoderTraining` and `RerankerTraining`; loss: none: theirs. The rest as in `Training`.
    """

    kind: str
    role: str
    base: str
    texts: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    under: str | None = None
    rank: int = 8
    reduction: int = 16
    invertible: bool = True
    l1: float = 0.0
    first_steps: int | None = None
    loss: str | None = None
    teacher: str | None = None
    views: tuple[str, ...] = ("bm25",)
    mine: str = "bm25"
    steps: int = 1000
    batch_size: int = 16
    negatives: int = 3
    learning_rate: float = 1e-4
    train_length: int = 128
    evaluate_every: int = 200
    seed: int = 0
    precision: str = "auto"


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
