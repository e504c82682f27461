"""IDCM's selector against its formulas written out, and the cascade that it stands in."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder, tokenizer

from retriever import InputError, Retriever
from retriever.encoders.runtime import has_bfloat16
from retriever.rerankers.conv_knrm import Ck, CkConfig, CkHead
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.heads import save_head
from retriever.rerankers.kernels import MUS
from retriever.rerankers.long import Long, LongConfig
from retriever.tallies import tallies
from retriever.types import Floats

PAIRS = [
    ("shock wing", "heat shock over the body of a wing"),
    ("wing", "lift"),
    ("", "drag flow"),
    ("lift drag", ""),
    ("wing lift", "flow heat plate " * 20),
    ("wing", "flow heat plate " * 20),
    ("", ""),
    ("wing", "lift"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="module")
def head(model: Path) -> CkHead:
    import torch

    torch.manual_seed(3)
    made = CkHead(model)
    torch.nn.init.normal_(made.module.combine.weight)
    torch.nn.init.uniform_(made.module.factors, 0.5, 2)
    return made


@pytest.fixture(scope="module")
def folder(model: Path, head: CkHead) -> Path:
    made = shutil.copytree(model, model.with_name("ck"))
    save_head(made, head)
    return made


def stage(folder: Path, precision: str = "float32") -> Ck:
    return Ck(CkConfig(str(folder), precision=precision))


def written_out(model: Path, head: CkHead, query: str, text: str) -> float:
    """The score of one pair, window by window and kernel by kernel."""
    import torch
    from transformers import BertModel

    embeddings = BertModel.from_pretrained(model).eval().embeddings
    state = {name: value.detach().double().numpy() for name, value in head.module.state_dict().items()}

    def vectors(given: str) -> list[Floats]:
        ids = tokenizer(64)(given, add_special_tokens=False).input_ids
        with torch.no_grad():
            embedded = embeddings(input_ids=torch.tensor([ids], dtype=torch.int64))[0].double().numpy() if ids else []
        rows = [*embedded, np.zeros(32), np.zeros(32)]
        weight = state["convolution.weight"]  # [out, in, 3]
        seen = [
            sum(weight[:, :, k] @ rows[i + k] for k in range(3)) + state["convolution.bias"] for i in range(len(ids))
        ]
        positive = [np.maximum(row, 0) for row in seen]
        return [row / np.linalg.norm(row) for row in positive]

    asked, found = vectors(query), vectors(text)
    sums = np.zeros(11)
    for q in asked:
        counts = sum((np.exp(-((q @ t - np.array(MUS)) ** 2) / (2 * 0.1**2)) for t in found), np.zeros(11))
        sums += np.log(np.maximum(counts * state["factors"], 1e-4))
    return float(state["combine.weight"][0] @ sums + state["combine.bias"][0])


def test_scores_are_those_of_the_formulas(model, head, folder):
    scores = stage(folder).score(PAIRS)
    expected = [written_out(model, head, *pair) for pair in PAIRS]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3)
    assert np.ptp(scores) > 1
    assert stage(folder).score([]).shape == (0,)


def test_training_sees_the_same_scores(head, folder):
    import torch

    with torch.no_grad():
        given = head.module(head.features(PAIRS))
    np.testing.assert_allclose(given, stage(folder).score(PAIRS), rtol=1e-5, atol=1e-4)


def test_neither_padding_nor_company_changes_a_score(folder, monkeypatch):
    together = stage(folder).score(PAIRS)
    alone = np.concatenate([stage(folder).score([pair]) for pair in PAIRS])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-4)
    for name, small in {"_TEXTS": 2, "_TOKENS": 16, "_PAIRS": 1}.items():
        monkeypatch.setattr(f"retriever.rerankers.conv_knrm.{name}", small)
    np.testing.assert_allclose(stage(folder).score(PAIRS), together, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="needs bfloat16 in hardware")
def test_bfloat16_keeps_the_order(folder):
    from scipy.stats import kendalltau

    pairs = [("shock wing", text) for _, text in documents(*range(1, 60))]
    fast, exact = stage(folder, "auto").score(pairs), stage(folder).score(pairs)
    assert kendalltau(fast, exact).statistic > 0.95
    assert fast.tolist() != exact.tolist()


def test_a_head_folder_holds_what_was_trained_and_no_more(head):
    assert sorted(head.module.state_dict()) == [
        *("combine.bias", "combine.weight", "convolution.bias", "convolution.weight", "factors"),
    ]
    assert all(parameter.requires_grad for parameter in head.module.parameters())


def test_an_example_is_the_passages_of_the_positive_and_of_some_negatives(head):
    (long,) = (text for _, text in documents(200))
    tokens = long.split()
    passages = [" ".join(tokens[i : i + 64]) for i in (0, 50, 100, 150)]
    assert head.texts(long, ["body", "plate", "body"]) == [*passages, "body", "plate"]
    assert head.texts(long, [text for _, text in documents(*range(100, 200, 10))])[:4] == passages
    assert len(head.texts(long, [text for _, text in documents(*range(100, 200, 10))])) == 16
    assert head.texts("", ["wing"]) == ["", "wing"]


def test_the_loss_is_nothing_where_the_passages_are_as_far_apart_as_the_teachers(head):
    import torch

    teacher = torch.tensor([3.0, 1.0, -2.0])
    assert head.loss(teacher + 5, teacher).item() == pytest.approx(0, abs=1e-6)
    assert head.loss(-teacher, teacher).item() > 1
    expected = torch.nn.functional.kl_div(torch.zeros(3).log_softmax(0), teacher.softmax(0), reduction="sum")
    assert head.loss(torch.zeros(3), teacher).item() == pytest.approx(expected.item(), abs=1e-6)


def test_trained_it_ranks_as_the_cross_encoder_does(model):
    import torch

    torch.manual_seed(1)
    head = CkHead(model)
    words = ["lift", "drag over", "wing the flow", "heat of body", "shock"]
    pairs = [("wing", text) for text in words]
    teacher = torch.from_numpy(CrossEncoder(CrossEncoderConfig(str(model), precision="float32")).logits(pairs))
    features = head.features(pairs)
    optimizer = torch.optim.Adam(head.module.parameters(), lr=0.01)
    losses = []
    for _ in range(150):
        loss = head.loss(head.module(features), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
    assert np.argmax(head.score(pairs)) == int(teacher.argmax())


class Counted(CrossEncoder):
    """A cross-encoder that writes down how many pairs each call had."""

    calls: ClassVar[list[int]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        self.calls.append(len(pairs))
        return super().score(pairs)


def idcm(folder: Path, **options: object) -> Long:
    """IDCM with passages of ten tokens, for a model that reads 64."""
    dear = f"test_conv_knrm:Counted({folder}, precision=float32)"
    return Long(LongConfig(dear, unit="tokens", window=10, stride=8, cap=40, pool="weighted", **options))  # type: ignore[arg-type]


def documents(*sizes: int) -> list[tuple[str, str]]:
    pick = np.random.default_rng(5)
    words = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body"]
    return [("shock wing", " ".join(pick.choice(words, size))) for size in sizes or (0, 5, 25, 60, 130)]


def test_a_cascade_that_keeps_all_is_the_dear_model_alone(folder):
    alone = idcm(folder).score(documents())
    assert idcm(folder, select=f"ck({folder})", keep=17).score(documents()).tolist() == alone.tolist()
    assert idcm(folder, select=f"ck({folder})", keep=1).score(documents()).tolist() != alone.tolist()


def test_the_dear_model_reads_so_many_passages_of_a_document_and_the_best(folder):
    counts = [1, 1, 3, 8, 16]
    Counted.calls.clear()
    found = idcm(folder, select=f"ck({folder})", keep=2).score(documents())
    assert Counted.calls == [sum(min(2, count) for count in counts)]
    dear = CrossEncoder(CrossEncoderConfig(str(folder), precision="float32"))
    for (query, text), score, count in zip(documents(), found, counts, strict=True):
        units = text.split()
        passages = [" ".join(units[8 * i : 8 * i + 10]) for i in range(count)]
        best = np.argsort(-stage(folder, "auto").score([(query, passage) for passage in passages]), kind="stable")[:2]
        assert score == pytest.approx(dear.score([(query, passages[i]) for i in best]).sum(), abs=1e-4)


def test_a_passage_that_scores_nothing_is_not_lost(model, head, tmp_path):
    made = shutil.copytree(model, tmp_path / "nothing")
    state = {name: value.clone() for name, value in head.module.state_dict().items()}
    nothing = CkHead(made)
    nothing.module.load_state_dict({name: value * ("combine" not in name) for name, value in state.items()})
    save_head(made, nothing)
    assert stage(made).score(PAIRS).tolist() == [0.0] * len(PAIRS)
    Counted.calls.clear()
    idcm(made, select=f"ck({made})", keep=3).score(documents())
    assert Counted.calls == [1 + 1 + 3 + 3 + 3]


def test_a_million_words_are_cut_and_that_is_said(folder):
    long = "heat shock plate body " * 250_000
    with tallies() as told:
        scores = stage(folder).score([("wing", long), ("wing", long[:5000]), ("wing " * 100, "flow"), ("wing", "flow")])
    assert told == {
        "texts were longer than the 64 tokens that ck reads of one, and cut": 2,
        "queries were longer than the 64 tokens that ck reads of one, and cut": 1,
    }
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_what_is_wrong_is_said_before_anything_is_searched(model, folder, tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    for stages, message in {
        f"ck({model})": "holds no trained head for ck; make one with: retriever train head ck",
        f"long('cross-encoder({model})', select='ck({model})')": "holds no trained head for ck",
        f"ck({bi_encoder(tmp_path / 'bi')})": "is no cross-encoder",
        f"ck({folder}, depth=0)": "ck: depth must be at least 1",
    }.items():
        with pytest.raises(InputError, match=message):
            index.search("unheard of", pipeline=f"bm25 >> {stages}")
    assert index.search("unheard of", pipeline=f"bm25 >> ck({folder})") == []


def test_a_model_of_another_build_is_said(tmp_path):
    from transformers import ElectraConfig, ElectraForSequenceClassification

    tiny = ElectraConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=1
    )
    ElectraForSequenceClassification(tiny).save_pretrained(tmp_path)
    tokenizer(64).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="ck needs a BERT-type sequence classifier, such as MiniLM; this is a electra"):
        CkHead(tmp_path)
