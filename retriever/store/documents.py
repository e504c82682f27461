"""Documents on disk: a row of immutable SQLite files, each holding a range of row numbers.

Why not one growing database: a file that never changes after its commit can be checksummed whole, read without locks
(`immutable=1`, also from read-only media) while a writer works, and never needs recovery after a kill.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from retriever.store.files import FileRecord, record, replacing
from retriever.store.where import compile_where
from retriever.types import Document, Mask, Rows

FOLDER = "documents"
MERGE = 8
"""So many neighbouring segments of like size become one: lookups stay logarithmic in the number of commits."""

_BATCH = 10_000
_TABLE = "CREATE TABLE documents (row INTEGER PRIMARY KEY, id TEXT NOT NULL, title TEXT, text TEXT, metadata TEXT)"
Segment = tuple[str, int, int]


def write_segment(
    folder: Path, rows: Iterable[tuple[int, Document]], start: int, stop: int, generation: int
) -> tuple[Segment, FileRecord]:
    """Write documents under their row numbers as one immutable file; durable when this returns."""
    lines = ((row, d.id, d.title, d.text, json.dumps(dict(d.metadata)) if d.metadata else "{}") for row, d in rows)
    name = f"{FOLDER}/{start:010d}-{stop:010d}-{generation:06d}.sqlite"
    with replacing(folder / name) as temporary:
        temporary.unlink(missing_ok=True)
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", _TABLE, "BEGIN"):
                connection.execute(statement)
            connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", lines)
            connection.execute("CREATE INDEX by_id ON documents (id)")
            connection.execute("COMMIT")
        finally:
            connection.close()
    return (name, start, stop), record(folder / name)


def due_merge(segments: Sequence[Segment]) -> int:
    """How many of the last segments to merge now: MERGE of them once they are of like size (0: none)."""
    tail = segments[-MERGE:]
    sizes = [stop - start for _, start, stop in tail]
    return MERGE if len(tail) == MERGE and max(sizes) < MERGE * max(1, sizes[-1]) else 0


class Documents:
    """Reads the documents of one generation. Opened files stay readable when a writer removes them."""

    def __init__(self, folder: Path, segments: Sequence[Segment], deleted: Mask) -> None:
        self._segments = list(segments)
        self._connections = [_open(folder / name) for name, _, _ in segments]
        self._deleted = deleted
        self._ids: list[str] | None = None

    def close(self) -> None:
        """Let go of the files."""
        for connection in self._connections:
            connection.close()

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """The rows of those ids that are in the index and not deleted."""
        wanted = json.dumps(list(ids))
        query = "SELECT id, row FROM documents WHERE id IN (SELECT value FROM json_each(?))"
        found = (pair for connection in self._connections for pair in connection.execute(query, (wanted,)))
        return {id: row for id, row in found if not self._deleted[row]}

    def ids(self, rows: Rows) -> list[str]:
        """The id of each row, in order."""
        if self._ids is None and len(rows) * 8 < len(self._deleted):
            distinct = np.unique(rows)
            found = dict(self._select("id", distinct))
            return [found[row] for row in rows.tolist()]
        if self._ids is None:  # a batch touches so much that reading all ids once is the cheaper way
            everything = (c.execute("SELECT row, id FROM documents ORDER BY row") for c in self._connections)
            self._ids = [id for cursor in everything for _, id in cursor]
        return [self._ids[row] for row in rows.tolist()]

    def fetch(self, rows: Rows) -> list[Document]:
        """The document of each row, in order."""
        found = {row: document for row, document in self._documents(self._select_all(np.unique(rows)))}
        return [found[row] for row in rows.tolist()]

    def scan(self, start: int, stop: int) -> Iterator[tuple[int, Document]]:
        """Rows and documents of [start, stop), deleted ones too, streamed in row order."""
        query = "SELECT row, id, title, text, metadata FROM documents WHERE row >= ? AND row < ? ORDER BY row"
        for connection in self._connections:
            yield from self._documents(connection.execute(query, (start, stop)))

    def matching(self, where: str) -> Mask:
        """Bool [rows]: which rows satisfy a filter (see `where.py`).

        Raises: SpecError when the filter does not parse.
        """
        condition, values = compile_where(where)
        mask = np.zeros(len(self._deleted), dtype=np.bool_)
        for connection in self._connections:
            cursor = connection.execute(f"SELECT row FROM documents WHERE {condition}", values)
            mask[np.fromiter((row for (row,) in cursor), dtype=np.int64)] = True
        return mask

    def _select(self, columns: str, rows: Rows) -> Iterator[tuple[int, str]]:
        query = f"SELECT row, {columns} FROM documents WHERE row IN (SELECT value FROM json_each(?))"
        for connection, (_, start, stop) in zip(self._connections, self._segments, strict=True):
            part = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
            for first in range(0, len(part), _BATCH):
                yield from connection.execute(query, (json.dumps(part[first : first + _BATCH].tolist()),))

    def _select_all(self, rows: Rows) -> Iterator[tuple[int, str, str, str, str]]:
        return self._select("id, title, text, metadata", rows)  # type: ignore[return-value]

    @staticmethod
    def _documents(lines: Iterable[tuple[int, str, str, str, str]]) -> Iterator[tuple[int, Document]]:
        for row, id, title, text, metadata in lines:
            yield row, Document(id, text, title, json.loads(metadata) if metadata != "{}" else {})


def _open(path: Path) -> sqlite3.Connection:
    path.stat()  # sqlite says "unable to open" where FileNotFoundError tells that a newer generation took its place
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    connection.execute("SELECT 1 FROM documents LIMIT 1")  # opens the file now: it may be unlinked later
    return connection
