"""Exact top-k over tiles, compiled by numba.

Evaluation is term at a time and exhaustive: a list is added to the scores of its tile, and one that has a weight for
every row goes through the processor's vector unit, which is quicker than skipping would be. What reaches the score of
the k-th best so far is kept. All queries go through a tile before the next one: it is read from memory once.
`benchmarks/term_weights.py` has the figures, beside other engines and beside one that skips (`benchmarks/maxscore.py`).

Scores are sums in float32 in the order of the query's terms. They are exact for whole numbers below 2^24, and do not
depend on which tile a row is in, so equal documents tie.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.indexers.tiles import (
    AT_FILLED,
    AT_ROWS,
    AT_WEIGHTS,
    FILLED,
    FIRST,
    ROWS,
    Tiles,
    Words,
    find_block,
)
from retriever.jit import compiled
from retriever.types import Floats, Hits, Mask, Rows

_CHUNK = 64
_TOGETHER, _ROOM = 256, 1 << 20
"""So many queries go through a tile one after the other; fewer where k is large, so that their best are not more."""
_BUFFER = 128
_ABOVE_ZERO = np.finfo(np.float32).smallest_subnormal
_INFINITY = 0x7F80_0000
"""Its bits in float32."""
_NO_KEY = np.iinfo(np.int64).max


class Asked(NamedTuple):
    """Queries: where each ends, int64 [n]; then, one query after the other, term numbers int64 and weights float32."""

    ends: Rows
    terms: Rows
    weights: Floats

    def part(self, first: int, last: int) -> Asked:
        """Some of the queries."""
        begin, end = int(self.ends[first - 1]) if first else 0, int(self.ends[last - 1])
        return Asked(self.ends[first:last] - begin, self.terms[begin:end], self.weights[begin:end])

    def heaviest(self, count: int) -> Asked:
        """The same queries with their `count` heaviest terms only, in their order."""
        sizes = np.diff(self.ends, prepend=0)
        owners = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((-self.weights, owners))
        ranks = np.arange(len(owners)) - np.repeat(self.ends - sizes, sizes)
        kept = np.sort(order[ranks < count])
        ends = np.cumsum(np.minimum(sizes, count))
        return Asked(ends, self.terms[kept], self.weights[kept])


class Scoring(NamedTuple):
    """allowed: bool [rows], or empty for all. table: float32 [256, m], what a posting of weight j adds in a row of
    length class `lengths[row]`, uint8 [rows]; both empty where a posting adds its weight.
    """

    allowed: Mask
    table: Floats
    lengths: npt.NDArray[np.uint8]


class Postings(NamedTuple):
    """Weights by row: ends int64 [rows], where the postings of each end; terms uint32 and weights float32 of all;
    steps: a weight counts as ceil(weight * steps), or as it is where this is 0.
    """

    ends: Rows
    terms: Words
    weights: Floats
    steps: float


def top_k(tiles: tuple[Tiles, Tiles], asked: Asked, k: int, scoring: Scoring) -> Hits:
    """Of each query, the rows with the k best positive scores, and all that tie with the k-th; best first.

    tiles: those on disk and those in memory. The queries are shared among the cores that this process may use.
    """
    return _hits(_shared(asked, lambda part, _: _best_keys(tiles, part, k, scoring)))


def rescore(postings: Postings, asked: Asked, rows: Rows) -> Floats:
    """float32 [n, m]: the full score of each of these rows, int64 [n, m], for its query; -inf for rows of -1."""
    return np.concatenate(_shared(asked, lambda part, place: _rescore(postings, part, rows[place])))


def _shared(asked: Asked, work: Callable[[Asked, slice], Any]) -> list[Any]:
    """What work makes of parts of the queries, which it gets with their places, on as many cores as there may be."""
    queries = len(asked.ends)
    bounds = np.linspace(0, queries, min(queries, len(os.sched_getaffinity(0))) + 1, dtype=int).tolist()
    places = [slice(first, last) for first, last in pairwise(bounds)]
    if len(places) == 1:
        return [work(asked, places[0])]
    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(lambda place: work(asked.part(place.start, place.stop), place), places))


def _best_keys(tiles: tuple[Tiles, Tiles], asked: Asked, k: int, scoring: Scoring) -> Rows:
    """One row a query, best first: numbers that sort as scores do, downwards, and hold the row in their lower half."""
    ends, keys = _search(*tiles, asked, k, scoring)
    counts = np.diff(ends, prepend=0)
    rectangle: Rows = np.full((len(ends), int(counts.max(initial=0))), _NO_KEY)
    rectangle[np.arange(rectangle.shape[1])[None, :] < counts[:, None]] = keys
    rectangle.sort(axis=1)
    return rectangle


def _hits(parts: list[Rows]) -> Hits:
    """Keys as rows and scores, padded to the longest list."""
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=_NO_KEY) for part in parts]
    keys = np.concatenate(padded)
    hits = Hits(keys & 0xFFFF_FFFF, (_INFINITY - (keys >> 32)).astype(np.int32).view(np.float32))
    hits.rows[keys == _NO_KEY], hits.scores[keys == _NO_KEY] = -1, -np.inf
    return hits


@compiled
def _add(tiles: Any, head: Any, at: int, weight: Any, scores: Any, scoring: Any) -> None:
    """Add one block, times the query's weight, to the scores of its tile. No branches: what they would save is less
    than what the processor loses where it guesses wrong.
    """
    place, count, rows = tiles.words[at + 1], np.int64(tiles.words[at + 2]), head[ROWS]
    table, scored, last = scoring.table, len(scoring.table) > 0, np.uint32(scoring.table.shape[1] - 1)
    classes = scoring.lengths[head[FIRST] : head[FIRST] + rows]
    if place & FILLED:
        begin = head[AT_FILLED] + np.int64(place ^ FILLED)
        filled = tiles.weights[begin : begin + rows]
        if scored:
            for i in range(rows):
                scores[i] += weight * table[np.uint32(classes[i]), min(np.uint32(filled[i]), last)]
        else:
            for i in range(rows):
                scores[i] += weight * np.float32(filled[i])
        return
    begin = head[AT_ROWS] + np.int64(place)
    where = tiles.halves[begin : begin + count]
    begin = head[AT_WEIGHTS] + np.int64(place)
    weights = tiles.weights[begin : begin + count]
    if scored:
        for i in range(count):
            row = min(np.uint32(where[i]), np.uint32(rows - 1))
            scores[row] += weight * table[np.uint32(classes[row]), min(np.uint32(weights[i]), last)]
    else:
        for i in range(count):
            scores[where[i]] += weight * np.float32(weights[i])


class _Best(NamedTuple):
    """The best rows so far, int64, and their scores, float32, of some queries: query q has `counts[q]` of them from
    `begins[q]` on, and room for `rooms[q]`; `floors[q]` is what a score must reach. used: how much of the arrays is.
    """

    rows: Rows
    scores: Floats
    begins: Rows
    rooms: Rows
    counts: Rows
    floors: Floats
    used: Rows


@compiled
def _none_yet(queries: int, room: int) -> Any:
    counts, floors = np.zeros(queries, np.int64), np.full(queries, _ABOVE_ZERO)
    rows, scores = np.empty(queries * room, np.int64), np.empty(queries * room, np.float32)
    used = np.full(1, queries * room)
    return _Best(rows, scores, room * np.arange(queries), np.full(queries, room), counts, floors, used)


@compiled
def _widen(best: Any, q: int) -> Any:
    """Move a query's best to where they have twice the room."""
    begin, count, used, room = best.begins[q], best.counts[q], best.used[0], 2 * best.rooms[q]
    rows, scores = best.rows, best.scores
    if used + room > len(rows):
        more = max(room, len(rows))
        rows = np.concatenate((rows, np.empty(more, np.int64)))
        scores = np.concatenate((scores, np.empty(more, np.float32)))
    rows[used : used + count], scores[used : used + count] = rows[begin : begin + count], scores[begin : begin + count]
    best.begins[q], best.rooms[q], best.used[0] = used, room, used + room
    return _Best(rows, scores, best.begins, best.rooms, best.counts, best.floors, best.used)


