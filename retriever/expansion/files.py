"""Expansion files: made once, kept beside the corpus, read by every view that asks for them.

    {"expansion": "doc2query(MODEL)", "config": {...}, "model": {...}}
    {"id": "d1", "sha256": "0f1e2d3c4b5a6978", "expansion": ["first query", "second query"]}

The first line is the header and identifies the file; the others are documents (`records.py`), and more may come in.
A file from elsewhere needs an "expansion" in its header and may leave out "sha256".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from retriever.errors import IndexMismatchError, InputError
from retriever.expansion.records import Record, Records, fingerprint, in_batches
from retriever.types import Document

_READ = 1024
"""Documents whose expansions are in memory at once."""


class ExpansionFile:
    """An expansion file, opened for a view."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._records = Records(self.path, "expansion")
        self.header: Mapping[str, Any] = self._records.header

    @property
    def digest(self) -> str:
        """SHA-256 of the header: what the file is, however many documents it holds."""
        return hashlib.sha256(json.dumps(self.header, sort_keys=True).encode()).hexdigest()

    def __iter__(self) -> Iterator[Record]:
        """All that it holds, in its order."""
        return iter(self._records)

    def records(self, documents: Sequence[Document]) -> list[Record]:
        """What the file holds of each document.

        Raises: InputError naming the document that it does not hold, or holds with another text.
        """
        found = self._records.find([(document.id, fingerprint(document.contents)) for document in documents])
        for document, (known, record) in zip(documents, found, strict=True):
            if record is None:
                raise self._missing(document, known=known)
        return [record for _, record in found if record is not None]

    def texts(self, documents: Sequence[Document]) -> list[str]:
        """What a view indexes of each: its contents, a space, and its expansions joined by spaces.

        Raises: InputError as `records` does.
        """
        pairs = zip(documents, self.records(documents), strict=True)
        return [" ".join((document.contents, *record["expansion"])) for document, record in pairs]

    def _missing(self, document: Document, *, known: bool) -> InputError:
        reason = "with another text than it has here" if known else "not"
        command = f'`retriever expand CORPUS {self.path} --with "{self.header["expansion"]}"`'
        if "filter" in self.header:
            command = (
                f'`retriever filter-expansion CORPUS EXPANSIONS {self.path} --with "{self.header["filter"]}" '
                f"--threshold {self.header['threshold']}`"
            )
        return InputError(
            f"holds document {document.id!r} {reason}; bring it in by {command}, with the corpus that is indexed: what "
            "is done already is kept",
            self.path,
        )


def expanded(documents: Sequence[Document], expansion: str | None) -> list[str]:
    """What a view indexes of each document: its contents, and its expansions from the file `expansion`, if any.

    Raises: InputError as `ExpansionFile.texts` does.
    """
    return [document.contents for document in documents] if expansion is None else _opened(expansion).texts(documents)


def each_expanded(documents: Iterable[Document], expansion: str | None) -> Iterator[tuple[Document, str]]:
    """Documents with what a view indexes of them, for a stream of any length.

    Raises: InputError as `ExpansionFile.texts` does.
    """
    for batch in in_batches(documents, _READ):
        yield from zip(batch, expanded(batch, expansion), strict=True)


def expansion_identity(expansion: str | None) -> dict[str, str] | None:
    """What a view keeps of its expansion file, in `ViewState.data`, to know it again; None where it has none."""
    if expansion is None:
        return None
    file = _opened(expansion)
    return {"made_by": str(file.header["expansion"]), "header": file.digest}


def check_expansion(view: str, kept: Mapping[str, str] | None, expansion: str | None) -> None:
    """Refuse an expansion file that is not the one that a view keeps the identity of. It may have grown since.

    Raises: IndexMismatchError naming both.
    """
    now = expansion_identity(expansion)
    if now != kept:
        old, new = (f"{each['made_by']} ({each['header']:.8})" if each else "no file" for each in (kept, now))
        raise IndexMismatchError(
            f"view {view!r} holds the expansions of {old}, and {expansion} has those of {new}. Give the file that the "
            "view was made with, or make a new index."
        )


def _opened(expansion: str) -> ExpansionFile:
    """The file as it is now; opened once for all the calls that follow, while nobody writes to it."""
    try:
        now = os.stat(expansion)
    except OSError:
        now = None
    return _open_once(expansion, now and (now.st_ino, now.st_size, now.st_mtime_ns))


@lru_cache(maxsize=2)
def _open_once(path: str, _state: tuple[int, ...] | None) -> ExpansionFile:
    return ExpansionFile(path)
