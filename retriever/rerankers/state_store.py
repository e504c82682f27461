"""Hidden states of documents on disk: computed once, found by their text, never stale and never half there.

    FOLDER/
      store.json      what the states were made with
      states.f16      float16 [tokens, d] of one document behind another; only grows
      index.bin       a record of 56 bytes for each: key, place, tokens, checksums; only grows
      lock            empty; flock'ed while something is appended

States are found by the SHA-256 of what made them and the text, so one text never gets what belongs to another, whatever
became of the document that had it. Records are written when their states are on disk (fsynced), each with its own
checksum and that of its states: what a kill leaves is bytes that no record names, or a record that is not whole. What
does not match its checksum counts as missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.errors import IndexMismatchError, InputError
from retriever.store.files import replacing, sync_folder
from retriever.tallies import tally

HEADER, STATES, INDEX, LOCK = "store.json", "states.f16", "index.bin", "lock"
_FORMAT = 1
_RECORD = struct.Struct("<32sQIIII")
"""key, first byte, tokens, whether the text was cut, CRC-32 of the states, CRC-32 of the record up to here."""
_HALF = np.dtype("<f2")


class State(NamedTuple):
    """values: [tokens, d], float16 in a store; cut: whether the text was longer than the tokens that are kept."""

    values: npt.NDArray[Any]
    cut: bool


class _Place(NamedTuple):
    offset: int
    tokens: int
    cut: int
    checksum: int


def state_store(folder: Path, identity: Mapping[str, Any], width: int) -> StateStore:
    """The store in a folder, made if it is not there; read once by a process, and then what was added to it.

    identity: what makes the states, as JSON values. width: d.

    Raises: InputError where the folder is of something else; IndexMismatchError where another identity made it.
    """
    header = {"format": _FORMAT, "width": width, **identity}
    _prepare(folder, header)
    made = (folder / HEADER).stat()
    return _opened(folder, json.dumps(header, sort_keys=True), width, (made.st_ino, made.st_mtime_ns))


@lru_cache(maxsize=2)  # each search makes its pipeline anew
def _opened(folder: Path, header: str, width: int, made: tuple[int, int]) -> StateStore:
    return StateStore(folder, header, width)


class StateStore:
    """An open store: some 300 bytes of memory for each document, and no states but those asked for.

    Any number of processes may read and add at a time.
    """

    def __init__(self, folder: Path, header: str, width: int) -> None:
        self.folder, self.width = folder, width
        self._made_with = hashlib.sha256(header.encode()).digest()
        self._places: dict[bytes, _Place] = {}
        self._read = 0
        self._map: mmap.mmap | bytes = b""

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum((self.folder / name).stat().st_size for name in (STATES, INDEX))

    def get(self, texts: Sequence[str]) -> dict[str, State]:
        """The states of those texts that are there. What is damaged is left out, and tallied."""
        self._refresh()
        found, damaged = {}, 0
        for text in texts:
            key = self._key(text)
            if place := self._places.get(key):
                if data := self._data(place):
                    found[text] = State(np.frombuffer(data, _HALF).reshape(-1, self.width), bool(place.cut))
                else:
                    del self._places[key]
                    damaged += 1
        tally(f"stored states in {self.folder} were damaged, and made anew", damaged)
        return found

    def add(self, states: Mapping[str, State]) -> None:
        """Keep states by their texts, durably; those that another process has added meanwhile are left as they are."""
        with _locked(self.folder / LOCK):
            self._refresh()
            keyed = ((self._key(text), state) for text, state in states.items())
            new = [(key, state) for key, state in keyed if key not in self._places]
            if new:
                _append(self.folder / INDEX, b"".join(self._written(new)), _RECORD.size)
                self._refresh()

    def _written(self, states: Sequence[tuple[bytes, State]]) -> list[bytes]:
        """The records of states that are on disk now."""
        blobs = [np.ascontiguousarray(state.values, dtype=_HALF).tobytes() for _, state in states]
        offset = _append(self.folder / STATES, b"".join(blobs), 1)
        records = []
        for (key, state), blob in zip(states, blobs, strict=True):
            fields = key, offset, len(state.values), int(state.cut), zlib.crc32(blob)
            record = _RECORD.pack(*fields, 0)[:-4]
            records.append(record + struct.pack("<I", zlib.crc32(record)))
            offset += len(blob)
        return records

    def _refresh(self) -> None:
        """Read the records that were added since the last time; of two with one key the later counts."""
        with (self.folder / INDEX).open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole, damaged = len(data) - len(data) % _RECORD.size, 0
        for at in range(0, whole, _RECORD.size):
            key, *place, checksum = _RECORD.unpack_from(data, at)
            if zlib.crc32(data[at : at + _RECORD.size - 4]) == checksum:
                self._places[key] = _Place(*place)
            else:
                damaged += 1
        self._read += whole
        tally(f"records in {self.folder} were damaged, and count as missing", damaged)

    def _data(self, place: _Place) -> bytes | None:
        """The bytes of one document's states; none where they are not what was written."""
        stop = place.offset + place.tokens * self.width * _HALF.itemsize
        if stop > len(self._map):
            self._map = _mapped(self.folder / STATES)
        data = self._map[place.offset : stop]
        return data if len(data) == stop - place.offset and zlib.crc32(data) == place.checksum else None

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(self._made_with + text.encode(errors="surrogatepass")).digest()


def _prepare(folder: Path, header: Mapping[str, Any]) -> None:
    """Make an empty store, or see that the one that is there was made with the same."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file; states are kept in a folder", folder)
    if not folder.absolute().parent.is_dir():
        raise InputError(f"there is no folder {folder.parent}; make it first", folder)
    folder.mkdir(exist_ok=True)
    path = folder / HEADER
    if not path.exists():
        ours = (HEADER, HEADER + ".tmp", STATES, INDEX, LOCK)
        if others := sorted(each.name for each in folder.iterdir() if each.name not in ours):
            raise InputError(f"holds other files ({others[0]}) and no states; give a new folder", folder)
        with _locked(folder / LOCK):
            if not path.exists():
                _create(folder, header)
    _check(path, header)


def _create(folder: Path, header: Mapping[str, Any]) -> None:
    for name in (STATES, INDEX):
        (folder / name).write_bytes(b"")
    with replacing(folder / HEADER) as temporary:
        temporary.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    sync_folder(folder.absolute().parent)


def _check(path: Path, header: Mapping[str, Any]) -> None:
    try:
        old = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        old = {}
    if not old or not all((path.parent / name).is_file() for name in (STATES, INDEX)):
        raise InputError("is a damaged store of states; remove the folder, and they are made anew", path.parent)
    for key, value in header.items():
        if old.get(key) != value:
            raise IndexMismatchError(
                f"{path.parent}: holds states that were made with {key} {old.get(key)!s:.16}, now it is {value!s:.16}; "
                "give another folder, or remove this one"
            )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for the lock; the kernel drops it with the process, so a kill leaves none behind."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _append(path: Path, data: bytes, unit: int) -> int:
    """Write behind the last whole unit of a file, durably; says where.

    What a kill left of a unit is overwritten. Nothing else is: readers have the file mapped.
    """
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = file.seek(end - end % unit)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return start


def _mapped(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
