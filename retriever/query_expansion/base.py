"""A query expansion turns query texts into better queries for one view, in that view's own terms or vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from retriever.indexers.base import Terms, TermView, VectorView
from retriever.types import Document, Floats, Hits, Rows

KINDS: dict[Any, str] = {TermView: "terms", VectorView: "vectors"}
"""What the views that an expansion may ask are made of, for messages."""


class Feedback(NamedTuple):
    """What a search found for one query, best first.

    rows: int64 [m]; scores: float32 [m]; documents: the m of them. m is 0 where the search found nothing.
    """

    rows: Rows
    scores: Floats
    documents: list[Document]


class QueryExpansion(Protocol):
    """`A >> expansion >> B`: what A found for a query, and the query, become a query for the view B.

    `asks`: the protocols of views it makes queries for, any of which will do. `feedback`: whether it reads what a
    search found; its configuration then has `docs`, how many of the first hits it reads, and may have `negative`, how
    many of the last. One that reads none begins a chain. An expansion may have `expects(view)`, which says what is
    wrong with a view of the right kind, if anything.
    """

    Config: ClassVar[Any]
    asks: ClassVar[tuple[Any, ...]]
    feedback: ClassVar[bool]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def expand(self, view: Any, queries: Sequence[str], feedback: Sequence[Feedback]) -> list[Terms] | Floats:
        """One new query for each text: terms for `view.search_terms`, or float32 [n, d] for `view.nearest`.

        feedback: one for each query; empty for an expansion that reads none. A query whose feedback holds no document
        is returned as `view` understands it.
        """


def collect(hits: Hits, first: int, last: int, fetch: Callable[[Rows], list[Document]]) -> list[Feedback]:
    """The `first` best of each list and the `last` worst, with their documents; the whole list where it is shorter."""
    columns, counts = np.arange(hits.rows.shape[1]), (hits.rows >= 0).sum(axis=1, keepdims=True)
    wanted = (columns < counts) & ((columns < first) | (columns >= counts - last))  # [queries, k]
    distinct = np.unique(hits.rows[wanted])
    documents = dict(zip(distinct.tolist(), fetch(distinct), strict=True))
    return [
        Feedback(rows[chosen], scores[chosen], [documents[row] for row in rows[chosen].tolist()])
        for rows, scores, chosen in zip(hits.rows, hits.scores, wanted, strict=True)
    ]
