"""CSV and TSV: with a header and named columns, or MS MARCO's files without one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus.lines import decode, numbered_lines
from retriever.corpus.records import MAX_DOCUMENT_BYTES, Schema, document, listed, one_of
from retriever.errors import InputError
from retriever.types import Document

if TYPE_CHECKING:
    from retriever.corpus.base import Corpus

Lines = Iterator[tuple[int, bytes]]


def read_csv(corpus: Corpus, path: Path, schema: Schema) -> Iterator[Document]:
    """The documents of a CSV file with a header; quoted fields may hold commas, doubled quotes and line breaks."""
    return _with_header(corpus, numbered_lines(corpus, path), schema, ",")


def read_tsv(corpus: Corpus, path: Path, schema: Schema) -> Iterator[Document]:
    """The documents of a TSV file. With a header it is quoted as CSV is; without one, a quote is a letter like others.

    A first line that names a column for every required field is a header, and so is any first line where the user
    gave the columns' names. Raises InputError where there is no header and no known number of columns.
    """
    lines = numbered_lines(corpus, path)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return iter(())
    cells = first[1].decode(errors="replace").rstrip("\r").split("\t")
    lines = chain([first], lines)
    if not schema.headerless or _is_header([cell.strip('"') for cell in cells], schema):
        return _with_header(corpus, lines, schema, "\t")
    for names in schema.headerless:
        if len(names) == len(cells):
            return _without_header(corpus, lines, schema, names)
    raise InputError(_unknown_columns(len(cells), schema), path, first[0])


def _is_header(cells: list[str], schema: Schema) -> bool:
    return all(set(getattr(schema, field)) & set(cells) for field in schema.required)


def _unknown_columns(count: int, schema: Schema) -> str:
    columns = " or ".join(f"{len(names)} ({', '.join(names)})" for names in schema.headerless)
    header = f"a header with {one_of(schema.id)} and {one_of(schema.text)}"
    return f"{count} column{'s' * (count > 1)} and no known header: expected {columns} columns, or {header}"


def _without_header(corpus: Corpus, lines: Lines, schema: Schema, names: tuple[str, ...]) -> Iterator[Document]:
    def make(line: bytes) -> Document | None:
        text = decode(line).rstrip("\r")
        return _row(text.split("\t"), names, schema) if text.strip(" ") else None

    return corpus.make(lines, make)


def _with_header(corpus: Corpus, lines: Lines, schema: Schema, delimiter: str) -> Iterator[Document]:
    rows = _rows(corpus, lines, delimiter)
    number, header = next(rows, (None, None))
    if header is None:
        return iter(())
    try:
        schema.check(header)
    except InputError as error:
        raise InputError(error.message, corpus.path, number) from None
    return corpus.make(rows, lambda cells: _row(cells, header, schema))


def _row(cells: list[str], names: list[str] | tuple[str, ...], schema: Schema) -> Document:
    if len(cells) != len(names):
        raise InputError(f"{len(cells)} columns, expected {len(names)}: {listed(names)}")
    return document(dict(zip(names, cells, strict=True)), schema)


class _Text:
    """The lines as csv takes them. A line that is not UTF-8 leaves its error in `fault` and lets the record end."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.number = 0
        self.fault: InputError | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        try:
            return decode(line) + "\n"
        except InputError as error:
            self.fault = InputError(error.message, line=self.number)
            return line.decode(errors="replace") + "\n"


def _rows(corpus: Corpus, lines: Lines, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records with the lines they begin on, blank ones left out, bad ones told of."""
    # csv's limit belongs to the process and starts at 128 KiB; one above ours leaves the telling to us, up to a point
    # where a quote that never closes must not gather the rest of the file.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_DOCUMENT_BYTES))
    text = _Text(lines)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        corpus.line, text.fault = text.number + 1, None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "a field that opens with a quote ends with one, and quotes inside it are doubled"
            text.fault = text.fault or InputError(f"broken quoting: {error}; {hint}")
            cells = []
        if text.fault:
            corpus.bad(text.fault)
        elif cells:
            yield corpus.line, cells
