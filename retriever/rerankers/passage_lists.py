"""What rerankers of passages read: each query with the passages of one document."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retriever.passages import Passages, Splitter
from retriever.tallies import tally
from retriever.types import Document, Rows

Lists = Sequence[tuple[str, list[str]]]
"""Queries, each with the passages of one document, at least one and in their order there."""

_FETCHED = 64
"""Documents whose whole texts are in memory at once; what is kept of them are passages."""


class PassageLists:
    """Documents in passages. Those of which the cap leaves something out are tallied."""

    def __init__(self, splitter: Splitter, *, title: bool, first: bool = False) -> None:
        """title: begin every passage with the document's title. first: read the first of a document alone."""
        self._splitter, self._title, self._first = splitter, title, first

    def of_pairs(self, pairs: Sequence[tuple[str, str]]) -> Lists:
        """Of queries and texts without titles of their own, in their order."""
        texts = {text: self._read(self._splitter.split(text)) for text in dict.fromkeys(text for _, text in pairs)}
        return [(query, texts[text]) for query, text in pairs]

    def of_rows(self, rows: Rows, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Lists:
        """Of each query and its documents, in the order of `np.nonzero(rows >= 0)`. rows: int64 [queries, k]."""
        owners, columns = np.nonzero(rows >= 0)
        found = rows[owners, columns]
        distinct, texts = np.unique(found), dict[int, list[str]]()
        for first in range(0, len(distinct), _FETCHED):
            part = distinct[first : first + _FETCHED]
            for row, document in zip(part.tolist(), fetch(part), strict=True):
                texts[row] = self._read(self._splitter.split_document(document, self._title))
        return [(queries[q], texts[row]) for q, row in zip(owners.tolist(), found.tolist(), strict=True)]

    def _read(self, passages: Passages) -> list[str]:
        """Those of one document that are read."""
        if self._first:
            return passages.texts[:1]
        cap = self._splitter.config.cap
        tally(f"documents have more than {cap} passages, and only {cap} of each were read", passages.total > cap)
        return passages.texts
