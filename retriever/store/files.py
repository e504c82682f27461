"""Durable files: written whole or not at all, fsynced, and known by their checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from retriever.errors import CorruptIndexError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Extent:
    """A run of bytes that was committed at once. A file grows by extents and its committed bytes never change."""

    size: int
    sha256: str


@dataclass(frozen=True)
class FileRecord:
    """What the manifest knows of a file: its committed bytes, in the pieces in which they were written."""

    extents: tuple[Extent, ...]

    @property
    def size(self) -> int:
        """Committed bytes; what lies beyond belongs to a commit that did not happen."""
        return sum(extent.size for extent in self.extents)


def record(path: Path, known: FileRecord | None = None) -> FileRecord:
    """Fsync a file and checksum what it holds beyond `known`."""
    start = known.size if known else 0
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
        os.fsync(file.fileno())
    extents = known.extents if known else ()
    return FileRecord((*extents, Extent(size, digest.hexdigest())) if size or not extents else extents)


def check(path: Path, known: FileRecord) -> None:
    """Read a file's committed bytes against their checksums.

    Raises: CorruptIndexError naming the file and the byte range.
    """
    try:
        with path.open("rb") as file:
            position = 0
            for extent in known.extents:
                if _digest(file, extent.size) != extent.sha256:
                    end = position + extent.size
                    raise CorruptIndexError(f"{path}: bytes {position} to {end} differ from their checksum")
                position += extent.size
    except FileNotFoundError:
        raise CorruptIndexError(f"{path}: is missing") from None


def _digest(file: Iterable[bytes], size: int) -> str:
    digest = hashlib.sha256()
    while size and (chunk := file.read(min(size, _CHUNK))):  # type: ignore[attr-defined]
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def sync_folder(path: Path) -> None:
    """Make renames and new names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, fsynced, when the block ends well, else vanishes."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
