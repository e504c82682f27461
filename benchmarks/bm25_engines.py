"""BM25 with k1 = 0.9 and b = 0.4 in several engines, from texts to rows and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from engines import Answers, java_answers, tile_bytes
from scipy.sparse import csr_array

from retriever import Document
from retriever.encoders.words import Words
from retriever.indexers import bm25_formula
from retriever.indexers.bm25 import Bm25, Bm25Config
from retriever.indexers.free_bm25 import FreeBm25, FreeBm25Config
from retriever.store.manifest import ViewState

K1, B = 0.9, 0.4


class Weights(NamedTuple):
    """BM25 as sums of products: documents and counts float32 [n, terms], queries float32 [q, terms]: counts too."""

    documents: csr_array
    queries: csr_array
    counts: csr_array


def weights(documents: Sequence[Document], queries: Sequence[str]) -> Weights:
    """Of Lucene's formula and length classes, over Lucene's analysis of English."""
    words = Words("lucene")
    found = words.encode_documents([document.contents for document in documents], lambda _: None)
    columns = {term: column for column, term in enumerate(found.terms)}
    counts, width = found.weights, len(columns)
    lengths, df = counts.sum(axis=1), np.bincount(counts.indices, minlength=width)
    used = int(np.count_nonzero(lengths))
    table = bm25_formula.saturation("lucene", K1, B, float(lengths.sum()) / used, int(counts.data.max()) + 1)
    classes = np.repeat(bm25_formula.length_class(lengths), np.diff(counts.indptr))
    idf = bm25_formula.idf("lucene", df, used)[counts.indices]
    values = (table[classes, counts.data.astype(np.int64)] * idf).astype(np.float32)
    asked = words.encode_queries(queries)
    known = csr_array(asked.weights[:, [column for column, term in enumerate(asked.terms) if term in columns]])
    numbers = np.array([columns[term] for term in asked.terms if term in columns], dtype=np.int32)
    given = csr_array((known.data, numbers[known.indices], known.indptr), shape=(len(queries), width))
    return Weights(csr_array((values, counts.indices, counts.indptr), shape=counts.shape), given, counts)


class View:
    """A view of ours, from texts; without the document store."""

    def __init__(self, view: Any, documents: Sequence[Document], queries: Sequence[str]) -> None:
        self.view, self._queries = view, queries
        view.append(documents)
        view.finish()
        self.bytes = tile_bytes(view)[0] if isinstance(view, FreeBm25) else _size(view.state)

    def search(self, k: int, threads: int) -> Answers:
        """As many threads as cores, where the view has threads."""
        found = self.view.search(self._queries, k, None, self.view.config)
        return found.rows[:, :k], found.scores[:, :k]


def free(folder: Path, language: str) -> FreeBm25:
    """An empty `bm25(k1=0.9, b=0.4)`."""
    return FreeBm25(folder / "views" / language, FreeBm25Config(language=language, k1=K1, b=B), ViewState(""))


def tantivy(folder: Path) -> Bm25:
    """An empty `bm25`: tantivy with its fixed 1.2 and 0.75."""
    return Bm25(folder / "views" / "tantivy", Bm25Config(), ViewState(""))


def _size(state: ViewState) -> int:
    return sum(known.size for known in state.files.values())


class Bm25s:
    """bm25s as its users call it: English stop words, Snowball's stemmer."""

    def __init__(self, documents: Sequence[Document], queries: Sequence[str], backend: str) -> None:
        import bm25s
        import Stemmer

        self._tokenize, self._stemmer, self._queries = bm25s.tokenize, Stemmer.Stemmer("english"), queries
        self._model = bm25s.BM25(k1=K1, b=B, method="lucene", backend=backend)
        self._model.index(self._tokens([document.contents for document in documents]), show_progress=False)
        self.bytes = _bm25s_bytes(self._model)

    def _tokens(self, texts: Sequence[str]) -> Any:
        return self._tokenize(list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False)

    def search(self, k: int, threads: int) -> Answers:
        """From texts."""
        asked = self._tokens(self._queries)
        found = self._model.retrieve(asked, k=k, show_progress=False, n_threads=threads if threads > 1 else 0)
        return found.documents, found.scores


class Bm25sAlone:
    """bm25s over our tokens, as numbers, on both sides: its search and nothing else."""

    def __init__(self, given: Weights, backend: str) -> None:
        import bm25s

        vocabulary = {str(number): number for number in range(given.counts.shape[1])}
        self._model = bm25s.BM25(k1=K1, b=B, method="lucene", backend=backend)
        self._model.index((_repeated(given.counts), vocabulary), show_progress=False)
        self._queries = _repeated(given.queries)
        self.bytes = _bm25s_bytes(self._model)

    def search(self, k: int, threads: int) -> Answers:
        """From term numbers."""
        found = self._model.retrieve(self._queries, k=k, show_progress=False, n_threads=threads if threads > 1 else 0)
        return found.documents, found.scores


def _repeated(counts: csr_array) -> list[list[int]]:
    """Each row's term numbers, as often as they occur."""
    every = np.repeat(counts.indices, counts.data.astype(np.int64))
    ends = np.cumsum(counts.sum(axis=1)).astype(np.int64)
    return [part.tolist() for part in np.split(every, ends[:-1])]


def _bm25s_bytes(model: Any) -> int:
    return sum(model.scores[part].nbytes for part in ("data", "indices", "indptr"))


class Lucene:
    """Lucene through the classes that Pyserini calls; one segment, nothing stored."""

    def __init__(self, documents: Sequence[Document], queries: Sequence[str], folder: Path) -> None:
        from retriever.indexers.lucene_jvm import java

        indexer = java("io.anserini.index.SimpleIndexer")(str(folder), False, 2)
        record = java("io.anserini.collection.JsonCollection$Document")
        for row, document in enumerate(documents):
            indexer.addJsonDocument(record.fromFields(str(row), document.contents))
        indexer.close()
        self.bytes = sum(path.stat().st_size for path in folder.iterdir())
        self._searcher = java("io.anserini.search.SimpleSearcher")(str(folder))
        self._searcher.set_bm25(K1, B)
        self._queries, self._ids = java("java.util.ArrayList")(), java("java.util.ArrayList")()
        for number, query in enumerate(queries):
            self._queries.add(query)
            self._ids.add(str(number))

    def search(self, k: int, threads: int) -> Any:
        """`batch_search`; the answers stay in Java."""
        return self._searcher.batch_search(self._queries, self._ids, k, threads)

    def answers(self, found: Any, k: int) -> Answers:
        """As arrays."""
        return java_answers(found, self._ids.size(), k)

    def search_and_read(self, k: int, threads: int) -> Answers:
        """`batch_search`, then the id and the score of every hit from its Java object."""
        return self.answers(self.search(k, threads), k)
