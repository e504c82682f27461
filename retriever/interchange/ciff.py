"""The Common Index File Format: an inverted index in one file (Lin et al. 2020, arXiv:2003.08276).

A file is a row of protobuf messages, each behind its length: a Header, the PostingsLists, the DocRecords. The numbers
of fields below are those of the format's `CommonIndexFileFormat.proto`. Documents are numbered from 0; a posting has
the difference from the document's number before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.errors import InputError
from retriever.interchange import protobuf
from retriever.interchange.external_sort import Block, Sorter
from retriever.interchange.protobuf import BYTES, VARINT, Bytes, fields, put, sizes, varint, varints
from retriever.types import Rows

_POSTING, _NUMBER, _WEIGHT = protobuf.tag(4, BYTES), protobuf.tag(1, VARINT), protobuf.tag(2, VARINT)
_LARGEST = 2**31 - 1
_CHUNK = 1 << 20


class Header(NamedTuple):
    """What a CIFF file says of itself. The totals are of the index that it was taken from, and may be larger."""

    postings_lists: int
    documents: int
    total_postings_lists: int
    total_documents: int
    total_terms: int
    average_length: float
    description: str


class PostingsList(NamedTuple):
    """A term with its documents (int64 [n], ascending) and its weight in each (int64 [n]), for counts its tf."""

    term: str
    documents: Rows
    weights: Rows


class DocRecord(NamedTuple):
    """A document: its number in the postings, its id, the sum of its weights."""

    number: int
    id: str
    length: int


class CiffReader:
    """A CIFF file, as a stream: the header, then all postings lists, then all documents.

    pieces: the file's bytes, uncompressed. Memory holds the longest message.

    Raises: InputError naming the message and the byte where a file is cut short or is none of CIFF.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._messages = _Messages(pieces)
        self.header = self._messages.decoded("the Header", _header)

    def postings_lists(self) -> Iterator[PostingsList]:
        """To be read to the end before `records`."""
        highest = max(self.header.documents, self.header.total_documents) - 1
        for i in range(self.header.postings_lists):
            yield self._messages.decoded(f"PostingsList {i + 1:,}", lambda message: _postings_list(message, highest))

    def records(self) -> Iterator[DocRecord]:
        """The documents; nothing may follow the last."""
        for i in range(self.header.documents):
            yield self._messages.decoded(f"DocRecord {i + 1:,}", _doc_record)
        self._messages.end()


def write_ciff(file: IO[bytes], documents: Iterable[tuple[str, Mapping[str, int]]], description: str) -> None:
    """Write documents, each with its id and its weight by term.

    Memory holds the terms, some 8 million postings, and the longest postings list; a temporary file all postings.

    Raises: InputError for a weight that is not a whole number from 1 to 2**31 - 1.
    """
    numbers: dict[str, int] = {}
    count = total = 0
    with Sorter() as postings, TemporaryFile() as records:
        for count, (id, vector) in enumerate(documents, 1):
            _check(id, vector)
            terms = [numbers.setdefault(term, len(numbers)) for term in vector]
            postings.add(np.array(terms, np.int64), count - 1, np.array([*vector.values()], np.int64))
            length = sum(vector.values())
            records.write(
                protobuf.delimited(protobuf.number(1, count - 1) + protobuf.text(2, id) + protobuf.number(3, length))
            )
            total += length
        vocabulary = sorted(numbers, key=str.encode)  # Lucene's order
        rank = np.empty(len(vocabulary), dtype=np.int64)
        rank[[numbers[term] for term in vocabulary]] = np.arange(len(vocabulary))
        average = total / count if count else 0.0
        header = Header(len(vocabulary), count, len(vocabulary), count, total, average, description)
        file.write(protobuf.delimited(_header_message(header)))
        for block in postings.blocks(rank):
            file.write(b"".join(_postings_messages(vocabulary, block)))
        records.seek(0)
        while chunk := records.read(_CHUNK):
            file.write(chunk)


def _check(id: str, vector: Mapping[str, Any]) -> None:
    for term, weight in vector.items():
        if type(weight) is not int or not 0 < weight <= _LARGEST:
            raise InputError(
                f"document {id!r}: the weight of {term!r} is {weight}, and CIFF holds whole numbers from 1 to "
                "2**31 - 1: give --scale, say 100, which is what weights are multiplied by before they are rounded"
            )
    if sum(vector.values()) > _LARGEST:
        raise InputError(
            f"document {id!r}: its weights sum to more than 2**31 - 1, CIFF's limit: give a smaller --scale"
        )


