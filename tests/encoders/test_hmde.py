"""HMDE's hierarchy: what its vectors depend on, and what they do not (methods.md, 3.3)."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import bi_encoder

from retriever import Document, InputError, Retriever
from retriever.encoders.hierarchy import LOWER, SETTINGS, WEIGHTS, Hierarchy, padded, save_hierarchy, upper
from retriever.encoders.hmde import Hmde
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.encoders.stated import Stated
from retriever.errors import IndexMismatchError

SMALL = Hierarchy(window=4, segments=5, heads=4, feed_forward=16, dropout=0.0)
BERT = replace(SMALL, layout="bert")
LONG = "the wing is over the plate and drag is under a body in flow of heat"  # 16 words: 4 segments


def random(settings, dimension=32):
    """A hierarchy whose weights are all at random, also those that begin at zero."""
    import torch

    module = upper(settings, dimension).eval()
    drawn = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn) * 0.3)
    return module


def vectors(*counts):
    drawn = np.random.default_rng(5).normal(size=(sum(counts), 32)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def joined(module, given, counts):
    import torch

    with torch.inference_mode():
        return module(*padded(given, list(counts))).numpy()


@pytest.fixture(scope="module")
def lower(tmp_path_factory):
    return bi_encoder(tmp_path_factory.mktemp("lower"))


def folder(path, lower, settings=SMALL, module=None):
    save = SentenceTransformerEncoder(str(lower)).model.save_pretrained
    save(str(path / LOWER), create_model_card=False)
    save_hierarchy(path, settings, module or random(settings))
    return path


def documents(encoder, *texts):
    return encoder.encode_documents(texts, lambda _: None).vectors


# -- the hierarchy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [SMALL, BERT, replace(BERT, pooling="dcls")])
def test_padded_segments_do_not_change_the_vector(settings):
    module, given = random(settings), vectors(2, 5, 1)
    together = joined(module, given, (2, 5, 1))
    alone = [joined(module, part, [len(part)])[0] for part in np.split(given, [2, 7])]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("settings", [SMALL, BERT, replace(BERT, pooling="dcls")])
def test_the_order_of_segments_counts_only_when_positions_are_on(settings):
    given = vectors(4)
    for positions in (True, False):
        module = random(replace(settings, positions=positions))
        same = np.allclose(joined(module, given, [4]), joined(module, given[[2, 0, 3, 1]], [4]), atol=1e-5)
        assert same is not positions


def test_without_layers_and_before_training_a_document_is_the_mean_of_its_segments():
    given = vectors(3, 2)
    means = np.stack([given[:3].mean(0), given[3:].mean(0)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    for settings in (replace(SMALL, layers=0), SMALL):
        np.testing.assert_allclose(joined(upper(settings, 32).eval(), given, (3, 2)), means, atol=1e-6)
    assert not np.allclose(joined(upper(BERT, 32).eval(), given, (3, 2)), means, atol=1e-2)


@pytest.mark.parametrize("layout", ["bert", "residual"])
def test_a_layer_is_that_of_the_paper(layout):
    """Attention and feed-forward by hand: behind each a layer norm (BERT), or before each (residual)."""
    import torch
    from torch.nn import functional

    settings = replace(SMALL, layout=layout, layers=1, positions=False)
    module, given = random(settings), torch.from_numpy(vectors(4))
    (layer,) = module.layers

    def norm(part, rows):
        return functional.layer_norm(rows, (32,), part.weight, part.bias, 1e-12)

    def attention(rows):
        attend = layer.self_attn
        states = functional.linear(rows, attend.in_proj_weight, attend.in_proj_bias).view(4, 3, 4, 8)
        query, key, value = states.permute(1, 2, 0, 3)  # each [heads, segments, 8]
        shares = (query @ key.transpose(1, 2) / 8**0.5).softmax(-1)
        return attend.out_proj((shares @ value).transpose(0, 1).reshape(4, 32))

    def forward(rows):
        return layer.linear2(functional.gelu(layer.linear1(rows)))

    with torch.inference_mode():
        if layout == "bert":
            rows = norm(module.norm, given)
            rows = norm(layer.norm1, rows + attention(rows))
            rows = norm(layer.norm2, rows + forward(rows))
        else:
            rows = given + attention(norm(layer.norm1, given))
            rows = rows + forward(norm(layer.norm2, rows))
    expected = functional.normalize(rows.mean(0), dim=0)
    np.testing.assert_allclose(joined(module, given.numpy(), [4])[0], expected, atol=1e-5)


# -- the encoder -------------------------------------------------------------------------------------------------------


def test_a_document_of_one_segment_without_layers_is_what_the_sentence_encoder_makes_of_it(lower, tmp_path):
    settings = replace(SMALL, layers=0)
    encoder = Hmde(str(folder(tmp_path, lower, settings)), "float32")
    plain = SentenceTransformerEncoder(str(lower), "float32")
    texts = ["the wing", "heat of plate"]
    np.testing.assert_allclose(documents(encoder, *texts), documents(plain, *texts), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(texts).vectors, plain.encode_queries(texts).vectors, atol=1e-5)
    assert documents(encoder).shape == (0, 32)


def test_segments_are_windows_in_the_order_of_the_text(lower, tmp_path):
    module = random(SMALL)
    encoder = Hmde(str(folder(tmp_path, lower, SMALL, module)), "float32")
    words = LONG.split()
    parts = [" ".join(words[first : first + 4]) for first in range(0, 16, 4)]
    segments = documents(SentenceTransformerEncoder(str(lower), "float32"), *parts)
    seen: list[float] = []
    encoded = encoder.encode_documents([LONG, "wing"], seen.append)
    np.testing.assert_allclose(encoded.vectors[0], joined(module, segments, [4])[0], atol=1e-5)
    assert sum(seen) == pytest.approx(2)
    assert encoded.truncated == 0


def test_what_is_cut_is_counted(lower, tmp_path):
    encoder = Hmde(str(folder(tmp_path, lower)), "float32")
    longer = " ".join([LONG, "and the shock is not in a wing"])  # 24 words: 6 segments, one too many
    assert encoder.encode_documents([LONG, longer], lambda _: None).truncated == 1
    unknown = "hydromagnetic " * 4  # a token a letter: more than the 32 that the sentence encoder reads
    assert encoder.encode_documents([unknown], lambda _: None).truncated == 1


def test_queries_can_go_through_the_hierarchy_too(lower, tmp_path):
    settings = replace(SMALL, queries="documents")
    encoder = Hmde(str(folder(tmp_path, lower, settings)), "float32")
    np.testing.assert_allclose(encoder.encode_queries([LONG]).vectors, documents(encoder, LONG), atol=1e-5)


@pytest.mark.parametrize(("unit", "window"), [("sentences", 1), ("tokens", 8)])
def test_other_units(lower, tmp_path, unit, window):
    settings = replace(SMALL, unit=unit, window=window, layers=0)
    encoder = Hmde(str(folder(tmp_path, lower, settings)), "float32")
    plain = SentenceTransformerEncoder(str(lower), "float32")
    parts = ["The wing.", "Heat of a plate!"] if unit == "sentences" else ["the wing is over the plate a of", "lift"]
    mean = documents(plain, *parts).mean(0)
    np.testing.assert_allclose(documents(encoder, " ".join(parts))[0], mean / np.linalg.norm(mean), atol=1e-5)


# -- as a view ---------------------------------------------------------------------------------------------------------


def test_a_view_takes_the_folder_as_its_model(lower, tmp_path):
    made = folder(tmp_path / "hmde", lower)
    index = Retriever.create(tmp_path / "index", [f"dense('{made}', precision=float32)"])
    texts = {"a": LONG, "b": "shock and heat", "c": "lift of a body " * 30}
    report = index.add(Document(name, text) for name, text in texts.items())
    assert report.truncated == {"dense": 1}
    encoder = Hmde(str(made), "float32")
    expected = documents(encoder, *texts.values()) @ encoder.encode_queries(["heat"]).vectors[0]
    found = {hit.id: hit.score for hit in index.search("heat", k=3)}
    assert found == pytest.approx(dict(zip(texts, expected.tolist(), strict=True)), abs=1e-4)
    assert index.info()["views"]["dense"]["encoder"]["hmde"]["segments"] == 5


def test_another_hierarchy_is_another_encoder(lower, tmp_path):
    made = folder(tmp_path / "hmde", lower)
    Retriever.create(tmp_path / "index", [f"dense('{made}')"]).add([Document("a", LONG)])
    save_hierarchy(made, SMALL, upper(SMALL, 32))
    with pytest.raises(IndexMismatchError, match=r"encoded by another encoder than .*\(weights: "):
        Retriever(tmp_path / "index").search("wing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "gpt"}, "layout is residual or bert, not 'gpt'"),
        ({"segments": 0}, "segments must be at least 1, not 0"),
        ({"pooling": "dcls"}, "pooling dcls needs layers in the layout bert"),
    ],
)
def test_hierarchies_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)


def test_folders_that_are_none(lower, tmp_path):
    made = folder(tmp_path / "hmde", lower)
    with pytest.raises(InputError, match="so a view cannot state its pooling"):
        Hmde(str(made), stated=Stated(pooling="cls"))
    with pytest.raises(InputError, match="5 heads do not divide vectors of 32 dimensions"):
        upper(replace(SMALL, heads=5), 32)
    with pytest.raises(InputError, match="stride must be from 1 to window"):
        _ = replace(SMALL, stride=5).splitting
    settings = json.loads((made / SETTINGS).read_text())
    (made / SETTINGS).write_text(json.dumps({**settings, "feed_forward": 8}))
    with pytest.raises(InputError, match=f"{WEIGHTS}: cannot be read as this hierarchy's weights"):
        documents(Hmde(str(made)), "wing")
    (made / SETTINGS).write_text("{")
    with pytest.raises(InputError, match=f"{SETTINGS}: is no hierarchy's settings"):
        Hmde(str(made))
