"""The dense view: kinds of FAISS index against exact search, with filters, deletions and rows after the last build."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_encoders import LOG, EuclideanEncoder, HashEncoder, TopicEncoder

from retriever import Document, InputError, Query, Retriever
from retriever.errors import IndexMismatchError
from retriever.indexers import dense

COUNT, TOPICS = 1200, 40
DOCUMENTS = [
    Document(f"d{i}", f"topic{i % TOPICS} number {i}", metadata={"n": i, "half": i // TOPICS % 2}) for i in range(COUNT)
]
QUERIES = [f"topic{i % TOPICS} query {i}" for i in range(60)]

FACTORIES = {
    "Flat": 1.0,
    "HNSW32": 0.98,
    "IVF16,Flat": 0.98,
    "SQ8": 0.95,
    "PQ8": 0.65,
    "IVF16,PQ8": 0.65,
    "OPQ8,IVF16,PQ8": 0.65,
    "IVF16,PQ8,RFlat": 0.7,
    "PQ8x4fs": 0.45,
    "IVF16,PQ8x4fs": 0.45,
    "RaBitQ": 0.45,
    "IVF16,RaBitQ": 0.45,
    "PCA16,IVF16,Flat": 0.5,
}
"""FAISS factory strings, and the least recall@10 of each with 12 of 16 cells visited."""


def view(index: str = "Flat", encoder: str = "TopicEncoder") -> str:
    return f"dense(toy_encoders:{encoder}, index='{index}')"


def exact(allowed: Any = slice(None), k: int = 10) -> list[set[str]]:
    """The ids of the best k among the allowed documents, by NumPy."""
    encoder = TopicEncoder()
    rows = np.arange(COUNT)[allowed]
    vectors = np.array([encoder.vector(DOCUMENTS[row].text) for row in rows])
    scores = np.array([encoder.vector(query) for query in QUERIES]) @ vectors.T
    return [{f"d{rows[row]}" for row in best} for best in np.argsort(-scores, axis=1)[:, :k]]


def found(index: Retriever, k: int = 10, **search: Any) -> list[set[str]]:
    run = index.run([Query(str(i), query) for i, query in enumerate(QUERIES)], k, **search)
    return [set(run.get(str(i), ())) for i in range(len(QUERIES))]


def recall(results: list[set[str]], expected: list[set[str]]) -> float:
    return sum(len(a & b) for a, b in zip(results, expected, strict=True)) / sum(map(len, expected))


def wide(factory: str) -> str:
    return "dense(nprobe=12)" if "IVF" in factory else "dense"


def state(index: Retriever) -> dict[str, Any]:
    manifest = json.loads((index.path / "manifest.json").read_text())
    return {**manifest["views"]["dense"], **manifest["views"]["dense"]["data"]}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """FAISS's threads wait by spinning: on a busy machine two take ten times as long as one for so little."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("dense") / "index"
    Retriever.create(path, views=[view()]).add(DOCUMENTS)
    return path


@pytest.fixture
def copy(flat: Path, tmp_path: Path) -> Path:
    """An index of its own with all documents, encoded once for the whole module."""
    return Path(shutil.copytree(flat, tmp_path / "index"))


