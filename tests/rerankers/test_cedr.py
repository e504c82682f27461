"""CEDR against its formulas written out for one pair at a time, on a BERT with random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder, tokenizer

from retriever import Document, InputError, Retriever
from retriever.encoders.runtime import has_bfloat16
from retriever.rerankers.cedr import CHUNKS, Cedr, CedrConfig, CedrHead, equal_chunks
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.heads import save_head
from retriever.rerankers.kernels import MUS
from retriever.tallies import tallies
from retriever.types import Floats

PAIRS = [
    ("shock wing", "heat shock over the body of a wing"),
    ("wing", "lift"),
    ("", "drag flow"),
    ("lift drag", ""),
    ("wing lift", "flow heat plate " * 60),
    ("drag", "wing"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="module")
def folder(model: Path) -> Path:
    """The cross-encoder with a head of random weights."""
    import torch

    made = model.with_name("cedr")
    shutil.copytree(model, made)
    head = CedrHead(made, "float32")
    torch.manual_seed(3)
    torch.nn.init.normal_(head.module.combine.weight)
    save_head(made, head)
    return made


def stage(folder: Path, precision: str = "float32") -> Cedr:
    return Cedr(CedrConfig(str(folder), precision=precision))


def written_out(model: Path, query: str, text: str) -> Floats:
    """The features of one pair, chunk by chunk and kernel by kernel."""
    import torch
    from transformers import BertForSequenceClassification

    bert = BertForSequenceClassification.from_pretrained(model).eval().bert
    asked, tokens = (tokenizer(64)(given, add_special_tokens=False, verbose=False).input_ids for given in (query, text))
    room = 64 - 3 - len(asked)
    counts, vectors = np.zeros((3, len(asked), 11)), []
    for chunk in equal_chunks(tokens[: CHUNKS * room], room):
        ids = torch.tensor([[2, *asked, 3, *chunk, 3]])
        types = torch.tensor([[0] * (len(asked) + 2) + [1] * (len(chunk) + 1)])
        with torch.no_grad():
            read = bert(input_ids=ids, token_type_ids=types, output_hidden_states=True)
        vectors.append(read.pooler_output[0].numpy())
        for layer, hidden in enumerate(read.hidden_states):
            unit = hidden[0].numpy() / np.linalg.norm(hidden[0].numpy(), axis=1, keepdims=True)
            for i in range(len(asked)):
                for j in range(len(chunk)):
                    cosine = unit[1 + i] @ unit[2 + len(asked) + j]
                    sigmas = np.array([0.1] * 10 + [0.001])
                    counts[layer, i] += np.exp(-((cosine - np.array(MUS)) ** 2) / (2 * sigmas**2))
    sums = 0.01 * np.log(counts + 1e-6).sum(axis=1)
    return np.concatenate([sums.ravel(), np.mean(vectors, axis=0)])


def test_features_are_those_of_the_formulas(model):
    made = CedrHead(model, "float32").features(PAIRS)
    assert {row.dtype for row in made} == {np.dtype(np.float32)}
    for row, pair in zip(made, PAIRS, strict=True):
        np.testing.assert_allclose(row, written_out(model, *pair), atol=2e-4)


def test_a_score_is_the_linear_layer_over_them(folder):
    import torch

    head = CedrHead(folder, "float32")
    torch.manual_seed(3)
    torch.nn.init.normal_(head.module.combine.weight)
    weight, bias = head.module.combine.weight[0].detach().numpy(), head.module.combine.bias.item()
    expected = [weight @ row + bias for row in head.features(PAIRS)]
    scores = stage(folder).score(PAIRS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.ptp(scores) > 0.1
    assert stage(folder).score([]).shape == (0,)


def test_neither_padding_nor_company_changes_a_score(folder):
    together = stage(folder).score(PAIRS)
    alone = np.concatenate([stage(folder).score([pair]) for pair in PAIRS])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("labels", [1, 2])
def test_untrained_it_is_the_cross_encoder(tmp_path, labels):
    model = cross_encoder(tmp_path, labels=labels)
    short = [pair for pair in PAIRS if len(pair[1]) < 100]
    head = CedrHead(model, "float32")
    expected = CrossEncoder(CrossEncoderConfig(str(model), precision="float32")).logits(short)
    np.testing.assert_allclose(head.module(head.features(short)).detach(), expected, atol=1e-5)


def test_of_chunks_the_vectors_are_averaged(model):
    head = CedrHead(model, "float32")
    words = "flow heat plate body wing".split()
    text = " ".join(words[i % 5] for i in range(120))  # 120 tokens in 60 or 59: three chunks of 40
    parts = [" ".join(text.split()[i : i + 40]) for i in (0, 40, 80)]
    whole, *each = head.features([("lift drag", text), *(("lift drag", part) for part in parts)])
    np.testing.assert_allclose(whole[33:], np.mean([row[33:] for row in each], axis=0), atol=1e-5)
    assert len(whole) == 3 * 11 + 32


def test_chunks_are_of_like_length():
    tokens = list(range(120))
    assert [len(part) for part in equal_chunks(tokens, 59)] == [40, 40, 40]
    assert [len(part) for part in equal_chunks(tokens, 119)] == [60, 60]
    assert equal_chunks(tokens, 120) == [tokens]
    assert equal_chunks([], 5) == [[]]
    for room in range(1, 40):
        parts = equal_chunks(tokens, room)
        assert [token for part in parts for token in part] == tokens
        assert max(map(len, parts)) <= room


def test_a_million_words_are_read_up_to_the_eighth_chunk_and_that_is_said(folder):
    long = "heat shock plate body " * 250_000
    with tallies() as told:
        scores = stage(folder).score(
            [("wing", "flow"), ("wing", long), ("wing", long[:12_000]), ("wing " * 40, "flow")]
        )
    assert told == {
        "documents have more than 8 chunks, and only 8 of each were read": 2,
        "queries were longer than the 30 tokens that cedr reads of one, and cut": 1,
    }
    assert scores[1] == pytest.approx(scores[2], abs=1e-4)
    assert scores[3] == pytest.approx(stage(folder).score([("wing " * 30, "flow")])[0], abs=1e-4)


def test_the_loss_is_small_where_the_relevant_text_scores_best(model):
    import torch

    head = CedrHead(model)
    assert head.texts("a", ["b", "c"]) == ["a", "b", "c"]
    pair = torch.tensor([2.0, 0.5])
    assert head.loss(pair, None).item() == pytest.approx(1 - pair.softmax(0)[0].item(), abs=1e-6)
    three = torch.tensor([2.0, 0.5, -1.0])
    singly = [head.loss(three[[0, i]], None).item() for i in (1, 2)]
    assert head.loss(three, None).item() == pytest.approx(np.mean(singly), abs=1e-6)


def test_training_the_head_makes_the_loss_fall(model):
    import torch

    head = CedrHead(model, "float32")
    features = head.features([("wing", "lift"), ("wing", "wing over the body"), ("wing", "drag")])
    optimizer = torch.optim.Adam(head.module.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = head.loss(head.module(features), None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_a_pipeline_reranks_with_it(folder, tmp_path):
    made = Retriever.create(tmp_path / "index", views=["bm25"])
    texts = {"a": "wing", "b": "wing lift drag", "c": "heat of the wing over the plate", "d": "wing " * 90}
    made.add([Document(id, text) for id, text in texts.items()])
    hits = made.search("wing lift", pipeline=f"bm25 >> cedr({folder}, precision=float32)")
    expected = dict(zip(texts, stage(folder).score([("wing lift", text) for text in texts.values()]), strict=True))
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-4)
    assert [hit.score for hit in hits] == sorted(expected.values(), reverse=True)


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="needs bfloat16 in hardware")
@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_keeps_the_order(folder, compiled, monkeypatch):
    from scipy.stats import kendalltau

    if compiled:
        pytest.importorskip("openvino")
        monkeypatch.setattr("retriever.encoders.runtime.COMPILE", 1)
    pick = np.random.default_rng(3)
    words = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body"]
    pairs = [("shock wing", " ".join(pick.choice(words, pick.integers(1, 40)))) for _ in range(100)]
    assert kendalltau(stage(folder, "auto").score(pairs), stage(folder).score(pairs)).statistic > 0.95


def test_what_is_wrong_is_said_before_anything_is_searched(model, folder, tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    made = r"make one with: retriever train head cedr --base CROSS_ENCODER --data FOLDER --out FOLDER"
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "head.json").write_text(json.dumps({"method": "ck"}))
    for arguments, message in {
        f"{model}": f"holds no trained head for cedr; {made}",
        f"{other}": f"holds a head for ck, not for cedr; {made}",
        f"{bi_encoder(tmp_path / 'bi')}": "is no cross-encoder",
        "no/such": "model 'no/such' was not found",
        f"{folder}, depth=0": "cedr: depth must be at least 1",
        f"{folder}, precision=int8": "cedr: precision must be one of auto, float32",
    }.items():
        with pytest.raises(InputError, match=message):
            index.search("unheard of", pipeline=f"bm25 >> cedr({arguments})")


def test_a_damaged_head_is_said(folder, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "head.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read as this head's weights"):
        stage(damaged).score([("wing", "lift")])
    (damaged / "head.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read as this head's weights"):
        stage(damaged).score([("wing", "lift")])


def test_a_model_of_another_build_is_said(tmp_path):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    tiny = DistilBertConfig(vocab_size=128, dim=32, n_layers=2, n_heads=4, hidden_dim=64, num_labels=1)
    DistilBertForSequenceClassification(tiny).save_pretrained(tmp_path)
    tokenizer(64).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cedr needs a BERT-type sequence classifier, such as MiniLM; this is a disti"):
        CedrHead(tmp_path)
    with pytest.raises(InputError, match="has 3 outputs; a reranker has one, or two classes"):
        CedrHead(cross_encoder(tmp_path / "three", labels=3))
