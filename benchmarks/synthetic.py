"""Documents in the shape of SPLADE's: about 120 weighted terms each, Zipf-distributed over BERT's vocabulary, and
queries of about 20.

All terms are drawn independently; or a part of them belongs to the topic of the document or query, and weighs four
times as much as the rest. Without topics no document stands out, so an engine that skips documents by bounds finds
less to skip than in a real collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from retriever.encoders.base import TermWeights

VOCABULARY = 30_522
LARGEST = 4.0
TERMS = [f"t{number}" for number in range(VOCABULARY)]
_TOPICS, _TOPIC_TERMS, _TOPIC_RANKS = 1000, 60, (100, 10_000)
_CHUNK = 20_000


def documents(count: int, topics: bool = False, seed: int = 0) -> csr_array:
    """float32 [count, VOCABULARY]; of 120 terms, 24 are of the topic."""
    return _collection(count, 120, 24 if topics else 0, seed)


def queries(count: int, topics: bool = False, seed: int = 1) -> csr_array:
    """float32 [count, VOCABULARY]; of 20 terms, as common as those of documents, 6 are of the topic."""
    return _collection(count, 20, 6 if topics else 0, seed)


def _collection(count: int, size: int, topical: int, seed: int) -> csr_array:
    rng = np.random.default_rng(seed)
    numbers = np.random.default_rng(0).permutation(VOCABULARY).astype(np.int32)
    parts = [_rows(min(_CHUNK, count - first), size, topical, rng) for first in range(0, count, _CHUNK)]
    ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *(counts for counts, _, _ in parts)])).astype(np.int32)
    terms = numbers[np.concatenate([ranks for _, ranks, _ in parts])]
    weights = np.concatenate([values for _, _, values in parts])
    matrix = csr_array((weights, terms, ends), shape=(count, VOCABULARY))
    matrix.sort_indices()
    return matrix


def _rows(count: int, size: int, topical: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Postings in each row, the ranks of their terms, their weights: gamma-distributed, 0.9 on average, to 4 at most.

    More ranks are drawn than wanted; of those that are distinct, so many are kept that `size` remain on average.
    """
    chances = 1 / np.arange(1, VOCABULARY + 1)
    cumulated = np.cumsum(chances / chances.sum())
    drawn = np.searchsorted(cumulated, rng.random((count, (size - topical) * 9 // 4)))
    ranks = np.concatenate([_topic_ranks(count, topical, rng), drawn], axis=1)
    order = np.argsort(ranks, axis=1, kind="stable")  # a topic's before the same among the drawn
    ranks, of_topic = np.take_along_axis(ranks, order, axis=1), order < topical
    distinct = np.diff(ranks, axis=1, prepend=-1) > 0
    others = (distinct & ~of_topic).sum(axis=1, keepdims=True)
    kept = distinct & (of_topic | (rng.random(ranks.shape) * others < size - topical))
    weights = rng.gamma(2.0, 0.45, int(kept.sum()))
    if topical:
        weights *= np.where(of_topic[kept], 2.0, 0.5)
    return kept.sum(axis=1), ranks[kept].astype(np.int32), np.clip(weights, 0.01, LARGEST).astype(np.float32)


def _topic_ranks(count: int, topical: int, rng: np.random.Generator) -> Any:
    """int64 [count, topical]: of each row's topic, some of its terms."""
    fixed = np.random.default_rng(0)
    topics = np.array([fixed.choice(np.arange(*_TOPIC_RANKS), _TOPIC_TERMS, replace=False) for _ in range(_TOPICS)])
    chosen = np.argsort(rng.random((count, _TOPIC_TERMS)), axis=1)[:, :topical]
    return np.take_along_axis(topics[rng.integers(0, _TOPICS, count)], chosen, axis=1)


class Prepared:
    """An encoder whose texts are row numbers of matrices that are there already."""

    def __init__(self, documents: csr_array, queries: csr_array) -> None:
        self._documents, self._queries = documents, queries

    def identity(self) -> Mapping[str, Any]:
        """There is only one."""
        return {"model": "synthetic"}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        """The rows from the first text's to the last's."""
        progress(len(texts))
        return TermWeights(self._documents[int(texts[0]) : int(texts[-1]) + 1], TERMS, 0)

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """As documents."""
        return TermWeights(self._queries[int(texts[0]) : int(texts[-1]) + 1], TERMS, 0)
