"""A reranker that is given so much time for each query, and reads as many documents as it can in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from retriever.rerankers.base import contents, reorder
from retriever.rerankers.nested import pointwise
from retriever.tallies import tallies, tally
from retriever.types import Document, Floats, Hits, Rows

LEAST = 10
"""Documents of each list that are scored whatever the time, and the fewest that are scored at once."""


@dataclass(frozen=True)
class BudgetConfig:
    """reranker: what scores documents, a reranker of pairs in its text form. seconds: for each query, its documents'
    reading from disk included, the search before not. depth: how many documents of each list are scored where there is
    time; at least 10, or as many as there are, always.
    """

    reranker: str
    seconds: float = 0.2
    depth: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError("seconds must be above 0")
        if self.depth < 1:
            raise ValueError("depth must be at least 1")


class Budget:
    """Any reranker of pairs, as deep as its time allows.

    Documents are scored in the order of the search before. After the first ten the query's own rate is known, and the
    next part is half of what fits into the time left by that rate, at least ten documents; where ten do not fit, the
    query is done. So a part may take twice as long as predicted before the time is exceeded. What was not scored
    follows in its old order, and how much that was is tallied.

    Queries are scored one after the other, each within its own time, and so in smaller batches than other rerankers
    make. The model is loaded before any clock starts. Where the time is short, a search is not the same twice.
    """

    Config = BudgetConfig

    def __init__(self, config: BudgetConfig) -> None:
        self.config = config
        self._reranker = pointwise(config.reranker)

    def rerank(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
        """The first `depth` of each list, or as many as there was time for, in the order of their new scores; the rest
        follow in their old order.
        """
        head = hits.rows[:, : self.config.depth]
        if (head >= 0).any():
            with tallies():  # loads the model; what is said of an empty document is no news
                self._reranker.score([(queries[0], "")])
        scores = [self._scores(query, rows[rows >= 0], fetch) for query, rows in zip(queries, head, strict=True)]
        self._tell(np.count_nonzero(head >= 0, axis=1), np.array([len(own) for own in scores], dtype=np.int64))
        return reorder(hits, scores)

    def _scores(self, query: str, rows: Rows, fetch: Callable[[Rows], list[Document]]) -> Floats:
        """Of the first rows, as many as there is time for."""
        began = perf_counter()
        texts = contents(rows, fetch)
        pairs = [(query, texts[row]) for row in rows.tolist()]
        asked = perf_counter()
        scores, size = np.zeros(0, dtype=np.float32), min(LEAST, len(pairs))
        while size:
            scores = np.concatenate([scores, self._reranker.score(pairs[len(scores) : len(scores) + size])])
            now = perf_counter()
            fits = len(scores) * (self.config.seconds - (now - began)) / max(now - asked, 1e-9)
            size = part(fits, len(pairs) - len(scores))
        return scores

    def _tell(self, wanted: Rows, scored: Rows) -> None:
        """wanted, scored: int64 [queries], documents of each."""
        short = scored < wanted
        limit = f"{self.config.seconds:g} seconds"
        tally(f"queries ran out of their {limit} before all of their documents were reranked", int(short.sum()))
        tally(f"documents of queries that ran out of their {limit} were reranked", int(scored[short].sum()))
        left = int((wanted - scored)[short].sum())
        tally(f"documents of queries that ran out of their {limit} were not, and follow in their old order", left)


def part(fits: float, left: int) -> int:
    """How many of the documents left are scored next, where so many fit: none where not even the fewest do."""
    size = min(max(int(min(fits, 2 * left)) // 2, LEAST), left)
    return size if size <= fits else 0