class _Messages:
    """Messages behind their lengths, out of pieces of bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = b""
        self._at = 0
        self._passed = 0

    def decoded(self, what: str, decode: Any) -> Any:
        """The next message by its decoder, whose errors get a place."""
        begin = self._passed + self._at
        try:
            return decode(self._next())
        except (ValueError, TypeError, AttributeError, IndexError, struct.error) as problem:
            reason = str(problem) if type(problem) is ValueError else "no such message"
            raise InputError(f"{what}, at byte {begin:,}: {reason}; is this file CIFF, and whole?") from None

    def end(self) -> None:
        """Raises: InputError where something follows."""
        if self._more():
            raise InputError(f"something follows the last DocRecord, at byte {self._passed + self._at:,}")

    def _next(self) -> bytes:
        length = shift = 0
        while True:
            byte = self._take(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return self._take(length)
            if shift > 35:
                raise ValueError("its length is no number")

    def _take(self, count: int) -> bytes:
        if len(self._held) - self._at < count:
            parts = [self._held[self._at :]]
            self._passed += self._at
            size = len(parts[0])
            while size < count:
                if (piece := next(self._pieces, None)) is None:
                    raise ValueError("the file ends in it")
                parts.append(piece)
                size += len(piece)
            self._held, self._at = b"".join(parts), 0
        self._at += count
        return self._held[self._at - count : self._at]

    def _more(self) -> bool:
        return self._at < len(self._held) or any(self._pieces)


def _header(message: bytes) -> Header:
    found = {number: value for number, value, _ in fields(message)}
    lists, documents, all_lists, all_documents, terms = (found.get(number, 0) for number in range(2, 7))
    average, description = found.get(7, 0.0), found.get(8, b"")
    kinds = [*map(type, (lists, documents, all_lists, all_documents, terms, average, description))]
    if kinds != [int] * 5 + [float, bytes]:
        raise ValueError("fields of another kind than a Header has")
    if max(lists, documents, all_lists, all_documents) > _LARGEST:
        raise ValueError("counts beyond 2**31 - 1")
    return Header(lists, documents, all_lists, all_documents, terms, average, description.decode())


def _doc_record(message: bytes) -> DocRecord:
    found = {number: value for number, value, _ in fields(message)}
    number, id, length = found.get(1, 0), found.get(2, b""), found.get(3, 0)
    if type(number) is not int or type(id) is not bytes or type(length) is not int:
        raise ValueError("fields of another kind than a DocRecord has")
    return DocRecord(number, id.decode(), length)


def _postings_list(message: bytes, highest: int) -> PostingsList:
    term, df, gaps, weights = b"", 0, np.zeros(0, np.int64), np.zeros(0, np.int64)
    for number, value, at in fields(message):
        if number == 1:
            term = value
        elif number == 2:
            df = value
        elif number == 4:
            gaps, weights = _postings(message, at)
            break
    documents = np.cumsum(gaps)
    if len(documents) != df:
        raise ValueError(f"a df of {df:,} with {len(documents):,} postings")
    if len(documents) and ((gaps[1:] <= 0).any() or not 0 <= documents[0] <= documents[-1] <= highest):
        raise ValueError(f"document numbers that do not rise, or go beyond {highest:,}")
    return PostingsList(term.decode(), documents, weights)


def _postings(message: bytes, at: int) -> tuple[Rows, Rows]:
    """Gaps and weights of the postings, which end the message.

    A posting is a tag, a size, and two tagged numbers, all of them varints: so they are decoded as one row of varints,
    six a posting. The first may have fewer, because protobuf leaves out a document's number that is 0.
    """
    _, first, _ = next(fields(message, at))
    found = {number: value for number, value, _ in fields(first)}
    size, after = varint(message, at + 1)
    rest = varints(message[after + size :])
    if max(found.values(), default=0) > _LARGEST:
        raise ValueError("a number of more than 31 bits")
    if len(rest) % 6 or any((rest[i::6] != tag).any() for i, tag in ((0, _POSTING), (2, _NUMBER), (4, _WEIGHT))):
        raise ValueError("postings in another form than a document's number and tf")
    gaps, weights = (
        np.concatenate([[found.get(number, 0)], rest[i::6]]).astype(np.int64) for number, i in ((1, 3), (2, 5))
    )
    return gaps, weights


def _header_message(header: Header) -> bytes:
    counts = b"".join(protobuf.number(field, int(value)) for field, value in enumerate((1, *header[:5]), 1))
    return counts + protobuf.double(7, header.average_length) + protobuf.text(8, header.description)


def _postings_messages(terms: Sequence[str], block: Block) -> Iterator[bytes]:
    """The PostingsLists of a block, whose keys number the terms."""
    begins = np.flatnonzero(np.diff(block.keys, prepend=-1))
    ends = np.append(begins[1:], len(block.keys))
    gaps = np.diff(block.values, prepend=0)
    gaps[begins] = block.values[begins]
    data, places = _encoded_postings(gaps, block.weights)
    sums = np.add.reduceat(block.weights.astype(np.int64), begins) if len(begins) else begins
    for key, begin, end, cf in zip(
        block.keys[begins].tolist(), begins.tolist(), ends.tolist(), sums.tolist(), strict=True
    ):
        head = protobuf.text(1, terms[key]) + protobuf.number(2, end - begin) + protobuf.number(3, cf)
        yield protobuf.delimited(head + data[places[begin] : places[end]].tobytes())


def _encoded_postings(gaps: npt.NDArray[np.int32], weights: npt.NDArray[np.int32]) -> tuple[Bytes, Rows]:
    """Postings behind each other, and where each begins: a tag, a size, and the two tagged numbers."""
    first, second = sizes(gaps), sizes(weights)
    lengths = 2 + (first > 0) + first + (second > 0) + second
    places = np.concatenate([[0], np.cumsum(lengths)])
    data = np.empty(int(places[-1]), dtype=np.uint8)
    at = places[:-1]
    data[at], data[at + 1] = _POSTING, lengths - 2
    put(data, at + 2, 1, gaps)
    put(data, at + 2 + (first > 0) + first, 2, weights)
    return data, places
