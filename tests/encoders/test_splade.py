"""SPLADE against sentence-transformers' SparseEncoder: the same weights, whatever the pooling, prompts and lengths."""

import json
import math
from typing import Any

import numpy as np
import pytest
from tiny_models import bi_encoder, sparse_encoder

from retriever import Document, InputError, Retriever
from retriever.encoders import splade
from retriever.encoders.base import TermWeights
from retriever.encoders.runtime import COMPILE
from retriever.encoders.splade import Splade, pool

TEXTS = [
    "the flow over a wing",
    "",
    "heat",
    "drag " * 200,
    "shock of the plate, under heat: a wing is not a body; " * 2,
    "lift / drag",
    "wing " * 25,
]


def documents(encoder: Splade, texts: list[str]) -> TermWeights:
    return encoder.encode_documents(texts, lambda _: None)


def same(given: TermWeights, expected: Any) -> None:
    assert given.weights.dtype == np.float32
    assert given.weights.has_canonical_format
    assert (given.weights.data > 0).all()
    dense = expected.to_dense().numpy()
    more = given.weights.shape[1] - dense.shape[1]  # terms that only documents have, where no model reads queries
    np.testing.assert_allclose(given.weights.toarray(), np.pad(dense, ((0, 0), (0, more))), atol=1e-5)


def both_the_same(encoder: Splade, texts: list[str]) -> None:
    same(documents(encoder, texts), encoder.model.encode_document(texts))
    same(encoder.encode_queries(texts), encoder.model.encode_query(texts))


# -- the arithmetic ----------------------------------------------------------------------------------------------------


@pytest.fixture
def logits() -> Any:
    import torch

    return torch.tensor([[1, -2, 0.5], [0.5, 3, -1]])


@pytest.mark.parametrize(
    ("pooling", "expected"), [("max", [0.693147, 1.386294, 0.405465]), ("sum", [1.098612, 1.386294, 0.405465])]
)
def test_the_worked_example(logits, pooling, expected):
    assert pool(logits, [2], pooling)[0].tolist() == pytest.approx(expected, abs=1e-6)
    twice = pool(logits, [2], "max", "log1p_relu")[0].tolist()
    assert twice == pytest.approx([math.log1p(math.log1p(logit)) for logit in (1, 3, 0.5)])


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_each_text_is_pooled_over_its_own_tokens(logits, pooling):
    pooled = pool(logits[[0, 1, 0, 0, 1]], [2, 1, 2], pooling)
    assert pooled[0].tolist() == pooled[2].tolist() == pool(logits, [2], pooling)[0].tolist()
    assert pooled[1].tolist() == pytest.approx([math.log1p(1), 0, math.log1p(0.5)])


# -- against SparseEncoder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_in_float32_the_weights_are_those_of_sentence_transformers(tmp_path, pooling, activation):
    encoder = Splade(str(sparse_encoder(tmp_path, pooling, activation)), "float32")
    both_the_same(encoder, TEXTS)


@pytest.mark.parametrize(
    ("prompts", "default"),
    [
        ({"query": "query : ", "document": "passage : "}, None),
        ({"query": "query : "}, "query"),
        ({"passage": "in the "}, None),
    ],
)
def test_prompts_come_from_the_models_files(tmp_path, prompts, default):
    folder = sparse_encoder(tmp_path, prompts=prompts, default_prompt_name=default)
    encoder = Splade(str(folder), "float32")
    both_the_same(encoder, TEXTS)
    differ = (documents(encoder, ["wing"]).weights != encoder.encode_queries(["wing"]).weights).nnz
    assert bool(differ) == ("query" in prompts)


def test_queries_without_a_model(tmp_path):
    table = np.random.default_rng(1).uniform(0, 3, 96).astype(np.float32)
    table[20:40] = 0
    folder = sparse_encoder(tmp_path, table=table.tolist(), prompts={"query": "heat "})
    encoder = Splade(str(folder), "float32")
    both_the_same(encoder, TEXTS)
    queries = encoder.encode_queries(["wing wing heat", "wing " * 16])
    assert queries.truncated == 1  # 16 tokens with the prompt's, and no special ones
    wing, heat = encoder.terms.index("wing"), encoder.terms.index("heat")
    assert dict(zip(queries.weights[[0]].indices, queries.weights[[0]].data, strict=True)) == {
        term: table[term] for term in (wing, heat) if table[term]
    }


