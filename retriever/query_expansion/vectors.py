"""Query expansion by the vectors of the documents that a first search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retriever.indexers.base import VectorView
from retriever.query_expansion.base import Feedback
from retriever.types import Floats

METHODS = ("average", "rocchio")


@dataclass(frozen=True)
class VectorPrfConfig:
    """docs: how many feedback documents; the paper takes 3 for average and 5 for rocchio. method: average or rocchio.
    alpha, beta: rocchio's weights of the query and of the documents' mean.
    """

    docs: int = 3
    method: str = "average"
    alpha: float = 0.4
    beta: float = 0.6

    def __post_init__(self) -> None:
        if self.docs < 1:
            raise ValueError("docs must be at least 1")
        if self.method not in METHODS:
            raise ValueError(f"method is {' or '.join(METHODS)}, not {self.method!r}")
        if min(self.alpha, self.beta) < 0 or not self.alpha + self.beta:
            raise ValueError("alpha and beta must not be negative, nor both zero")


class VectorPrf:
    """Vector pseudo-relevance feedback (Li et al., TOIS 2023, "Pseudo Relevance Feedback with Deep Language Models and
    Dense Retrievers"), from the vectors that the index holds: no model reads the documents again.

    average: the mean of q, d1 ... dk. rocchio: alpha * q + beta * mean(d1 ... dk). The result is not normalised. For a
    model of unit vectors that changes no ranking: the scores are the cosines times one length for each query.
    """

    Config = VectorPrfConfig
    asks = (VectorView,)
    feedback = True

    def __init__(self, config: VectorPrfConfig) -> None:
        self.config = config

    def expand(self, view: VectorView, queries: Sequence[str], feedback: Sequence[Feedback]) -> Floats:
        """float32 [n, d]; a query without feedback keeps its vector."""
        moved = view.query_vectors(queries).copy()
        for i, given in enumerate(feedback):
            if len(given.rows):
                moved[i] = self._moved(moved[i], view.document_vectors(given.rows))
        return moved

    def _moved(self, query: Floats, documents: Floats) -> Floats:
        if self.config.method == "average":
            mean: Floats = np.vstack([query, documents]).mean(axis=0)
            return mean
        towards: Floats = self.config.alpha * query + self.config.beta * documents.mean(axis=0)
        return towards
