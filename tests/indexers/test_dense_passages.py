"""A vector for each passage: what a document is worth, what is kept, and that no crowd of passages hides a document.

tests/indexers/test_contract.py holds the view against brute force through a history of changes.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import bi_encoder
from toy_encoders import LOG, EuclideanEncoder, HashEncoder

from retriever import Document, InputError, Query, Retriever
from retriever.encoders.base import Encoded
from retriever.errors import CorruptIndexError, IndexMismatchError
from retriever.indexers import dense_passages

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]
HASH = "dense(toy_encoders:HashEncoder"


def text(words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


CORPUS = [Document(f"d{i:02d}", text(1 + 3 * i, i), title="on heat" * (i % 2)) for i in range(40)]


def made(folder: Path, *views: str, corpus: Sequence[Document] = CORPUS) -> Retriever:
    index = Retriever.create(folder, views=list(views))
    index.add(corpus)
    return index


def best(index: Retriever, query: str = "wing lift", k: int = 40, pipeline: str | None = None) -> dict[str, float]:
    return {hit.id: hit.score for hit in index.search(query, k=k, pipeline=pipeline)}


def test_a_document_in_one_passage_is_found_as_without_passages(tmp_path):
    plain, passages = made(tmp_path / "a", f"{HASH})"), made(tmp_path / "b", f"{HASH}, passage=150)")
    assert best(passages) == pytest.approx(best(plain), abs=1e-6)


def test_the_best_passage_is_at_least_as_near_as_the_first(tmp_path):
    index = made(tmp_path / "index", f"{HASH}, passage=10)")
    first = [Document(d.id, " ".join(d.text.split()[:10]), d.title) for d in CORPUS]
    firsts, found = best(made(tmp_path / "first", f"{HASH})", corpus=first)), best(index)
    assert all(found[id] >= firsts[id] - 1e-6 for id in firsts)
    assert any(found[id] > firsts[id] + 0.1 for id in firsts)


def test_a_crowd_of_passages_hides_no_document(tmp_path):
    crowd = [Document("crowd", "wing lift " * 3000), Document("pair", "wing lift heat flow", title="")]
    index = made(tmp_path / "index", f"{HASH}, passage=2, stride=2, cap=5000)", corpus=[*CORPUS, *crowd])
    found = best(index, k=42)
    assert len(found) == 42
    assert found["crowd"] == found["pair"] == pytest.approx(1.0)
    for k in 1, 2, 3, 20:
        assert list(best(index, k=k)) == list(found)[:k]
    tied = [id for id, score in found.items() if score == found["crowd"]]
    assert tied == sorted(tied, reverse=True) == list(found)[: len(tied)]


def test_distances_are_those_of_the_nearest_passage(tmp_path):
    corpus = [Document("a", "wing lift drag flow"), Document("b", "heat shock plate")]
    index = made(tmp_path / "index", "dense(toy_encoders:EuclideanEncoder, passage=2, stride=2)", corpus=corpus)
    vector = EuclideanEncoder().vector
    parts = {"a": ["wing lift", "drag flow"], "b": ["heat shock", "plate"]}
    for query in "drag", "heat shock":
        expected = {id: -min(float(((vector(query) - vector(p)) ** 2).sum()) for p in parts[id]) for id in parts}
        assert best(index, query) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_an_index_of_faiss_over_all_its_cells_is_exact(tmp_path):
    flat = made(tmp_path / "flat", f"{HASH}, passage=5)")
    cells = made(tmp_path / "cells", f"{HASH}, passage=5, index='IVF4,Flat', nprobe=4)")
    assert cells._snapshot.view("dense").state.data["built"] > len(CORPUS)
    for query in "wing", "heat flow", "shock":
        assert best(cells, query, k=10) == pytest.approx(best(flat, query, k=10), abs=1e-6)
    cells.delete([d.id for d in CORPUS[::2]])
    flat.delete([d.id for d in CORPUS[::2]])
    assert best(cells, k=10) == pytest.approx(best(flat, k=10), abs=1e-6)
    cells.compact()
    flat.compact()
    assert best(cells, k=10) == pytest.approx(best(flat, k=10), abs=1e-6)


def test_another_factory_encodes_nothing_again(tmp_path, monkeypatch):
    index = made(tmp_path / "index", f"{HASH}, passage=5)")
    flat = best(index, k=10)
    index.close()
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    for factory in "HNSW32", "SQ8", "Flat":
        changed = Retriever.prepare(index.path, views=[f"{HASH}, passage=5, index='{factory}')"])
        assert changed._snapshot.view("dense").state.data.get("factory", "Flat") == factory
        assert best(changed, k=10) == pytest.approx(flat, abs=0.01)
        changed.close()
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("other", ["passage=6)", "passage=5, stride=2)", "passage=5, unit=sentences)", None])
def test_a_view_does_not_change_its_passages(tmp_path, other):
    index = made(tmp_path / "index", f"{HASH}, passage=5)")
    index.close()
    with pytest.raises(IndexMismatchError):
        Retriever.prepare(index.path, views=[f"{HASH}, {other}" if other else f"{HASH})"])
    assert best(Retriever(index.path))


def test_every_passage_is_encoded_once(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv(LOG, str(log))
    index = made(tmp_path / "index", f"{HASH}, passage=10, stride=5)")
    passages = sum(1 + max(0, -(-(len(d.text.split()) - 10) // 5)) for d in CORPUS)
    assert len(log.read_text().split()) == index._snapshot.view("dense").state.data["passages"] == passages
    index.add(CORPUS)
    index.delete([CORPUS[-1].id])
    index.compact()
    assert len(log.read_text().split()) == passages
    assert index.verify() == []


class FailingEncoder(HashEncoder):
    """Fails at one text, as long as it is told to."""

    name = "failing"
    at: str | None = None

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        if any(self.at == text for text in texts):
            raise OSError("no encoder any more")
        return super().encode_documents(texts, progress)


def test_what_failed_in_the_middle_can_be_done_again(tmp_path, monkeypatch):
    monkeypatch.setattr(dense_passages, "_AT_ONCE", 20)  # a batch of documents is several of passages
    view = "dense(test_dense_passages:FailingEncoder, passage=5, stride=5)"
    index = made(tmp_path / "index", view, corpus=CORPUS[:10])
    before = best(index)
    monkeypatch.setattr(FailingEncoder, "at", "last words")
    with pytest.raises(OSError, match="no encoder any more"):
        index.add([*CORPUS[10:], Document("z", "last words")])
    index = Retriever(tmp_path / "index")
    assert best(index) == before
    monkeypatch.setattr(FailingEncoder, "at", None)
    index.add([*CORPUS[10:], Document("z", "last words")])
    whole = made(tmp_path / "whole", view, corpus=[*CORPUS, Document("z", "last words")])
    assert best(index, k=50) == best(whole, k=50)
    files = [(folder / "views/dense" / name).read_bytes() for folder in (index.path, whole.path) for name in FILES]
    assert files[:2] == files[2:]
    assert index.verify() == []


FILES = ["vectors-0000.f32", "ends-0000.bin"]


def test_documents_over_the_cap_are_counted(tmp_path):
    index = Retriever.create(tmp_path / "index", views=[f"{HASH}, passage=2, cap=3)"])
    report = index.add([Document("long", "wing " * 1_000_000), Document("short", "wing lift drag")])
    assert report.truncated == {"dense": 1}
    assert index._snapshot.view("dense").state.data["passages"] == 3 + 2
    assert set(best(index)) == {"long", "short"}


def test_passages_of_tokens_by_the_encoders_tokenizer(tmp_path):
    model = bi_encoder(tmp_path)
    index = made(
        tmp_path / "index", f"dense({model}, passage=3, stride=3, unit=tokens)", corpus=[Document("a", "wing x2 lift")]
    )
    view: Any = index._snapshot.view("dense")
    assert view.state.data["passages"] == 2
    wanted = view.passage_vectors(["wing x2", "lift"])
    np.testing.assert_allclose(view._dense.document_vectors(np.arange(2)), wanted, atol=1e-5)


def test_feedback_takes_the_mean_of_a_documents_passages(tmp_path):
    index = made(
        tmp_path / "index", f"{HASH}, passage=2, stride=2)", corpus=[Document("a", "x y"), Document("b", "1 2 3")]
    )
    view: Any = index._snapshot.view("dense")
    vector = HashEncoder().vector
    wanted = [(vector("1 2") + vector("3")) / 2, vector("x y")]
    np.testing.assert_allclose(view.document_vectors(np.array([1, 0])), wanted, atol=1e-6)
    assert view.document_vectors(np.zeros(0, dtype=np.int64)).shape == (0, 32)
    assert list(best(index, "1 2", pipeline="dense >> vector-prf(docs=1) >> dense")) == ["b", "a"]


def test_its_text_form_says_what_it_is(tmp_path):
    index = made(tmp_path / "index", f"passages = {HASH}, passage=150)")
    assert index._snapshot.manifest.views["passages"].spec == (
        "passages = dense(model=toy_encoders:HashEncoder, passage=150)"
    )
    again = Retriever(tmp_path / "index")
    assert again.run([Query("q", "wing")]) == index.run([Query("q", "wing")])
    assert isinstance(again._snapshot.view("passages"), dense_passages.DensePassages)


def test_ends_that_were_damaged_are_not_believed(tmp_path):
    index = made(tmp_path / "index", f"{HASH}, passage=5)")
    path = index.path / "views/dense/ends-0000.bin"
    path.write_bytes(np.zeros(len(CORPUS), dtype="<i8").tobytes())
    with pytest.raises(CorruptIndexError, match=rf"{path}: does not say where passages end"):
        Retriever(index.path).search("wing")
    path.write_bytes(b"")
    with pytest.raises(CorruptIndexError, match="is shorter than the manifest says"):
        Retriever(index.path).search("wing")
    assert any("ends-0000.bin" in problem for problem in index.verify())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("passage=0", "window and cap must be at least 1"),
        ("passage=5, stride=6", r"stride must be from 1 to window \(5\)"),
        ("passage=5, unit=pages", "unit is one of words, tokens, sentences"),
        ("passage=5, cap=0", "window and cap must be at least 1"),
        ("passage=none", "passage must be int, not none"),
        ("stride=5", "dense has no argument 'stride'"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        Retriever.create(tmp_path / "index", views=[f"{HASH}, {options})"])
