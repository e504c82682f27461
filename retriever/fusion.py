"""Joining result lists: the stages that follow `a + b`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever.ranking import from_scores
from retriever.types import Floats, Hits, Rows

FUSIONS = {"rrf": "retriever.fusion:ReciprocalRank", "wsum": "retriever.fusion:WeightedSum"}
NORMS = ("minmax", "zscore", "none")


@dataclass(frozen=True)
class ReciprocalRank:
    """Reciprocal rank fusion: score(d) = sum over lists of 1 / (c + rank of d), ranks from 1.

    Cormack, Clarke, Buettcher, SIGIR 2009, with their c = 60. A list without d adds nothing.
    """

    c: int = 60

    def __post_init__(self) -> None:
        if self.c < 0:
            raise ValueError("c must not be negative")

    def fuse(self, lists: Sequence[Hits]) -> Hits:
        """One ranking a query from several."""
        return _sum(
            lists,
            [np.broadcast_to(1.0 / (self.c + 1 + np.arange(hits.rows.shape[1])), hits.rows.shape) for hits in lists],
        )


@dataclass(frozen=True)
class WeightedSum:
    """score(d) = sum over lists of weight * normalised score; weights default to equal ones.

    norm `minmax`: (s - min) / (max - min) over the query's list (all equal: 1); a list without d adds 0, its lowest.
    norm `zscore`: (s - mean) / standard deviation (all equal: 0); a list without d adds the lowest it gave.
    norm `none`: raw scores; a list without d adds 0.
    A list of weight 0 contributes neither scores nor documents, and a single list left is returned as it is: with two
    lists, weights [1, 0] and [0, 1] give back each.
    """

    weights: tuple[float, ...] | None = None
    norm: str = "minmax"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm is one of {', '.join(NORMS)}, not {self.norm!r}")
        if self.weights is not None and (min(self.weights, default=0) < 0 or not any(self.weights)):
            raise ValueError("weights must not be negative, nor all zero")

    def expects(self, lists: int) -> str | None:
        """What is wrong with the weights for so many lists, if anything."""
        if self.weights is None or len(self.weights) == lists:
            return None
        return f"{len(self.weights)} weights for {lists} lists"

    def fuse(self, lists: Sequence[Hits]) -> Hits:
        """One ranking a query from several."""
        weights = self.weights or (1.0 / len(lists),) * len(lists)
        used = [(hits, weight) for hits, weight in zip(lists, weights, strict=True) if weight]
        if len(used) == 1:
            return used[0][0]
        scaled = [_normalise(hits, self.norm) for hits, _ in used]
        lowest = [
            _lowest(values, hits) if self.norm == "zscore" else np.zeros(len(values))
            for values, (hits, _) in zip(scaled, used, strict=True)
        ]
        shifted = [
            weight * (values - low[:, None]) for values, low, (_, weight) in zip(scaled, lowest, used, strict=True)
        ]
        offset = sum(weight * low for low, (_, weight) in zip(lowest, used, strict=True))
        joined = _sum([hits for hits, _ in used], shifted)
        return Hits(joined.rows, (joined.scores + np.asarray(offset, dtype=np.float32)[:, None]))


def _normalise(hits: Hits, norm: str) -> npt.NDArray[np.float64]:
    scores = np.where(hits.rows >= 0, hits.scores, np.nan).astype(np.float64)
    if not scores.size:
        return scores
    empty = ~(hits.rows >= 0).any(axis=1)
    scores[empty] = 0.0
    low, high = np.nanmin(scores, axis=1, keepdims=True), np.nanmax(scores, axis=1, keepdims=True)
    if norm == "minmax":
        scores = np.where(high > low, (scores - low) / np.where(high > low, high - low, 1.0), scores * 0 + 1.0)
    elif norm == "zscore":
        deviation = np.where(high > low, np.nanstd(scores, axis=1, keepdims=True), 1.0)
        scores = np.where(high > low, (scores - np.nanmean(scores, axis=1, keepdims=True)) / deviation, scores * 0)
    numbers: npt.NDArray[np.float64] = np.nan_to_num(scores)
    return numbers


def _lowest(values: npt.NDArray[np.float64], hits: Hits) -> npt.NDArray[np.float64]:
    lowest = np.where(hits.rows >= 0, values, np.inf).min(axis=1, initial=np.inf)
    return np.where(np.isfinite(lowest), lowest, 0.0)


def _sum(lists: Sequence[Hits], values: Sequence[npt.NDArray[np.floating[Any]]]) -> Hits:
    """Add up, per query, the values that each list gives its rows."""
    all_rows: list[Rows] = []
    all_scores: list[Floats] = []
    for i in range(len(lists[0].rows)):
        rows = np.concatenate([hits.rows[i] for hits in lists])
        added = np.concatenate([np.asarray(part[i]) for part in values])
        distinct, position = np.unique(rows[rows >= 0], return_inverse=True)
        all_rows.append(distinct)
        all_scores.append(np.bincount(position, weights=added[rows >= 0], minlength=len(distinct)).astype(np.float32))
    return from_scores(all_rows, all_scores)
