"""Measuring an encoder between training steps, on a part of a collection that fits between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.eval.measures import evaluate
from retriever.runs import Qrels, Run
from retriever.training.data import Collection, some
from retriever.types import Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sentence_transformers import SentenceTransformer, SparseEncoder

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
    counts = []

    def scores(collection: Collection) -> Floats:
        documents = _weights(model.encode_document, list(collection.documents.values()))
        queries = _weights(model.encode_query, list(collection.queries.values()))
        counts.append([documents.nnz / documents.shape[0], queries.nnz / queries.shape[0]])
        found: Floats = (queries @ documents.T).toarray()
        found[found <= 0] = -np.inf
        return found

    values = measured(collections, scores)
    document_terms, query_terms = np.mean(counts, axis=0).tolist()
    return {**values, "document_terms": document_terms, "query_terms": query_terms}


def measure_vectors(
    model: SentenceTransformer,
    collections: Sequence[Collection],
    dimensions: Sequence[int] = (),
    encoders: Mapping[str, Callable[..., Any]] | None = None,
) -> dict[str, float]:
    """MEASURE of an exact search with the model's own vectors, averaged over the collections and for each.

    dimensions: and the average where only the first so many are kept, as nDCG@10_of_128. encoders: and where others
    encode the queries, by their names, as nDCG@10_at_0.25.
    """
    cosine = model.similarity_fn_name != "dot"
    pairs = {
        each.name: tuple(
            encode(list(texts.values()), show_progress_bar=False)
            for encode, texts in ((model.encode_query, each.queries), (model.encode_document, each.documents))
        )
        for each in collections
    }

    def scores(collection: Collection, kept: int | None = None, encode: Callable[..., Any] | None = None) -> Floats:
        queries, documents = (part[:, :kept] for part in pairs[collection.name])
        if encode:
            queries = encode(list(collection.queries.values()), show_progress_bar=False)
        if cosine:
            queries, documents = (
                part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (queries, documents)
            )
        found: Floats = queries @ documents.T
        return found

    others = {f"{MEASURE}_of_{kept}": partial(scores, kept=kept) for kept in dimensions}
    others |= {f"{MEASURE}_{name}": partial(scores, encode=encode) for name, encode in (encoders or {}).items()}
    means = {name: measured(collections, given)[MEASURE] for name, given in others.items()}
    return {**measured(collections, scores), **means}


def measured(collections: Sequence[Collection], scores: Callable[[Collection], Floats]) -> dict[str, float]:
    """MEASURE averaged over the collections and for each.

    scores: of a collection's queries and documents, float32 [n_queries, n_documents], -inf for one that is not found.
    """
    values = {}
    for each in collections:
        run = _run(each, scores(each))
        values[f"{each.name}_{MEASURE}"] = evaluate(run, each.dev, [MEASURE]).means[MEASURE]
    return {MEASURE: sum(values.values()) / len(values), **values}


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
            query: {names[column]: float(row[column]) for column in columns if row[column] > -np.inf}
            for query, row, columns in zip(collection.queries, scores, best, strict=True)
        }
    )
