"""The inverted index on disk: postings in tiles.

A tile holds up to `TILE` consecutive rows, so that their scores fit in a core's cache. Its postings lie by term: a list
of 16-bit rows within the tile and a list of weights, or, where a term is in a quarter of the rows or more, one weight
for every row. A tile is complete in itself: an index grows by tiles, and nothing is merged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.jit import compiled
from retriever.types import Floats, Rows

TILE = 32_768
FILLED = np.uint32(1 << 31)
"""Marks the place of a block that has a weight for every row."""
_DENSE = 4
"""A term in one of so many rows of a tile, or in more, has a weight for every row."""
_ALIGN = 8

Words = npt.NDArray[np.uint32]


class Tiles(NamedTuple):
    """Tiles as one run of bytes, seen as 32-bit words, as 16-bit halves, and as weights (uint8, uint16 or float32).

    heads: int64 [tiles, 10]: first row, rows, blocks, buckets, the shift that makes a term its bucket, then where its
    parts begin, each in units of its type: buckets, directory (three words a block: term, place, postings), rows,
    weights, filled weights.
    """

    heads: Rows
    words: Words
    halves: npt.NDArray[np.uint16]
    weights: npt.NDArray[Any]


HEAD = 10
FIRST, ROWS, BLOCKS, BUCKETS, SHIFT, AT_BUCKETS, AT_BLOCKS, AT_ROWS, AT_WEIGHTS, AT_FILLED = range(HEAD)


class Form(NamedTuple):
    """How weights stand in the tiles: dtype, and as which whole numbers: ceil(weight * steps); steps 0: as they are.

    With `bits` and `range`, steps = 2 ** bits / range: the rounding of uniCOIL and DeepImpact. Nothing but 0 becomes 0,
    and `range` itself becomes 2 ** bits, one more than fits in so many bits: it is kept, in a wider type.
    """

    dtype: str
    steps: float

    def of(self, weights: Floats) -> npt.NDArray[Any]:
        """The weights in this form."""
        return quantised(weights, self.steps).astype(self.dtype)


def quantised(weights: Floats, steps: float) -> Floats:
    """float32 [n], whole numbers: ceil(weight * steps), computed in float64; steps 0: the weights themselves."""
    return np.ceil(weights.astype(np.float64) * steps).astype(np.float32) if steps else weights


def make_tile(ends: Rows, terms: Words, weights: npt.NDArray[Any], first: int, at: int) -> tuple[Rows, bytes]:
    """The head and the bytes of one tile.

    ends: int64 [rows], where each row's postings end; terms, weights: theirs, in the tile's own type of weight;
    first: the number of its first row; at: how many bytes of tiles come before.
    """
    block_terms, places, counts, rows, sparse, filled = _transpose(ends, terms, weights)
    highest = int(block_terms[-1]) if len(block_terms) else 0
    shift = max(0, highest.bit_length() - len(block_terms).bit_length())  # about as many buckets as blocks
    buckets = np.searchsorted(block_terms >> np.uint32(shift), np.arange((highest >> shift) + 2))
    directory = np.stack([block_terms, places, counts], axis=1).astype(np.uint32)
    parts = [buckets.astype(np.uint32), directory, rows, sparse, filled]
    begins, blob = [], bytearray()
    for part in parts:
        begins.append((at + len(blob)) // part.itemsize)
        blob += part.tobytes()
        blob += bytes(-len(blob) % _ALIGN)
    head = [first, len(ends), len(block_terms), len(buckets) - 1, shift, *begins]
    return np.array([head], dtype=np.int64), bytes(blob)


def view_tiles(heads: Rows, blob: npt.NDArray[np.uint8], dtype: npt.DTypeLike, first: int = 0) -> Tiles:
    """Tiles over their bytes, of the rows from `first` on, checked: damage must not lead a search out of its memory.

    Raises: ValueError for heads or directories that point outside.
    """
    tiles = Tiles(_frozen(heads), _frozen(blob.view("u4")), _frozen(blob.view("u2")), _frozen(blob.view(dtype)))
    if not _sound(tiles, first):
        raise ValueError("its directory points outside the file")
    return tiles


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Read-only and a plain array, as maps of files are: numba then compiles one function for both."""
    plain = array.view(np.ndarray)
    plain.flags.writeable = False
    return plain


