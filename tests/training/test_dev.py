import collections_on_disk
import pytest
import tiny_models

from retriever.eval.measures import evaluate
from retriever.runs import Run
from retriever.training import dev
from retriever.training.data import read_collection
from retriever.training.dev import dev_part, measure_dev, measure_vectors
from retriever.training.start import sparse_encoder


@pytest.fixture
def collection(tmp_path):
    judged = [f"q-{thing}-in d-{thing}-in 1" for thing in collections_on_disk.THINGS]
    return read_collection(collections_on_disk.things(tmp_path / "things", dev=judged), measured=True)


def test_a_part_has_the_judged_documents_of_some_queries_and_some_others(collection, monkeypatch):
    monkeypatch.setattr(dev, "QUERIES", 3)
    monkeypatch.setattr(dev, "DISTRACTORS", 5)
    part = dev_part(collection, seed=1)
    assert len(part.queries) == len(part.dev) == 3
    assert len(part.documents) == 8
    assert all(row.keys() <= part.documents.keys() for row in part.dev.values())
    assert part == dev_part(collection, seed=1)
    assert part.queries != dev_part(collection, seed=2).queries


def test_a_small_collection_is_its_own_part(collection):
    part = dev_part(collection, seed=0)
    assert part.documents == collection.documents
    assert part.dev == collection.dev


def test_the_measure_is_that_of_the_models_own_scores(collection, tmp_path):
    model = sparse_encoder(str(tiny_models.masked_lm(tmp_path / "base")), [], max_length=32)
    names, texts = zip(*collection.documents.items(), strict=True)
    asked = {query: collection.queries[query] for query in collection.dev}
    queries, documents = model.encode_query(list(asked.values())), model.encode_document(list(texts))
    scores = model.similarity(queries, documents).numpy()
    run = Run({query: dict(zip(names, map(float, row), strict=True)) for query, row in zip(asked, scores, strict=True)})
    part = dev_part(collection, seed=0)
    found = measure_dev(model, [part])
    assert found["nDCG@10"] == found["things_nDCG@10"] == pytest.approx(evaluate(run, part.dev).means["nDCG@10"])
    assert found["query_terms"] == pytest.approx(queries.to_dense().count_nonzero() / len(asked))
    assert found["document_terms"] == pytest.approx(documents.to_dense().count_nonzero() / len(texts))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_measure_of_vectors_is_that_of_an_exact_search(collection, tmp_path, similarity):
    from sentence_transformers import SentenceTransformer

    folder = tiny_models.bi_encoder(tmp_path / "base", normalize=False, similarity=similarity)
    model = SentenceTransformer(str(folder), device="cpu")
    part = dev_part(collection, seed=0)

    def expected():
        scores = model.similarity(
            model.encode(list(part.queries.values())), model.encode(list(part.documents.values()))
        )
        rows = dict(zip(part.queries, scores.tolist(), strict=True))
        return evaluate(
            Run({name: dict(zip(part.documents, row, strict=True)) for name, row in rows.items()}), part.dev
        )

    found = measure_vectors(model, [part], dimensions=[4])
    assert found["nDCG@10"] == found["things_nDCG@10"] == pytest.approx(expected().means["nDCG@10"])
    model.truncate_dim = 4
    assert found["nDCG@10_of_4"] == pytest.approx(expected().means["nDCG@10"])
