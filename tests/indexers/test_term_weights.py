"""The inverted index over term weights: its scores, its forms, and what a change of configuration costs."""

import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import toy_encoders
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, hstack, vstack

from retriever import Document, InputError, Query, Retriever, read_corpus
from retriever.errors import CorruptIndexError, SpecError
from retriever.indexers import term_weights
from retriever.indexers.impact_search import Asked, Postings, Scoring, rescore, top_k
from retriever.indexers.tiles import Tiles, block_sums, document_frequencies, make_tile, quantised, view_tiles

PLAIN = Scoring(np.zeros(0, np.bool_), np.zeros((0, 0), np.float32), np.frombuffer(b"", np.uint8))


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(term_weights, "TILE", 64)
        yield


def tiles_of(matrix: csr_array, dtype: str, rows: int, start: int = 0) -> Tiles:
    """A matrix [documents, terms] as tiles of so many rows, which are numbered from `start`."""
    heads, blobs = [np.zeros((0, 10), np.int64)], [b""]
    for first in range(0, matrix.shape[0], rows):
        part = matrix[first : first + rows]
        ends, terms = part.indptr[1:].astype(np.int64), part.indices.astype(np.uint32)
        head, blob = make_tile(ends, terms, part.data.astype(dtype), start + first, sum(map(len, blobs)))
        heads.append(head)
        blobs.append(blob)
    return view_tiles(np.concatenate(heads), np.frombuffer(b"".join(blobs), np.uint8), dtype, start)


def asked_of(matrix: csr_array) -> Asked:
    return Asked(matrix.indptr[1:].astype(np.int64), matrix.indices.astype(np.int64), matrix.data.astype(np.float32))


def random_matrix(rows: int, terms: int, seed: int, whole: bool) -> csr_array:
    """Terms from those that almost every row has to those that almost none has: dense and sparse blocks."""
    rng = np.random.default_rng(seed)
    present = rng.random((rows, terms)) < 1 / np.arange(1, terms + 1)
    weights = rng.integers(1, 256, (rows, terms)) if whole else rng.gamma(2.0, 0.5, (rows, terms))
    return csr_array((present * weights).astype(np.float32))


@pytest.mark.parametrize(("dtype", "whole"), [("uint8", True), ("uint16", True), ("float32", False)])
@settings(deadline=None)  # numba compiles in the first
@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 64), st.integers(1, 30))
def test_a_score_is_the_dense_dot_product(dtype, whole, seed, rows, tile, k):
    documents, queries = random_matrix(rows, 50, seed, whole), random_matrix(5, 50, seed + 1, whole)
    split = rows // 2 // tile * tile
    tiles = tiles_of(documents[:split], dtype, tile), tiles_of(documents[split:], dtype, tile, split)
    hits = top_k(tiles, asked_of(queries), k, PLAIN)
    dense = queries.toarray().astype(np.float64) @ documents.toarray().astype(np.float64).T
    for expected, found, scores in zip(dense, hits.rows, hits.scores, strict=True):
        found, scores = found[found >= 0], scores[found >= 0]
        assert len(set(found.tolist())) == len(found)
        assert scores == pytest.approx(expected[found], rel=1e-5)
        if whole:
            assert scores.tolist() == expected[found].tolist()
        best = np.sort(expected[expected > 0])[::-1][:k]
        assert np.sort(scores)[::-1][: len(best)] == pytest.approx(best, rel=1e-5)
        assert len(found) >= len(best)


def test_all_that_ties_with_the_last_place_is_found_and_nothing_that_is_not_allowed():
    documents = csr_array(np.ones((500, 1), np.float32))
    tiles, none = tiles_of(documents, "uint8", 64), tiles_of(documents[:0], "uint8", 64)
    queries = asked_of(csr_array(np.ones((1, 1), np.float32)))
    assert sorted(top_k((tiles, none), queries, 3, PLAIN).rows[0].tolist()) == list(range(500))
    allowed = np.arange(500) % 7 == 0
    assert sorted(top_k((tiles, none), queries, 3, PLAIN._replace(allowed=allowed)).rows[0]) == list(range(0, 500, 7))


