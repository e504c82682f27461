"""Lexical search on tantivy: BM25 with k1 = 1.2 and b = 0.75 (fixed by tantivy), document length in one lossy byte.

score = sum over query terms of idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * |d| / avgdl)) with
idf = ln(1 + (N - df + 0.5) / (df + 0.5)): Robertson and Zaragoza 2009 with Lucene's idf. N, df and avgdl count deleted
documents until `compact`, as Lucene's do until a merge.

tantivy's segment files never change once written. A commit therefore works in a new folder that hard-links the files
of the last one, and readers of the last one are not disturbed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tantivy
from tantivy import Occur

from retriever.analyzers import LANGUAGES, WORDS, analyzer
from retriever.errors import CorruptIndexError, InputError
from retriever.expansion.files import check_expansion, each_expanded, expanded, expansion_identity
from retriever.indexers.base import Frequencies, Terms, best_and_ties, moved, search_time, stack
from retriever.spec import suggest
from retriever.store.files import FileRecord, link_files, record, sync_folder
from retriever.store.manifest import ViewState
from retriever.types import Document, Hits, Mask, Rows

_MUTABLE = ("meta.json", ".managed.json")
_HEAP = 128_000_000
_RARE = 20
"""A filter that leaves fewer than one in so many rows is looked up; others are applied to a longer result list."""


@dataclass(frozen=True)
class Bm25Config:
    """language: its analyzer: lower-casing, stop words, Snowball stemming; `none`: words as they are; `bigrams`: pairs
    of all characters. Other languages than these are `free_bm25.FreeBm25Config`'s.
    title_boost: BM25 of the title field, times this, is added to BM25 of title and text together.
    syntax: read queries as tantivy's query language ("a phrase", +must, -not, AND, OR, title:word), not as plain text.
    expansion: a file of `retriever expand`, whose words are indexed behind each document's own.
    """

    language: str = "english"
    title_boost: float = search_time(0.0)
    syntax: bool = search_time(False)
    expansion: str | None = None

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f"no analyzer for language {self.language!r}; {suggest(self.language, WORDS)}")


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    for name in ("contents", "title"):
        builder = builder.add_text_field(name, tokenizer_name="analyzer", index_option="position")
    return builder.add_unsigned_field("row", indexed=True, fast=True).build()


class Bm25:
    """A tantivy index over `contents` (title and text, and expansions) and `title`."""

    Config = Bm25Config
    encodes = False
    rebuilds = ("title_boost", "syntax")

    def __init__(self, folder: Path, config: Bm25Config, state: ViewState) -> None:
        self._root, self.config, self.state = folder, config, state
        self._analyzer = analyzer(config.language)
        self._serial = int(state.data.get("serial", 0))
        self._index = self._open(self._folder(self._serial)) if self._serial else None
        self._searcher = self._index.searcher() if self._index else None
        for name in state.files:  # tantivy takes a missing file of positions for an empty one
            (folder.parent.parent / name).stat()

    def append(self, documents: Sequence[Document]) -> None:
        """Add the next rows in a folder of their own."""
        self._write(documents, self._folder(self._serial) if self._serial else None, self.state.rows)

    def finish(self) -> None:
        """Nothing: every commit is searchable."""

    def compact(self, live: Rows, documents: Iterable[Document]) -> None:
        """Index the remaining documents afresh: deleted ones leave the statistics too."""
        self._write(documents, None, 0)

    def search(self, queries: Sequence[str], k: int, allowed: Mask | None, config: Bm25Config) -> Hits:
        """BM25 of each query, one at a time, pruned by tantivy's block-max WAND."""
        if self._searcher is None or self._searcher.num_docs == 0:
            return stack([([], [])] * len(queries))
        few = self._few(allowed)
        return stack([self._best(self._query(text, config), k, allowed, few) for text in queries])

    def query_terms(self, texts: Sequence[str]) -> list[Terms]:
        """Analysed terms and their counts, read as plain text."""
        return [Counter(self._analyzer.analyze(text)) for text in texts]

    def document_terms(self, rows: Rows, documents: Sequence[Document]) -> list[Terms]:
        """Analysed terms of the contents and their counts: tantivy keeps no document vectors."""
        return self.query_terms(expanded(documents, self.config.expansion))

    def frequencies(self, terms: Sequence[str]) -> Frequencies:
        """Document frequencies in the contents; tantivy gives no collection frequencies, so cf and tokens are nan."""
        try:
            counts = [self._searcher.doc_freq("contents", term) if self._searcher else 0 for term in terms]
        except BaseException as problem:
            raise _damage(self._folder(self._serial), problem) from None
        return Frequencies(np.array(counts, np.int64), np.full(len(counts), np.nan), self.state.rows, np.nan)

    def search_terms(self, queries: Sequence[Terms], k: int, allowed: Mask | None, config: Bm25Config) -> Hits:
        """BM25 of each query, its terms weighted.

        Raises: InputError where `config` says that queries are tantivy's query language.
        """
        if config.syntax:
            raise InputError(
                f"view {self._root.name!r} reads queries as tantivy's query language, whose operators weighted terms "
                f"have no place for; search it with {self._root.name}(syntax=false)"
            )
        if self._searcher is None or self._searcher.num_docs == 0:
            return stack([([], [])] * len(queries))
        few = self._few(allowed)
        return stack([self._best(self._weighted(terms, config), k, allowed, few) for terms in queries])

    def snippet(self, query: str, text: str, width: int = 160) -> str:
        """The part of `text` that holds most of the query's words; its beginning where it holds none."""
        if self._searcher is not None:
            words = self._query(query, replace(self.config, syntax=False))
            try:
                generator = tantivy.SnippetGenerator.create(self._searcher, words, _SCHEMA, "contents")
            except BaseException as problem:
                raise _damage(self._folder(self._serial), problem) from None
            generator.set_max_num_chars(width)
            document = tantivy.Document()
            document.add_text("contents", text)
            fragment = generator.snippet_from_doc(document).fragment()
            if fragment:
                return " ".join(fragment.split())
        return " ".join(text[: width * 2].split())[:width]

    def _folder(self, serial: int) -> Path:
        return self._root / f"{serial:06d}"

    def _open(self, folder: Path) -> tantivy.Index:
        if not (folder / "meta.json").exists():
            raise FileNotFoundError(folder / "meta.json")
        try:
            index = tantivy.Index.open(str(folder)) if os.access(folder, os.W_OK) else _open_read_only(folder)
        except BaseException as problem:
            raise _damage(folder, problem) from None
        index.register_tokenizer("analyzer", self._analyzer)
        return index

    def _query(self, text: str, config: Bm25Config | None = None) -> tantivy.Query:
        config = config or self.config
        if config.syntax:
            return self._parsed(text, config)
        return self._weighted(self.query_terms([text])[0], config)

    def _weighted(self, terms: Terms, config: Bm25Config) -> tantivy.Query:
        fields = [("contents", 1.0), ("title", config.title_boost)]
        should = [
            (Occur.Should, _boosted(tantivy.Query.term_query(_SCHEMA, field, term), boost * weight))
            for field, boost in fields
            if boost
            for term, weight in terms.items()
        ]
        return tantivy.Query.boolean_query(should)

    def _parsed(self, text: str, config: Bm25Config) -> tantivy.Query:
        assert self._index is not None
        boosts = {"title": config.title_boost} if config.title_boost else {}
        try:
            return self._index.parse_query(text, ["contents", *boosts], field_boosts=boosts)
        except ValueError as problem:
            raise InputError(f"the query {text!r} does not parse: {problem}") from None

    def _few(self, allowed: Mask | None) -> tantivy.Query | None:
        """A condition that looks up the allowed rows, where they are few."""
        if allowed is None or np.count_nonzero(allowed) * _RARE > self.state.rows:
            return None
        rows = np.flatnonzero(allowed).tolist()
        return tantivy.Query.const_score_query(tantivy.Query.term_set_query(_SCHEMA, "row", rows), 0.0)

    def _best(
        self, query: tantivy.Query, k: int, allowed: Mask | None, few: tantivy.Query | None
    ) -> tuple[list[int], list[float]]:
        """The k best allowed rows and all that tie with the last of them."""
        if few is not None:
            query = tantivy.Query.boolean_query([(Occur.Must, query), (Occur.Must, few)])
        return best_and_ties(lambda limit: self._ask(query, limit), k, self.state.rows, allowed)

    def _ask(self, query: tantivy.Query, limit: int) -> tuple[list[int], list[float]]:
        """Tantivy's own answer, as plain lists: for ten results an array costs more than the search."""
        assert self._searcher is not None
        try:
            hits = self._searcher.search(query, limit, count=False).hits
            rows: list[int] = self._searcher.fast_field_values("row", [at for _, at in hits])  # type: ignore[assignment]
        except BaseException as problem:
            raise _damage(self._folder(self._serial), problem) from None
        if max(rows, default=0) >= self.state.rows:
            raise _damage(self._folder(self._serial), ValueError("it names rows that do not exist"))
        return rows, [score for score, _ in hits]

    def _write(self, documents: Iterable[Document], base: Path | None, first_row: int) -> None:
        if self.state.rows:
            check_expansion(self._root.name, self.state.data.get("expansion"), self.config.expansion)
        serial = self._serial + 1
        folder = self._folder(serial)
        shutil.rmtree(folder, ignore_errors=True)  # left by a commit that did not happen
        folder.mkdir(parents=True)
        if base:
            link_files(base, folder, copied=_MUTABLE)
        row = first_row - 1
        try:
            index = self._open(folder) if base else tantivy.Index(_SCHEMA, path=str(folder), reuse=False)
            index.register_tokenizer("analyzer", self._analyzer)
            writer = index.writer(heap_size=_HEAP, num_threads=min(2, os.cpu_count() or 1))
            for row, (document, contents) in enumerate(each_expanded(documents, self.config.expansion), first_row):
                writer.add_document(_entry(row, document, contents))
            writer.commit()
            writer.wait_merging_threads()
        except BaseException as problem:
            raise _damage(folder, problem) from None
        for lock in folder.glob("*.lock"):
            lock.unlink()
        files = self._record(folder, base)
        self._serial, self._index = serial, index
        index.reload()
        self._searcher = index.searcher()
        data = {"serial": serial, "engine": "tantivy"}
        if made_with := expansion_identity(self.config.expansion):
            data["expansion"] = made_with
        self.state = moved(self.state, rows=row + 1, data=data, files=files)

    def _record(self, folder: Path, base: Path | None) -> dict[str, FileRecord]:
        view = self._root.name
        known: dict[str, FileRecord] = {}
        for path in sorted(folder.iterdir()):
            earlier = self.state.files.get(f"views/{view}/{base.name}/{path.name}") if base else None
            same = earlier is not None and path.name not in _MUTABLE
            known[f"views/{view}/{folder.name}/{path.name}"] = earlier if same and earlier else record(path)
        for made in (folder, self._root, self._root.parent):
            sync_folder(made)
        return known


