"""A reranker scores pairs, nothing else; ranking by those scores is `rerank`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from retriever.ranking import from_scores
from retriever.types import Document, Floats, Hits, Rows


class Reranker(Protocol):
    """Scores (query, document) pairs. `config.depth` says how many of a list it reads."""

    Config: ClassVar[Any]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n]; larger is better."""


class WholeReranker(Protocol):
    """A reranker that needs more than pairs' scores; the pipeline then calls this and not `rerank` below."""

    Config: ClassVar[Any]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def rerank(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
        """The lists in a new order; `fetch` gives the documents of distinct rows."""


Near = Callable[[Rows], Rows]
"""Neighbours of rows, the nearest first: int64 [n] -> int64 [n, k], -1 where there are no more."""


class ExploringReranker(Protocol):
    """A reranker that finds documents too; the pipeline then calls this and not `rerank` below.

    `config.view` is the view, in its text form, whose neighbours it is given; `config.neighbours` says how many.
    """

    Config: ClassVar[Any]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def explore(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]], near: Near) -> Hits:
        """The lists in a new order, with what was found beside them. `near` gives only rows that a search may."""


def rerank(reranker: Reranker, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
    """The first `depth` of each list in the order of their new scores; the rest follow in their old order."""
    head = hits.rows[:, : reranker.config.depth]
    owners, columns = np.nonzero(head >= 0)
    documents = contents(head, fetch)
    pairs = [
        (queries[q], documents[head[q, column]]) for q, column in zip(owners.tolist(), columns.tolist(), strict=True)
    ]
    scores = reranker.score(pairs)
    return reorder(hits, [scores[owners == i] for i in range(len(head))])


def contents(rows: Rows, fetch: Callable[[Rows], list[Document]]) -> dict[int, str]:
    """The text of each row that is there, read once."""
    distinct = np.unique(rows[rows >= 0])
    return {row: d.contents for row, d in zip(distinct.tolist(), fetch(distinct), strict=True)}


def reorder(hits: Hits, scores: Sequence[Floats]) -> Hits:
    """The first of each list in the order of their new scores, as many as there are scores; the rest behind them.

    What was not rescored gets scores that fall by 1 from the lowest new one of its list: its place, not a measurement.
    """
    return rescored([row[row >= 0] for row in hits.rows], scores)


def rescored(lists: Sequence[Rows], scores: Sequence[Floats]) -> Hits:
    """`reorder` for lists of rows, each int64 [n], of which the first ones have new scores."""
    all_scores = []
    for rows, new in zip(lists, scores, strict=True):
        floor = new.min() if len(new) else np.float32(0)
        all_scores.append(np.concatenate([new, floor - np.arange(1, len(rows) - len(new) + 1, dtype=np.float32)]))
    return from_scores(list(lists), all_scores)
