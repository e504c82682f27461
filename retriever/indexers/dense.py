"""Dense search with FAISS over vectors that an encoder made.

The vectors are the durable part: one file of float32 rows that only grows, memory-mapped for searching. `Flat` searches
it as it lies. Any other FAISS factory string is an index built from it, cheap to make again; rows that came after the
last build are searched exactly beside it, so no document is ever missing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever.components import load_class
from retriever.encoders import ENCODERS
from retriever.encoders.base import Encoder
from retriever.encoders.foreign import EmbeddingsEndpoint, as_encoder
from retriever.encoders.hierarchy import is_hmde
from retriever.encoders.models import DEFAULT_MODEL
from retriever.encoders.runtime import PRECISIONS
from retriever.encoders.stated import Stated
from retriever.endpoints import is_endpoint
from retriever.errors import CorruptIndexError, InputError
from retriever.indexers.base import check_encoder, moved, search_time
from retriever.indexers.faiss_search import (
    exact,
    faiss_reason,
    import_faiss,
    merge,
    new_index,
    overfetch,
    ranked,
    search_parameters,
    to_gpu,
    widen,
)
from retriever.progress import advance
from retriever.store.files import grow, record, replacing
from retriever.store.manifest import ViewState
from retriever.types import Document, Floats, Hits, Mask, Rows

_CHUNK = 65_536
_TRAINING = 262_144
_FEW = 0.05
"""Below this share of allowed rows a filtered search gathers their vectors and is exact; above, FAISS selects."""
_STALE = 0.05
"""So large a share of rows outside the FAISS index makes `finish` add them to it."""


@dataclass(frozen=True)
class DenseConfig:
    """model: a sentence-transformers or transformers model's name or path, or a folder of `retriever train hmde`;
    "their.module:Class" or "their.module:object" (`encoders.foreign.as_encoder`); or 'http://host:port/v1#MODEL', a
    server of OpenAI's embeddings protocol.
    index: FAISS factory string. nprobe, ef_search: FAISS's search effort for IVF and HNSW (none: FAISS's default);
    ef_search is never less than the results that are asked for.
    precision: `auto` encodes in bfloat16 where the hardware has it, `float32` everywhere.
    pooling, query_prefix, document_prefix, max_length, normalize, dimensions, adapters, remote_code:
    `encoders.stated.Stated`; none of them is needed where the model's files say how it is used.
    query_width: queries are encoded by the first units of the model's feed-forward layers alone, a share of them in all
    layers or one a layer, which the model must have been trained for (`encoders.matformer`); documents never are.
    """

    model: str = DEFAULT_MODEL
    index: str = "Flat"
    precision: str = "auto"
    nprobe: int | None = search_time(None)
    ef_search: int | None = search_time(None)
    pooling: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    max_length: int | None = None
    normalize: bool | None = None
    dimensions: int | None = None
    adapters: str | None = None
    remote_code: bool | None = None
    query_width: float | tuple[float, ...] | None = search_time(None)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {' or '.join(PRECISIONS)}, not {self.precision!r}")
        _ = self.stated

    @property
    def stated(self) -> Stated:
        """How the model is to be used, beside what its files say."""
        return Stated(**{field.name: getattr(self, field.name) for field in fields(Stated)})


def make_encoder(config: DenseConfig) -> Encoder:
    """The encoder that a configuration names. Raises: InputError, or SpecError where it cannot be imported."""
    if is_endpoint(config.model):
        return EmbeddingsEndpoint(config.model, config.stated)
    if ":" in config.model:
        return as_encoder(load_class(config.model), config.model, config.stated)
    kind = "hmde" if is_hmde(Path(config.model)) else "sentence-transformers"
    made: Encoder = load_class(ENCODERS[kind])(config.model, config.precision, config.stated)
    return made


class Dense:
    """One vector a document."""

    Config = DenseConfig
    encodes = True
    rebuilds = ("index", "precision", "nprobe", "ef_search", "query_width")

    def __init__(self, folder: Path, config: DenseConfig, state: ViewState) -> None:
        self._folder, self.config, self.state = folder, config, state

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, checked to be the one that encoded what is there.

        Raises: IndexMismatchError naming both.
        """
        return check_encoder(make_encoder(self.config), self.state, self._folder.name, self.config.model)

    def append(self, documents: Sequence[Document]) -> None:
        """Encode the next rows and write them behind the others."""
        if not self.state.rows:
            new_index(
                import_faiss(), self.encoder.dimension, self.config.index, self._euclidean
            )  # a wrong factory fails before the work
        encoded = self.encoder.encode_documents([document.contents for document in documents], advance)
        self._store(self._check(encoded.vectors, len(documents)))
        self.state = moved(self.state, truncated=self.state.truncated + encoded.truncated)

    def finish(self) -> None:
        """Build the FAISS index, or extend it when enough came in; train it anew when the rows have doubled."""
        rows, built, trained = self.state.rows, self._built, int(self.state.data.get("trained", 0))
        if self.state.data.get("factory", self.config.index) != self.config.index:
            self._forget_index()
            built = 0
        if self.config.index == "Flat" or not rows or (built and rows - built <= _STALE * built):
            return
        faiss = import_faiss()
        if not built or rows >= 2 * trained:
            index = self._train(faiss)
            if index is None:
                return
            built, trained = 0, rows
        else:
            index = self._read(faiss)
        self._fill(index, built)
        build = int(self.state.data.get("build", 0)) + 1  # a committed file is never written again
        name = f"index-{build:04d}.faiss"
        with replacing(self._folder / name) as temporary:
            try:
                faiss.write_index(index, str(temporary))
            except RuntimeError as problem:  # its only way to tell of a full disk
                full = os.strerror(errno.ENOSPC) in str(problem)
                raise OSError(errno.ENOSPC if full else errno.EIO, faiss_reason(problem), str(temporary)) from None
        files = {path: known for path, known in self.state.files.items() if not path.endswith(".faiss")}
        files[self._path(name)] = record(self._folder / name)
        made = {"faiss": name, "build": build, "built": rows, "trained": trained, "factory": self.config.index}
        self.state = moved(self.state, data={**self.state.data, **made}, files=files)
        self.__dict__.pop("_ann", None)

    def compact(self, live: Rows, documents: Iterable[Document]) -> None:
        """Keep the vectors of the live rows, in a new file; nothing is encoded again."""
        old = self._vectors if self.state.rows else None
        serial = int(self.state.data.get("serial", 0)) + 1
        self.state = moved(self.state, rows=0, files={}, data={**self.state.data, "serial": serial})
        self._forget_index()
        for first in range(0, len(live), _CHUNK):
            assert old is not None
            self._store(old[live[first : first + _CHUNK]])
        self.finish()

    def search(self, queries: Sequence[str], k: int, allowed: Mask | None, config: DenseConfig) -> Hits:
        """Inner products with each query (minus squared distances for a euclidean model)."""
        if not self.state.rows or not queries:
            return _nothing(len(queries))
        return self.nearest(self.query_vectors(queries, config), k, allowed, config)

    def query_vectors(self, texts: Sequence[str], config: DenseConfig | None = None) -> Floats:
        """float32 [n, d]: texts, encoded as queries are. config: the view's, where none is given."""
        width, encoder = (config or self.config).query_width, self.encoder
        if width is not None:
            if not hasattr(encoder, "narrow"):
                raise InputError(f"{self.config.model}: has no feed-forward layers to take part of for query_width")
            encoder = encoder.narrow(width)
        return self._check(encoder.encode_queries(texts).vectors, len(texts))

    def passage_vectors(self, texts: Sequence[str]) -> Floats:
        """float32 [n, d]: texts, encoded as documents are."""
        return self._check(self.encoder.encode_documents(texts, lambda _: None).vectors, len(texts))

    def document_vectors(self, rows: Rows) -> Floats:
        """float32 [n, d]: the stored vectors of these rows, whatever FAISS index is built from them."""
        return np.asarray(self._vectors[rows])

    def nearest(self, vectors: Floats, k: int, allowed: Mask | None, config: DenseConfig) -> Hits:
        """The best k rows of each query vector, float32 [n, d], and what ties with the last of them."""
        k = min(k, self.state.rows)
        if not k or not len(vectors):
            return _nothing(len(vectors))
        want, rows = min(k + 1, self.state.rows), self.state.rows
        hits = self._top(vectors, want, allowed, config)
        tied = np.flatnonzero(hits.scores[:, k - 1] == hits.scores[:, -1]) if want > k else np.zeros(0, np.int64)
        tied = tied[hits.rows[tied, -1] >= 0]
        while len(tied) and want < rows:
            want = min(want * 2, rows)
            wider = self._top(vectors[tied], want, allowed, config)
            hits = widen(hits, want)
            hits.rows[tied], hits.scores[tied] = wider
            tied = tied[(wider.scores[:, k - 1] == wider.scores[:, -1]) & (wider.rows[:, -1] >= 0)]
        beyond = hits.scores < hits.scores[:, k - 1 : k]
        hits.rows[beyond], hits.scores[beyond] = -1, -np.inf
        return hits

    def _top(self, vectors: Floats, k: int, allowed: Mask | None, config: DenseConfig) -> Hits:
        if allowed is not None and (count := int(np.count_nonzero(allowed))) <= max(_CHUNK // 8, _FEW * len(allowed)):
            chosen = np.flatnonzero(allowed)
            found = exact(self._vectors[chosen], vectors, min(k, count), self._euclidean)
            return widen(
                Hits(np.where(found.rows >= 0, chosen[found.rows], -1) if count else found.rows, found.scores), k
            )
        parts = []
        if self._built:
            parts.append(self._approximate(vectors, k, allowed, config))
        if self._built < self.state.rows:
            tail = self._vectors[self._built :]
            found = exact(tail, vectors, k, self._euclidean, None if allowed is None else allowed[self._built :])
            parts.append(Hits(np.where(found.rows >= 0, found.rows + self._built, -1), found.scores))
        return parts[0] if len(parts) == 1 else merge(parts, k)

    def _approximate(self, vectors: Floats, k: int, allowed: Mask | None, config: DenseConfig) -> Hits:
        faiss = import_faiss()
        mask = None if allowed is None else allowed[: self._built]
        try:
            parameters = search_parameters(faiss, faiss.downcast_index(self._ann), k, mask, config)
            scores, rows = self._ann.search(vectors, k, params=parameters)
        except RuntimeError:  # this kind of FAISS index takes no selector: ask for more and drop what is not allowed
            return overfetch(self._ann, vectors, k, mask, self._euclidean)
        return ranked(rows, scores, self._euclidean)

    @property
    def _euclidean(self) -> bool:
        identity = self.state.encoder or self.encoder.identity()
        return bool(identity.get("similarity") == "euclidean")

    @property
    def _built(self) -> int:
        return int(self.state.data.get("built", 0))

    @cached_property
    def _vectors(self) -> Floats:
        path = self._folder / self._vector_file
        shape = (self.state.rows, int(self.state.encoder["dimension"]))
        try:
            return np.memmap(path, dtype=np.float32, mode="r", shape=shape)
        except ValueError:
            raise CorruptIndexError(
                f"{path}: is shorter than the manifest says; `retriever verify` tells more"
            ) from None

    @cached_property
    def _ann(self) -> Any:
        faiss = import_faiss()
        return to_gpu(faiss, self._read(faiss))

    @property
    def _vector_file(self) -> str:
        return f"vectors-{int(self.state.data.get('serial', 0)):04d}.f32"

    def _path(self, name: str) -> str:
        return f"views/{self._folder.name}/{name}"

    def _read(self, faiss: Any) -> Any:
        path = self._folder / self.state.data["faiss"]
        path.stat()
        try:
            index = faiss.read_index(str(path))
        except (RuntimeError, MemoryError) as problem:  # a damaged length may ask for any amount of memory
            index, reason = None, faiss_reason(problem)
        if index is None or index.ntotal != self._built:
            reason = reason if index is None else f"{index.ntotal} vectors, not {self._built}"
            raise CorruptIndexError(f"{path}: FAISS cannot read it: {reason}; `retriever verify` tells more")
        return index

    def _fill(self, index: Any, built: int) -> None:
        """Add the rows from `built` on."""
        try:
            for first in range(built, self.state.rows, _CHUNK):
                index.add(np.ascontiguousarray(self._vectors[first : first + _CHUNK]))
        except RuntimeError as problem:
            raise self._unfit(faiss_reason(problem)) from None

    def _unfit(self, reason: str) -> InputError:
        return InputError(
            f"FAISS builds no usable {self.config.index!r} from {self.state.rows:,} vectors: {reason}. The vectors are "
            f"kept and searched one by one; give view {self._folder.name!r} another factory string"
        )

    def _forget_index(self) -> None:
        """Search the vectors themselves until an index is built from them again."""
        data = {key: value for key, value in self.state.data.items() if key in ("serial", "build")}
        files = {path: known for path, known in self.state.files.items() if not path.endswith(".faiss")}
        self.state = moved(self.state, data=data, files=files)
        self.__dict__.pop("_ann", None)

    def _train(self, faiss: Any) -> Any:
        """A trained, empty index; none while the rows are too few to train it (they are then searched exactly)."""
        index = new_index(faiss, self._vectors.shape[1], self.config.index, self._euclidean)
        if index.is_trained:
            return index
        sample = self._vectors
        if self.state.rows > _TRAINING:
            chosen = np.random.default_rng(0).choice(self.state.rows, _TRAINING, replace=False)
            sample = self._vectors[np.sort(chosen)]
        try:
            index.train(np.ascontiguousarray(sample))
        except RuntimeError as problem:
            if "should be at least as large" in str(problem):
                return None
            raise self._unfit(faiss_reason(problem)) from None
        return index

    def _check(self, given: Any, count: int) -> Floats:
        vectors: Floats = np.ascontiguousarray(given, dtype=np.float32)
        if vectors.shape != (count, self.encoder.dimension) or not np.isfinite(vectors).all():
            raise InputError(
                f"encoder {self.config.model!r} gave {vectors.shape} for {count} texts; expected finite float32 "
                f"[{count}, {self.encoder.dimension}]"
            )
        return vectors

    def _store(self, vectors: npt.NDArray[np.float32]) -> None:
        """Write rows behind the committed ones; bytes of a commit that did not happen are overwritten."""
        name, encoder = self._vector_file, self.state.encoder or dict(self.encoder.identity())
        data, known = np.ascontiguousarray(vectors).data, self.state.files.get(self._path(name))
        files = {**self.state.files, self._path(name): grow(self._folder / name, data, known)}
        encoder = {"dimension": vectors.shape[1], **encoder}
        self.state = moved(self.state, rows=self.state.rows + len(vectors), encoder=encoder, files=files)
        self.__dict__.pop("_vectors", None)


def _nothing(queries: int) -> Hits:
    return Hits(np.full((queries, 0), -1, np.int64), np.zeros((queries, 0), np.float32))
