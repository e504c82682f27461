"""Late interaction: the worked example, and scores from the formula written out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import WORDS, bi_encoder, config, cross_encoder, tokenizer

from retriever import Document, InputError, Retriever
from retriever.rerankers.maxsim import MaxSim, MaxSimConfig, maxsim
from retriever.tallies import tallies

QUERIES = ["shock wing", "lift over the plate of heat", ""]
TEXTS = ["the wing is over the body", "drag", "", "heat shock plate body lift flow drag " * 3]
PAIRS = [(query, text) for query in QUERIES for text in TEXTS]


def test_the_worked_example():
    import torch

    query = torch.eye(2)
    document = torch.tensor([[[0.6, 0.8], [0.8, -0.6], [0.0, 1.0]]])  # [1, 3, 2]
    assert maxsim(query, document, torch.ones(1, 3, dtype=torch.bool)).tolist() == pytest.approx([1.8])


def test_padding_never_lifts_a_document_that_is_like_nothing():
    import torch

    query = torch.tensor([[1.0, 0.0]])
    documents = torch.tensor([[[-0.6, 0.8], [0.0, 0.0]], [[-1.0, 0.0], [0.0, 1.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    assert maxsim(query, documents, mask).tolist() == pytest.approx([-0.6, 0.0])
    assert maxsim(query, documents, ~torch.ones_like(mask)).tolist() == [-1.0, -1.0]  # no token: the least there is


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "query : ", "document": "passage : "}
    return bi_encoder(tmp_path_factory.mktemp("models") / "bi", prompts=prompts)


def stage(model: Path, precision: str = "float32") -> MaxSim:
    return MaxSim(MaxSimConfig(str(model), precision=precision))


def written(model: Path, query: str, text: str) -> float:
    """sum_i max_j cos(q_i, d_j), with transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    network, words = AutoModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)

    def vectors(given: str) -> Any:
        with torch.inference_mode():
            hidden = network(**words(given, truncation=True, max_length=32, return_tensors="pt"))[0][0]
        return hidden / hidden.norm(dim=1, keepdim=True)

    return float((vectors(f"query : {query}") @ vectors(f"passage : {text}").T).max(dim=1).values.sum())


def test_scores_are_the_sums_of_the_largest_cosines(model):
    scores = stage(model).score(PAIRS)
    assert scores.dtype == np.float32
    assert scores == pytest.approx([written(model, *pair) for pair in PAIRS], abs=1e-4)
    assert np.ptp(scores[:4]) > 0.1
    assert stage(model).score([]).shape == (0,)


def test_a_text_is_encoded_once_whatever_the_order_of_the_pairs(model):
    order = np.random.default_rng(0).permutation(len(PAIRS))
    scores = stage(model).score([PAIRS[i] for i in order] * 2)
    assert scores == pytest.approx(np.tile(stage(model).score(PAIRS)[order], 2), abs=1e-6)


def test_bfloat16_is_near(model):
    assert stage(model, "auto").score(PAIRS) == pytest.approx(stage(model).score(PAIRS), rel=0.02)


def test_what_is_cut_is_counted(model):
    with tallies() as found:
        scores = stage(model).score([("wing", "heat " * 1000), ("wing", "flow"), ("heat " * 40, "flow")])
    assert found == {
        f"documents were longer than the 32 tokens that {model} reads": 1,
        f"queries were longer than the 32 tokens that {model} reads": 1,
    }
    assert scores[0] == pytest.approx(written(model, "wing", "heat " * 1000), abs=1e-4)


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MultiVectorEncoder with all that ColBERT has: markers, a projection, masks for a query, no full stops."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("models") / "colbert"
    torch.manual_seed(7)
    BertModel(config(initializer_range=0.5)).save_pretrained(folder / "base")
    tokenizer(32).save_pretrained(folder / "base")
    expansion = {"strategy": "fixed", "length": 12, "token": "[MASK]", "attend": False}
    first = Transformer(str(folder / "base"), query_expansion=expansion, document_length=24)
    projection = Dense(
        32, 16, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
    )
    modules = [
        first,
        projection,
        MultiVectorMask(skiplist_words=["of"]),
        Normalize(module_input_name="token_embeddings"),
    ]
    made = MultiVectorEncoder(modules=modules, prompts={"query": "query : ", "document": "passage : "}, device="cpu")
    made.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def test_a_multi_vector_encoder_scores_as_it_does_itself(colbert):
    from sentence_transformers import MultiVectorEncoder

    reference = MultiVectorEncoder(str(colbert), device="cpu", local_files_only=True)
    texts = [*TEXTS, "drag of flow"]
    given = reference.encode_query(QUERIES), reference.encode_document(texts)
    expected = reference.similarity(*given).numpy().ravel()
    scores = stage(colbert).score([(query, text) for query in QUERIES for text in texts])
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.ptp(scores) > 0.1


def test_in_a_pipeline(model, tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add(Document(f"d{i}", " ".join(["wing", *WORDS[12 + i :]])) for i in range(8))
    before = index.search("wing", k=8, pipeline="bm25")
    after = index.search("wing", k=8, pipeline=f"bm25 >> maxsim({model}, depth=5, precision=float32)")
    expected = {hit.id: written(model, "wing", hit.text) for hit in before[:5]}
    assert {hit.id: hit.score for hit in after[:5]} == pytest.approx(expected, abs=1e-4)
    assert [hit.id for hit in after[5:]] == [hit.id for hit in before[5:]]


def test_what_has_no_tokens_to_compare(tmp_path):
    with pytest.raises(InputError, match="is a cross-encoder, whose tokens have seen no text alone; give an encoder"):
        stage(cross_encoder(tmp_path / "cross"))
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        stage(Path("no/such"))
    with pytest.raises(ValueError, match="depth must be at least 1"):
        MaxSimConfig("m", depth=0)


def test_static_embeddings_are_no_tokens_in_context(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = StaticEmbedding(tokenizer(32), embedding_dim=8)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "static"), create_model_card=False)
    with pytest.raises(InputError, match="has no transformer, and so no vectors of tokens in their context"):
        stage(tmp_path / "static").score(PAIRS)
