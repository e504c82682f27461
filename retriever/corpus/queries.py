"""Queries: the same files and the same care as documents, but few enough for a list."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from retriever.corpus.base import Corpus
from retriever.corpus.ir import PREFIX, read_ir_queries
from retriever.corpus.layout import RECORDS, compressed_or_not, read_files
from retriever.corpus.records import Schema
from retriever.corpus.tables import read_tsv
from retriever.errors import InputError
from retriever.types import Query

QUERIES = Schema(
    id=("_id", "id", "qid", "query_id"),
    title=(),
    text=("text", "query"),
    headerless=(("qid", "text"),),
)


def read_queries(source: str | Path) -> list[Query]:
    """The queries of `source`, in its order.

    source: a BEIR folder; a .jsonl file of objects with `_id` and `text`; MS MARCO's and Anserini's queries as two
    columns, id and text, with or without a header (.tsv, .txt); CSV and Parquet with a header; each plain, and all but
    Parquet as .gz or .zst; or `ir:` with an id of ir_datasets. A field `language` is the query's.

    Raises InputError for a bad record, an id given twice and a source without queries, and MissingDependencyError for
    Parquet and `ir:` without their package.
    """
    corpus = _open(source)
    first: dict[str, int | None] = {}
    queries = []
    for query in corpus:
        if query.id in first:
            twice = f"query id {query.id!r} stands already at line {first[query.id]}: an id may stand once"
            raise InputError(twice, corpus.path, corpus.line)
        first[query.id] = corpus.line
        queries.append(Query(query.id, query.text, str(query.metadata.get("language") or "")))
    return queries


def _open(source: str | Path) -> Corpus:
    if str(source).startswith(PREFIX):
        return Corpus(source, partial(read_ir_queries, source=str(source), schema=QUERIES), what="queries")
    path = Path(source)
    file = compressed_or_not(path, "queries.jsonl") if path.is_dir() else path
    if file is None:
        raise InputError("a folder without queries.jsonl: give the file with the queries by its path", path)
    return read_files(path, [file], QUERIES, readers=RECORDS | {".txt": read_tsv}, what="queries")