def test_static_weights_below_zero_are_left_out_and_said(tmp_path):
    table = np.linspace(2, -1, 96, dtype=np.float32)
    encoder = Splade(str(sparse_encoder(tmp_path, table=table.tolist())), "float32")
    with pytest.warns(UserWarning, match=r"model: 32 terms weigh less than 0 and are left out"):
        queries = encoder.encode_queries(TEXTS)
    same(queries, encoder.model.encode_query(TEXTS).to_dense().clamp(min=0))


def language_models() -> dict[str, Any]:
    import transformers as t

    small = {"vocab_size": 128, "initializer_range": 0.5, "pad_token_id": 0}
    usual = {**small, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    distil = {**small, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    ends = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    return {
        "distilbert": lambda: t.DistilBertForMaskedLM(t.DistilBertConfig(**distil)),
        "roberta": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**usual)),
        "modernbert": lambda: t.ModernBertForMaskedLM(t.ModernBertConfig(**usual, **ends)),
        # adds a bias behind its last layer, which so cannot be taken off
        "esm": lambda: t.EsmForMaskedLM(t.EsmConfig(**usual, mask_token_id=4)),
    }


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "modernbert", "esm"])
def test_any_masked_language_model(tmp_path, kind):
    import torch

    torch.manual_seed(5)
    model = language_models()[kind]()
    if kind == "esm":
        torch.nn.init.normal_(model.lm_head.bias)
    encoder = Splade(str(sparse_encoder(tmp_path, language_model=model)), "float32")
    both_the_same(encoder, TEXTS)


def test_a_language_model_without_modules_is_pooled_by_max(tmp_path):
    sparse_encoder(tmp_path)
    both_the_same(Splade(str(tmp_path / "base"), "float32"), TEXTS)


def test_the_largest_weights_only(tmp_path):
    encoder = Splade(str(sparse_encoder(tmp_path, max_active_dims=5)), "float32")
    both_the_same(encoder, TEXTS)
    assert set(np.diff(documents(encoder, TEXTS).weights.indptr)) == {5}


def test_the_largest_weights_only_where_no_model_reads_queries(tmp_path):
    table = np.random.default_rng(1).permutation(96).tolist()
    encoder = Splade(str(sparse_encoder(tmp_path, table=table, max_active_dims=2)), "float32")
    same(encoder.encode_queries(TEXTS), encoder.model.encode_query(TEXTS))


def test_one_model_pooled_by_max_for_documents_and_by_sum_for_queries(tmp_path):
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import Router, SpladePooling

    model = SparseEncoder(str(sparse_encoder(tmp_path)))
    router = Router.for_query_document([model[0], SpladePooling("sum")], [model[0], model[1]])
    SparseEncoder(modules=[router]).save(str(tmp_path / "both"), create_model_card=False)
    both_the_same(Splade(str(tmp_path / "both"), "float32"), TEXTS)


def test_a_router_without_a_way_for_documents(tmp_path):
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import Router

    model = SparseEncoder(str(sparse_encoder(tmp_path)))
    SparseEncoder(modules=[Router({"query": list(model)})]).save(str(tmp_path / "half"), create_model_card=False)
    with pytest.raises(InputError, match="half: its Router has no route for a document, only for query"):
        Splade(str(tmp_path / "half")).encode_queries(["wing"])


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder(tmp_path) -> Splade:
    return Splade(str(sparse_encoder(tmp_path)), "float32")


def test_a_text_has_the_same_weights_alone_and_beside_longer_ones(encoder):
    alone = [documents(encoder, [text]).weights.toarray()[0] for text in TEXTS]
    np.testing.assert_allclose(documents(encoder, TEXTS).weights.toarray(), alone, atol=1e-5)


@pytest.mark.parametrize("group", [1, 8, 40])
def test_logits_are_held_for_a_few_tokens_at_a_time(encoder, group, monkeypatch):
    monkeypatch.setitem(splade._GROUP, "cpu", group)
    both_the_same(encoder, TEXTS)


