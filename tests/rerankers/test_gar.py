"""Adaptive reranking against the paper's algorithm written out, on real views with real neighbours."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder
from toy_encoders import HashEncoder

from retriever import Document, InputError, Query, Retriever
from retriever.types import Floats

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body"]
VIEWS = ["bm25", "free = bm25(k1=0.9, b=0.4)", "dense(toy_encoders:HashEncoder)"]
VIEWS += ["passages = dense(toy_encoders:HashEncoder, passage=2, stride=2)"]


def corpus() -> dict[str, Document]:
    pick = random.Random(3)
    made = [
        Document(f"d{i:03d}", f"{WORDS[i % 8]} {' '.join(pick.choices(WORDS, k=3))} x{i}", metadata={"half": i % 2})
        for i in range(120)
    ]
    return {document.id: document for document in [*made, Document("empty", "")]}


@dataclass(frozen=True)
class LikedConfig:
    depth: int = 100


class Liked:
    """Scores a pair by a number drawn from both texts, and writes the call down."""

    Config = LikedConfig
    calls: ClassVar[list[list[tuple[str, str]]]] = []

    def __init__(self, config: LikedConfig) -> None:
        self.config = config

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        self.calls.append(list(pairs))
        return np.array([liked(*pair) for pair in pairs], dtype=np.float32)


def liked(query: str, text: str) -> float:
    return float(np.float32(random.Random(f"{query} {text}").random()))


@pytest.fixture
def calls() -> list[list[tuple[str, str]]]:
    Liked.calls.clear()
    return Liked.calls


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    made = Retriever.create(tmp_path_factory.mktemp("gar") / "index", views=VIEWS)
    made.add(corpus().values())
    return made


def run(index: Retriever, pipeline: str, query: str = "wing", where: str | None = None) -> dict[str, float]:
    return index.run([Query("q", query)], k=200, pipeline=pipeline, where=where).get("q", {})


Near = Callable[[str], list[str]]


def nearest_vectors(k: int, alive: Sequence[str] = tuple(corpus())) -> Near:
    """By brute force over the encoder's vectors."""
    texts = {id: document.contents for id, document in corpus().items()}
    encoded = HashEncoder().encode_queries([*texts.values()]).vectors
    vectors = dict(zip(texts, encoded, strict=True))

    def near(id: str) -> list[str]:
        others = [other for other in alive if other != id]
        return sorted(others, key=lambda other: (vectors[id] @ vectors[other], other), reverse=True)[:k]

    return near


def found_by(index: Retriever, view: str, k: int) -> Near:
    """A search with a document's own text."""
    texts = {id: document.contents for id, document in corpus().items()}
    return lambda id: [other for other in run(index, f"{view}(k={k + 1})", texts[id]) if other != id][:k]


def algorithm_1(first: Sequence[str], score: Callable[[str], float], near: Near, batch: int, depth: int) -> list[str]:
    """MacAvaney, Tonellotto and Macdonald, CIKM 2022: what is scored, in its order."""
    initial, ranked, frontier, turn = list(first), dict[str, float](), dict[str, float](), "initial"
    while len(ranked) < depth and (initial or frontier):
        pool = initial if turn == "initial" else sorted(frontier, key=lambda id: -frontier[id])
        scored = pool[: min(batch, depth - len(ranked))]
        ranked |= {id: score(id) for id in scored}
        initial = [id for id in initial if id not in ranked]
        frontier = {id: value for id, value in frontier.items() if id not in ranked}
        for id in scored:
            for neighbour in near(id):
                if neighbour not in ranked:
                    frontier[neighbour] = max(frontier.get(neighbour, 0.0), ranked[id])
        turn = "frontier" if turn == "initial" else "initial"
    return list(ranked)


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("neighbours", [1, 4])
@pytest.mark.parametrize("view", ["dense", "bm25", "free"])
def test_what_is_scored_is_what_the_algorithm_scores(index, calls, view, neighbours, batch):
    texts = {id: document.contents for id, document in corpus().items()}
    first = list(run(index, "bm25(k=20)", "wing heat"))
    near = nearest_vectors(neighbours) if view == "dense" else found_by(index, view, neighbours)
    expected = algorithm_1(first, lambda id: liked("wing heat", texts[id]), near, batch, 45)
    stage = f"gar('test_gar:Liked', {view}, neighbours={neighbours}, batch={batch}, depth=45)"
    made = run(index, f"bm25(k=20) >> {stage}", "wing heat")
    assert Counter(text for _, text in chain(*calls)) == Counter(texts[id] for id in expected)
    ranked = sorted(expected, key=lambda id: -liked("wing heat", texts[id]))
    assert list(made) == [*ranked, *(id for id in first if id not in ranked)]
    assert [made[id] for id in ranked] == [liked("wing heat", texts[id]) for id in ranked]


