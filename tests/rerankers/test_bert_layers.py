"""A BERT in its parts against the whole of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder, tokenizer

from retriever import InputError
from retriever.encoders.runtime import has_bfloat16
from retriever.rerankers.bert_layers import BertLayers, bert_layers, padded
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.pairs import tokenize_pairs

LAYERS = 4
PAIRS = [("wing", "flow"), ("shock wing", "the body of the plate " * 4), ("", ""), ("lift over", "heat " * 90)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder", num_hidden_layers=LAYERS)


def parts(folder: Path, precision: str = "float32") -> BertLayers:
    return BertLayers(folder, precision, "this test")


def whole(folder: Path) -> Any:
    from transformers import BertForSequenceClassification

    return BertForSequenceClassification.from_pretrained(folder).eval()


def logits(layers: BertLayers, pairs: list[tuple[str, str]]) -> Any:
    import torch

    tokens = tokenize_pairs(layers.tokenizer, pairs, layers.max_length)
    with torch.inference_mode():
        hidden, mask = layers.embed(tokens.ids, tokens.types)
        for layer in range(layers.count):
            hidden = layers.through(hidden, mask, layer, layer + 1)
        return layers.logits(hidden[:, 0]).numpy()


@pytest.mark.parametrize("labels", [1, 2])
def test_the_parts_make_the_whole(labels, tmp_path):
    folder = cross_encoder(tmp_path / "model", labels=labels, num_hidden_layers=LAYERS)
    expected = CrossEncoder(CrossEncoderConfig(str(folder), precision="float32")).logits(PAIRS)
    np.testing.assert_allclose(logits(parts(folder), PAIRS), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_every_layer_gives_the_states_of_the_models_own(model):
    import torch

    layers, words = parts(model), tokenizer(64)
    encoded = words(PAIRS[:3], padding=True, return_tensors="pt")
    tokens = words(PAIRS[:3])
    there = encoded["attention_mask"].bool()
    with torch.inference_mode():
        expected = whole(model)(**encoded, output_hidden_states=True).hidden_states
        hidden, mask = layers.embed(tokens["input_ids"], tokens["token_type_ids"])
        assert mask.equal(there)
        torch.testing.assert_close(hidden[there], expected[0][there], atol=1e-5, rtol=0)
        for layer in range(LAYERS - 1):
            hidden = layers.through(hidden, mask, layer, layer + 1)
            torch.testing.assert_close(hidden[there], expected[layer + 1][there], atol=1e-5, rtol=0)
        last = layers.through(hidden, mask, LAYERS - 1, LAYERS)
    assert last.shape == (3, 1, 32)
    torch.testing.assert_close(last[:, 0], expected[LAYERS][:, 0], atol=1e-5, rtol=0)


def test_positions_begin_where_they_are_told_to(model):
    import torch

    layers, ids = parts(model), [[6, 7, 8, 3]]
    with torch.inference_mode():
        hidden, mask = layers.embed(ids, [[1] * 4], start=20)
        given = layers.through(hidden, mask, 0, 2)
        places = torch.arange(20, 24)[None]
        expected = whole(model).bert(
            torch.tensor(ids), token_type_ids=torch.ones(1, 4, dtype=torch.long), position_ids=places,
            output_hidden_states=True,
        )  # fmt: skip
    torch.testing.assert_close(given, expected.hidden_states[2], atol=1e-5, rtol=0)


def test_neither_batch_nor_padding_changes_a_logit(model):
    layers = parts(model)
    alone = np.concatenate([logits(layers, [pair]) for pair in PAIRS])
    np.testing.assert_allclose(logits(layers, PAIRS), alone, atol=1e-5)


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="this processor has no bfloat16")
def test_bfloat16_is_near_and_its_head_is_float32(model):
    import torch

    layers = parts(model, "auto")
    assert layers.dtype == torch.bfloat16
    given = logits(layers, PAIRS)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, logits(parts(model), PAIRS), atol=1.0)  # random weights magnify each rounding
    assert not np.array_equal(given, logits(parts(model), PAIRS))


def test_padding_is_marked():
    import torch

    together, mask = padded([torch.ones(3, 2), torch.ones(1, 2)])
    assert together[1].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False]]


def test_a_model_is_loaded_once_and_again_when_it_was_trained_anew(tmp_path):
    folder = cross_encoder(tmp_path / "model")
    first = bert_layers(folder, "float32", "this test")
    assert bert_layers(folder, "float32", "this test") is first
    (folder / "note.txt").write_text("trained on")
    assert bert_layers(folder, "float32", "this test") is not first


def test_what_cannot_be_taken_apart(tmp_path):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    tiny = DistilBertConfig(vocab_size=128, dim=32, n_layers=2, n_heads=4, hidden_dim=64, num_labels=1)
    DistilBertForSequenceClassification(tiny).save_pretrained(tmp_path / "other")
    tokenizer(64).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match=r"this test needs a BERT-type sequence classifier.* this is a distilbert"):
        parts(tmp_path / "other")
    with pytest.raises(InputError, match="is no cross-encoder"):
        parts(bi_encoder(tmp_path / "bi"))
    with pytest.raises(InputError, match="has 3 outputs; a reranker has one, or two classes"):
        parts(cross_encoder(tmp_path / "three", labels=3))
    with pytest.raises(InputError, match="this test cannot use it: its tokens see only those before them"):
        parts(cross_encoder(tmp_path / "decoder", is_decoder=True))
