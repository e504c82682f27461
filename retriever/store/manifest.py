"""The manifest: which files make up the current generation. Replacing it is the commit."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retriever.errors import CorruptIndexError, IndexLockedError, IndexMismatchError, InputError
from retriever.store.files import Extent, FileRecord, replacing

FORMAT = 1
NAME = "manifest.json"
LOCK = "lock"


@dataclass(frozen=True)
class ViewState:
    """One view as of a generation.

    spec: its text form; config: every field of its configuration, defaults included; rows: how many rows it holds;
    encoder: what made its vectors (model, weights' digest, pooling, ...), empty for lexical views;
    data: what the indexer needs to find its files again; truncated: documents longer than the encoder reads.
    """

    spec: str
    config: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    encoder: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    truncated: int = 0


@dataclass(frozen=True)
class Manifest:
    """One generation of an index. Rows are numbered from 0 in the order of adding; `compact` renumbers them.

    segments: the document files with the rows [start, stop) that each holds.
    deleted: the file of the deleted rows, or none; live: documents that are not deleted.
    """

    generation: int = 0
    rows: int = 0
    live: int = 0
    segments: tuple[tuple[str, int, int], ...] = ()
    deleted: str | None = None
    views: Mapping[str, ViewState] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)

    def all_files(self) -> dict[str, FileRecord]:
        """Every file of the generation by its path relative to the index."""
        found = dict(self.files)
        for view in self.views.values():
            found.update(view.files)
        return found

    def with_view(self, name: str, state: ViewState) -> Manifest:
        """The same generation with one view in a new state."""
        return replace(self, views={**self.views, name: state})


def load(folder: Path) -> Manifest:
    """Read the current generation.

    Raises: InputError where there is no index, IndexMismatchError for a newer format, CorruptIndexError for damage.
    """
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no index here; make one with `retriever index CORPUS {folder}`") from None
    except UnicodeDecodeError:
        raise CorruptIndexError(f"{path}: is not text any more") from None
    try:
        data = json.loads(text)
        if data["format"] > FORMAT:
            raise IndexMismatchError(
                f"{path}: format {data['format']}, this version reads up to {FORMAT}: upgrade retriever-engine"
            )
        manifest = _decode(data)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CorruptIndexError(f"{path}: is damaged") from None
    if _encode(manifest) != text:
        raise CorruptIndexError(f"{path}: differs from its checksum")
    return manifest


def publish(folder: Path, manifest: Manifest) -> Manifest:
    """Make the next generation visible, atomically. Its other files must be durable already."""
    manifest = replace(manifest, generation=manifest.generation + 1)
    with replacing(folder / NAME) as temporary:
        temporary.write_text(_encode(manifest), encoding="utf-8")
    return manifest


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the index for writing. The kernel drops the lock with the process, so a kill leaves none behind.

    Raises: IndexLockedError at once when another process (or another object in this one) is writing.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexLockedError(f"{folder}: another process is writing to this index; try again later") from None
        yield
    finally:
        os.close(handle)


def _encode(manifest: Manifest) -> str:
    """The one way to write a manifest, so that any changed byte shows: its own checksum comes last."""
    import hashlib

    body = {"format": FORMAT, **_plain(manifest)}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, indent=1) + "\n"


def _plain(manifest: Manifest) -> dict[str, Any]:
    views = {name: {**vars(state), "files": _plain_files(state.files)} for name, state in manifest.views.items()}
    return {
        **vars(manifest),
        "segments": list(map(list, manifest.segments)),
        "views": views,
        "files": _plain_files(manifest.files),
    }


def _plain_files(files: Mapping[str, FileRecord]) -> dict[str, list[list[Any]]]:
    return {name: [[extent.size, extent.sha256] for extent in known.extents] for name, known in files.items()}


def _decode(data: dict[str, Any]) -> Manifest:
    views = {name: ViewState(**{**state, "files": _files(state["files"])}) for name, state in data["views"].items()}
    known = {key: value for key, value in data.items() if key not in ("format", "sha256")}
    segments = tuple((str(name), int(start), int(stop)) for name, start, stop in data["segments"])
    return Manifest(**{**known, "segments": segments, "views": views, "files": _files(data["files"])})


def _files(plain: dict[str, list[list[Any]]]) -> dict[str, FileRecord]:
    return {
        name: FileRecord(tuple(Extent(size, digest) for size, digest in extents)) for name, extents in plain.items()
    }
