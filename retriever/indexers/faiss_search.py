"""FAISS as the dense view uses it: indexes from factory strings, and one form of result from all their searches."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from retriever.errors import InputError, MissingDependencyError
from retriever.types import Floats, Hits, Mask, Rows

_GPU_MOST = 2048
"""FAISS's limit on the results of one search on a GPU."""


class Effort(Protocol):
    """How far a search goes; None: FAISS's default."""

    @property
    def nprobe(self) -> int | None:
        """Cells of an IVF index that are read."""

    @property
    def ef_search(self) -> int | None:
        """Candidates kept on the way through an HNSW graph."""


def import_faiss() -> Any:
    """The module. Raises: MissingDependencyError with the command that installs it."""
    try:
        import faiss
    except ImportError:
        extra = "gpu" if shutil.which("nvidia-smi") else "cpu"
        raise MissingDependencyError("a dense view", f"faiss-{extra}", extra) from None
    return faiss


def new_index(faiss: Any, dimension: int, factory: str, euclidean: bool) -> Any:
    """An empty index. Raises: InputError where FAISS knows no such kind, or not with this metric."""
    metric = faiss.METRIC_L2 if euclidean else faiss.METRIC_INNER_PRODUCT
    try:
        index = faiss.index_factory(dimension, factory, metric)
    except RuntimeError as problem:
        raise InputError(
            f"FAISS makes no index {factory!r} for {dimension} dimensions: {faiss_reason(problem)}"
        ) from None
    if index.metric_type != metric:  # HNSW with PQ drops the metric without a word
        kind = "squared distances" if euclidean else "inner products"
        raise InputError(f"FAISS's {factory!r} does not search by {kind}; give another factory string")
    inner = _innermost(faiss, index)
    if hasattr(inner, "do_polysemous_training"):
        inner.do_polysemous_training = False  # most of the time of training PQ, for a search that nothing here does
    return index


def _innermost(faiss: Any, index: Any) -> Any:
    """The index inside transformations and refinement."""
    index = faiss.downcast_index(index)
    inside = getattr(index, "index", None) or getattr(index, "base_index", None)
    return _innermost(faiss, inside) if inside else index


def faiss_reason(problem: Exception) -> str:
    """FAISS's message without the place in its source."""
    return re.sub(r"^Error in .*?\.(?:cpp|h):\d+: ", "", str(problem))


def has_gpu(faiss: Any) -> bool:
    """Whether faiss-gpu and a device are there. What follows from it is unproven: written without a GPU to try."""
    return hasattr(faiss, "StandardGpuResources") and bool(faiss.get_num_gpus())


def to_gpu(faiss: Any, index: Any) -> Any:
    """The index on the first GPU, where there is one."""
    if not has_gpu(faiss):
        return index
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    except RuntimeError:  # a kind of index that has no GPU form
        return index


def exact(base: Floats, vectors: Floats, k: int, euclidean: bool, allowed: Mask | None = None) -> Hits:
    """Brute force in float32, by FAISS, over vectors as they lie in memory or in a mapped file."""
    faiss = import_faiss()
    metric = faiss.METRIC_L2 if euclidean else faiss.METRIC_INNER_PRODUCT
    if allowed is None:
        found = min(k, len(base))
        if has_gpu(faiss) and found <= _GPU_MOST:
            scores, rows = faiss.knn_gpu(faiss.StandardGpuResources(), vectors, base, found, metric=metric)
        else:
            scores, rows = faiss.knn(vectors, base, found, metric=metric)
        return widen(ranked(rows, scores, euclidean), k)
    bits = np.packbits(allowed, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)
    scores, rows = np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
    search = faiss.knn_L2sqr if euclidean else faiss.knn_inner_product
    pointer, (count, dimension) = faiss.swig_ptr, base.shape
    arguments = (dimension, len(vectors), count, k, pointer(scores), pointer(rows))
    norms = (None,) if euclidean else ()
    search(pointer(vectors), pointer(base), *arguments, *norms, selector)
    return ranked(rows, scores, euclidean)


def ranked(rows: Rows, scores: Floats, euclidean: bool) -> Hits:
    """FAISS's answer with larger scores better and -inf where there is no row."""
    scores = -scores if euclidean else scores
    scores[rows < 0] = -np.inf
    return Hits(rows, scores)


def widen(hits: Hits, k: int) -> Hits:
    """At least k columns, the new ones without rows."""
    missing = k - hits.rows.shape[1]
    if missing <= 0:
        return hits
    pad = ((0, 0), (0, missing))
    return Hits(np.pad(hits.rows, pad, constant_values=-1), np.pad(hits.scores, pad, constant_values=-np.inf))


def merge(parts: Sequence[Hits], k: int) -> Hits:
    """The best k of several answers about different rows."""
    rows, scores = (np.hstack(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


def overfetch(index: Any, vectors: Floats, k: int, allowed: Mask | None, euclidean: bool) -> Hits:
    """The best k allowed rows of an index that takes no selector, by asking for more and more."""
    want = k
    while True:
        want = min(want * 2, index.ntotal)
        scores, rows = index.search(vectors, want)
        hits = ranked(rows, scores, euclidean)
        if allowed is not None:
            drop = (rows < 0) | ~allowed[rows]
            hits.rows[drop], hits.scores[drop] = -1, -np.inf
        if want == index.ntotal or np.count_nonzero(hits.rows >= 0, axis=1).min() >= k:
            return merge([hits], k)


def search_parameters(faiss: Any, index: Any, k: int, allowed: Mask | None, config: Effort) -> Any:
    """FAISS search parameters for this kind of index, wrappers included."""
    options = {} if allowed is None else {"sel": faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))}
    if isinstance(index, faiss.IndexPreTransform):
        inner = search_parameters(faiss, faiss.downcast_index(index.index), k, allowed, config)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = search_parameters(faiss, faiss.downcast_index(index.base_index), k, allowed, config)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=config.nprobe or index.nprobe, **options)
    if isinstance(index, faiss.IndexHNSW):
        effort = max(config.ef_search or index.hnsw.efSearch, k)  # with less, FAISS does not find k
        if allowed is not None:  # what is not allowed takes places on the way
            effort = effort * len(allowed) // max(1, int(np.count_nonzero(allowed)))
        return faiss.SearchParametersHNSW(efSearch=effort, **options)
    return faiss.SearchParameters(**options) if options else None