_SCHEMA = _schema()


def _boosted(query: tantivy.Query, boost: float) -> tantivy.Query:
    return query if boost == 1.0 else tantivy.Query.boost_query(query, boost)


def _entry(row: int, document: Document, contents: str) -> tantivy.Document:
    entry = tantivy.Document()
    entry.add_text("contents", contents)
    entry.add_text("title", document.title)
    entry.add_unsigned("row", row)
    return entry


def _damage(folder: Path, problem: BaseException) -> BaseException:
    """What tantivy met, as an error of ours: it says ValueError, or panics, which no `except Exception` catches."""
    if failure := re.search(r"(?:os error |Os { code: )(\d+)", str(problem)):
        return OSError(int(failure[1]), os.strerror(int(failure[1])), str(folder))
    if "writer was killed" in str(problem):  # one of its threads failed to write, and it does not say why
        code = errno.ENOSPC if shutil.disk_usage(folder).free < _HEAP else errno.EIO
        return OSError(code, os.strerror(code), str(folder))
    if isinstance(problem, ValueError) or type(problem).__name__ == "PanicException":
        return CorruptIndexError(f"{folder}: tantivy cannot read it: {problem}; `retriever verify` tells more")
    return problem


def _open_read_only(folder: Path) -> tantivy.Index:
    """Tantivy makes a lock file even to read; on read-only media it gets a folder of links to lock in."""
    import tempfile

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as links:  # tantivy may be locking there again
        for path in folder.iterdir():
            if path.suffix != ".lock":  # one left there cannot be locked, not even through a link
                (Path(links) / path.name).symlink_to(path.resolve())
        index = tantivy.Index.open(links)
        index.searcher()  # the files are mapped now; the links may go
        return index
