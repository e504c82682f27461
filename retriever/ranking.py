"""Rankings as arrays: the tie order over rows, and how lists are joined."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retriever.types import Floats, Hits, Rows

Ids = Callable[[Rows], list[str]]


def settle(hits: Hits, k: int, ids: Ids) -> Hits:
    """Order ties by document id, descending (`runs.tie_order` says why), then keep the best k.

    hits: best first by score already; may hold more than k columns where rows tie with the k-th.
    """
    rows, scores = hits
    same = (scores[:, 1:] == scores[:, :-1]) & (rows[:, 1:] >= 0)
    if same.any():
        tied = np.zeros(rows.shape, dtype=np.bool_)
        tied[:, 1:] |= same
        tied[:, :-1] |= same
        rows = rows.copy()
        rows[tied] = _by_id(rows[tied], np.cumsum(~np.pad(same, ((0, 0), (1, 0))).ravel())[tied.ravel()], ids)
    return Hits(rows[:, :k], scores[:, :k])


def _by_id(rows: Rows, groups: Rows, ids: Ids) -> Rows:
    """Rows sorted by id, descending, within each group of ties; groups are ascending."""
    distinct, position = np.unique(rows, return_inverse=True)
    names = ids(distinct)
    rank = np.empty(len(names), dtype=np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return rows[np.lexsort((-rank[position], groups))]


def from_scores(rows: list[Rows], scores: list[Floats]) -> Hits:
    """One ranking a query, from unordered rows and scores: padded to one rectangle, best first."""
    width = max(map(len, rows), default=0)
    out = Hits(np.full((len(rows), width), -1, np.int64), np.full((len(rows), width), -np.inf, np.float32))
    for i, (found, values) in enumerate(zip(rows, scores, strict=True)):
        order = np.argsort(-values, kind="stable")
        out.rows[i, : len(found)], out.scores[i, : len(found)] = found[order], values[order]
    return out
