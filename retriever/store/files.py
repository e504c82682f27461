"""Durable files: written whole or not at all, fsynced, and known by their checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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


def grow(path: Path, data: bytes | memoryview, known: FileRecord | None) -> FileRecord:
    """Write behind the committed bytes of a file, over what a commit that did not happen left there; durable."""
    size = known.size if known else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write(data)
    if known is None:
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
    return record(path, known)


def mapped(path: Path, known: FileRecord | None, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A file's committed bytes as a read-only array, mapped into memory.

    Raises: CorruptIndexError where the file is shorter, FileNotFoundError where it is not there.
    """
    count = known.size // dtype.itemsize if known else 0
    if not count:
        return np.frombuffer(b"", dtype=dtype)
    try:
        return np.memmap(path, dtype=dtype, mode="r", shape=(count,)).view(np.ndarray)
    except ValueError:
        raise CorruptIndexError(f"{path}: is shorter than the manifest says; `retriever verify` tells more") from None


def link_files(base: Path, folder: Path, copied: Container[str] = ()) -> None:
    """Give a folder the files of another, locks left out: those that never change by hard links, `copied` as copies."""
    for path in base.iterdir():
        if path.suffix == ".lock":
            continue
        if path.name in copied:
            shutil.copy(path, folder / path.name)
            continue
        try:
            os.link(path, folder / path.name)
        except OSError:  # a file system without hard links
            shutil.copy(path, folder / path.name)


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
