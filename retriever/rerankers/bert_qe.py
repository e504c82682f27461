"""BERT-QE: reranking by a cross-encoder that also compares documents with the best chunks of the first of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from retriever.rerankers.base import contents, reorder
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig, check
from retriever.types import Document, Floats, Hits, Rows

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BertQeConfig:
    """model: a cross-encoder, as `cross-encoder` takes it. depth: how many documents of each list are reranked. docs:
    how many of them give chunks (the paper's k_d), words: of a chunk (m), chunks: how many are kept (k_c). alpha: share
    of the chunks' evidence. beta: weight of it all against the score of the search before. precision: "auto" (bfloat16
    where the hardware has it) or "float32".
    """

    model: str
    depth: int = 100
    docs: int = 10
    words: int = 10
    chunks: int = 10
    alpha: float = 0.4
    beta: float = 0.9
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("depth", "docs", "words", "chunks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not (0 <= self.alpha <= 1 and 0 <= self.beta <= 1):
            raise ValueError("alpha and beta must be between 0 and 1")
        check(self.depth, self.precision)


class BertQe:
    """BERT-QE (Zheng et al., Findings of EMNLP 2020), with one model for its three phases.

    1: every document is scored for the query. 2: the first `docs` are cut into chunks, scored for the query, and the
    best `chunks` are kept. 3: every document is scored for every chunk, by default a thousand pairs a query. The score
    is beta * ln((1 - alpha) * P(q, d) + alpha * P(C, d)) + (1 - beta) * score of the search before, where C are the
    chunks; beta=1 leaves that search out, and alpha=0 then gives the order of phase 1.

    P is the logistic function of the model's single output, whatever activation its files name, or the softmax of its
    two: the paper's probability for a model that was trained with cross-entropy, a monotone stand-in for others. Scores
    of the search before enter as they are; the paper's were those of DPH+KL. Unlike the paper's, a document is read
    from its beginning as far as the model reads, not by its best passage, and its chunks come from all of it. Its
    results on Robust04 and GOV2 could not be reproduced here, without collections and models.
    """

    Config = BertQeConfig

    def __init__(self, config: BertQeConfig) -> None:
        self.config = config
        self._model = CrossEncoder(CrossEncoderConfig(config.model, precision=config.precision))

    def rerank(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
        """The first `depth` of each list in the order of their new scores; the rest follow in their old order."""
        head = hits.rows[:, : self.config.depth]
        texts = contents(head, fetch)
        scores = []
        for query, rows, before in zip(queries, head, hits.scores, strict=True):
            documents = [texts[row] for row in rows[rows >= 0].tolist()]
            scores.append(self._scores(query, documents, before[: len(documents)]))
        return reorder(hits, scores)

    def _scores(self, query: str, documents: Sequence[str], before: Floats) -> Floats:
        if not documents:
            return np.zeros(0, dtype=np.float32)
        relevance = self._probabilities([(query, document) for document in documents])
        best = np.argsort(-relevance, kind="stable")[: self.config.docs]
        pieces = [chunk for i in best.tolist() for chunk in chunks(documents[i], self.config.words)]
        fit = self._probabilities([(query, chunk) for chunk in pieces])
        kept = np.argsort(-fit, kind="stable")[: self.config.chunks]
        pairs = [(pieces[i], document) for document in documents for i in kept.tolist()]
        evidence = self._probabilities(pairs).reshape(len(documents), len(kept))  # [documents, chunks]
        mixed = expanded(relevance, fit[kept], evidence, self.config.alpha)
        floor = np.log(np.maximum(mixed, np.finfo(np.float64).tiny))
        scores: Floats = (self.config.beta * floor + (1 - self.config.beta) * before).astype(np.float32)
        return scores

    def _probabilities(self, pairs: Sequence[tuple[str, str]]) -> Numbers:
        """In float64: in float32 all outputs from 17 on are one probability."""
        numbers: Numbers = expit(self._model.logits(pairs).astype(np.float64))
        return numbers


def chunks(text: str, words: int) -> list[str]:
    """Chunks of so many words, each sharing the half of them (rounded down) with the next.

    A rest that is shorter than that overlap joins the last chunk, as in the authors' code.
    """
    split, overlap = text.split(), words // 2
    stride, last = words - overlap, max(0, len(split) - words - max(1, overlap) + 1)
    *starts, final = range(0, last + stride, stride)
    return [" ".join(split[start : start + words]) for start in starts] + [" ".join(split[final:])]


def expanded(relevance: Numbers, fit: Numbers, evidence: Numbers, alpha: float) -> Numbers:
    """(1 - alpha) * P(q, d) + alpha * P(C, d); P(C, d) = sum over chunks c of softmax(rel(q, C))[c] * P(c, d).

    relevance: P(q, d), float64 [documents]; fit: rel(q, c), [chunks], which are probabilities too, as in the authors'
    code; evidence: P(c, d), [documents, chunks].
    """
    mixed: Numbers = (1 - alpha) * relevance + alpha * evidence @ softmax(fit)
    return mixed
