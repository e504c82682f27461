"""What CIFF needs of protobuf's encoding: fields by their numbers, and long rows of varints at the speed of NumPy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever.types import Rows

VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5
Bytes = npt.NDArray[np.uint8]


def tag(field: int, kind: int) -> int:
    """What stands before a field's value; one byte, for fields up to 15."""
    return field << 3 | kind


def varint(message: bytes, at: int) -> tuple[int, int]:
    """The whole number at a place, and the place behind it. Raises: ValueError, IndexError where there is none."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def fields(message: bytes, at: int = 0) -> Iterator[tuple[int, Any, int]]:
    """The number, value and place of each field. Raises: ValueError, IndexError, struct.error for no message."""
    while at < len(message):
        begin = at
        key, at = varint(message, at)
        value: Any
        if key & 7 == VARINT:
            value, at = varint(message, at)
        elif key & 7 == BYTES:
            size, at = varint(message, at)
            value, at = message[at : at + size], at + size
        elif key & 7 == DOUBLE:
            (value,) = struct.unpack_from("<d", message, at)
            at += 8
        elif key & 7 == FLOAT:
            value, at = message[at : at + 4], at + 4
        else:
            raise ValueError(f"a field of kind {key & 7}")
        if at > len(message):
            raise ValueError("a field that goes beyond it")
        yield key >> 3, value, begin


def varints(data: bytes) -> Rows:
    """int64 [n]: a row of varints of up to 32 bits. Raises: ValueError where it is none."""
    if not data:
        return np.zeros(0, dtype=np.int64)
    raw = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(raw < 128)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise ValueError("a number that does not end")
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins + 1
    if lengths.max() > 5:
        raise ValueError("a number of more than 32 bits")
    values = np.zeros(len(ends), dtype=np.int64)
    for place in range(int(lengths.max())):
        longer = lengths > place
        values[longer] |= (raw[begins[longer] + place].astype(np.int64) & 127) << 7 * place
    return values


def encoded(value: int) -> bytes:
    """A whole number from 0 as a varint."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def number(field: int, value: int) -> bytes:
    """A field with a whole number; protobuf leaves out 0."""
    return bytes([tag(field, VARINT)]) + encoded(value) if value else b""


def double(field: int, value: float) -> bytes:
    """A field with a number of 64 bits."""
    return bytes([tag(field, DOUBLE)]) + struct.pack("<d", value) if value else b""


def text(field: int, value: str) -> bytes:
    """A field with text."""
    data = value.encode()
    return bytes([tag(field, BYTES)]) + encoded(len(data)) + data if data else b""


def delimited(message: bytes) -> bytes:
    """A message behind its length, as `writeDelimitedTo` writes it."""
    return encoded(len(message)) + message


def sizes(values: npt.NDArray[np.int32]) -> Rows:
    """int64 [n]: the bytes of each number's varint; 0 for 0, which protobuf leaves out."""
    found = np.zeros(len(values), dtype=np.int64)
    for place in range(5):
        found += values > 0 if place == 0 else values >= 1 << 7 * place
    return found


def put(data: Bytes, at: Rows, field: int, values: npt.NDArray[np.int32]) -> None:
    """Write numbers as fields at their places in `data`; those that are 0 are left out."""
    lengths = sizes(values)
    data[at[lengths > 0]] = tag(field, VARINT)
    for place in range(5):
        here = lengths > place
        more = (lengths[here] > place + 1) * 128
        data[at[here] + 1 + place] = (values[here] >> 7 * place) & 127 | more
