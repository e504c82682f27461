"""BERT-QE: worked example, and against its phases written out with sentence-transformers' own CrossEncoder."""

import json
import random
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import cross_encoder

from retriever import Document, InputError, Query, Retriever
from retriever.rerankers.bert_qe import chunks, expanded

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]


def test_the_worked_example():
    evidence = np.array([[0.9, 0.1], [0.2, 0.8]])
    fit = np.array([2.0, 0.0])  # softmax: .880797, .119203
    assert expanded(np.zeros(2), fit, evidence, 1.0) == pytest.approx([0.804638, 0.271522], abs=1e-6)
    assert expanded(np.full(2, 0.7), fit, evidence, 0.4) == pytest.approx([0.741855, 0.528609], abs=1e-6)
    assert expanded(np.array([0.7, 0.3]), fit, evidence, 0.0).tolist() == [0.7, 0.3]


def test_chunks_overlap_by_half_and_a_short_rest_joins_the_last():
    words = [str(i) for i in range(24)]
    assert chunks(" ".join(words[:17]), 10) == [" ".join(words[:10]), " ".join(words[5:17])]
    assert chunks(" ".join(words[:20]), 10) == [" ".join(words[i : i + 10]) for i in (0, 5, 10)]
    assert chunks(" ".join(words[:4]), 10) == ["0 1 2 3"]
    assert chunks("", 10) == [""]
    assert chunks("a  b\nc d", 1) == ["a", "b", "c", "d"]


@given(st.integers(0, 60), st.integers(1, 13))
def test_chunks_are_those_of_the_authors_loop(length, words):
    split, overlap = [str(i) for i in range(length)], words // 2
    expected, start, end = [], 0, -1
    while end != len(split):
        end = start + words
        if len(split) - end < overlap:
            end = len(split)
        expected.append(" ".join(split[start:end]))
        start += words - overlap
    assert chunks(" ".join(split), words) == expected


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="module")
def corpus() -> dict[str, Document]:
    pick = random.Random(1)
    made = [Document(f"d{i:02d}", " ".join(pick.choices(WORDS, k=3 + i)), title="the body") for i in range(30)]
    return {document.id: document for document in made}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Document]) -> Retriever:
    made = Retriever.create(tmp_path_factory.mktemp("bert-qe") / "index", views=["bm25"])
    made.add(corpus.values())
    return made


def run(index: Retriever, query: str, pipeline: str, k: int = 30) -> dict[str, float]:
    return index.run([Query("q", query)], k=k, pipeline=pipeline).get("q", {})


class Written:
    """The three phases for one query, pair by pair, with a probability of sentence-transformers'."""

    def __init__(self, model: Path) -> None:
        from sentence_transformers import CrossEncoder as Reference
        from torch.nn import Sigmoid

        self.model: Any = Reference(str(model), device="cpu")
        self.activation = Sigmoid()

    def p(self, left: str, right: str) -> float:
        return float(self.model.predict([(left, right)], activation_fn=self.activation)[0])

    def scores(
        self, query: str, texts: dict[str, str], docs: int, words: int, kept: int, alpha: float
    ) -> dict[str, float]:
        first = {id: self.p(query, text) for id, text in texts.items()}
        best = sorted(first, key=lambda id: -first[id])[:docs]
        pieces = {piece: self.p(query, piece) for id in best for piece in chunks(texts[id], words)}
        top = sorted(pieces, key=lambda piece: -pieces[piece])[:kept]
        total = sum(np.exp(pieces[piece]) for piece in top)
        second = {
            id: sum(np.exp(pieces[piece]) / total * self.p(piece, text) for piece in top) for id, text in texts.items()
        }
        return {id: (1 - alpha) * first[id] + alpha * second[id] for id in texts}


def test_the_three_phases_are_those_written_out(index, model, corpus):
    before = run(index, "wing lift", "bm25")
    head = list(before)[:6]
    texts = {id: corpus[id].contents for id in head}
    mixed = Written(model).scores("wing lift", texts, docs=3, words=6, kept=4, alpha=0.3)
    expected = {id: 0.8 * np.log(mixed[id]) + 0.2 * before[id] for id in head}
    stage = f"bert-qe({model}, precision=float32, depth=6, docs=3, words=6, chunks=4, alpha=0.3, beta=0.8)"
    after = run(index, "wing lift", f"bm25 >> {stage}")
    assert {id: after[id] for id in head} == pytest.approx(expected, abs=1e-4)
    assert list(after)[:6] == sorted(head, key=lambda id: -expected[id]) != head
    assert list(after)[6:] == list(before)[6:]


def test_without_the_chunks_and_the_first_search_it_is_the_cross_encoder(index, model):
    for query in "wing", "lift drag", "flow over body":
        stage = f"bert-qe({model}, precision=float32, depth=20, alpha=0, beta=1)"
        assert list(run(index, query, f"bm25 >> {stage}")) == list(
            run(index, query, f"bm25 >> cross-encoder({model}, precision=float32, depth=20)")
        )
        assert (
            list(run(index, query, f"bm25 >> bert-qe({model}, precision=float32, depth=20, beta=0)"))[:20]
            == list(run(index, query, "bm25"))[:20]
        )


def test_a_model_whose_files_name_no_activation_gives_the_same_probabilities(index, model, tmp_path):
    raw = copytree(model, tmp_path / "raw")
    config = json.loads((raw / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0"}
    (raw / "config.json").write_text(json.dumps(config))
    plain = run(index, "wing", f"bm25 >> cross-encoder({raw}, precision=float32, depth=5)")
    assert min(list(plain.values())[:5]) < 0 or max(plain.values()) > 1  # logits, where the other gives probabilities
    same = [run(index, "wing", f"bm25 >> bert-qe({folder}, precision=float32, depth=5)") for folder in (model, raw)]
    assert same[0] == pytest.approx(same[1], abs=1e-5)


def test_nothing_found_is_nothing_reranked(index, model):
    assert index.search("unheard of", pipeline=f"bm25 >> bert-qe({model}, precision=float32)") == []
    queries = [Query("none", "???"), Query("some", "wing")]
    made = index.run(queries, k=5, pipeline=f"bm25 >> bert-qe({model}, precision=float32, depth=5)")
    assert made["some"] == run(index, "wing", f"bm25 >> bert-qe({model}, precision=float32, depth=5)", k=5)
    assert "none" not in made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("depth=0", "depth must be at least 1"),
        ("chunks=0", "chunks must be at least 1"),
        ("words=0", "words must be at least 1"),
        ("docs=0", "docs must be at least 1"),
        ("alpha=1.5", "alpha and beta must be between 0 and 1"),
        ("beta=-1", "alpha and beta must be between 0 and 1"),
    ],
)
def test_settings_that_cannot_be(index, options, message):
    with pytest.raises(InputError, match=rf"bert-qe: {message}\n  bm25 >> bert-qe\(m, {options}\)"):
        index.search("wing", pipeline=f"bm25 >> bert-qe(m, {options})")
