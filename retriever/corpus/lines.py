"""Files as numbered lines of bytes: plain, gzip and Zstandard, in memory bounded by the longest line allowed."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from retriever.corpus.records import MAX_DOCUMENT_BYTES
from retriever.errors import InputError

if TYPE_CHECKING:
    from retriever.corpus.base import Corpus

# JSON writes a byte of text in six (\u0001) at worst, so the text of an allowed document fits, and metadata besides.
MAX_LINE_BYTES = 8 * MAX_DOCUMENT_BYTES
_CHUNK = 1 << 17


def uncompressed(path: Path) -> Path:
    """The file's name without .gz or .zst."""
    return Path(path.name.removesuffix(".gz").removesuffix(".zst"))


def kind(path: Path) -> str:
    """The suffix that tells the format: `.jsonl` for a.jsonl as for a.jsonl.gz."""
    return uncompressed(path).suffix.lower()


def numbered_lines(corpus: Corpus, path: Path) -> Iterator[tuple[int, bytes]]:
    r"""The file's lines from 1 on, blank ones too, without "\n" and without the file's byte order mark.

    A line over MAX_LINE_BYTES is a bad record. Raises InputError where the file cannot be read or decompressed.
    """
    number, size = 0, 0
    held: list[bytes] = []  # pieces of the line that has not ended, `size` bytes; let go once they are too many
    for piece in counted(corpus, path):
        end = piece.find(b"\n")
        if end < 0:
            held.append(piece)
            size += len(piece)
            if size > MAX_LINE_BYTES:
                held.clear()
            continue
        if size + end > MAX_LINE_BYTES:
            number += 1
            _too_long(corpus, number, size + end)
            piece, held = piece[end + 1 :], []
        *lines, rest = b"".join((*held, piece)).split(b"\n")
        yield from enumerate(lines, number + 1)
        number += len(lines)
        held, size = [rest], len(rest)
    if size > MAX_LINE_BYTES:
        _too_long(corpus, number + 1, size)
    elif size:
        yield number + 1, b"".join(held)


def _too_long(corpus: Corpus, number: int, size: int) -> None:
    limits = f"a line may have {MAX_LINE_BYTES:,} and a document {MAX_DOCUMENT_BYTES:,}"
    corpus.bad(InputError(f"the line has {size:,} bytes, {limits}: split it into passages", line=number))


def counted(corpus: Corpus, path: Path) -> Iterator[bytes]:
    """The file's bytes, while `corpus.bytes_read` keeps up with the place in the file as it lies on disk."""
    before = corpus.bytes_read or 0
    with open_binary(path) as file:
        for chunk in content(file, path):
            if corpus.bytes_total is not None:
                corpus.bytes_read = before + file.tell()
            yield chunk


def open_binary(path: Path) -> BinaryIO:
    """The file opened, unbuffered. Raises InputError where that fails."""
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise InputError(f"cannot be opened: {error.strerror}", path) from error


def content(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """What the file holds, in pieces, decompressed and without a byte order mark. Raises InputError if damaged."""
    decompress = {".gz": _gunzip, ".zst": _unzstd}.get(path.suffix, _plain)
    pieces = filter(None, decompress(file))
    try:
        yield from chain([next(pieces, b"").removeprefix(codecs.BOM_UTF8)], pieces)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        where = f"after {file.tell():,} compressed bytes"
        raise InputError(f"cut short or damaged {where} ({error}): fetch or compress it again", path) from error


def _plain(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    return _plain(gzip.GzipFile(fileobj=file))


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    """Zstandard frames one after the other; zstandard's own reader takes a frame cut short for a whole one."""
    import zstandard

    frame = None
    # Little goes in at a time, because what comes out has no limit of its own and may be thousands of times as much.
    while data := file.read(_CHUNK >> 3):
        while data:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                piece = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            yield from (piece[at : at + _CHUNK] for at in range(0, len(piece), _CHUNK))
            data = frame.unused_data
            if frame.eof:
                frame = None
    if frame:
        raise EOFError("the last frame does not end")


def decode(line: bytes) -> str:
    """Raises InputError, without a place, where the line is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        at = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
        raise InputError(f"not UTF-8: {at}; convert the file to UTF-8") from None
