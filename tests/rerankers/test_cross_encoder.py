"""The cross-encoder stage against sentence-transformers' own CrossEncoder."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder

from retriever import Document, InputError, Retriever
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="module")
def corpus() -> list[Document]:
    pick = random.Random(1)
    return [Document(f"d{i:02d}", " ".join(pick.choices(WORDS, k=3 + i)), title="the body") for i in range(30)]


@pytest.fixture
def index(tmp_path: Path, corpus: list[Document]) -> Retriever:
    made = Retriever.create(tmp_path / "index", views=["bm25"])
    made.add(corpus)
    return made


def predicted(model: Path, query: str, texts: list[str]) -> list[float]:
    from sentence_transformers import CrossEncoder as Reference

    scores: list[float] = Reference(str(model), device="cpu").predict([(query, text) for text in texts]).tolist()
    return scores


def test_scores_are_those_of_sentence_transformers_in_the_order_of_the_pairs(model, corpus):
    texts = [document.text for document in corpus] + ["", "heat " * 200]
    random.Random(2).shuffle(texts)
    scores = CrossEncoder(CrossEncoderConfig(str(model))).score([("shock wing", text) for text in texts])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, predicted(model, "shock wing", texts), atol=1e-5)
    assert np.ptp(scores) > 0.01
    assert CrossEncoder(CrossEncoderConfig(str(model))).score([]).shape == (0,)


def test_the_first_are_reordered_and_the_rest_follows(index, model, corpus):
    before = index.search("wing", k=20, pipeline="bm25")
    after = index.search("wing", k=20, pipeline=f"bm25 >> cross-encoder({model}, depth=5)")
    texts = {document.id: document.contents for document in corpus}
    head = [hit.id for hit in before[:5]]
    scores = dict(zip(head, predicted(model, "wing", [texts[id] for id in head]), strict=True))
    assert [hit.id for hit in after[:5]] == sorted(head, key=lambda id: -scores[id]) != head
    assert [hit.score for hit in after[:5]] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-5)
    assert [hit.id for hit in after[5:]] == [hit.id for hit in before[5:]]
    assert all(a.score > b.score for a, b in pairwise(after[4:]))


def test_depth_is_how_many_are_read_whatever_k_is(index, model, monkeypatch):
    read: list[int] = []
    score = CrossEncoder.score

    def counted(self: CrossEncoder, pairs: list[tuple[str, str]]) -> object:
        read.append(len(pairs))
        return score(self, pairs)

    monkeypatch.setattr(CrossEncoder, "score", counted)
    stage = f"cross-encoder({model}, depth=7)"
    assert len(index.search("wing", k=3, pipeline=f"bm25 >> {stage}")) == 3
    assert len(index.search("wing", k=9, pipeline=f"bm25 >> {stage}")) == 9
    assert len(index.search("wing", k=9, pipeline=f"bm25(k=4) >> {stage}")) == 4
    assert index.search("unheard of", pipeline=f"bm25 >> {stage}") == []
    assert read == [7, 7, 4, 0]


def test_a_second_reranker_follows_the_first(index, model):
    stage = f"cross-encoder({model}, depth=10)"
    once = index.search("wing", k=20, pipeline=f"bm25 >> {stage}")
    assert index.search("wing", k=20, pipeline=f"bm25 >> {stage} >> {stage}") == once


def test_a_bi_encoder_is_no_reranker(index, tmp_path):
    folder = bi_encoder(tmp_path)
    with pytest.raises(InputError) as caught:
        index.search("wing", pipeline=f"bm25 >> cross-encoder({folder})")
    assert str(caught.value) == (
        f"{folder}: is no cross-encoder: its files hold no head that scores pairs. Give a model with one output, such "
        "as cross-encoder/ms-marco-MiniLM-L6-v2; a bi-encoder belongs in a dense view"
    )
    with pytest.raises(InputError, match="is no cross-encoder"):
        CrossEncoder(CrossEncoderConfig(str(tmp_path / "base")))  # the transformer alone


def test_a_classifier_with_two_outputs_is_no_reranker(index, tmp_path):
    folder = cross_encoder(tmp_path / "two", labels=2)
    with pytest.raises(InputError, match=f"{folder}: has 2 outputs; a reranker needs one score a pair"):
        index.search("wing", pipeline=f"bm25 >> cross-encoder({folder})")


def test_a_model_saved_by_sentence_transformers_is_one(index, model, tmp_path):
    from sentence_transformers import CrossEncoder as Reference

    Reference(str(model), device="cpu").save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    stage = CrossEncoder(CrossEncoderConfig(str(tmp_path / "saved")))
    assert stage.score([("wing", "flow")]).tolist() == pytest.approx(predicted(model, "wing", ["flow"]), abs=1e-5)


def test_what_is_wrong_is_said_before_anything_is_searched(index):
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        index.search("unheard of", pipeline="bm25 >> cross-encoder(no/such)")
    with pytest.raises(
        InputError, match=r"cross-encoder: depth must be at least 1\n  bm25 >> cross-encoder\(x, depth=0\)"
    ):
        index.search("wing", pipeline="bm25 >> cross-encoder(x, depth=0)")
