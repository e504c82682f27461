"""Nested feed-forward layers: what a width computes, and small-encoder queries against what the whole one encoded."""

import json

import numpy as np
import pytest
from tiny_models import bi_encoder

from retriever import Document, InputError, Retriever
from retriever.encoders.matformer import KEY, WIDTHS, feed_forward_layers, narrowed
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.encoders.stated import Stated

TEXTS = ["the wing", "lift over the plate in a flow", "heat of a body", "drag is not lift"]
UNITS = 64


def nested(folder, **options):
    """A model that says it was trained so; what a width computes does not depend on the training."""
    model = bi_encoder(folder, **options)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, KEY: list(WIDTHS)}))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return nested(tmp_path_factory.mktemp("model"))


def encoder(folder):
    return SentenceTransformerEncoder(str(folder), "float32")


def transformer(folder):
    return encoder(folder).model[0].auto_model


def hidden(model):
    import torch

    torch.manual_seed(1)
    with torch.inference_mode():
        return model(torch.randint(5, 60, (2, 9)))[0]  # [2, 9, 32]


def test_all_units_are_the_plain_model(folder):
    plain = transformer(folder)
    assert (hidden(narrowed(plain, 1.0, "it")) == hidden(plain)).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_width_computes_the_papers_formula_and_keeps_the_dimension(folder, width):
    """W_down[:, :m] act(W_up[:m] x + b_up[:m]) + b_down."""
    import torch

    layer = feed_forward_layers(transformer(folder), "it")[0]
    small = feed_forward_layers(narrowed(transformer(folder), width, "it"), "it")[0]
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    m = int(UNITS * width)
    up, down = layer.intermediate.dense, layer.output.dense
    expected = torch.nn.functional.gelu(x @ up.weight[:m].T + up.bias[:m]) @ down.weight[:, :m].T + down.bias
    np.testing.assert_allclose(small.output.dense(small.intermediate(x)).detach(), expected.detach(), atol=1e-5)
    assert encoder(folder).narrow(width).encode_queries(TEXTS).vectors.shape == (4, 32)


def test_a_width_depends_on_its_first_units_alone(folder):
    import torch

    model = transformer(folder)
    before, whole = hidden(narrowed(model, 0.25, "it")), hidden(model)
    with torch.no_grad():
        for layer in feed_forward_layers(model, "it"):
            layer.intermediate.dense.weight[UNITS // 4 :] += 1
            layer.intermediate.dense.bias[UNITS // 4 :] -= 1
            layer.output.dense.weight[:, UNITS // 4 :] *= 2
    assert (hidden(narrowed(model, 0.25, "it")) == before).all()
    assert not np.allclose(hidden(model), whole)


def test_weights_outside_of_the_layers_are_shared_and_units_are_counted(folder):
    model = transformer(folder)
    small = narrowed(model, 0.125, "it")
    assert small.get_input_embeddings().weight is model.get_input_embeddings().weight
    lost = 2 * (UNITS - 8) * (32 + 1 + 32)  # in two layers: columns, biases and rows of the other units
    assert small.num_parameters() == model.num_parameters() - lost


def test_widths_may_rise_from_layer_to_layer(folder):
    model = transformer(folder)
    mixed = feed_forward_layers(narrowed(model, (0.25, 1.0), "it"), "it")
    assert [layer.intermediate.dense.out_features for layer in mixed] == [16, 64]


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (0.3, r"was trained with widths 0\.125, 0\.25, 0\.5, 1\.0, not 0\.3"),
        ((0.5, 0.25), r"query_width may not fall from a layer to the next: 0\.5, 0\.25"),
        ((0.25, 0.5, 1.0), "has 2 layers, and query_width names 3"),
    ],
)
def test_widths_that_cannot_be(folder, width, message):
    with pytest.raises(InputError, match=message):
        narrowed(transformer(folder), width, "it")


def test_an_ordinary_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"was not trained with nested feed-forward layers.*train encoder --nested"):
        encoder(bi_encoder(tmp_path)).narrow(0.5)


def test_adapters_and_a_width_do_not_go_together(folder):
    with pytest.raises(InputError, match="query_width takes its own layers apart, so it goes with no adapters"):
        SentenceTransformerEncoder(str(folder), stated=Stated(adapters="LANGUAGE")).narrow(0.5)


def test_sentence_transformers_loads_the_folder_as_the_whole_model(folder):
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(folder), device="cpu").encode_query(TEXTS)
    np.testing.assert_allclose(encoder(folder).encode_queries(TEXTS).vectors, peer, atol=1e-5)


# -- an index ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(folder, tmp_path):
    made = Retriever.create(tmp_path / "index", ["bm25", f"dense('{folder}', precision=float32)"])
    made.add(Document(str(number), text) for number, text in enumerate(TEXTS))
    return made


def scores(index, pipeline):
    return {hit.id: hit.score for hit in index.search("lift of a wing", k=4, pipeline=pipeline)}


@pytest.mark.parametrize("width", [0.125, (0.25, 0.5)])
def test_a_small_encoder_asks_an_index_of_the_whole_one(index, folder, width):
    documents = encoder(folder).encode_documents(TEXTS, lambda _: None).vectors
    query = encoder(folder).narrow(width).encode_queries(["lift of a wing"]).vectors[0]
    said = list(width) if isinstance(width, tuple) else width
    found = scores(index, f"dense(query_width={said})")
    assert found == pytest.approx({str(number): score for number, score in enumerate(documents @ query)}, abs=1e-5)
    assert found != scores(index, "dense")
    assert scores(index, "dense(query_width=1.0)") == scores(index, "dense")


def test_a_view_may_take_up_a_width_without_encoding_again(index, folder):
    small = scores(index, "dense(query_width=0.5)")
    view = f"dense('{folder}', precision=float32, query_width=0.5)"
    again = Retriever.prepare(index.path, ["bm25", view])
    assert scores(again, "dense") == small
    assert scores(again, "dense(query_width=1.0)") == scores(index, "dense")


def test_passages_are_asked_in_the_same_way(folder, tmp_path):
    made = Retriever.create(tmp_path / "index", [f"dense('{folder}', precision=float32, passage=3)"])
    made.add(Document(str(number), text) for number, text in enumerate(TEXTS))
    assert scores(made, "dense(query_width=0.125)") != scores(made, "dense")


def test_an_expansion_would_not_see_the_width_of_a_pipeline(index):
    with pytest.raises(InputError, match="vector-prf encodes queries as the view says: set query_width there"):
        index.search("wing", pipeline="dense >> vector-prf >> dense(query_width=0.5)")


def test_an_encoder_without_such_layers_is_refused(tmp_path):
    made = Retriever.create(tmp_path / "index", ["dense(toy_encoders:HashEncoder, query_width=0.5)"])
    made.add([Document("a", "wing")])
    with pytest.raises(InputError, match="has no feed-forward layers to take part of for query_width"):
        made.search("wing")
