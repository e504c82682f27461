"""Early exit against the rule written out over the states of all layers."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tiny_models import bi_encoder, cross_encoder, tokenizer

from retriever import Document, InputError, Retriever
from retriever.rerankers import early_exit
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.early_exit import EarlyExit, EarlyExitConfig, EarlyExitHead
from retriever.rerankers.heads import load_weights, save_head
from retriever.tallies import tallies
from retriever.types import Floats

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]
LAYERS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with classifiers behind its layers, all random."""
    import torch

    folder = cross_encoder(tmp_path_factory.mktemp("models") / "model", num_hidden_layers=LAYERS)
    head = EarlyExitHead(folder, "float32")
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in head.module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    save_head(folder, head)
    return folder


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    pick = random.Random(1)
    texts = [" ".join(pick.choices(WORDS, k=2 * i)) for i in range(20)] + ["heat " * 200]
    return [(query, text) for query in ("shock wing", "lift over the plate", "") for text in texts]


def stage(model: Path, relevant: float = 0.9, irrelevant: float = 0.9, precision: str = "float32") -> EarlyExit:
    return EarlyExit(EarlyExitConfig(str(model), relevant, irrelevant, precision=precision))


def every_layer(model: Path, pairs: list[tuple[str, str]]) -> npt.NDArray[np.float64]:
    """float64 [n, layers]: the logit behind each layer, from transformers' own states."""
    import torch
    from transformers import BertForSequenceClassification

    network, module = BertForSequenceClassification.from_pretrained(model).eval(), EarlyExitHead(model).module
    load_weights(model, module)
    rows = []
    for pair in pairs:
        encoded = tokenizer(64)([pair], truncation="longest_first", max_length=64, return_tensors="pt")
        with torch.inference_mode():
            given = network(**encoded, output_hidden_states=True)
            lower = [
                torch.tanh(given.hidden_states[i + 1][0, 0] @ module.pooler[i].T + module.pooler_bias[i])
                @ module.weight[i]
                + module.bias[i]
                for i in range(LAYERS - 1)
            ]
        rows.append([*map(float, lower), float(given.logits)])
    return np.array(rows)


def by_the_rule(logits: npt.NDArray[np.float64], relevant: float, irrelevant: float) -> tuple[Any, Any]:
    """The logit and the layer with which each pair leaves."""
    probability = 1 / (1 + np.exp(-logits))
    sure = (probability > relevant) | (1 - probability > irrelevant)
    sure[:, -1] = True
    layers = sure.argmax(axis=1)
    return logits[np.arange(len(logits)), layers], layers + 1


@pytest.mark.parametrize("thresholds", [(0.9, 0.9), (0.99, 0.6), (0.6, 0.99), (2.0, 0.8), (0.8, 2.0), (0.5, 0.5)])
def test_pairs_leave_where_the_rule_says_with_the_score_of_that_layer(model, pairs, thresholds):
    reranker = stage(model, *thresholds)
    scores = reranker.logits(pairs)
    expected, layers = by_the_rule(every_layer(model, pairs), *thresholds)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_array_equal(reranker.layers, layers)
    assert reranker.layers_read == pytest.approx(layers.mean())


def test_the_rule_is_tried_out_on_pairs_that_leave_everywhere(model, pairs):
    _, layers = by_the_rule(every_layer(model, pairs), 0.9, 0.9)
    assert set(layers) == {1, 2, 3, 4}


def test_thresholds_above_one_give_the_whole_model(model, pairs):
    reranker = stage(model, 1.1, 1.1)
    whole = CrossEncoder(CrossEncoderConfig(str(model), precision="float32"))
    np.testing.assert_allclose(reranker.score(pairs), whole.score(pairs), atol=1e-5)
    np.testing.assert_allclose(reranker.logits(pairs), whole.logits(pairs), atol=1e-5)
    assert reranker.layers_read == LAYERS


def test_thresholds_of_zero_read_one_layer(model, pairs):
    reranker = stage(model, 0.0, 0.0)
    np.testing.assert_allclose(reranker.logits(pairs), every_layer(model, pairs)[:, 0], atol=1e-4)
    assert reranker.layers.tolist() == [1] * len(pairs)
    assert reranker.layers_read == 1


def test_pairs_never_leave_earlier_under_higher_thresholds(model, pairs):
    steps = [0.0, 0.5, 0.7, 0.9, 0.99, 1.1]
    for thresholds in ([(s, s) for s in steps], [(s, 0.9) for s in steps], [(0.9, s) for s in steps]):
        before = np.zeros(len(pairs))
        for relevant, irrelevant in thresholds:
            reranker = stage(model, relevant, irrelevant)
            reranker.score(pairs)
            assert (reranker.layers >= before).all()
            before = reranker.layers


def test_the_thresholds_are_apart(model, pairs):
    high, low = stage(model, 0.9, 2.0), stage(model, 2.0, 0.9)
    assert (high.logits(pairs)[high.layers < LAYERS] > 2).all()
    assert (low.logits(pairs)[low.layers < LAYERS] < -2).all()
    assert (high.layers < LAYERS).any()
    assert (low.layers < LAYERS).any()


def test_the_other_pairs_of_a_batch_change_nothing(model, pairs, monkeypatch):
    together = stage(model)
    scores = together.score(pairs)
    for i in range(0, len(pairs), 5):
        alone = stage(model)
        assert alone.score([pairs[i]]).tolist() == pytest.approx([scores[i]], abs=1e-5)
        assert alone.layers.tolist() == [together.layers[i]]
    order = np.random.default_rng(0).permutation(len(pairs))
    np.testing.assert_allclose(stage(model).score([pairs[i] for i in order]), scores[order], atol=1e-5)
    monkeypatch.setattr(early_exit, "_AT_ONCE", 7)
    monkeypatch.setattr(early_exit, "_TOKENS", 100)
    np.testing.assert_allclose(stage(model).score(pairs), scores, atol=1e-5)


