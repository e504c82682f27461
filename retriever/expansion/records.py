"""JSON lines that are found by document id: a header that says what made them, then one object a line.

A file is written by whole batches, fsynced, so a kill leaves at most a batch that is not whole; it is read where it
lies. `sha256` in a line is the `fingerprint` of the text that the line is about: a line is found by id and fingerprint,
so a document that has changed is not given what belongs to its old text. A line without it counts for any text.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from retriever.errors import IndexLockedError, InputError
from retriever.store.files import replacing, sync_folder
from retriever.types import Rows

Item = TypeVar("Item")
Record = dict[str, Any]
Append = Callable[[Iterable[Mapping[str, Any]]], None]
_ID = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*")')
_ITEMS: dict[str, type] = {"expansion": str, "scores": float}
"""The kinds of file: a key of the header and the field of a line that holds a list, and what the list holds."""
_CHUNK = 1 << 20


def fingerprint(text: str) -> str:
    """The first 64 bits of a text's SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Records:
    """Records by id and fingerprint, where they lie: 16 bytes of memory each, and no record but those asked for.

    What is appended after opening is not seen. Opening reads the file once, for the ids alone.

    Raises: InputError naming file and line for what is no such file, for a line that holds no id, for one cut short.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        with _open(path, kind) as file:
            self.header = _header(path, kind, file.readline())
            hashes, offsets = self._scan(file)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        order = np.argsort(hashes, kind="stable")  # stable: of records with one id, later ones stay behind earlier ones
        self._hashes, self._offsets = hashes[order], offsets[order]

    def find(self, keys: Sequence[tuple[str, str]]) -> list[tuple[bool, Record | None]]:
        """For each (id, fingerprint): whether the id is there, and its last record for a text of that fingerprint."""
        hashes = np.array([hash(id) for id, _ in keys], dtype=np.int64)
        starts = np.searchsorted(self._hashes, hashes, "left").tolist()
        stops = np.searchsorted(self._hashes, hashes, "right").tolist()
        return [self._match(*key, start, stop) for key, start, stop in zip(keys, starts, stops, strict=True)]

    def __iter__(self) -> Iterator[Record]:
        """All records, in the order of the file."""
        yield from (self._record(offset) for offset in np.sort(self._offsets).tolist())

    def _match(self, id: str, text: str, start: int, stop: int) -> tuple[bool, Record | None]:
        known = False
        for offset in self._offsets[start:stop][::-1].tolist():
            record = self._record(offset)
            if str(record["id"]) == id:
                known = True
                if record.get("sha256", text) == text:
                    return True, record
        return known, None

    def _record(self, offset: int) -> Record:
        stop = self._map.find(b"\n", offset)
        try:
            record = json.loads(self._map[offset : stop if stop >= 0 else None])
        except ValueError as problem:
            raise self._damage(str(problem), offset) from None
        values = record.get(self.kind)
        if not isinstance(values, list) or set(map(type, values)) - {_ITEMS[self.kind]}:
            raise self._damage(f"{self.kind!r} is {values!r:.40}, not a list of {_ITEMS[self.kind].__name__}", offset)
        return dict(record)

    def _damage(self, reason: str, offset: int) -> InputError:
        newlines = sum(self._map[at : min(at + _CHUNK, offset)].count(b"\n") for at in range(0, offset, _CHUNK))
        return _damaged(self.path, newlines + 1, reason)

    def _scan(self, file: BinaryIO) -> tuple[Rows, Rows]:
        hashes, offsets, offset = array("q"), array("q"), file.tell()
        for number, line in enumerate(file, 2):
            hashes.append(hash(_id(self.path, number, line)))
            offsets.append(offset)
            offset += len(line)
        return np.array(hashes, dtype=np.int64), np.array(offsets, dtype=np.int64)


@contextmanager
def appending(path: Path, header: Mapping[str, Any], kind: str) -> Iterator[Append]:
    """A function that appends records, durably, to a new file or to one that was made by the same.

    The half line that a kill may have left at the end is cut off. A new file to which nothing was added is removed.

    Raises: InputError naming both where the file was made by something else; IndexLockedError while another process
    is writing to it.
    """
    with _open_to_write(path, kind) as file:
        _lock(path, file)
        line = _line(header)
        head = file.readline()
        if new := not head or (not head.endswith(b"\n") and line.startswith(head)):
            _write(file, 0, line)
            sync_folder(path.absolute().parent)
        else:
            _check_header(path, kind, _header(path, kind, head), header)
        size = file.truncate(_whole_lines(file))

        def append(records: Iterable[Mapping[str, Any]]) -> None:
            nonlocal size
            size += _write(file, size, b"".join(map(_line, records)))

        try:
            yield append
        finally:
            if new and size == len(line):
                path.unlink()


def write_whole(path: Path, header: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
    """A file of these records alone, which takes its place when it is complete."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_line(header))
        file.writelines(map(_line, records))


def read_header(path: Path, kind: str) -> dict[str, Any]:
    """What a file says of itself. Raises: InputError where it is no file of this kind."""
    with _open(path, kind) as file:
        return _header(path, kind, file.readline())


def _open(path: Path, kind: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as problem:
        hint = "; `retriever expand CORPUS FILE` makes one" if kind == "expansion" else ""
        raise InputError(f"cannot be opened: {problem.strerror}{hint}", path) from None


def _open_to_write(path: Path, kind: str) -> BinaryIO:
    """For reading and writing; made if it is not there."""
    if path.is_dir():
        raise InputError(f"is a folder; the {kind} file is to be a file", path)
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.parent}; make it first", path)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def _lock(path: Path, file: BinaryIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise IndexLockedError(f"{path}: another process is writing to this file; try again later") from None


def _whole_lines(file: BinaryIO) -> int:
    """Bytes up to the end of the last line that has one."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _CHUNK)
        file.seek(start)
        if (newline := file.read(end - start).rfind(b"\n")) >= 0:
            return start + newline + 1
        end = start
    return 0


def _write(file: BinaryIO, offset: int, data: bytes) -> int:
    file.seek(offset)
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
    return len(data)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _header(path: Path, kind: str, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or not isinstance(header.get(kind), str):
        raise InputError(f'is no {kind} file: its first line is to say what made it, as {{"{kind}": "..."}}', path, 1)
    return header


def _check_header(path: Path, kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(new))
    differs = [key for key in (*old, *plain) if old.get(key) != plain.get(key)]
    if differs:
        key = kind if kind in differs else differs[0]
        raise InputError(
            f"was made by something else: {key} {old.get(key)!r}, now {plain.get(key)!r}; give what made it, or move "
            "it away",
            path,
        )


def _id(path: Path, number: int, line: bytes) -> str:
    """The id of a line; the rest of a line as we write it is not looked at."""
    if not line.endswith(b"\n"):
        raise _damaged(path, number, "it is cut short; the command that made this file completes it")
    match = _ID.match(line)
    try:
        id = json.loads(match[1] if match else line)
        id = id if match else id["id"]
    except (ValueError, TypeError, KeyError):
        raise _damaged(path, number, "no JSON object with an id") from None
    return str(id)


def _damaged(path: Path, number: int, reason: str) -> InputError:
    return InputError(f"the line is damaged: {reason}", path, number)


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items, so many at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
