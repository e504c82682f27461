"""Sorting more postings than memory should hold: what turns documents into postings lists, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import TemporaryFile
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.types import Rows

_ENTRY = np.dtype([("key", "<i4"), ("value", "<i4"), ("weight", "<i4")])
Entries = np.ndarray[tuple[int], np.dtype[np.void]]
RUN = 8_000_000
"""Postings sorted at once, in some 300 MB."""
BLOCK = 1_000_000
"""Postings handed out at once; more where one key has more."""


class Block(NamedTuple):
    """All postings of some keys, int32 [n] each: by key, and by the order of adding where keys are equal."""

    keys: npt.NDArray[np.int32]
    values: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int32]


class Sorter:
    """Postings in any order, given back by key; a context manager, whose temporary file goes with it."""

    def __init__(self) -> None:
        self._held: list[Entries] = []
        self._count = 0
        self._runs: list[int] = []
        self._counts = np.zeros(0, dtype=np.int64)
        self._resources = ExitStack()

    def __enter__(self) -> Sorter:
        self._file = self._resources.enter_context(TemporaryFile())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._resources.close()

    def add(self, keys: Rows, values: Rows | int, weights: Rows) -> None:
        """Take postings; keys, from 0 on, values (or one for all) and weights are int [n]."""
        entries = np.empty(len(keys), dtype=_ENTRY)
        entries["key"], entries["value"], entries["weight"] = keys, values, weights
        self._held.append(entries)
        self._count += len(entries)
        if self._count >= RUN:
            self._spill()

    def blocks(self, rank: Rows | None = None) -> Iterator[Block]:
        """The postings by key; rank: int [keys], what to sort by in the place of each key, and to give back."""
        self._spill()
        runs = [self._sorted(start, stop, rank) for start, stop in zip([0, *self._runs], self._runs, strict=False)]
        counts = self._counts if rank is None else _moved(self._counts, rank)
        begins = [0] * len(runs)
        for stop in _cuts(counts):
            ends = [int(np.searchsorted(run["key"], stop)) for run in runs]
            parts = [run[begin:end] for run, begin, end in zip(runs, begins, ends, strict=True)]
            joined = np.concatenate(parts)
            joined = joined[np.argsort(joined["key"], kind="stable")]
            yield Block(joined["key"], joined["value"], joined["weight"])
            begins = ends

    def _spill(self) -> None:
        """Write what is held to the file, as a run."""
        if not self._held:
            return
        entries = np.concatenate(self._held)
        self._file.write(entries.tobytes())
        self._runs.append((self._runs[-1] if self._runs else 0) + len(entries))
        counts = np.bincount(entries["key"], minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts, self._held, self._count = counts, [], 0

    def _sorted(self, start: int, stop: int, rank: Rows | None) -> Entries:
        """A run in the file, sorted where it lies, with its keys replaced by their ranks."""
        self._file.flush()
        run = np.memmap(self._file, _ENTRY, "r+", start * _ENTRY.itemsize, (stop - start,)).view(np.ndarray)
        entries = run.copy()
        if rank is not None:
            entries["key"] = rank[entries["key"]]
        run[:] = entries[np.argsort(entries["key"], kind="stable")]
        return run


def _moved(counts: Rows, rank: Rows) -> Rows:
    moved = np.zeros(len(counts), dtype=np.int64)
    moved[rank[: len(counts)]] = counts
    return moved


def _cuts(counts: Rows) -> Iterator[int]:
    """Where to cut the keys, so that a block has at most BLOCK postings, or one key."""
    ends = np.cumsum(counts)
    key, done = 0, 0
    while key < len(counts):
        key = max(key + 1, int(np.searchsorted(ends, done + BLOCK, side="right")))
        done = int(ends[key - 1])
        yield key
