"""Dense search for long documents: a vector for each passage, and a document as near as its nearest passage.

The passages' vectors are a dense view of their own, whose rows are passages. Beside its files lies `ends`, which says
where the passages of each document end; it grows as they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from retriever.encoders.token_spans import TokenSpans
from retriever.errors import CorruptIndexError
from retriever.indexers.base import moved, stack
from retriever.indexers.dense import Dense, DenseConfig
from retriever.passages import Passages, Splitter, Splitting
from retriever.progress import scaled
from retriever.store.files import grow, mapped
from retriever.store.manifest import ViewState
from retriever.types import Document, Floats, Hits, Mask, Rows

_AT_ONCE = 65_536
"""Passages that are in memory at once."""
_ENDS = np.dtype("<i8")


@dataclass(frozen=True)
class DensePassagesConfig(DenseConfig):
    """As `dense`, and passage: how many units one has; stride, unit, cap: `passages.Splitting`. The title stands before
    every passage, and does not count.
    """

    passage: int = field(default=150, metadata={"always": True})  # what tells this view from one without passages
    stride: int | None = None
    unit: str = "words"
    cap: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.splitting

    @property
    def splitting(self) -> Splitting:
        """How documents are split."""
        return Splitting(self.unit, self.passage, self.stride, self.cap)


class DensePassages:
    """A vector for each passage; the score of a document is that of its best one, as ANCE's MaxP has it (Xiong et al.,
    ICLR 2021, four passages of 512 tokens there).

    Exact for `Flat`; any other FAISS index is asked for passages, as approximately as it answers. A view's `truncated`
    counts passages longer than the encoder reads, and documents with more passages than `cap`. The paper's numbers
    could not be reproduced here, without its collection and model.
    """

    Config = DensePassagesConfig
    encodes = True
    rebuilds = Dense.rebuilds

    def __init__(self, folder: Path, config: DensePassagesConfig, state: ViewState) -> None:
        self._folder, self.config = folder, config
        self._rows = state.rows
        serial = int(state.data.get("serial", 0))
        self._known = state.files.get(self._path(serial))
        files = {path: known for path, known in state.files.items() if path != self._path(serial)}
        self._dense = Dense(folder, config, moved(state, rows=int(state.data.get("passages", 0)), files=files))

    @property
    def state(self) -> ViewState:
        """That of the passages' vectors, with rows for documents."""
        inner = self._dense.state
        files = {**inner.files, self._path(self._serial): self._known} if self._known else inner.files
        return moved(inner, rows=self._rows, data={**inner.data, "passages": inner.rows}, files=files)

    @cached_property
    def _splitter(self) -> Splitter:
        return Splitter(self.config.splitting, TokenSpans(self.config.model) if self.config.unit == "tokens" else None)

    def append(self, documents: Sequence[Document]) -> None:
        """Encode the passages of the next rows and write them behind the others."""
        capped, counts = 0, []
        for part in self._split(documents):
            texts = [text for passages in part for text in passages.texts]
            with scaled(len(part) / len(texts)):
                self._dense.append([Document("", text) for text in texts])
            counts += [len(passages.texts) for passages in part]
            capped += sum(passages.total > len(passages.texts) for passages in part)
        inner = self._dense.state
        self._dense.state = moved(inner, truncated=inner.truncated + capped)
        self._store(np.array(counts, dtype=np.int64))

    def _split(self, documents: Sequence[Document]) -> Iterator[list[Passages]]:
        """The documents' passages, so many at once as fit."""
        part: list[Passages] = []
        held = 0
        for document in documents:
            part.append(self._splitter.split_document(document, title=True))
            held += len(part[-1].texts)
            if held >= _AT_ONCE:
                yield part
                part, held = [], 0
        if part:
            yield part

    def finish(self) -> None:
        """Build or extend the FAISS index over the passages."""
        self._dense.finish()

    def compact(self, live: Rows, documents: Iterable[Document]) -> None:
        """Keep the vectors of the live rows' passages, in new files; nothing is encoded again."""
        counts = self._counts[live]
        self._dense.compact(self._passages_of(live), ())
        self._rows, self._known = 0, None
        self._store(counts)

    def search(self, queries: Sequence[str], k: int, allowed: Mask | None, config: DensePassagesConfig) -> Hits:
        """The best passage's inner product with each query (minus squared distance for a euclidean model)."""
        if not self._rows or not queries:
            return stack([([], [])] * len(queries))
        return self.nearest(self.query_vectors(queries, config), k, allowed, config)

    def query_vectors(self, texts: Sequence[str], config: DenseConfig | None = None) -> Floats:
        """float32 [n, d]: texts, encoded as queries are. config: the view's, where none is given."""
        return self._dense.query_vectors(texts, config)

    def passage_vectors(self, texts: Sequence[str]) -> Floats:
        """float32 [n, d]: texts, encoded as passages are, each in one piece."""
        return self._dense.passage_vectors(texts)

    def document_vectors(self, rows: Rows) -> Floats:
        """float32 [n, d]: the mean of the vectors of each row's passages."""
        if not len(rows):
            return self._dense.document_vectors(rows)
        counts = self._counts[rows]
        vectors = self._dense.document_vectors(self._passages_of(rows))
        sums = np.add.reduceat(vectors, np.cumsum(counts) - counts, axis=0)  # float32 [n, d]
        return np.asarray(sums / counts[:, None], dtype=np.float32)

    def nearest(self, vectors: Floats, k: int, allowed: Mask | None, config: DensePassagesConfig) -> Hits:
        """The best k rows of each query vector, float32 [n, d], and what ties with the last of them.

        Ever more passages are asked for until they are of k documents. A list of passages is complete down to its last
        score, so no document is missing above it.
        """
        k = min(k, self._rows if allowed is None else int(np.count_nonzero(allowed)))
        results: list[tuple[list[int], list[float]]] = [([], [])] * len(vectors)
        if not k:
            return stack(results)
        mask = None if allowed is None else np.repeat(allowed, self._counts)
        most = self._dense.state.rows
        pending, want = np.arange(len(vectors)), min(most, 2 * k)
        while len(pending):
            hits = self._dense.nearest(vectors[pending], want, mask, config)
            done = np.ones(len(pending), dtype=np.bool_)
            for i, query in enumerate(pending.tolist()):
                results[query] = self._documents(hits.rows[i], hits.scores[i], k)
                done[i] = len(results[query][0]) >= k or want == most or hits.rows[i, want - 1] < 0
            pending, want = pending[~done], min(most, 4 * want)
        return stack(results)

    def _documents(self, passages: Rows, scores: Floats, k: int) -> tuple[list[int], list[float]]:
        """The documents of passages, best first, each at its first place; k of them and what ties with the last."""
        owners = np.searchsorted(self._ends, passages[passages >= 0], side="right")
        places = np.sort(np.unique(owners, return_index=True)[1])
        if len(places) > k:
            places = places[scores[places] >= scores[places[k - 1]]]
        return owners[places].tolist(), scores[places].tolist()

    def _store(self, counts: Rows) -> None:
        """Write down how many passages the next rows have."""
        before = int(self._ends[-1]) if self._rows else 0
        ends = (before + np.cumsum(counts)).astype(_ENDS)
        self._known = grow(self._folder / self._name(self._serial), ends.data, self._known)
        self._rows += len(counts)
        self.__dict__.pop("_ends", None)

    @cached_property
    def _ends(self) -> Rows:
        """int64 [rows]: the passage behind the last of each row."""
        path = self._folder / self._name(self._serial)
        ends = mapped(path, self._known, _ENDS)[: self._rows]
        if len(ends) != self._rows or (np.diff(ends, prepend=0) < 1).any():
            raise CorruptIndexError(f"{path}: does not say where passages end; `retriever verify` tells more")
        return ends

    @property
    def _counts(self) -> Rows:
        """int64 [rows]: how many passages each row has."""
        return np.diff(self._ends, prepend=0)

    def _passages_of(self, rows: Rows) -> Rows:
        """The passages of these rows, one row's behind another's."""
        counts = self._counts[rows]
        begins = np.repeat(self._ends[rows] - counts, counts)
        return begins + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)

    @property
    def _serial(self) -> int:
        return int(self._dense.state.data.get("serial", 0))

    def _name(self, serial: int) -> str:
        return f"ends-{serial:04d}.bin"

    def _path(self, serial: int) -> str:
        return f"views/{self._folder.name}/{self._name(serial)}"
