"""The stream of documents that every reader feeds, and the one loop that skips bad records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from retriever.errors import InputError
from retriever.types import Document

Record = TypeVar("Record")


class Corpus:
    """The documents of one source. Each iteration starts again; only one may run at a time.

    path, line: of the document yielded last. The line is where its record begins; in Parquet and `ir:` it is the
    record's number, from 1; for a text file, which is one document, None.
    skipped: bad records handed to `on_bad` so far in this iteration.
    bytes_read, bytes_total: of the files as they lie on disk, so compressed; None where unknown.
    """

    def __init__(
        self,
        source: str | Path,
        read: Callable[[Corpus], Iterator[Document]],
        *,
        what: str = "documents",
        on_bad: Callable[[InputError], None] | None = None,
        bytes_total: int | None = None,
    ) -> None:
        self.source, self.bytes_total = source, bytes_total
        self._read, self._what, self._on_bad = read, what, on_bad
        self._rewind()

    def _rewind(self) -> None:
        self.path: str | Path = self.source
        self.line: int | None = None
        self.skipped = 0
        self.bytes_read = None if self.bytes_total is None else 0

    def __iter__(self) -> Iterator[Document]:
        """Raises InputError at the first bad record, unless there is an `on_bad`; and where no document is left."""
        self._rewind()
        documents = self._read(self)
        first = next(documents, None)
        if first is None:
            reason = f"; all {self.skipped} records are bad and were skipped" if self.skipped else ""
            raise InputError(f"holds no {self._what}{reason}", self.source)
        yield first
        yield from documents

    def bad(self, error: InputError) -> None:
        """Tells of a bad record at the present place: raises the error, or counts it and hands it to `on_bad`."""
        placed = InputError(error.message, self.path, error.line or self.line)
        if self._on_bad is None:
            raise placed from None
        self.skipped += 1
        self._on_bad(placed)

    def make(
        self, records: Iterable[tuple[int | None, Record]], document: Callable[[Record], Document | None]
    ) -> Iterator[Document]:
        """The documents of numbered records.

        `document` returns None for a blank record, and raises InputError, which needs no place, for a bad one.
        """
        for self.line, record in records:
            try:
                made = document(record)
            except InputError as error:
                self.bad(error)
            else:
                if made is not None:
                    yield made