@pytest.fixture
def by_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and limits for a million vectors, made small: several chunks, and filters that FAISS applies itself."""
    monkeypatch.setattr(dense, "_CHUNK", 256)


# -- kinds of index ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("by_faiss")
@pytest.mark.parametrize("factory", FACTORIES)
def test_a_kind_of_index_finds_what_is_near_and_nothing_that_is_not_allowed(copy, factory):
    index = Retriever.prepare(copy, views=[view(factory)])
    floor, pipeline = FACTORIES[factory], wide(factory)
    assert recall(found(index, pipeline=pipeline), exact()) >= floor

    half = np.array([document.metadata["half"] == 1 for document in DOCUMENTS])
    results = found(index, pipeline=pipeline, where="half = 1")
    assert recall(results, exact(half)) >= floor
    assert set().union(*results) <= {DOCUMENTS[row].id for row in np.flatnonzero(half)}

    few = np.arange(COUNT) % 30 == 0
    ids = ", ".join(f"'d{row}'" for row in np.flatnonzero(few))
    assert found(index, pipeline=pipeline, where=f"id in [{ids}]") == exact(few)  # gathered, and therefore exact
    assert found(index, pipeline=pipeline, where="n < 0") == [set()] * len(QUERIES)

    gone = set().union(*exact(k=2))
    index.delete(gone)
    results = found(index, pipeline=pipeline)
    assert not gone & set().union(*results)
    assert recall(results, exact(np.array([document.id not in gone for document in DOCUMENTS]))) >= floor


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF16,Flat", "SQ8", "IVF16,PQ8x4fs", "RaBitQ"])
def test_compact_builds_the_index_of_what_is_left(copy, factory):
    index = Retriever.prepare(copy, views=[view(factory)])
    gone = set().union(*exact(k=2))
    index.delete(gone)
    index.compact()
    assert len(index) == state(index)["rows"] == COUNT - len(gone)
    assert state(index).get("built", len(index)) == len(index)
    results = found(index, pipeline=wide(factory))
    left = np.array([document.id not in gone for document in DOCUMENTS])
    assert recall(results, exact(left)) >= FACTORIES[factory]
    assert found(Retriever(copy), pipeline=wide(factory)) == results
    assert index.verify() == []


@pytest.mark.parametrize("factory", ["HNSW32", "IVF16,Flat", "PCA16,IVF16,PQ8x4fs", "RaBitQ"])
def test_what_came_after_the_last_build_is_searched_exactly(copy, factory):
    index = Retriever.prepare(copy, views=[view(factory)])
    index.add(Document(f"new{i}", f"fresh{i} document", metadata={"n": -i}) for i in range(20))
    assert state(index)["built"] == COUNT
    for i in range(20):
        assert index.search(f"fresh{i} document", k=1)[0].id == f"new{i}"
        assert index.search(f"fresh{i} document", k=1)[0].score == pytest.approx(1, abs=1e-6)
    assert {hit.id for hit in index.search("fresh1 document", k=19, where="n < 0")} == {f"new{i}" for i in range(1, 20)}
    index.delete(["new7"])
    assert index.search("fresh7 document", k=1)[0].id != "new7"


def test_enough_new_rows_join_the_index_and_twice_as_many_train_it_anew(tmp_path):
    index = Retriever.create(tmp_path / "index", views=[view("IVF4,Flat")])
    seen = []
    for first, last in (0, 200), (200, 208), (208, 230), (230, 420):
        index.add(DOCUMENTS[first:last])
        seen.append((state(index)["built"], state(index)["trained"]))
        assert len(list((tmp_path / "index/views/dense").glob("*.faiss"))) == 1
        assert {hit.id for hit in index.search("any", k=1000, pipeline="dense(nprobe=4)")} == {
            document.id for document in DOCUMENTS[:last]
        }
    assert seen == [(200, 200), (200, 200), (230, 200), (420, 420)]


def test_too_few_rows_to_train_on_are_searched_exactly(tmp_path):
    index = Retriever.create(tmp_path / "index", views=[view("IVF64,Flat")])
    index.add(DOCUMENTS[:30])
    assert "built" not in state(index)
    assert len(index.search("topic3", k=100)) == 30
    index.add(DOCUMENTS[30:300])
    assert state(index)["built"] == 300


def test_another_factory_encodes_nothing_again(copy, monkeypatch, tmp_path):
    log = tmp_path / "encoded"
    monkeypatch.setenv(LOG, str(log))
    before = found(Retriever(copy))
    for factory in "HNSW32", "IVF16,Flat", "IVF16,PQ8", "Flat":
        index = Retriever.prepare(copy, views=[view(factory)])
        assert state(index).get("factory", "Flat") == factory
        assert index.info()["views"]["dense"]["config"]["index"] == factory
        assert index.verify() == []
    assert found(index) == before
    assert not list(copy.glob("views/dense/*.faiss"))
    assert not log.exists()
    index.add([Document("x", "one more")])
    assert len(log.read_text().splitlines()) == 1


def test_a_build_that_is_never_published_leaves_the_generation_before_it_whole(copy, monkeypatch):
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    before = found(Retriever.prepare(copy, views=[view("HNSW32")]))
    with monkeypatch.context() as patched:
        patched.setattr("retriever.store.manifest.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            Retriever.prepare(copy, views=[view("IVF16,PQ8x4fs")])  # as many rows, in other bytes
    assert Retriever(copy).verify() == []
    assert found(Retriever(copy)) == before


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Nonsense", "FAISS makes no index 'Nonsense' for 32 dimensions: could not parse index string Nonsense"),
        ("PQ7", "FAISS makes no index 'PQ7' for 32 dimensions: .* multiple of the number of subquantizers"),
        ("HNSW32,PQ8", "FAISS's 'HNSW32,PQ8' does not search by inner products; give another factory string"),
        ("IDMap,Flat", "FAISS builds no usable 'IDMap,Flat' from 1,200 vectors: add does not make sense .* searched"),
    ],
)
def test_a_factory_that_cannot_be_is_refused_and_leaves_the_index_as_it_was(copy, factory, message):
    before = Retriever(copy).info()
    with pytest.raises(InputError, match=message):
        Retriever.prepare(copy, views=[view(factory)])
    index = Retriever(copy)
    assert index.info() == before
    assert index.add([Document("x", "still possible")]).added == 1


def test_a_model_that_is_not_found_leaves_the_index_as_it_was(copy, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        Retriever.prepare(copy, views=["second = dense(no/such)"])
    assert list(Retriever(copy).info()["views"]) == ["dense"]
    assert Retriever(copy).search("topic1 number 1")[0].id == "d1"


# -- search effort -----------------------------------------------------------------------------------------------------


def test_nprobe_is_set_by_the_view_and_by_a_pipeline(copy):
    index = Retriever.prepare(copy, views=["dense(toy_encoders:TopicEncoder, index='IVF16,Flat', nprobe=2)"])
    recalls = [recall(found(index, pipeline=f"dense(nprobe={n})"), exact()) for n in (1, 4, 16)]
    assert recalls[0] < recalls[1] <= recalls[2] == 1
    assert found(index) == found(index, pipeline="dense(nprobe=2)") != found(index, pipeline="dense(nprobe=1)")


@pytest.mark.usefixtures("by_faiss")
def test_nprobe_reaches_through_transformations_refinement_and_filters(copy):
    index = Retriever.prepare(copy, views=[view("RR32,IVF16,Flat")])
    assert recall(found(index, pipeline="dense(nprobe=16)"), exact()) == 1
    assert recall(found(index, pipeline="dense(nprobe=1)"), exact()) < 1
    half = np.array([document.metadata["half"] == 1 for document in DOCUMENTS])
    assert recall(found(index, pipeline="dense(nprobe=16)", where="half = 1"), exact(half)) == 1
    index = Retriever.prepare(copy, views=[view("IVF16,SQ8,RFlat")])
    assert recall(found(index, pipeline="dense(nprobe=16)"), exact()) > 0.95
    assert recall(found(index, pipeline="dense(nprobe=1)"), exact()) < 0.95


def test_ef_search_is_the_effort_in_a_graph(tmp_path):
    index = Retriever.create(tmp_path / "index", views=[view("HNSW4", "HashEncoder")])
    index.add(DOCUMENTS)
    vectors = np.array([HashEncoder().vector(document.text) for document in DOCUMENTS])
    scores = np.array([HashEncoder().vector(query) for query in QUERIES]) @ vectors.T
    best = [{f"d{row}" for row in rows} for rows in np.argsort(-scores, axis=1)[:, :3]]
    recalls = [recall(found(index, k=3, pipeline=f"dense(ef_search={n})"), best) for n in (4, 64, 1024)]
    assert recalls[0] < recalls[1] < recalls[2]
    assert recalls[2] > 0.95


def test_a_graph_gives_as_many_results_as_are_asked_for(copy):
    index = Retriever.prepare(copy, views=[view("HNSW32")])
    assert [len(results) for results in found(index, k=1000)] == [1000] * len(QUERIES)
    assert recall(found(index, k=1000), exact(k=1000)) > 0.98


@pytest.mark.usefixtures("by_faiss")
def test_a_graph_finds_enough_under_a_filter(copy):
    index = Retriever.prepare(copy, views=[view("HNSW32")])
    tenth = np.arange(COUNT) // TOPICS % 10 == 3
    ids = ", ".join(f"'d{row}'" for row in np.flatnonzero(tenth))
    assert recall(found(index, k=5, where=f"id in [{ids}]"), exact(tenth, k=5)) > 0.9


# -- encoders ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("by_faiss")
@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF8,Flat", "HNSW32,SQ8"])
def test_a_euclidean_model_is_searched_by_distance(tmp_path, factory):
    index = Retriever.create(tmp_path / "index", views=[view(factory, "EuclideanEncoder")])
    corpus = DOCUMENTS[:600]
    index.add(corpus)
    encoder = EuclideanEncoder()
    vectors = np.array([encoder.vector(document.text) for document in corpus])
    tolerance = 1e-4 if factory != "HNSW32,SQ8" else 0.2
    agree = []
    for where, allowed in (None, np.full(600, True)), ("n >= 300", np.arange(600) >= 300):
        for query in "topic3 number 43", "topic5 query", "nothing like it":
            distances = np.where(allowed, ((vectors - encoder.vector(query)) ** 2).sum(axis=1), np.inf)
            hits = index.search(query, k=10, where=where, pipeline="dense(nprobe=8, ef_search=600)")
            for hit in hits:
                assert hit.score == pytest.approx(-distances[int(hit.id[1:])], abs=tolerance)
            agree.append(len({hit.id for hit in hits} & {f"d{row}" for row in np.argsort(distances)[:10]}) / 10)
    assert np.mean(agree) > (0.9 if factory == "HNSW32,SQ8" else 0.99)


def test_the_encoder_must_be_the_one_that_made_the_vectors(copy, monkeypatch):
    monkeypatch.setattr(TopicEncoder, "name", "retrained")
    message = (
        r"view 'dense' was encoded by another encoder than 'toy_encoders:TopicEncoder' \(name: 'topic', "
        r"now 'retrained'\). Give the encoder that made it, or make a new index."
    )
    with pytest.raises(IndexMismatchError, match=message):
        Retriever(copy).search("topic1")
    with pytest.raises(IndexMismatchError, match=message):
        Retriever(copy).add([Document("x", "more")])
    assert len(Retriever(copy)) == COUNT


def test_a_view_does_not_change_its_model(copy):
    with pytest.raises(IndexMismatchError) as caught:
        Retriever.prepare(copy, views=[view(encoder="HashEncoder")])
    assert str(caught.value) == (
        "view 'dense' is dense(model=toy_encoders:TopicEncoder), not dense(model=toy_encoders:HashEncoder); keep it as "
        'it is, give the other a name of its own (--view "dense2 = ..."), or make a new index'
    )


def test_two_encoders_live_side_by_side(copy):
    index = Retriever.prepare(copy, views=[view(), f"second = {view('HNSW32', 'HashEncoder')}"])
    assert index.search("topic1 number 1", k=1, pipeline="second")[0].id == "d1"
    assert index.search("topic1 number 1", k=1, pipeline="dense + second >> rrf")[0].id == "d1"
    assert {name: seen["encoder"]["name"] for name, seen in index.info()["views"].items()} == {
        "dense": "topic",
        "second": "hash",
    }


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HashEncoder, "vector", lambda self, text: np.full(self.dimension, np.nan, np.float32))


@pytest.mark.usefixtures("broken")
def test_vectors_that_are_no_numbers_are_refused(tmp_path):
    index = Retriever.create(tmp_path / "index", views=[view(encoder="HashEncoder")])
    with pytest.raises(InputError, match=r"gave \(1, 32\) for 1 texts; expected finite float32 \[1, 32\]"):
        index.add([Document("a", "text")])
    assert len(index) == 0
