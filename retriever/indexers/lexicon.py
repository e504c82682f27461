"""The terms of an index and their numbers, in two files that only grow.

`terms` holds the terms' UTF-8 one after the other, `entries` where each ends and its 64-bit hash. Terms are found by
binary search over the hashes, so opening costs a sort of them and memory 16 bytes a term, not a dictionary of strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np

from retriever.errors import CorruptIndexError
from retriever.store.files import FileRecord, grow, mapped
from retriever.types import Rows

_ENTRY = np.dtype([("end", "<i8"), ("hash", "<u8")])
_UNSEEN = -1
LEXICON = ("terms.bin", "entries.bin")


class Lexicon:
    """Terms numbered 0, 1, 2, ... in the order of their coming."""

    def __init__(self, folder: Path, files: dict[str, FileRecord]) -> None:
        """files: what is committed of "terms.bin" and "entries.bin", by name."""
        self._folder, self.files = folder, files

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, terms: Sequence[str]) -> Rows:
        """int64 [n]: the number of each term, -1 where it has none."""
        return self._find([term.encode() for term in terms])

    def add(self, terms: Sequence[str]) -> Rows:
        """int64 [n]: the numbers of distinct terms; those that have none yet get the next ones, durably."""
        encoded = [term.encode() for term in terms]
        numbers = self._find(encoded)
        new = np.flatnonzero(numbers == _UNSEEN)
        if len(new):
            numbers[new] = np.arange(len(self), len(self) + len(new))
            self._append([encoded[i] for i in new.tolist()])
        return numbers

    def text(self, numbers: Rows) -> list[str]:
        """The terms with these numbers."""
        try:
            return [term.decode() for term in self._encoded(numbers)]
        except UnicodeDecodeError:
            path = self._folder / "terms.bin"
            raise CorruptIndexError(f"{path}: holds no UTF-8; `retriever verify` tells more") from None

    def _encoded(self, numbers: Rows) -> list[bytes]:
        ends = self._entries["end"]
        begins = np.where(numbers > 0, ends[numbers - 1], 0)
        bounds = zip(begins.tolist(), ends[numbers].tolist(), strict=True)
        return [bytes(self._text[begin:end]) for begin, end in bounds]

    def _append(self, terms: Sequence[bytes]) -> None:
        begin = int(self._entries["end"][-1]) if len(self) else 0
        entries = np.empty(len(terms), dtype=_ENTRY)
        entries["end"] = begin + np.cumsum([len(term) for term in terms])
        entries["hash"] = _hashes(terms)
        for name, data in (("terms.bin", b"".join(terms)), ("entries.bin", entries.tobytes())):
            self.files[name] = grow(self._folder / name, data, self.files.get(name))
        for cached in ("_entries", "_text", "_order"):
            self.__dict__.pop(cached, None)

    def _find(self, terms: Sequence[bytes]) -> Rows:
        numbers = np.full(len(terms), _UNSEEN, dtype=np.int64)
        hashes, order = self._order
        wanted = _hashes(terms)
        places, sought = np.searchsorted(hashes, wanted), np.arange(len(terms))
        while True:
            sought = sought[places[sought] < len(hashes)]
            sought = sought[hashes[places[sought]] == wanted[sought]]
            if not len(sought):
                return numbers
            found = order[places[sought]]
            pairs = zip(self._encoded(found), sought.tolist(), strict=True)
            same = np.array([held == terms[i] for held, i in pairs])
            numbers[sought[same]] = found[same]
            sought = sought[~same]  # two terms may share a hash
            places[sought] += 1

    @cached_property
    def _entries(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        return mapped(self._folder / "entries.bin", self.files.get("entries.bin"), _ENTRY)

    @cached_property
    def _text(self) -> memoryview:
        text = mapped(self._folder / "terms.bin", self.files.get("terms.bin"), np.dtype(np.uint8))
        return text.data

    @cached_property
    def _order(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint64]], Rows]:
        hashes = np.asarray(self._entries["hash"])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order


def _hashes(terms: Sequence[bytes]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.frombuffer(b"".join(blake2b(term, digest_size=8).digest() for term in terms), dtype="<u8")
