"""Parquet files, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.corpus.records import Schema, document, json_value
from retriever.errors import InputError, MissingDependencyError
from retriever.types import Document

if TYPE_CHECKING:
    from retriever.corpus.base import Corpus

_BATCH = 512


def read_parquet(corpus: Corpus, path: Path, schema: Schema) -> Iterator[Document]:
    """The documents of a Parquet file, its rows numbered from 1; dates become ISO 8601 text in the metadata."""
    return corpus.make(_rows(corpus, path, schema), lambda row: document(_json_row(row), schema))


def _json_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value if type(value) is str else json_value(name, value) for name, value in row.items()}


def _rows(corpus: Corpus, path: Path, schema: Schema) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependencyError("reading Parquet", "pyarrow", "data") from error
    if path.suffix.lower() != ".parquet":
        raise InputError("Parquet is compressed inside and cannot be read from a compressed file: decompress it", path)
    number, before = 0, corpus.bytes_read or 0
    try:
        with ParquetFile(path, pre_buffer=False) as file:
            _check(schema, file.schema_arrow.names, path)
            for batch in file.iter_batches(_BATCH):
                rows = batch.to_pylist()
                yield from enumerate(rows, number + 1)
                number += len(rows)
                corpus.bytes_read = before + (corpus.bytes_total or 0) * number // file.metadata.num_rows
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"no readable Parquet ({error}): write or fetch it again", path, number + 1) from error


def _check(schema: Schema, names: list[str], path: Path) -> None:
    try:
        schema.check(names)
    except InputError as error:
        raise InputError(error.message, path) from None
