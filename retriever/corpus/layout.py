"""Which reader a source needs, told by its path alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from retriever.corpus.base import Corpus
from retriever.corpus.ciff import read_ciff
from retriever.corpus.ir import PREFIX, read_ir_documents
from retriever.corpus.jsonl import read_jsonl
from retriever.corpus.lines import kind
from retriever.corpus.parquet import read_parquet
from retriever.corpus.records import DOCUMENTS, Schema
from retriever.corpus.tables import read_csv, read_tsv
from retriever.corpus.text_folder import read_texts, text_files
from retriever.errors import InputError
from retriever.types import Document

Reader = Callable[[Corpus, Path, Schema], Iterator[Document]]

RECORDS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".json": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
READERS = RECORDS | {".ciff": read_ciff}


def read_corpus(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad: Callable[[InputError], None] | None = None,
) -> Corpus:
    """The documents of `source`, streamed.

    source: a BEIR folder; a .jsonl or .json file, one object per line, or a folder of them (Pyserini); MS MARCO's
    collection.tsv and msmarco-docs.tsv; a .csv, .tsv or .parquet file with a header; a .ciff file of postings; a
    folder with .txt and .md files; or `ir:` with an id of ir_datasets. All but Parquet may be compressed as .gz or
    .zst. Fields that are not id, title or text become metadata, so the `vector` of Anserini's and Seismic's files does,
    and a CIFF file's weights under that name.
    columns: the source's own names for "id", "title" and "text", for files with named fields.
    on_bad: takes the error of each bad record, which is then skipped; without it the first one is raised.

    Raises InputError where there is no such source or none that is known here; iterating raises it for bad records,
    damaged files and sources without documents, and MissingDependencyError for Parquet and `ir:` without their package.
    """
    schema = DOCUMENTS.with_columns(columns)
    if str(source).startswith(PREFIX):
        _refuse_columns(columns, source)
        return Corpus(source, partial(read_ir_documents, source=str(source)), on_bad=on_bad)
    path = Path(source)
    files = _corpus_files(path) if path.is_dir() else [path]
    if files:
        return read_files(path, files, schema, on_bad=on_bad)
    _refuse_columns(columns, source)
    return Corpus(path, partial(read_texts, folder=path), on_bad=on_bad)


def _refuse_columns(columns: Mapping[str, str] | None, source: str | Path) -> None:
    if columns:
        raise InputError("columns are for JSONL, CSV, TSV and Parquet: this source has no named fields", source)


def read_files(
    source: Path,
    files: list[Path],
    schema: Schema,
    *,
    readers: Mapping[str, Reader] = READERS,
    what: str = "documents",
    on_bad: Callable[[InputError], None] | None = None,
) -> Corpus:
    """The files one after the other, each by the reader for its suffix. Raises InputError where one has none."""
    plan = [(path, _reader(path, readers)) for path in files]

    def read(corpus: Corpus) -> Iterator[Document]:
        for corpus.path, reader in plan:
            yield from reader(corpus, Path(corpus.path), schema)

    total = sum(path.stat().st_size for path in files)
    return Corpus(source, read, what=what, on_bad=on_bad, bytes_total=total)


def _reader(path: Path, readers: Mapping[str, Reader]) -> Reader:
    if not path.exists():
        raise InputError("there is no such file or folder", path)
    if reader := readers.get(kind(path)):
        return reader
    raise InputError(f"a file of no known format: expected {', '.join(readers)}, plain, .gz or .zst, or a folder", path)


def _corpus_files(folder: Path) -> list[Path]:
    """BEIR's corpus file or Pyserini's files; none for a folder of texts. Raises InputError for other folders."""
    if corpus := compressed_or_not(folder, "corpus.jsonl"):
        return [corpus]
    if compressed_or_not(folder, "queries.jsonl"):
        raise InputError("holds queries.jsonl and no corpus.jsonl: expected both, as in BEIR", folder)
    files = sorted(path for path in folder.iterdir() if kind(path) in {".json", ".jsonl"} and path.is_file())
    if not files and not any(text_files(folder)):
        layouts = "corpus.jsonl (BEIR), .json or .jsonl files (Pyserini), .txt or .md files at any depth"
        raise InputError(f"a folder of no known layout: looked for {layouts}; give other files by their path", folder)
    return files


def compressed_or_not(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder, plain, .gz or .zst; None if there is none."""
    return next((path for end in ("", ".gz", ".zst") if (path := folder / f"{name}{end}").is_file()), None)
