"""Exact search that skips: MaxScore (Turtle and Flood 1995) over the package's own tiles, with a maximum a block.

It is what `retriever/indexers/impact_search.py` would be if it skipped, so that the two differ in this alone. A window
of rows is a tile. In each, the query's lists are ordered by what they can add for what they cost; those whose maxima
together stay below the k-th best score so far are not essential: the others are added up first, and only rows that can
still reach the k-th best are looked up in the rest, the largest maximum first. Lucene's MaxScoreBulkScorer works so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from retriever.indexers.impact_search import _kth_best
from retriever.indexers.tiles import (
    AT_BLOCKS,
    AT_FILLED,
    AT_ROWS,
    AT_WEIGHTS,
    BLOCKS,
    FILLED,
    FIRST,
    ROWS,
    TILE,
    Tiles,
    find_block,
    make_tile,
    view_tiles,
)
from retriever.jit import compiled

_LANES, _LOOK_UP, _LOOK_UP_FILLED = 8, 8, 2
"""What adding and finding cost, in postings added one by one: so many rows of a list that has a weight for every row
are added at once; a row is found in a list at the cost of so many, and in one that has every row.
"""
_ROUNDING = np.float32(1.00001)
_ABOVE_ZERO = np.float32(1e-30)
_CHUNK = 32


class MaxScore:
    """An index in memory of float32 [documents, terms], or of whole numbers below 256 in uint8."""

    def __init__(self, matrix: csr_array, dtype: str, window: int = TILE) -> None:
        heads, blobs, at = [], [], 0
        for first in range(0, matrix.shape[0], window):
            begin, end = matrix.indptr[first], matrix.indptr[min(first + window, matrix.shape[0])]
            ends = (matrix.indptr[first + 1 : first + window + 1] - begin).astype(np.int64)
            terms, weights = matrix.indices[begin:end].astype(np.uint32), matrix.data[begin:end].astype(dtype)
            head, blob = make_tile(ends, terms, weights, first, at)
            heads.append(head)
            blobs.append(blob)
            at += len(blob)
        self.tiles = view_tiles(np.concatenate(heads), np.frombuffer(b"".join(blobs), np.uint8), dtype)
        self._bases = np.cumsum(self.tiles.heads[:, BLOCKS]) - self.tiles.heads[:, BLOCKS]
        self._maxima = _block_maxima(self.tiles, self._bases, int(self.tiles.heads[:, BLOCKS].sum()))
        self.bytes = at + self._maxima.nbytes

    def search(self, queries: csr_array, k: int) -> Any:
        """Rows int64 and scores float32 [n, k] of the best, best first; -1 where there are none."""
        ends, terms, weights = queries.indptr[1:].astype(np.int64), queries.indices.astype(np.int64), queries.data
        return _search(self.tiles, self._maxima, self._bases, (ends, terms, weights), k)


@compiled
def _block_maxima(tiles: Tiles, bases: Any, blocks: int) -> Any:
    maxima = np.empty(blocks, np.float32)
    for t in range(len(tiles.heads)):
        head = tiles.heads[t]
        for b in range(head[BLOCKS]):
            at = head[AT_BLOCKS] + 3 * b
            maxima[bases[t] + b] = _values(tiles, head, at).max()
    return maxima


@compiled
def _filled(tiles: Any, at: int) -> bool:
    return bool(tiles.words[at + 1] & FILLED)


@compiled
def _values(tiles: Any, head: Any, at: int) -> Any:
    place, count = tiles.words[at + 1], np.int64(tiles.words[at + 2])
    if place & FILLED:
        begin, count = head[AT_FILLED] + np.int64(place ^ FILLED), head[ROWS]
    else:
        begin = head[AT_WEIGHTS] + np.int64(place)
    return tiles.weights[begin : begin + count]


@compiled
def _rows(tiles: Any, head: Any, at: int) -> Any:
    begin = head[AT_ROWS] + np.int64(tiles.words[at + 1])
    return tiles.halves[begin : begin + np.int64(tiles.words[at + 2])]


@compiled
def _add(tiles: Any, head: Any, at: int, weight: Any, scores: Any) -> None:
    """Add a whole list."""
    values = _values(tiles, head, at)
    if _filled(tiles, at):
        for i in range(len(values)):
            scores[i] += weight * np.float32(values[i])
    else:
        rows = _rows(tiles, head, at)
        for i in range(len(values)):
            scores[rows[i]] += weight * np.float32(values[i])


@compiled
def _look_up(tiles: Any, head: Any, at: int, weight: Any, rows: Any, scores: Any) -> None:
    """Add a list to the scores of ascending rows alone."""
    values = _values(tiles, head, at)
    if _filled(tiles, at):
        for c in range(len(rows)):
            scores[c] += weight * np.float32(values[rows[c]])
        return
    listed, place = _rows(tiles, head, at), 0
    for c in range(len(rows)):
        step = 1
        while place + step < len(listed) and listed[place + step] <= rows[c]:
            place, step = place + step, 2 * step
        while step > 1:
            step //= 2
            if place + step < len(listed) and listed[place + step] <= rows[c]:
                place += step
        if listed[place] == rows[c]:
            scores[c] += weight * np.float32(values[place])


@compiled
def _passing(scores: Any, least: Any) -> int:
    """How many scores are at least so much."""
    passing = 0
    for i in range(len(scores)):
        passing += scores[i] >= least
    return passing


@compiled
def _reaching(scores: Any, least: Any, found: Any, values: Any) -> int:
    """The rows of a window whose score is at least so much; says how many."""
    count = 0
    for begin in range(0, len(scores), _CHUNK):
        part = scores[begin : begin + _CHUNK]
        if _passing(part, least):
            for i in range(len(part)):
                if part[i] >= least:
                    found[count], values[count] = begin + i, part[i]
                    count += 1
    return count


@compiled
def _window(tiles: Any, head: Any, lists: Any, floor: Any, scores: Any, found: Any, values: Any) -> int:
    """The rows of one window that reach the floor, and their full scores; says how many."""
    ats, weights, bounds = lists
    rest = bounds.sum()
    if rest < floor:
        return 0
    costs, look_up = np.empty(len(ats)), np.float64(0)
    for j in range(len(ats)):
        filled = _filled(tiles, ats[j])
        costs[j] = len(scores) / _LANES if filled else np.float64(tiles.words[ats[j] + 2])
        look_up += _LOOK_UP_FILLED if filled else _LOOK_UP
    order, left = np.argsort(-bounds / costs), costs.sum()
    added, since = 0, 0.0
    while added < len(order):
        if rest < floor and since > 2 * len(scores) / _LANES:
            since = 0.0
            if _passing(scores, floor - rest * _ROUNDING) * look_up < left:
                break
        j = order[added]
        _add(tiles, head, ats[j], weights[j], scores)
        added += 1
        rest = rest - bounds[j] if added < len(order) else np.float32(0)
        since, left = since + costs[j], left - costs[j]
        look_up -= _LOOK_UP_FILLED if _filled(tiles, ats[j]) else _LOOK_UP
    count = _reaching(scores, max(floor - rest * _ROUNDING, _ABOVE_ZERO), found, values)
    scores[:] = 0
    for j in order[added:]:
        _look_up(tiles, head, ats[j], weights[j], found[:count], values[:count])
        rest -= bounds[j]
        count = _keep(found, values, count, floor - rest * _ROUNDING)
    return count


@compiled
def _keep(rows: Any, scores: Any, count: int, least: Any) -> int:
    kept = 0
    for c in range(count):
        if scores[c] >= least:
            rows[kept], scores[kept] = rows[c], scores[c]
            kept += 1
    return kept


@compiled
def _search(tiles: Any, maxima: Any, bases: Any, asked: Any, k: int) -> Any:
    """Tile by tile, all queries in each: a tile stays in the cache meanwhile."""
    ends, terms, weights = asked
    queries, room = len(ends), tiles.heads[:, ROWS].max()
    best_rows, best = np.empty((queries, 4 * k + 128), np.int64), np.empty((queries, 4 * k + 128), np.float32)
    counts, floors = np.zeros(queries, np.int64), np.zeros(queries, np.float32)
    scores, found, values = np.zeros(room, np.float32), np.empty(room, np.int64), np.empty(room, np.float32)
    ats, bounds, given = np.empty(len(terms), np.int64), np.empty(len(terms), np.float32), np.empty_like(weights)
    for t in range(len(tiles.heads)):
        head, begin = tiles.heads[t], 0
        for q in range(queries):
            lists = 0
            for j in range(begin, ends[q]):
                at = find_block(tiles, head, terms[j])
                if at >= 0:
                    most = maxima[bases[t] + (at - head[AT_BLOCKS]) // 3]
                    ats[lists], given[lists], bounds[lists] = at, weights[j], weights[j] * most
                    lists += 1
            begin = ends[q]
            there = ats[:lists], given[:lists], bounds[:lists]
            reached = _window(tiles, head, there, floors[q], scores[: head[ROWS]], found, values)
            counts[q], floors[q] = _take(
                found[:reached] + head[FIRST], values[:reached], best_rows[q], best[q], counts[q], floors[q], k
            )
    out_rows, out_scores = np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32)
    for q in range(queries):
        if counts[q] > k:
            counts[q], _ = _raise_floor(best_rows[q], best[q], counts[q], k)
        order = np.argsort(-best[q, : counts[q]])[:k]
        out_rows[q, : len(order)], out_scores[q, : len(order)] = best_rows[q][order], best[q][order]
    return out_rows, out_scores


@compiled
def _take(found: Any, values: Any, rows: Any, scores: Any, count: int, floor: Any, k: int) -> Any:
    """Take over what reaches the floor; says how many rows there are then, and where the floor is."""
    for c in range(len(found)):
        if values[c] >= floor:
            if count == len(rows):
                count, floor = _raise_floor(rows, scores, count, k)
            rows[count], scores[count] = found[c], values[c]
            count += 1
    if count > k + k // 2:
        count, floor = _raise_floor(rows, scores, count, k)
    return count, floor


@compiled
def _raise_floor(rows: Any, scores: Any, count: int, k: int) -> Any:
    """Keep what reaches the k-th best, no more than fits where many tie; says how many, and how good that is."""
    floor, kept = _kth_best(scores[:count], k), 0
    for c in range(count):
        score = scores[c]
        rows[kept], scores[kept] = rows[c], score
        kept += score >= floor
    return min(kept, len(rows) // 2), floor
