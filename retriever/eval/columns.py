"""The lines of a TREC run as columns: what `retriever.eval.run_files` takes apart and puts in order in machine code.

Everything here is plain or refused. Plain is a line of six columns in ASCII, parted by spaces (or tabs, but not by
exactly two of them, which would make it a line of three columns), all of a query's lines together. The reader of
`retriever.runs` knows all the rest, and says what is wrong with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.jit import compiled
from retriever.types import Floats, Rows

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int32]
Hashes = npt.NDArray[np.uint64]

_SHORTEST = 12
"""Bytes of the shortest line: six columns, and what ends each."""
_TAB, _LINE, _RETURN, _SPACE, _PLUS, _MINUS, _POINT, _ZERO, _E, _BEYOND = 9, 10, 13, 32, 43, 45, 46, 48, 101, 128
_COLUMNS, _QUERY, _DOCUMENT, _SCORE = 6, 0, 2, 4
_OFFSET, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
_EXACT = np.uint64(1 << 53)
_POWERS = 10.0 ** np.arange(23)
"""The powers of ten that float64 holds exactly."""
_MARGIN = 1e-15
"""More than a product of two roundings is off by, relative to it: 2 ** -52."""


class Spans(NamedTuple):
    """Pieces of a text: int32 [n] where each begins and ends, uint64 [n] FNV-1a hashes of the documents."""

    query_at: Places
    query_end: Places
    document_at: Places
    document_end: Places
    score_at: Places
    score_end: Places
    scores: Floats
    hashes: Hashes
    groups: Places


class Judged(NamedTuple):
    """Ids of documents: their bytes end to end, int64 [n + 1] where each begins, uint64 [n] their hashes."""

    text: Bytes
    starts: Rows
    hashes: Hashes


def split(text: Bytes) -> Spans | None:
    """The lines of a text that ends with a line; groups: int32 [g + 1], where each query's lines begin.

    scores: float32, rounded from float64 as trec_eval rounds them; NaN where `score_at`, `score_end` must be read with
    more care. None: not plain.
    """
    room = len(text) // _SHORTEST + 1
    a, b, c, d, e, f = np.empty((6, room), np.int32)
    spans = Spans(a, b, c, d, e, f, np.empty(room, np.float32), np.empty(room, np.uint64), np.empty(room + 1, np.int32))
    lines, groups = _split(text, spans)
    if lines < 0:
        return None
    spans.groups[groups] = lines
    return Spans._make([*(column[:lines] for column in spans[:-1]), spans.groups[: groups + 1]])


def judged(ids: list[bytes]) -> Judged:
    """Ids, for `places` to look for."""
    starts = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(one) for one in ids], out=starts[1:])
    text = np.frombuffer(b"".join(ids) + b"\0", np.uint8)
    return Judged(text, starts, _hash_all(text, starts))


def places(text: Bytes, spans: Spans, wanted: Judged, first: Rows, last: Rows) -> tuple[Rows, Rows] | None:
    """Where the judged documents and the query's own id stand in each ranking, in `retriever.runs.tie_order`.

    first, last: int64 [g], which of `wanted` belong to each group. Returns int64 [sum of last - first], each one's rank
    from 0 or -1, group by group, and int64 [g], the rank of the document that has the query's id. None: a document
    stands twice in a ranking.
    """
    ends = np.cumsum(last - first)
    found, own = np.empty(int(ends[-1]) if len(ends) else 0, np.int64), np.empty(len(first), np.int64)
    whole = _places(text, spans, wanted, first, last, found, own)
    return (found, own) if whole else None


@compiled
def _split(text: Any, spans: Any) -> Any:
    """How many lines and groups; -1 lines where the text is not plain."""
    at, line, groups = 0, 0, 0
    while at < len(text):
        at, columns = _columns(text, at, spans, line)
        if columns < 0:
            return -1, 0
        if columns == 0:
            continue
        spans.hashes[line] = _hash(text, spans.document_at[line], spans.document_end[line])
        spans.scores[line] = _number(text, spans.score_at[line], spans.score_end[line])
        begin, end = spans.query_at[line], spans.query_end[line]
        if line == 0 or not _same(text, begin, end, text, spans.query_at[line - 1], spans.query_end[line - 1]):
            spans.groups[groups] = line
            groups += 1
        line += 1
    return line, groups


@compiled
def _columns(text: Any, at: Any, spans: Any, line: Any) -> Any:
    """Where the next line begins, and how many columns this one has: 6, or 0; -1 where it is not plain."""
    tabs, columns = 0, 0
    at, tabs = _blanks(text, at, tabs)
    while text[at] != _LINE:
        begin, at = at, _word(text, at)
        if at == begin or columns == _COLUMNS:
            return at, -1
        if columns == _QUERY:
            spans.query_at[line], spans.query_end[line] = begin, at
        elif columns == _DOCUMENT:
            spans.document_at[line], spans.document_end[line] = begin, at
        elif columns == _SCORE:
            spans.score_at[line], spans.score_end[line] = begin, at
        columns += 1
        at, tabs = _blanks(text, at, tabs)
    return at + 1, columns if columns == 0 or (columns == _COLUMNS and tabs != 2) else -1


@compiled
def _blanks(text: Any, at: Any, tabs: Any) -> Any:
    """Where the blanks end, and a carriage return that ends a line; how many tabs there have been."""
    while text[at] == _SPACE or text[at] == _TAB:
        tabs += text[at] == _TAB
        at += 1
    return at + (text[at] == _RETURN and text[at + 1] == _LINE), tabs


@compiled
def _word(text: Any, at: Any) -> Any:
    """Where a run of visible ASCII characters ends."""
    while _SPACE < text[at] < _BEYOND:
        at += 1
    return at


@compiled
def _number(text: Any, at: Any, end: Any) -> Any:
    """A decimal number in float32, by way of float64; NaN where it is none, or where the way is not certain.

    Up to 2 ** 53 times or over an exact power of ten is one rounding, hence float64's own (W. D. Clinger, "How to read
    floating point numbers accurately", PLDI 1990). Beyond, the float64 is known to within a margin: where all of the
    margin rounds to one float32, that is it.
    """
    negative = text[at] == _MINUS
    at += negative or text[at] == _PLUS
    digits, scale, seen, point = 0, 0, 0, False
    mantissa: Any = np.uint64(0)
    while at < end:
        digit = np.int64(text[at]) - _ZERO
        if 0 <= digit <= 9:
            if digits < 19:
                mantissa = mantissa * np.uint64(10) + np.uint64(digit)
                digits += mantissa > 0
                scale -= point
            else:
                scale += not point
            seen += 1
        elif text[at] == _POINT and not point:
            point = True
        else:
            break
        at += 1
    if seen == 0:
        return np.float32(np.nan)
    if at < end and (text[at] | 32) == _E:
        shift = _exponent(text, at + 1, end)
        scale, at = scale + shift, end
    if at < end or abs(scale) > 22:
        return np.float32(np.nan)
    value = float(mantissa)
    value = value / _POWERS[-scale] if scale < 0 else value * _POWERS[scale]
    value = -value if negative else value
    if mantissa > _EXACT and np.float32(value * (1 - _MARGIN)) != np.float32(value * (1 + _MARGIN)):
        return np.float32(np.nan)
    return np.float32(value)


@compiled
def _exponent(text: Any, at: Any, end: Any) -> Any:
    """The whole number after an e; one that no number here may have where it is not plain."""
    negative = at < end and text[at] == _MINUS
    at += at < end and (text[at] == _MINUS or text[at] == _PLUS)
    if at >= end or end - at > 3:
        return 10_000
    value: Any = 0
    for place in range(at, end):
        if text[place] < _ZERO or text[place] > _ZERO + 9:
            return 10_000
        value = value * 10 + np.int64(text[place]) - _ZERO
    return -value if negative else value


@compiled
def _places(text: Any, spans: Any, wanted: Any, first: Any, last: Any, found: Any, own: Any) -> Any:
    """False where a document stands twice in a ranking; else True, with `found` and `own` filled."""
    out, room, order, rank = 0, np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int32)
    for group in range(len(first)):
        begin, end = spans.groups[group], spans.groups[group + 1]
        size = _size(end - begin)
        if size > len(room):
            room, order, rank = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
        table = room[:size]
        if not _fill(table, text, spans, begin, end):
            return False
        at, stop = spans.query_at[begin], spans.query_end[begin]
        own[group] = table[_slot(table, text, spans, _hash(text, at, stop), text, at, stop)]
        some, stop = own[group] >= 0, out + last[group] - first[group]
        for one in range(first[group], last[group]):
            slot = _slot(
                table, text, spans, wanted.hashes[one], wanted.text, wanted.starts[one], wanted.starts[one + 1]
            )
            found[out + one - first[group]] = table[slot]
            some |= table[slot] >= 0
        if some:
            _rank(text, spans, begin, order[: end - begin], rank)
            own[group] = rank[own[group] - begin] if own[group] >= 0 else -1
            for one in range(out, stop):
                found[one] = rank[found[one] - begin] if found[one] >= 0 else -1
        out = stop
    return True


@compiled
def _size(lines: Any) -> Any:
    """A power of 2 that leaves a table half empty."""
    size = 4
    while size < 2 * lines:
        size *= 2
    return size


@compiled
def _fill(table: Any, text: Any, spans: Any, begin: Any, end: Any) -> Any:
    """Put the lines' documents in an open hash table; False where one stands there already."""
    table[:] = -1
    for line in range(begin, end):
        at, stop = spans.document_at[line], spans.document_end[line]
        slot = _slot(table, text, spans, spans.hashes[line], text, at, stop)
        if table[slot] >= 0:
            return False
        table[slot] = line
    return True