@compiled
def _kth_best(scores: Any, k: int) -> Any:
    """What exactly the k best scores and those that tie with them reach.

    By halving the range of their bits, which are in the order of the numbers where none is negative.
    """
    bits = scores.view(np.int32)
    low, high = np.int32(0), np.int32(_INFINITY)
    while low < high:
        middle, reaching = low + (high - low + np.int32(1)) // np.int32(2), 0
        for i in range(len(bits)):
            reaching += bits[i] >= middle
        if reaching >= k:
            low = np.int32(middle)
        else:
            high = np.int32(middle - 1)
        if reaching == k:
            break
    return np.full(1, low).view(np.float32)[0]


@compiled
def _raise_floor(best: Any, q: int, k: int) -> None:
    """Drop what is below the k-th best of a query."""
    begin, count, kept = best.begins[q], best.counts[q], 0
    rows, scores = best.rows[begin : begin + count], best.scores[begin : begin + count]
    floor = _kth_best(scores, k)
    for i in range(count):
        score = scores[i]
        rows[kept], scores[kept] = rows[i], score
        kept += score >= floor
    best.counts[q], best.floors[q] = kept, floor


@compiled
def _chunk_maxima(scores: Any, maxima: Any) -> None:
    """The highest score of each chunk, through the bits: whole numbers are what the compiler makes vectors of."""
    bits, highest = scores.view(np.int32), maxima.view(np.int32)
    for c in range(len(maxima)):
        part, most = bits[c * _CHUNK : (c + 1) * _CHUNK], np.int32(0)
        for i in range(len(part)):
            most = max(most, part[i])
        highest[c] = most


