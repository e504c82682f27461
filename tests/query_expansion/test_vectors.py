"""Vector pseudo-relevance feedback: worked examples, and runs on a real dense view."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from toy_encoders import EuclideanEncoder, TopicEncoder

from retriever import Document, Query, Retriever
from retriever.indexers.base import VectorView
from retriever.query_expansion.base import Feedback
from retriever.query_expansion.vectors import VectorPrf, VectorPrfConfig
from retriever.types import Floats, Hits, Mask, Rows

TEXTS = [f"topic{i % 9} number {i}" for i in range(90)]


class Plane:
    """Two stored vectors, and every query is (1, 0)."""

    def query_vectors(self, texts: Sequence[str]) -> Floats:
        return np.array([[1, 0]] * len(texts), dtype=np.float32)

    passage_vectors = query_vectors

    def document_vectors(self, rows: Rows) -> Floats:
        return np.array([[0, 1], [1, 1]], dtype=np.float32)[rows]

    def nearest(self, vectors: Floats, k: int, allowed: Mask | None, config: Any) -> Hits:
        raise NotImplementedError


def fed(*rows: int) -> Feedback:
    return Feedback(np.array(rows, dtype=np.int64), np.ones(len(rows), np.float32), [Document("d", "")] * len(rows))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (VectorPrfConfig(), [0.66667, 0.66667]),
        (VectorPrfConfig(method="rocchio", docs=5), [0.7, 0.6]),
        (VectorPrfConfig(method="rocchio", alpha=1, beta=0), [1, 0]),
        (VectorPrfConfig(method="rocchio", alpha=0, beta=1), [0.5, 1]),
    ],
)
def test_the_worked_examples(config, expected):
    moved = VectorPrf(config).expand(Plane(), ["q", "without feedback"], [fed(0, 1), fed()])
    assert moved.dtype == np.float32
    assert moved == pytest.approx(np.array([expected, [1, 0]]), abs=1e-5)


@pytest.fixture(scope="module", params=["Topic", "Euclidean"])
def index(request, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    made = Retriever.create(
        tmp_path_factory.mktemp("vectors") / "index", views=[f"dense(toy_encoders:{request.param}Encoder)"]
    )
    made.add(Document(f"d{i:02d}", text) for i, text in enumerate(TEXTS))
    return made


def run(index: Retriever, query: str, pipeline: str, k: int = 90) -> dict[str, float]:
    return index.run([Query("q", query)], k=k, pipeline=pipeline)["q"]


@pytest.mark.parametrize("method", ["average", "rocchio"])
def test_the_expanded_search_is_by_brute_force_the_same(index, method):
    encoder: Any = TopicEncoder() if "Topic" in str(index.info()["views"]) else EuclideanEncoder()
    query, vectors = encoder.vector("topic4 what"), np.array([encoder.vector(text) for text in TEXTS])

    def scores(q: Floats) -> Floats:
        return -((vectors - q) ** 2).sum(axis=1) if isinstance(encoder, EuclideanEncoder) else vectors @ q

    best = vectors[np.argsort(-scores(query))[:5]]
    asked = np.vstack([[query], best]).mean(axis=0) if method == "average" else 0.4 * query + 0.6 * best.mean(axis=0)
    found = run(index, "topic4 what", f"dense >> vector-prf(docs=5, method={method}) >> dense")
    expected = {f"d{i:02d}": score for i, score in enumerate(scores(asked).tolist())}
    assert found == pytest.approx(expected, abs=1e-4)
    assert list(found) != list(run(index, "topic4 what", "dense"))


def test_dense_is_a_vector_view(index):
    view: Any = index._snapshot.view("dense")
    assert isinstance(view, VectorView)
    stored = view.document_vectors(np.array([5, 0, 5]))
    assert stored.shape == (3, 32)
    assert stored == pytest.approx(view.passage_vectors([TEXTS[5], TEXTS[0], TEXTS[5]]), abs=1e-6)
    queries = ["topic1 a", "topic2 b"]
    for k in 4, 90, 500:
        by_text = view.search(queries, k, None, view.config)
        by_vector = view.nearest(view.query_vectors(queries), k, None, view.config)
        assert np.array_equal(by_text.rows, by_vector.rows)
        assert np.array_equal(by_text.scores, by_vector.scores)
    assert view.nearest(view.query_vectors(queries[:0]), 3, None, view.config).rows.shape[0] == 0


def test_an_empty_index_has_no_feedback(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["dense(toy_encoders:TopicEncoder)"])
    assert index.search("wing", pipeline="dense >> vector-prf >> dense") == []