@compiled
def _slot(table: Any, text: Any, spans: Any, hashed: Any, other: Any, at: Any, end: Any) -> Any:
    """Where in the table a document lies, or the free slot where it would."""
    mask = np.uint64(len(table) - 1)
    slot = (hashed ^ (hashed >> np.uint64(32))) & mask
    while table[slot] >= 0:
        line = table[slot]
        if spans.hashes[line] == hashed and _same(
            text, spans.document_at[line], spans.document_end[line], other, at, end
        ):
            break
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _rank(text: Any, spans: Any, begin: Any, order: Any, rank: Any) -> Any:
    """Each line's place in the tie order: only lines of one score are sorted, where the scores already fall."""
    falling = True
    for place in range(len(order)):
        order[place] = begin + place
        falling &= place == 0 or spans.scores[begin + place - 1] >= spans.scores[begin + place]
    start = 0
    for place in range(1, len(order) + 1):
        if place == len(order) or (falling and spans.scores[order[place - 1]] != spans.scores[order[place]]):
            _heap_sort(text, spans, order[start:place])
            start = place
    for place in range(len(order)):
        rank[order[place] - begin] = place


@compiled
def _heap_sort(text: Any, spans: Any, order: Any) -> Any:
    """The worst is on top of the heap, and goes last."""
    for root in range(len(order) // 2 - 1, -1, -1):
        _sift(text, spans, order, root)
    for last in range(len(order) - 1, 0, -1):
        order[0], order[last] = order[last], order[0]
        _sift(text, spans, order[:last], 0)


@compiled
def _sift(text: Any, spans: Any, heap: Any, root: Any) -> Any:
    while 2 * root + 1 < len(heap):
        child = 2 * root + 1
        if child + 1 < len(heap) and _before(text, spans, heap[child], heap[child + 1]):
            child += 1
        if _before(text, spans, heap[child], heap[root]):
            return
        heap[root], heap[child] = heap[child], heap[root]
        root = child


@compiled
def _before(text: Any, spans: Any, one: Any, other: Any) -> Any:
    """Whether a line comes before another: by score, then by id, both descending."""
    if spans.scores[one] != spans.scores[other]:
        return spans.scores[one] > spans.scores[other]
    at, other_at = spans.document_at[one], spans.document_at[other]
    length, other_length = spans.document_end[one] - at, spans.document_end[other] - other_at
    for place in range(min(length, other_length)):
        if text[at + place] != text[other_at + place]:
            return text[at + place] > text[other_at + place]
    return length > other_length


@compiled
def _same(text: Any, at: Any, end: Any, other: Any, other_at: Any, other_end: Any) -> Any:
    if end - at != other_end - other_at:
        return False
    for place in range(end - at):  # noqa: SIM110 - what numba compiles
        if text[at + place] != other[other_at + place]:
            return False
    return True


@compiled
def _hash(text: Any, at: Any, end: Any) -> Any:
    """FNV-1a in 64 bits (Fowler, Noll, Vo)."""
    hashed = _OFFSET
    for place in range(at, end):
        hashed = (hashed ^ np.uint64(text[place])) * _PRIME
    return hashed


@compiled
def _hash_all(text: Any, starts: Any) -> Any:
    hashes = np.empty(len(starts) - 1, np.uint64)
    for one in range(len(hashes)):
        hashes[one] = _hash(text, starts[one], starts[one + 1])
    return hashes