def test_queries_that_go_through_a_tile_together_do_not_disturb_each_other():
    everywhere = csr_array(np.ones((3000, 1), np.float32))
    documents = csr_array(hstack([everywhere, random_matrix(3000, 20, 6, whole=True)]))
    tiles = tiles_of(documents[:2048], "uint8", 1024), tiles_of(documents[2048:], "uint8", 1024, 2048)
    tying, others = csr_array(np.eye(1, 21, dtype=np.float32)), random_matrix(6, 20, 7, whole=True)
    every = csr_array(vstack([tying, hstack([csr_array((6, 1), dtype=np.float32), others])]))
    together = asked_of(csr_array(vstack([every] * 80)))  # more than go together
    hits = top_k(tiles, together, 5, PLAIN)
    for q in range(560):
        alone = top_k(tiles, asked_of(every[[q % 7]]), 5, PLAIN)
        found = alone.rows.shape[1]
        assert hits.rows[q, :found].tolist() == alone.rows[0].tolist()
        assert hits.scores[q, :found].tolist() == alone.scores[0].tolist()
        assert (hits.rows[q, found:] == -1).all()


def test_frequencies_count_every_block():
    matrix = random_matrix(200, 40, 3, whole=True)
    tiles = tiles_of(matrix, "uint8", 64)
    assert document_frequencies(tiles, 40).tolist() == (matrix.toarray() > 0).sum(axis=0).tolist()
    assert block_sums(tiles, np.arange(45)).tolist() == [*matrix.toarray().sum(axis=0).tolist(), *[0] * 5]


def test_full_scores_come_from_the_weights_by_row():
    documents, queries = random_matrix(50, 30, 4, whole=False), random_matrix(3, 30, 5, whole=False)
    by_row = Postings(documents.indptr[1:].astype(np.int64), documents.indices.astype(np.uint32), documents.data, 0.0)
    rows = np.array([[0, 7, -1], [49, 3, 3], [12, -1, -1]])
    expected = (queries @ documents.T).toarray()[np.arange(3)[:, None], rows]
    assert rescore(by_row, asked_of(queries), rows) == pytest.approx(np.where(rows < 0, -np.inf, expected), rel=1e-5)


@pytest.mark.parametrize(
    ("reach", "examples"),
    [(10, {0: 0, 0.01: 1, 5: 128, 10: 256}), (5, {0.01: 1, 2.5: 128, 5: 256})],
    ids=["DeepImpact, 10 being the largest", "uniCOIL"],
)
def test_published_quantisations(reach, examples):
    weights = np.array(list(examples), dtype=np.float32)
    assert quantised(weights, 2**8 / reach).tolist() == list(examples.values())


def corpus(size: int, seed: int = 0) -> list[Document]:
    pick = random.Random(seed)
    words = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "mach", "jet"]
    return [
        Document(f"d{i}", " ".join(pick.choices(words, range(1, 11), k=pick.randint(1, 60))), metadata={"n": i})
        for i in range(size)
    ]


def asked(index: Retriever, pipeline: str, query: str = "wing drag mach", k: int = 10) -> dict[str, float]:
    return {hit.id: hit.score for hit in index.search(query, k=k, pipeline=pipeline)}


