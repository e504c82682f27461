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


def rerank(reranker: Reranker, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
    """The first `depth` of each list in the order of their new scores; the rest follow in their old order.

    What was not rescored gets scores that fall by 1 from the lowest new one of its list: its place, not a measurement.
    """
    depth = reranker.config.depth
    head = hits.rows[:, :depth]
    owners, columns = np.nonzero(head >= 0)
    distinct = np.unique(head[head >= 0])
    documents = {row: d.contents for row, d in zip(distinct.tolist(), fetch(distinct), strict=True)}
    pairs = [
        (queries[q], documents[head[q, column]]) for q, column in zip(owners.tolist(), columns.tolist(), strict=True)
    ]
    scores = reranker.score(pairs)
    all_rows, all_scores = [], []
    for i, rows in enumerate(hits.rows):
        kept = rows[rows >= 0]
        new = scores[owners == i]
        rest = len(kept) - len(new)
        all_rows.append(kept)
        floor = new.min() if len(new) else np.float32(0)
        all_scores.append(np.concatenate([new, floor - np.arange(1, rest + 1, dtype=np.float32)]))
    return from_scores(all_rows, all_scores)