def test_a_document_that_the_search_missed_is_found_by_its_neighbour(tmp_path):
    made = Retriever.create(tmp_path / "index", views=["bm25", "dense(toy_encoders:TopicEncoder)"])
    made.add([Document("named", "topic7 wings of aircraft"), Document("relevant", "topic7 airfoils over many a body")])
    made.add(Document(f"other{i}", f"topic{i} heat") for i in range(6))
    assert list(run(made, "bm25", "wings")) == ["named"]
    assert list(run(made, "bm25 >> test_gar:Liked", "wings")) == ["named"]
    found = run(made, "bm25 >> gar('test_gar:Liked', dense, neighbours=1)", "wings")
    assert set(found) == {"named", "relevant"}


@pytest.mark.parametrize("options", ["neighbours=0, batch=7", "batch=40", "neighbours=3, batch=100"])
def test_without_neighbours_or_a_second_batch_it_is_plain_reranking(index, calls, options):
    found = run(index, f"bm25 >> gar('test_gar:Liked', dense, {options}, depth=40)", "wing heat")
    scored = Counter(chain(*calls))
    calls.clear()
    assert found == run(index, "bm25 >> test_gar:Liked(depth=40)", "wing heat")
    assert scored == Counter(chain(*calls))


def test_a_real_cross_encoder_scores_neighbours_as_it_scores_all(index, tmp_path):
    model = cross_encoder(tmp_path)
    inner = f"cross-encoder({model}, precision=float32)"
    plain = run(index, f"dense(k=121) >> cross-encoder({model}, precision=float32, depth=121)")
    found = run(index, f"bm25(k=3) >> gar('{inner}', dense, neighbours=5, depth=30)")
    assert len(found) == 30
    assert found == pytest.approx({id: plain[id] for id in found}, abs=1e-4)
    assert list(found) == sorted(found, key=lambda id: (found[id], id), reverse=True)


def test_every_document_is_scored_once_and_as_many_as_can_be_reached(index, calls):
    """Neighbours in `bm25` share a word with a document, and the empty one shares none with any."""
    for depth, scored in (50, 50), (500, 120):
        calls.clear()
        found = run(index, f"bm25(k=2) >> gar('test_gar:Liked', bm25, neighbours=120, depth={depth})")
        assert len(found) == scored
        assert set(Counter(chain(*calls)).values()) == {1}
        assert len(list(chain(*calls))) == scored


def test_filters_and_deletes_hold_for_neighbours(tmp_path, calls):
    made = Retriever.create(tmp_path / "index", views=VIEWS)
    made.add(corpus().values())
    gone = [id for i, id in enumerate(corpus()) if i % 3 == 0]
    made.delete(gone)
    alive = [id for id, document in corpus().items() if id not in gone and document.metadata.get("half") == 1]
    for view in "dense", "bm25", "free", "passages":
        calls.clear()
        pipeline = f"bm25(k=3) >> gar('test_gar:Liked', {view}, neighbours=4, depth=200)"
        found = run(made, pipeline, where="half = 1")
        assert set(found) <= set(alive)
        assert len(found) > 3
        assert {text for _, text in chain(*calls)} == {corpus()[id].contents for id in found}
    near = nearest_vectors(4, alive)
    first = list(run(made, "bm25(k=3)", where="half = 1"))
    texts = {id: document.contents for id, document in corpus().items()}
    expected = algorithm_1(first, lambda id: liked("wing", texts[id]), near, 16, 25)
    stage = "gar('test_gar:Liked', dense, neighbours=4, depth=25)"
    assert set(run(made, f"bm25(k=3) >> {stage}", where="half = 1")) == set(expected)


