"""GAR: reranking that also reads the neighbours of what it found good."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from retriever.rerankers.base import Near, contents, rescored
from retriever.rerankers.nested import pointwise
from retriever.types import Document, Hits, Rows


@dataclass(frozen=True)
class GarConfig:
    """reranker: what scores documents, a reranker of pairs in its text form. view: where their neighbours are looked
    up: a view of the index, as a pipeline writes it: dense, bm25, 'dense(ef_search=200)'. neighbours: of each document.
    batch: how many documents of a query are scored at once. depth: how many in all.
    """

    reranker: str
    view: str
    neighbours: int = 16
    batch: int = 16
    depth: int = 100

    def __post_init__(self) -> None:
        if self.neighbours < 0:
            raise ValueError("neighbours must not be negative")
        if self.batch < 1 or self.depth < 1:
            raise ValueError("batch and depth must be at least 1")


class Gar:
    """Graph-based adaptive reranking (MacAvaney, Tonellotto and Macdonald, CIKM 2022, Algorithm 1).

    Batches come in turn from the list of the search before and from the frontier, the neighbours of documents scored so
    far; where one has no more, from the other. The frontier is read in the order of the best score among the documents
    whose neighbour one is, of equal ones the first found. Scored documents come first, by their scores, and what is
    left of the list follows in its old order. With depth up to `batch`, or neighbours=0, this is plain reranking.

    A document's neighbours are what the view finds for its own vector or its own terms, itself left out: those
    of a vector view stand for the paper's graph by TCT-ColBERT, those of bm25 for its graph by BM25. They are
    looked up when they are needed, and no graph is stored. Neighbours obey the search's filter, and were not deleted.

    Proven: the order, against Algorithm 1 written out. The paper's numbers could not be reproduced here, without its
    collection and models.
    """

    Config = GarConfig

    def __init__(self, config: GarConfig) -> None:
        self.config = config
        self._reranker = pointwise(config.reranker)

    def explore(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]], near: Near) -> Hits:
        """Each list with what was found beside it; every batch of all queries is scored in one call."""
        searches = [_Search([row for row in rows.tolist() if row >= 0]) for rows in hits.rows]
        graph: dict[int, list[int]] = {}
        while any(batches := [search.take(self._size(search)) for search in searches]):
            self._score(searches, batches, queries, fetch)
            going = [(search, batch) for search, batch in zip(searches, batches, strict=True) if self._size(search)]
            if self.config.neighbours:
                _look_up(graph, {row for _, batch in going for row in batch}, near)
                for search, batch in going:
                    search.extend(batch, graph)
        return rescored(
            [np.array([*search.scores, *search.rest()], dtype=np.int64) for search in searches],
            [np.array([*search.scores.values()], dtype=np.float32) for search in searches],
        )

    def _size(self, search: _Search) -> int:
        """How many documents of a query are scored next, at most."""
        return min(self.config.batch, self.config.depth - len(search.scores))

    def _score(
        self,
        searches: Sequence[_Search],
        batches: Sequence[list[int]],
        queries: Sequence[str],
        fetch: Callable[[Rows], list[Document]],
    ) -> None:
        asked = [(i, row) for i, batch in enumerate(batches) for row in batch]
        texts = contents(np.array([row for _, row in asked], dtype=np.int64), fetch)
        scores = self._reranker.score([(queries[i], texts[row]) for i, row in asked])
        for (i, row), score in zip(asked, scores.tolist(), strict=True):
            searches[i].scores[row] = score


class _Search:
    """How far one query is. scores: by row, in the order of scoring."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows
        self.scores: dict[int, float] = {}
        self._list = deque(rows)
        self._frontier: dict[int, float] = {}
        self._list_is_next = True

    def take(self, size: int) -> list[int]:
        """The rows to be scored next, up to so many; none where there are no more."""
        while self._list and self._list[0] in self.scores:
            self._list.popleft()
        from_list = bool(self._list) and (self._list_is_next or not self._frontier)
        self._list_is_next = not from_list
        if from_list:
            return list(islice((row for row in self._list if row not in self.scores), size))
        return sorted(self._frontier, key=self._frontier.__getitem__, reverse=True)[:size]

    def extend(self, batch: Sequence[int], graph: dict[int, list[int]]) -> None:
        """Take a scored batch out of the frontier, and its neighbours into it."""
        for row in batch:
            self._frontier.pop(row, None)
        for row in batch:
            for neighbour in graph[row]:
                if neighbour not in self.scores:
                    self._frontier[neighbour] = max(self._frontier.get(neighbour, -math.inf), self.scores[row])

    def rest(self) -> list[int]:
        """What is left of the list."""
        return [row for row in self.rows if row not in self.scores]


def _look_up(graph: dict[int, list[int]], rows: set[int], near: Near) -> None:
    """Put the neighbours of rows into a graph that has not got them yet."""
    new = np.array(sorted(rows - graph.keys()), dtype=np.int64)
    if len(new):
        for row, found in zip(new.tolist(), near(new).tolist(), strict=True):
            graph[row] = [neighbour for neighbour in found if neighbour >= 0]