@compiled
def _transpose(ends: Any, terms: Any, weights: Any) -> Any:
    """Postings by row into postings by term: a counting sort over the terms that occur."""
    rows, postings = len(ends), ends[-1] if len(ends) else 0
    highest = 0
    for p in range(postings):
        highest = max(highest, terms[p])
    slots = np.zeros(highest + 1, np.int64)
    for p in range(postings):
        slots[terms[p]] += 1
    blocks = np.count_nonzero(slots)
    block_terms, places, counts = np.empty(blocks, np.uint32), np.empty(blocks, np.uint32), np.empty(blocks, np.uint32)
    sparse = filled = block = 0
    for term in range(highest + 1):
        count = slots[term]
        if count:
            block_terms[block], counts[block] = term, count
            if count * _DENSE >= rows:
                places[block] = np.uint32(filled) | FILLED
                filled += rows
            else:
                places[block] = sparse
                sparse += count
            slots[term] = block
            block += 1
    out_rows, out_weights = np.empty(sparse, np.uint16), np.empty(sparse, weights.dtype)
    out_filled = np.zeros(filled, weights.dtype)
    done = np.zeros(blocks, np.int64)
    begin = 0
    for row in range(rows):
        for p in range(begin, ends[row]):
            block = slots[terms[p]]
            if places[block] & FILLED:
                out_filled[np.int64(places[block] ^ FILLED) + row] = weights[p]
            else:
                place = np.int64(places[block]) + done[block]
                out_rows[place], out_weights[place] = row, weights[p]
                done[block] += 1
        begin = ends[row]
    return block_terms, places, counts, out_rows, out_weights, out_filled


@compiled
def _sound(tiles: Any, first: int) -> bool:
    """Whether the tiles follow each other and every offset stays within its array."""
    for t in range(len(tiles.heads)):
        head = tiles.heads[t]
        if head.min() < 0 or head[FIRST] != first or head[ROWS] > TILE or head[SHIFT] > 32:
            return False
        first += head[ROWS]
        blocks = head[AT_BLOCKS] + 3 * head[BLOCKS]
        if head[AT_BUCKETS] + head[BUCKETS] + 1 > len(tiles.words) or blocks > len(tiles.words):
            return False
        before = np.uint32(0)
        for b in range(head[BUCKETS] + 1):
            bound = tiles.words[head[AT_BUCKETS] + b]
            if bound < before or bound > head[BLOCKS]:
                return False
            before = bound
        for at in range(head[AT_BLOCKS], blocks, 3):
            if not _sound_block(tiles, head, at):
                return False
    return True


@compiled
def _sound_block(tiles: Any, head: Any, at: int) -> bool:
    place, count = tiles.words[at + 1], np.int64(tiles.words[at + 2])
    if count > head[ROWS]:
        return False
    if place & FILLED:
        return bool(head[AT_FILLED] + np.int64(place ^ FILLED) + head[ROWS] <= len(tiles.weights))
    rows, weights = head[AT_ROWS] + np.int64(place) + count, head[AT_WEIGHTS] + np.int64(place) + count
    return bool(rows <= len(tiles.halves) and weights <= len(tiles.weights))


@compiled
def find_block(tiles: Any, head: Any, term: int) -> int:
    """Where a term's block stands in the words; -1 where the tile has none."""
    bucket = term >> head[SHIFT]
    if bucket >= head[BUCKETS]:
        return -1
    low = np.int64(tiles.words[head[AT_BUCKETS] + bucket])
    high = np.int64(tiles.words[head[AT_BUCKETS] + bucket + 1])
    for b in range(low, high):
        at = head[AT_BLOCKS] + 3 * b
        if tiles.words[at] == term:
            return int(at)
    return -1


@compiled
def block_sums(tiles: Any, terms: Any) -> Any:
    """float64 [n]: the summed weights of the postings of each of these terms, int64 [n]."""
    sums = np.zeros(len(terms))
    for i in range(len(terms)):
        for t in range(len(tiles.heads)):
            head = tiles.heads[t]
            at = find_block(tiles, head, terms[i])
            if at < 0:
                continue
            place, count = tiles.words[at + 1], np.int64(tiles.words[at + 2])
            if place & FILLED:
                begin, count = head[AT_FILLED] + np.int64(place ^ FILLED), head[ROWS]
            else:
                begin = head[AT_WEIGHTS] + np.int64(place)
            for p in range(begin, begin + count):
                sums[i] += tiles.weights[p]
    return sums


def document_frequencies(tiles: Tiles, terms: int) -> Rows:
    """int64 [terms]: in how many rows each term is."""
    df = np.zeros(terms, dtype=np.int64)
    for head in tiles.heads:
        begin = head[AT_BLOCKS]
        directory = tiles.words[begin : begin + 3 * head[BLOCKS]].reshape(-1, 3)
        df[directory[:, 0]] += directory[:, 2]
    return df