def test_bits_and_range_can_be_changed_and_encode_nothing_again(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv(toy_encoders.LOG, str(log))
    index = Retriever.create(tmp_path / "index", ["splade(toy_encoders:TermEncoder)"])
    index.add(corpus(200))
    encoded, exact = log.read_text(), asked(index, "splade", k=200)
    weights = toy_encoders.TermEncoder().weights
    query = weights("wing drag mach")
    for bits, reach in (4, 8.0), (8, None), (16, 100.0):
        index = Retriever.prepare(
            tmp_path / "index", [f"splade(toy_encoders:TermEncoder, bits={bits}, range={reach or 'none'})"]
        )
        top = reach or max(weight for document in corpus(200) for weight in weights(document.text).values())
        expected = {
            document.id: score
            for document in corpus(200)
            if (score := sum(math.ceil(w / top * 2**bits) * query.get(t, 0) for t, w in weights(document.text).items()))
        }
        assert asked(index, "splade", k=200) == pytest.approx(expected, rel=1e-6)
    index = Retriever.prepare(tmp_path / "index", ["splade(toy_encoders:TermEncoder)"])
    assert asked(index, "splade", k=200) == exact
    assert log.read_text() == encoded
    assert index.verify() == []


def test_a_heavier_weight_than_all_before_makes_the_impacts_anew(tmp_path):
    index = Retriever.create(tmp_path / "index", ["deepimpact(toy_encoders:CountEncoder)"])
    index.add(Document(f"d{i}", "wing " * (1 + i % 2)) for i in range(130))
    assert asked(index, "deepimpact", "wing", k=200)["d1"] == 256
    index.add([Document("heavy", "wing " * 8)])
    found = asked(index, "deepimpact", "wing", k=200)
    assert found["heavy"] == 256
    assert found["d1"] == 64
    assert found["d0"] == 32


def test_a_search_may_set_k1_b_and_the_variant(tmp_path):
    index = Retriever.create(tmp_path / "index", ["bm25(k1=0.9, b=0.4)", "other = bm25(k1=1.2, b=0.75, variant=atire)"])
    index.add(corpus(150))
    assert asked(index, "bm25(k1=1.2, b=0.75, variant=atire)") == asked(index, "other") != asked(index, "bm25")
    with pytest.raises(SpecError, match=r"b from 0 to 1, not 0\.9 and 40"):
        asked(index, "bm25(b=40)")
    with pytest.raises(SpecError, match="variant is one of lucene, robertson"):
        asked(index, "bm25(variant=okapi)")


def test_bm25_says_which_engine_it_is_and_the_two_are_not_mixed(tmp_path):
    index = Retriever.create(tmp_path / "index", ["bm25", "free = bm25(b=0.75)"])
    index.add(corpus(5))
    views = index.info()["views"]
    assert {name: view["engine"] for name, view in views.items()} == {"bm25": "tantivy", "free": "inverted"}
    assert views["free"]["spec"] == "free = bm25(k1=0.9, b=0.75)"
    with pytest.raises(InputError, match=r"view 'bm25' is bm25, not bm25\(k1=0.9, b=0.4\)"):
        Retriever.prepare(tmp_path / "index", ["bm25(k1=0.9)"])


def test_an_approximate_search_with_all_terms_is_exact_and_with_fewer_gives_full_scores(tmp_path):
    index = Retriever.create(tmp_path / "index", ["splade(toy_encoders:TermEncoder)"])
    index.add(corpus(300))
    exact = asked(index, "splade", k=300)
    assert asked(index, "splade(cut=3)", k=20) == pytest.approx(dict(list(exact.items())[:20]), rel=1e-5)
    for id, score in asked(index, "splade(cut=1)", k=5).items():
        assert score == pytest.approx(exact[id], rel=1e-5)


def test_weights_may_come_with_the_documents(tmp_path):
    lines = [
        {"id": "a", "contents": "how wings stall", "vector": {"wing": 3, "stall": 12}},
        {"id": "b", "contents": "stalled talks", "vector": {"stall": 5, "talk": 256, "of": 0}},
    ]
    path = tmp_path / "vectors.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    index = Retriever.create(tmp_path / "index", ["impacts"])
    index.add(read_corpus(path))
    assert asked(index, "impacts", "stall stall wing") == {"a": 27, "b": 10}
    assert asked(index, "impacts", "talk") == {"b": 256}
    assert asked(index, "impacts", "of") == {}


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (None, r"document 'x': its field 'vector' holds no term weights; expected an object"),
        ([1, 2], r"document 'x': its field 'vector' holds no term weights"),
        ({"wing": "3"}, r"document 'x': the weight of 'wing' is '3'; expected a number from 0"),
        ({"wing": -1}, r"document 'x': the weight of 'wing' is -1"),
        ({"wing": True}, r"document 'x': the weight of 'wing' is True"),
    ],
)
def test_what_is_no_vector_is_refused_and_nothing_is_added(tmp_path, vector, message):
    index = Retriever.create(tmp_path / "index", ["impacts"])
    with pytest.raises(InputError, match=message):
        index.add([Document("x", "text", metadata={} if vector is None else {"vector": vector})])
    assert len(Retriever(tmp_path / "index")) == 0