@compiled
def _reaching(maxima: Any, floor: Any, chunks: Any) -> int:
    """Note the chunks that reach the floor; says how many."""
    count = 0
    for c in range(len(maxima)):
        chunks[count] = c
        count += maxima[c] >= floor
    return count


@compiled
def _take(scores: Any, maxima: Any, chunks: Any, done: int, first: int, floor: Any, out: Any) -> Any:
    """Append the rows that reach the floor while there is room for a whole chunk; says how many chunks are done and
    how many rows there are.
    """
    rows, values, count = out
    while done < len(chunks) and count + _CHUNK <= len(rows):
        begin = chunks[done] * _CHUNK
        done += 1
        if maxima[begin // _CHUNK] >= floor:
            for i in range(begin, min(begin + _CHUNK, len(scores))):
                rows[count], values[count] = first + i, scores[i]
                count += scores[i] >= floor
    return done, count


@compiled
def _collect(best: Any, q: int, first: int, scores: Any, k: int, maxima: Any, chunks: Any) -> Any:
    """Take over the scores of a tile that are among the best so far of one query."""
    _chunk_maxima(scores, maxima)
    reaching = _reaching(maxima, best.floors[q], chunks)
    if reaching >= k:  # as many rows are at least as good as the k-th best of these
        best.floors[q] = _kth_best(maxima, k)
        reaching = _reaching(maxima, best.floors[q], chunks)
    done = 0
    while True:
        begin, end = best.begins[q], best.begins[q] + best.rooms[q]
        out = best.rows[begin:end], best.scores[begin:end], best.counts[q]
        done, best.counts[q] = _take(scores, maxima, chunks[:reaching], done, first, best.floors[q], out)
        if done == reaching:
            return best
        _raise_floor(best, q, k)
        if 2 * best.counts[q] > best.rooms[q]:  # ties
            best = _widen(best, q)


@compiled
def _scan(tiles: Any, asked: Any, queries: Any, k: int, scoring: Any, scores: Any, best: Any) -> Any:
    """Go through the tiles with some queries: each tile is in the processor's cache for all but the first."""
    first, last = queries
    maxima, chunks = np.empty(len(scores) // _CHUNK, np.float32), np.empty(len(scores) // _CHUNK, np.int64)
    for t in range(len(tiles.heads)):
        head = tiles.heads[t]
        of_tile, of_chunks = scores[: head[ROWS]], maxima[: (head[ROWS] + _CHUNK - 1) // _CHUNK]
        allowed = scoring.allowed[head[FIRST] : head[FIRST] + head[ROWS]]
        begin = asked.ends[first - 1] if first else 0
        for q in range(first, last):
            matched = False
            for j in range(begin, asked.ends[q]):
                at = find_block(tiles, head, asked.terms[j])
                if at >= 0:
                    _add(tiles, head, at, asked.weights[j], scores, scoring)
                    matched = True
            begin = asked.ends[q]
            if matched:
                for i in range(len(allowed)):
                    of_tile[i] = of_tile[i] if allowed[i] else np.float32(0)
                best = _collect(best, q - first, head[FIRST], of_tile, k, of_chunks, chunks)
                of_tile[:] = 0
    return best


@compiled
def _search(mapped: Any, tail: Any, asked: Any, k: int, scoring: Any) -> Any:
    """The answers one after the other, in no order: where each ends, and the keys of `_best_keys`."""
    queries, total, room = len(asked.ends), 0, max(_BUFFER, 4 * k)
    ends, keys = np.zeros(queries, np.int64), np.empty(queries * min(k, 1000), np.int64)
    scores = np.zeros(1 << 16, np.float32)  # whatever 16 bits say
    best = _none_yet(max(1, min(queries, _TOGETHER, _ROOM // room)), room)
    for first in range(0, queries, len(best.counts)):
        last = min(first + len(best.counts), queries)
        best.counts[:], best.floors[:] = 0, _ABOVE_ZERO
        best = _scan(mapped, asked, (first, last), k, scoring, scores, best)
        best = _scan(tail, asked, (first, last), k, scoring, scores, best)
        for q in range(last - first):
            if best.counts[q] > k:
                _raise_floor(best, q, k)
            begin, count = best.begins[q], best.counts[q]
            while total + count > len(keys):
                keys = np.concatenate((keys, np.empty(max(count, len(keys)), np.int64)))
            bits = best.scores[begin : begin + count].view(np.int32)
            for i in range(count):
                keys[total + i] = (_INFINITY - np.int64(bits[i])) << 32 | best.rows[begin + i]
            total += count
            ends[first + q] = total
    return ends, keys[:total]


@compiled
def _rescore(postings: Any, asked: Any, rows: Any) -> Any:
    scores = np.full(rows.shape, -np.inf, np.float32)
    query = np.zeros(asked.terms.max() + 1 if len(asked.terms) else 0, np.float32)
    begin = 0
    for q in range(len(asked.ends)):
        for j in range(begin, asked.ends[q]):
            query[asked.terms[j]] += asked.weights[j]
        for c in range(rows.shape[1]):
            row = rows[q, c]
            if row < 0:
                continue
            total = np.float32(0)
            for p in range(postings.ends[row - 1] if row else 0, postings.ends[row]):
                if postings.terms[p] < len(query):
                    weight = np.float64(postings.weights[p])
                    if postings.steps:
                        weight = np.ceil(weight * postings.steps)
                    total += query[postings.terms[p]] * np.float32(weight)
            scores[q, c] = total
        for j in range(begin, asked.ends[q]):
            query[asked.terms[j]] = 0
        begin = asked.ends[q]
    return scores