def test_the_next_batches_of_all_queries_are_scored_in_one_call(index, calls):
    texts = ["wing", "drag heat", "unheard", "body"]
    pipeline = "bm25(k=20) >> gar('test_gar:Liked', dense, neighbours=4, batch=8, depth=20)"
    made = index.run([Query(text, text) for text in texts], k=200, pipeline=pipeline)
    assert [Counter(query for query, _ in call) for call in calls] == [
        dict.fromkeys(["wing", "drag heat", "body"], size) for size in (8, 8, 4)
    ]
    for text in texts:
        assert made.get(text, {}) == run(index, pipeline, text)


def test_a_view_is_asked_as_a_pipeline_asks_it(index):
    stage = "bm25(k=3) >> gar('test_gar:Liked', {}, neighbours=4, depth=20)"
    assert run(index, stage.format("'bm25(title_boost=0)'")) == run(index, stage.format("bm25"))
    with pytest.raises(InputError, match="bm25: a search cannot set 'language'"):
        run(index, stage.format("'bm25(language=none)'"))


def test_empty_documents_have_no_words_in_common_but_may_be_neighbours(index):
    assert "empty" not in run(index, "bm25(k=2) >> gar('test_gar:Liked', bm25, neighbours=120, depth=500)")
    dense = run(index, "bm25(k=2) >> gar('test_gar:Liked', 'passages', neighbours=121, depth=500)")
    assert set(dense) == set(corpus())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'cross-encoder(M)'", "gar needs 'view', as in gar"),
        ("'cross-encoder(M)', dens", "this index has no view 'dens'; did you mean 'dense'"),
        ("'cross-encoder(M)', 'dense + bm25 >> rrf'", "gar looks for neighbours in one view, not in 'dense"),
        ("'cross-encoder(M)', 'dense(k=3)'", "gar: neighbours=16 says how many, so its view has no k"),
        ("'cross-encoder(M)', dense, neighbours=-1", "gar: neighbours must not be negative"),
        ("'cross-encoder(M)', dense, batch=0", "gar: batch and depth must be at least 1"),
        ("'cross-encoder(M)', dense, depth=0", "gar: batch and depth must be at least 1"),
        ("'cross-encoder(M, depth=5)', dense", "depth belongs to the stage that cross-encoder stands in"),
        ("'gar(\\'cross-encoder(M)\\', dense)', dense", "gar orders lists; give a reranker that scores pairs"),
        ("'cross-encoder(no/such)', dense", "model 'no/such' was not found"),
        ("'cross-encoder(B)', dense", "is no cross-encoder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_searched(index, tmp_path, arguments, message):
    models: dict[str, Path] = {"(M": cross_encoder(tmp_path / "cross"), "(B": bi_encoder(tmp_path / "bi")}
    for letter, folder in models.items():
        arguments = arguments.replace(letter, f"({folder}")
    with pytest.raises(InputError, match=message):
        index.search("unheard", pipeline=f"bm25 >> gar({arguments})")


class Blind:
    """A view that can be asked with queries alone."""

    def __init__(self, config: Any) -> None:
        self.config = config


def test_a_view_that_cannot_be_asked_with_a_document(index, monkeypatch):
    views = index._snapshot.views
    monkeypatch.setitem(views, "free", Blind(index._snapshot.view("bm25").config))
    with pytest.raises(InputError, match="gar cannot ask 'free': it has neither vectors nor terms"):
        run(index, "bm25 >> gar('test_gar:Liked', free)")