def test_results_come_back_in_the_order_of_the_texts(encoder):
    order = [3, 0, 6, 2, 5, 1, 4, 0]
    once = documents(encoder, TEXTS).weights.toarray()
    seen: list[float] = []
    again = encoder.encode_documents([TEXTS[i] for i in order], seen.append)
    np.testing.assert_allclose(again.weights.toarray(), once[order], atol=1e-5)
    assert sum(seen) == len(order)
    assert documents(encoder, []).weights.shape == (0, 128)


def test_terms_are_the_vocabulary(encoder):
    weights = documents(encoder, TEXTS)
    assert weights.terms is encoder.encode_queries(["heat"]).terms
    assert len(weights.terms) == len(set(weights.terms)) == 128
    assert weights.terms[:2] == ["[PAD]", "[UNK]"]
    assert weights.terms[-1] == "[id 127]"  # the tokenizer has fewer tokens than the model has places for


def test_a_text_is_truncated_when_a_token_is_lost_and_not_before(encoder):
    cut = documents(encoder, ["wing " * 30, "wing " * 31, "wing " * 300])  # 32 tokens, [CLS] and [SEP] among them
    assert cut.truncated == 2
    np.testing.assert_allclose(cut.weights[[2]].toarray(), cut.weights[[1]].toarray(), atol=1e-5)


def test_queries_may_be_cut_elsewhere_than_documents(encoder):
    encoder.model[0].query_length = 8
    both_the_same(encoder, TEXTS)
    cut = [text for text in TEXTS if len(encoder.model.tokenizer(text)["input_ids"]) > 8]
    assert encoder.encode_queries(TEXTS).truncated == len(cut) == 3
    assert encoder.identity()["query"]["max_length"] == 8


def test_in_automatic_precision_weights_are_nearly_the_same(encoder):
    texts = [f"{text} {number}" for number in range(170) for text in TEXTS]
    auto = Splade(encoder.name)
    assert sum(map(len, auto.model.tokenizer(texts, truncation=True, max_length=32)["input_ids"])) > COMPILE
    exact, near = documents(encoder, texts).weights.toarray(), documents(auto, texts).weights.toarray()
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(near, axis=1)
    assert ((exact * near).sum(axis=1) / lengths).min() >= 0.998


# -- what it is --------------------------------------------------------------------------------------------------------


def test_the_identity_holds_what_decides_the_weights(tmp_path):
    folders = {
        "max": sparse_encoder(tmp_path / "max"),
        "sum": sparse_encoder(tmp_path / "sum", "sum"),
        "prompts": sparse_encoder(tmp_path / "prompts", prompts={"query": "query : "}),
        "few": sparse_encoder(tmp_path / "few", max_active_dims=5),
        "static": sparse_encoder(tmp_path / "static", table=[1.0] * 96),
    }
    identities = [{**Splade(str(folder)).identity(), "model": ""} for folder in folders.values()]
    assert len({json.dumps(identity) for identity in identities}) == len(folders)
    assert identities[0]["document"]["modules"][0][0] == "SpladePooling"
    assert identities[0]["document"]["max_length"] == 32
    assert identities[4]["query"] == {
        "modules": [["SparseStaticEmbedding", {"frozen": False}]],
        "prompt": "",
        "max_length": 16,
    }


def test_a_dense_model_is_refused(tmp_path):
    dense = Splade(str(bi_encoder(tmp_path)))
    with pytest.raises(
        InputError, match=r"Pooling, Normalize, SparseAutoEncoder for a document; expected a masked lang"
    ):
        dense.encode_queries(["wing"])


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=f"{tmp_path}: sentence-transformers cannot load it"):
        documents(Splade(str(tmp_path)), ["wing"])


def test_scores_of_an_index_are_inner_products(tmp_path):
    folder = sparse_encoder(tmp_path)
    model = Splade(str(folder), "float32").model
    index = Retriever.create(tmp_path / "index", views=[f"splade('{folder}', precision=float32)"])
    report = index.add(Document(str(i), text) for i, text in enumerate(TEXTS))
    assert report.truncated == {"splade": 1}
    products = model.encode_document(TEXTS).to_dense() @ model.encode_query("lift of a wing").to_dense()
    found = {hit.id: hit.score for hit in index.search("lift of a wing", k=10)}
    assert found == pytest.approx({str(i): float(score) for i, score in enumerate(products)}, rel=1e-5)