def test_terms_and_frequencies_for_query_expansion(tmp_path):
    index = Retriever.create(tmp_path / "index", ["bm25(k1=0.9, b=0.4, language=none)"])
    texts = corpus(150)
    index.add(texts)
    view = index._snapshot.view("bm25")
    counts = [Counter(document.text.split()) for document in texts]
    assert view.document_terms(np.array([0, 149]), [texts[0], texts[149]]) == [counts[0], counts[149]]
    assert view.query_terms(["wing wing lift"]) == [{"wing": 2, "lift": 1}]
    found = view.frequencies(["wing", "absent", "jet"])
    assert found.df.tolist() == [sum("wing" in c for c in counts), 0, sum("jet" in c for c in counts)]
    assert found.cf.tolist() == [sum(c["wing"] for c in counts), 0, sum(c["jet"] for c in counts)]
    assert (found.documents, found.tokens) == (150, sum(sum(c.values()) for c in counts))
    weighted = view.search_terms([{"wing": 2.0, "lift": 1.0}], 10, None, view.config)
    plain = view.search(["wing lift wing"], 10, None, view.config)
    assert weighted.scores == pytest.approx(plain.scores)


def test_a_flipped_byte_gives_a_message_or_an_answer_and_never_a_crash(tmp_path):
    index = Retriever.create(tmp_path / "index", ["splade(toy_encoders:TermEncoder)", "bm25(k1=1, b=0.5)"])
    index.add(corpus(150))
    pick = random.Random(1)
    files = [path for path in (tmp_path / "index" / "views").rglob("*.bin") if path.stat().st_size]
    assert {path.name.partition("-")[0] for path in files} >= {"tiles", "heads", "postings", "ends", "lengths"}
    for path in files:
        whole = path.read_bytes()
        for at in [0, len(whole) - 1, *(pick.randrange(len(whole)) for _ in range(20))]:
            flipped = bytearray(whole)
            flipped[at] ^= 1 << pick.randrange(8)
            path.write_bytes(flipped)
            assert index.verify()
            assert complaints(tmp_path / "index") in ("", "`retriever verify` tells more")
        path.write_bytes(whole[: len(whole) // 2])
        assert complaints(tmp_path / "index") == "`retriever verify` tells more"
        path.write_bytes(whole)
    assert index.verify() == []


def complaints(path: Path) -> str:
    """The end of what the views say when they are searched and read; nothing where they do not complain."""
    try:
        for pipeline in "splade", "bm25", "splade(cut=2)":
            Retriever(path).run([Query("q", "wing drag mach heat")], pipeline=pipeline)
        Retriever(path)._snapshot.view("splade").document_terms(np.arange(150), [])
    except CorruptIndexError as problem:
        return str(problem).partition("; ")[2]
    return ""


def test_weights_that_are_no_weights_are_refused(tmp_path):
    index = Retriever.create(tmp_path / "index", ["deepct(toy_encoders:TermEncoder)"])
    with pytest.raises(InputError, match=r"BM25 needs counts, and its encoder gave"):
        index.add(corpus(3))


def test_a_new_index_of_the_same_documents_holds_the_same_bytes(tmp_path):
    """What a kill and a second run must lead to, whatever the process's hash seed."""

    def made(name: str) -> dict[str, bytes]:
        index = Retriever.create(tmp_path / name, ["bm25(k1=1, b=0.5)"])
        index.add(corpus(150))
        folder = Path(tmp_path / name / "views")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.bin"))}

    assert made("one") == made("two")


def test_snippets_are_cut_around_the_querys_words(tmp_path):
    index = Retriever.create(tmp_path / "index", ["bm25(k1=0.9, b=0.4)"])
    index.add(
        [Document("a", "Of heat and its transport. " * 20 + "Wings stall when the flow parts. " + "The end. " * 50)]
    )
    snippet = index.search("stalling wing")[0].snippet
    assert "Wings stall when the flow parts." in snippet
    assert len(snippet) <= 160
    assert index.search("heat")[0].snippet.startswith("Of heat and its transport. Of heat")
