"""Measuring a sparse encoder between training steps, on a part of a collection that fits between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.eval.measures import evaluate
from retriever.runs import Qrels, Run
from retriever.training.data import Collection, some
from retriever.types import Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sentence_transformers import SparseEncoder

MEASURE = "nDCG@10"
QUERIES, DISTRACTORS = 200, 300
"""So many dev queries, and documents beside those judged for them: a small collection, so its scores are too high."""
DEPTH = 10


def dev_part(collection: Collection, seed: int) -> Collection:
    """QUERIES dev queries, the documents judged for them, and DISTRACTORS others, all chosen by the seed."""
    dev = Qrels({query: collection.dev[query] for query in some(collection.dev, QUERIES, seed)})
    judged = {document for row in dev.values() for document in row}
    names = sorted(judged) + some(collection.documents.keys() - judged, DISTRACTORS, seed)
    return replace(
        collection,
        documents={name: collection.documents[name] for name in names},
        queries={name: collection.queries[name] for name in dev},
        dev=dev,
    )


def measure_dev(model: SparseEncoder, collections: Sequence[Collection]) -> dict[str, float]:
    """MEASURE averaged over the collections and for each, and how many terms a document and a query have on average."""
    values: dict[str, float] = {}
    counts = []
    for collection in collections:
        documents = _weights(model.encode_document, list(collection.documents.values()))
        queries = _weights(model.encode_query, list(collection.queries.values()))
        run = _run(collection, (queries @ documents.T).toarray())
        values[f"{collection.name}_{MEASURE}"] = evaluate(run, collection.dev, [MEASURE]).means[MEASURE]
        counts.append([documents.nnz / documents.shape[0], queries.nnz / queries.shape[0]])
    mean = sum(values.values()) / len(values)
    document_terms, query_terms = np.mean(counts, axis=0).tolist()
    return {MEASURE: mean, **values, "document_terms": document_terms, "query_terms": query_terms}


def _weights(encode: Callable[..., Any], texts: list[str]) -> csr_array:
    """CSR float32 [n, n_terms]."""
    from scipy.sparse import csr_array

    encoded = encode(texts, convert_to_sparse_tensor=True, show_progress_bar=False).cpu().coalesce()
    return csr_array((encoded.values().float().numpy(), encoded.indices().numpy()), shape=tuple(encoded.shape))


def _run(collection: Collection, scores: Floats) -> Run:
    """The best DEPTH documents of each query; scores: float32 [n_queries, n_documents]."""
    names = list(collection.documents)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    return Run(
        {
            query: {names[column]: float(row[column]) for column in columns if row[column] > 0}
            for query, row, columns in zip(collection.queries, scores, best, strict=True)
        }
    )
