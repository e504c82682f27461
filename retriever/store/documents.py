"""Documents on disk: a row of immutable SQLite files, each holding a range of row numbers.

Why not one growing database: a file that never changes after its commit can be checksummed whole, read without locks
(`immutable=1`, also from read-only media) while a writer works, and never needs recovery after a kill.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retriever.errors import CorruptIndexError
from retriever.store.files import FileRecord, record, replacing
from retriever.store.where import compile_where
from retriever.types import Document, Mask, Rows

FOLDER = "documents"
MERGE = 8
"""So many neighbouring segments of like size become one: lookups stay logarithmic in the number of commits."""

_BATCH = 10_000
_TABLE = "CREATE TABLE documents (row INTEGER PRIMARY KEY, id TEXT NOT NULL, title TEXT, text TEXT, metadata TEXT)"
Segment = tuple[str, int, int]

_FAILURES = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_DAMAGED_VALUES = ("Could not decode to UTF-8", "malformed JSON", "no such table", "no such column")


def write_segment(
    folder: Path, rows: Iterable[tuple[int, Document]], start: int, stop: int, generation: int
) -> tuple[Segment, FileRecord]:
    """Write documents under their row numbers as one immutable file; durable when this returns."""
    lines = ((row, d.id, d.title, d.text, _json(d.metadata) if d.metadata else "{}") for row, d in rows)
    name = f"{FOLDER}/{start:010d}-{stop:010d}-{generation:06d}.sqlite"
    with replacing(folder / name) as temporary:
        temporary.unlink(missing_ok=True)
        with _machine_failures(temporary):
            _write(temporary, lines)
    return (name, start, stop), record(folder / name)


def _write(path: Path, lines: Iterable[tuple[int, str, str, str, str]]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", _TABLE, "BEGIN"):
            connection.execute(statement)
        connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", lines)
        connection.execute("CREATE INDEX by_id ON documents (id)")
        connection.execute("COMMIT")
    finally:
        connection.close()


def unstorable(document: Document) -> str:
    """Why a document cannot be stored and found again; nothing where it can."""
    for what in ("id", "title", "text"):
        value = getattr(document, what)
        if not isinstance(value, str):
            return f"document {document.id!r}: the {what} is {value!r:.40}, expected text"
        try:
            value.isascii() or value.encode()
        except UnicodeEncodeError:
            return f"document {document.id!r}: the {what} holds a lone surrogate, which is no character"
    if not document.id or "\0" in document.id:
        return f"the document id {document.id!r} is empty or holds a NUL character"
    try:
        if document.metadata:
            _json(document.metadata).encode()
    except (TypeError, ValueError) as problem:
        return f"document {document.id!r}: its metadata is not JSON: {problem}"
    return ""


def _json(metadata: Mapping[str, Any]) -> str:
    """As SQLite reads it: it finds no key with an escape in it, and knows no NaN."""
    return json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)


def due_merge(segments: Sequence[Segment]) -> int:
    """How many of the last segments to merge now: MERGE of them once they are of like size (0: none)."""
    tail = segments[-MERGE:]
    sizes = [stop - start for _, start, stop in tail]
    return MERGE if len(tail) == MERGE and max(sizes) < MERGE * max(1, sizes[-1]) else 0


class Documents:
    """Reads the documents of one generation. Opened files stay readable when a writer removes them."""

    def __init__(self, folder: Path, segments: Sequence[Segment], deleted: Mask) -> None:
        self._segments = list(segments)
        self._paths = [folder / name for name, _, _ in segments]
        self._connections = [_open(path) for path in self._paths]
        self._closing = weakref.finalize(self, _close, self._connections)
        self._deleted = deleted
        self._ids: list[str] | None = None

    def close(self) -> None:
        """Let go of the files; happens by itself when nobody uses them any more."""
        self._closing()

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """The rows of those ids that are in the index and not deleted."""
        wanted = json.dumps(list(ids))
        query = "SELECT id, row FROM documents WHERE id IN (SELECT value FROM json_each(?))"
        found = (pair for at in range(len(self._paths)) for pair in self._read(at, query, (wanted,)))
        return {id: row for id, row in found if not self._deleted[row]}

    def ids(self, rows: Rows) -> list[str]:
        """The id of each row, in order."""
        if self._ids is None and len(rows) * 32 < len(self._deleted):
            distinct = np.unique(rows)
            return _each(dict(self._select("id", distinct)), rows)
        if self._ids is None:  # a batch touches so much that reading all ids once is the cheaper way
            query = "SELECT row, id FROM documents ORDER BY row"
            everything = [id for at in range(len(self._paths)) for _, id in self._read(at, query)]
            if len(everything) != len(self._deleted):
                raise CorruptIndexError("the document files lack rows; `retriever verify` tells more")
            self._ids = everything
        return [self._ids[row] for row in rows.tolist()]

    def fetch(self, rows: Rows) -> list[Document]:
        """The document of each row, in order."""
        found = {row: document for row, document in self._documents(self._select_all(np.unique(rows)))}
        return _each(found, rows)

    def scan(self, start: int, stop: int) -> Iterator[tuple[int, Document]]:
        """Rows and documents of [start, stop), deleted ones too, streamed in row order."""
        query = "SELECT row, id, title, text, metadata FROM documents WHERE row >= ? AND row < ? ORDER BY row"
        for at in range(len(self._paths)):
            yield from self._documents(self._read(at, query, (start, stop)))

    def matching(self, where: str) -> Mask:
        """Bool [rows]: which rows satisfy a filter (see `where.py`).

        Raises: SpecError when the filter does not parse.
        """
        condition, values = compile_where(where)
        mask = np.zeros(len(self._deleted), dtype=np.bool_)
        for at in range(len(self._paths)):
            found = self._read(at, f"SELECT row FROM documents WHERE {condition}", values)
            mask[np.fromiter((row for (row,) in found), dtype=np.int64)] = True
        return mask

    def _read(self, at: int, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """What one of the files answers. Raises: CorruptIndexError where it is damaged."""
        with _intact(self._paths[at]):
            yield from self._connections[at].execute(query, values)

    def _select(self, columns: str, rows: Rows) -> Iterator[tuple[int, str]]:
        query = f"SELECT row, {columns} FROM documents WHERE row IN (SELECT value FROM json_each(?))"
        for at, (_, start, stop) in enumerate(self._segments):
            part = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
            for first in range(0, len(part), _BATCH):
                yield from self._read(at, query, (json.dumps(part[first : first + _BATCH].tolist()),))

    def _select_all(self, rows: Rows) -> Iterator[tuple[int, str, str, str, str]]:
        return self._select("id, title, text, metadata", rows)  # type: ignore[return-value]

    @staticmethod
    def _documents(lines: Iterable[tuple[int, str, str, str, str]]) -> Iterator[tuple[int, Document]]:
        for row, id, title, text, metadata in lines:
            try:
                yield row, Document(id, text, title, json.loads(metadata) if metadata != "{}" else {})
            except (TypeError, ValueError):
                raise CorruptIndexError(f"the metadata of {id!r} is damaged; `retriever verify` tells more") from None


def _each(found: Mapping[int, Any], rows: Rows) -> list[Any]:
    try:
        return [found[row] for row in rows.tolist()]
    except KeyError as row:
        raise CorruptIndexError(f"the document of row {row} is missing; `retriever verify` tells more") from None


def _close(connections: Iterable[sqlite3.Connection]) -> None:
    for connection in connections:
        connection.close()


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Tells of damage that SQLite meets as CorruptIndexError; every committed file was whole once."""
    try:
        yield
    except sqlite3.DatabaseError as problem:
        if _code(problem) in _DAMAGE or any(sign in str(problem) for sign in _DAMAGED_VALUES):
            raise CorruptIndexError(f"{path}: is damaged ({problem}); `retriever verify` tells more") from None
        raise


@contextmanager
def _machine_failures(path: Path) -> Iterator[None]:
    """A full disk and the like, as the OSError that other files would meet."""
    try:
        yield
    except sqlite3.OperationalError as problem:
        if code := _FAILURES.get(_code(problem)):
            raise OSError(code, os.strerror(code), str(path)) from None
        raise


def _code(problem: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return getattr(problem, "sqlite_errorcode", 0) & 0xFF


def _open(path: Path) -> sqlite3.Connection:
    path.stat()  # sqlite says "unable to open" where FileNotFoundError tells that a newer generation took its place
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with _intact(path):
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        connection.execute("SELECT row, id, title, text, metadata FROM documents LIMIT 1")  # it may be unlinked later
    return connection
