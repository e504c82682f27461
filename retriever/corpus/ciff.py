"""Postings in CIFF as documents: their terms, and the weights as the field `vector` of their metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.corpus.lines import counted
from retriever.corpus.records import Schema, document
from retriever.errors import InputError
from retriever.interchange.ciff import CiffReader, DocRecord
from retriever.interchange.external_sort import Block, Sorter
from retriever.types import Document

if TYPE_CHECKING:
    from retriever.corpus.base import Corpus

Vector = dict[str, int]


def read_ciff(corpus: Corpus, path: Path, schema: Schema) -> Iterator[Document]:
    """The documents in the order of their numbers; a document's line is its place among them, from 1.

    Their texts are their terms, heaviest first. Memory holds the terms, some 8 million postings, and the longest
    postings list; a temporary file all postings.
    """
    with Sorter() as postings:
        yield from corpus.make(_placed(_records(corpus, path, postings), path), partial(document, schema=schema))


def _records(corpus: Corpus, path: Path, postings: Sorter) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = CiffReader(counted(corpus, path))
    terms: list[str] = []
    for found in reader.postings_lists():
        postings.add(found.documents, len(terms), found.weights)
        terms.append(found.term)
    vectors = _vectors(terms, postings.blocks())
    number, vector = next(vectors, (-1, {}))
    for line, record in enumerate(_rising(reader.records()), 1):
        if 0 <= number < record.number:
            break
        here: Vector = {}
        if number == record.number:
            here = vector
            number, vector = next(vectors, (-1, {}))
        yield line, {"id": record.id, "vector": here}
    if number >= 0:
        raise InputError(f"postings name document {number:,}, which no DocRecord describes: export the index again")


def _rising(records: Iterable[DocRecord]) -> Iterator[DocRecord]:
    last = -1
    for record in records:
        if record.number <= last:
            raise InputError(f"DocRecord {record.number:,} comes after {last:,}: expected them in rising order")
        last = record.number
        yield record


def _vectors(terms: list[str], blocks: Iterable[Block]) -> Iterator[tuple[int, Vector]]:
    """The number of each document that has postings, and its weights."""
    for block in blocks:
        begins = np.flatnonzero(np.diff(block.keys, prepend=-1))
        values, weights = block.values.tolist(), block.weights.tolist()
        for number, begin, end in zip(
            block.keys[begins].tolist(), begins.tolist(), [*begins[1:].tolist(), len(values)], strict=True
        ):
            yield number, {terms[values[i]]: weights[i] for i in range(begin, end)}


def _placed(records: Iterable[tuple[int, dict[str, Any]]], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same; an error gets the file's name."""
    try:
        yield from records
    except InputError as error:
        raise InputError(error.message, path) from None