def test_layers_read_is_over_all_calls(model, pairs):
    reranker = stage(model)
    assert reranker.layers_read == 0
    assert reranker.score([]).shape == (0,)
    reranker.score(pairs[:10])
    first = reranker.layers
    reranker.score(pairs[10:])
    assert reranker.layers_read == pytest.approx(np.concatenate([first, reranker.layers]).mean())


def test_bfloat16_is_near(model, pairs):
    reranker = stage(model, 1.1, 1.1, precision="auto")
    expected = stage(model, 1.1, 1.1).logits(pairs)
    assert np.corrcoef(reranker.logits(pairs), expected)[0, 1] > 0.95


def test_features_are_what_the_layers_are_given_when_they_score(model, pairs):
    import torch

    head = EarlyExitHead(model, "float32")
    load_weights(model, head.module)
    features = head.features(pairs)
    assert len(features) == len(pairs)
    assert features[0].shape == (LAYERS - 1, 32)
    with torch.no_grad():
        scores = head.module(features).numpy()
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, every_layer(model, pairs)[:, :-1], atol=0.05)  # they are kept as float16


def test_an_untrained_layer_scores_as_the_models_own_head(tmp_path):
    import torch
    from transformers import BertForSequenceClassification

    folder = cross_encoder(tmp_path / "two", labels=2)
    network = BertForSequenceClassification.from_pretrained(folder).eval()
    states = torch.randn(5, 1, 32)
    with torch.inference_mode():
        outputs = network.classifier(network.bert.pooler(states))
        given = EarlyExitHead(folder).module.behind(1, states[:, 0])
    torch.testing.assert_close(given, outputs[:, 1] - outputs[:, 0], atol=1e-4, rtol=1e-4)


def test_the_loss_is_the_cross_entropy_with_the_models_probability(model):
    import torch

    head = EarlyExitHead(model)
    teacher = torch.tensor([0.0, 100.0])  # probabilities 1/2 and 1
    scores = torch.tensor([[0.0, 0.0], [0.0, 100.0]])
    log2 = float(np.log(2))
    assert float(head.loss(scores, teacher)) == pytest.approx((log2 + log2) / 2 + (log2 + 0) / 2)
    assert head.texts("wing", ["lift", "drag"]) == ["wing", "lift", "drag"]


def test_training_brings_the_layers_near_the_whole_model(model, pairs):
    import torch

    head = EarlyExitHead(model, "float32")
    teacher = torch.from_numpy(CrossEncoder(CrossEncoderConfig(str(model), precision="float32")).logits(pairs))
    features, losses = head.features(pairs), []
    optimizer = torch.optim.Adam(head.module.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = head.loss(head.module(features), teacher)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(teacher, torch.sigmoid(teacher))
    floor = (LAYERS - 1) * float(entropy)  # what is left where the probabilities are the same
    assert losses[-1] - floor < 0.2 * (losses[0] - floor)


def trained_anew(folder: Path) -> Floats:
    return stage(folder, 0.0, 0.0).logits([("wing", "flow")])


def test_a_head_folder_is_read_as_it_was_written(model, tmp_path):
    import torch

    folder = shutil.copytree(model, tmp_path / "copy")
    before = trained_anew(folder)
    assert before.tolist() == trained_anew(model).tolist()
    head = EarlyExitHead(folder)
    load_weights(folder, head.module)
    with torch.no_grad():
        head.module.bias += 1
    save_head(folder, head)
    np.testing.assert_allclose(trained_anew(folder), before + 1, atol=1e-5)


def test_in_a_pipeline(model, tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add(Document(f"d{i}", " ".join(["wing", *WORDS[i:]])) for i in range(8))
    found = index.search("wing", k=8, pipeline=f"bm25 >> early-exit({model}, 0.9, 0.9, precision=float32, depth=5)")
    expected = stage(model).score([("wing", hit.text) for hit in found[:5]])
    assert [hit.score for hit in found[:5]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(found) == 8


def test_what_is_cut_is_counted(model):
    long = "heat shock plate body " * 25_000  # a hundred thousand words
    with tallies() as found:
        scores = stage(model).score([("wing", "flow"), ("wing", long), ("wing", "heat shock plate body " * 20)])
    assert found == {f"pairs were longer than the 64 tokens that {model} reads, and cut": 2}
    assert scores[1] == pytest.approx(scores[2], abs=1e-6)


def test_what_is_wrong_is_said(model, tmp_path):
    plain = cross_encoder(tmp_path / "plain", num_hidden_layers=LAYERS)
    with pytest.raises(InputError, match="holds no trained head for early-exit; make one with: retriever train head"):
        stage(plain)
    shutil.copy(model / "head.safetensors", plain)
    (plain / "head.json").write_text('{"method": "parade"}')
    with pytest.raises(InputError, match="holds a head for parade, not for early-exit"):
        stage(plain)
    (plain / "head.json").write_text('{"method": "early-exit"}')
    (plain / "head.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as this head's weights"):
        stage(plain).score([("wing", "flow")])
    with pytest.raises(InputError, match="is no cross-encoder"):
        stage(bi_encoder(tmp_path / "bi"))
    with pytest.raises(InputError, match="has one layer; early-exit needs two or more"):
        EarlyExitHead(cross_encoder(tmp_path / "flat", num_hidden_layers=1))
    with pytest.raises(ValueError, match="relevant and irrelevant must be at least 0"):
        EarlyExitConfig("m", relevant=-0.1)
    with pytest.raises(ValueError, match="depth must be at least 1"):
        EarlyExitConfig("m", depth=0)
