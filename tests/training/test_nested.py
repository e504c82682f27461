"""Nested training: what it trains is what a search uses, and small queries come to meet the whole model's documents."""

import json
from dataclasses import replace
from pathlib import Path

import collections_on_disk
import numpy as np
import pytest
import tiny_models
from training_runs import log, same, train_and_kill, weights

from retriever import InputError
from retriever.encoders.matformer import KEY, WIDTHS
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.training.data import read_collection
from retriever.training.encoder import train_encoder
from retriever.training.nested import FEATURE, Nesting, nest, nested_loss
from retriever.training.settings import EncoderTraining

TEXTS = ["the wing is in a body", "lift over the plate in a flow"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    pairs = [f"{thing}-{place}" for thing in collections_on_disk.THINGS for place in collections_on_disk.PLACES]
    judged = [f"q-{name} d-{name} 1" for name in pairs]
    things = collections_on_disk.things(folder / "things", train=judged, dev=judged)
    return EncoderTraining(
        base=str(tiny_models.bi_encoder(folder / "base")),
        data=(str(things),),
        nested=True,
        steps=60,
        batch_size=8,
        learning_rate=5e-3,
        train_length=16,
        max_length=32,
        evaluate_every=60,
        precision="float32",
    )


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    return train_encoder(settings, tmp_path_factory.mktemp("trained") / "out").out


@pytest.fixture
def model(settings):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(settings.base, device="cpu").eval()


def met(data, model):
    """Of the smallest queries: the mean cosine with the whole model's, and Recall@4 among its 32 documents."""
    things = read_collection(Path(data), measured=False)
    encoder, asked = SentenceTransformerEncoder(str(model), "float32"), [*things.queries.values()]
    encoder.model[0].auto_model.config.matformer = list(WIDTHS)
    whole, small = (each.encode_queries(asked).vectors for each in (encoder, encoder.narrow(WIDTHS[0])))
    scores = small @ encoder.encode_documents([*things.documents.values()], lambda _: None).vectors.T
    found = (scores.argsort(axis=1)[:, -4:] == np.arange(len(asked))[:, None]).any(axis=1)
    return (whole * small).sum(axis=1).mean(), found.mean()


def test_small_queries_come_to_meet_the_whole_model_and_without_this_training_do_not(settings, trained, tmp_path):
    plain = train_encoder(replace(settings, nested=False), tmp_path / "plain").out
    likeness, recall = met(settings.data[0], trained)
    assert likeness > 0.3
    assert recall > 0.4
    others = met(settings.data[0], plain)  # the first units of an ordinary model: random pruning
    assert others[0] < likeness - 0.15
    assert others[1] < recall - 0.15


def test_each_width_is_measured(settings, tmp_path):
    out = train_encoder(replace(settings, dev=settings.data, steps=40, evaluate_every=40), tmp_path / "out").out
    first, last = (entry for entry in log(out) if "eval_nDCG@10" in entry)
    for width in WIDTHS[:-1]:
        assert last[f"eval_nDCG@10_at_{width}"] > first[f"eval_nDCG@10_at_{width}"]


def test_the_folder_is_plain_and_says_what_it_was_trained_for(trained):
    from sentence_transformers import SentenceTransformer

    assert json.loads((trained / "config.json").read_text())[KEY] == list(WIDTHS)
    peer = SentenceTransformer(str(trained), device="cpu").encode_query(TEXTS)
    np.testing.assert_allclose(
        SentenceTransformerEncoder(str(trained), "float32").encode_queries(TEXTS).vectors, peer, atol=1e-5
    )


def test_a_killed_training_draws_the_same_widths_again(settings, tmp_path):
    short = replace(settings, steps=20, evaluate_every=10)
    whole = train_encoder(short, tmp_path / "whole").out
    train_and_kill(train_encoder, short, tmp_path / "killed", steps=14)
    again = train_encoder(short, tmp_path / "killed").out
    assert same(weights(again), weights(whole))


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_trained_is_what_a_search_uses(settings, model, width):
    sliced = SentenceTransformerEncoder(settings.base, "float32")
    sliced.model[0].auto_model.config.matformer = list(WIDTHS)
    expected = sliced.narrow(width).encode_queries(TEXTS).vectors
    encoders = {**Nesting(model).encoders(), "at_1.0": model.encode_query}
    np.testing.assert_allclose(encoders[f"at_{width}"](TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode_query(TEXTS), sliced.encode_queries(TEXTS).vectors, atol=1e-5)


@pytest.mark.parametrize("kind", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"])
def test_queries_alone_are_narrow_also_where_a_loss_reads_twice(model, kind, monkeypatch):
    import torch
    from sentence_transformers.sentence_transformer import losses

    seen = []
    nesting = Nesting(model)
    for layer in model[0].auto_model.encoder.layer:
        layer.intermediate.register_forward_hook(lambda _, __, hidden: seen.append(bool((hidden[..., 8:] == 0).all())))
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(0))  # the smallest width
    columns = [model.preprocess(["query : in wing", "query : of heat"]), model.preprocess(TEXTS)]
    nested_loss(model, getattr(losses, kind)(model))(columns, None).backward()
    once = [True, True, False, False]  # two layers
    assert seen == (once * 2 if kind.startswith("Cached") else once)
    assert FEATURE not in columns[0]
    assert nesting.usual == 1.0


def test_the_units_that_add_most_come_first_and_the_model_computes_the_same(model, tmp_path):
    import torch

    with torch.no_grad():
        for layer in model[0].auto_model.encoder.layer:
            half = layer.output.dense.in_features // 2
            layer.output.dense.weight[:, :half] = 0  # these add nothing, so the others are all that is needed
    before = model.encode_query(TEXTS)
    nest(model, TEXTS)
    np.testing.assert_allclose(model.encode_query(TEXTS), before, atol=1e-5)
    model.save(str(tmp_path), create_model_card=False)
    halved = SentenceTransformerEncoder(str(tmp_path), "float32").narrow(0.5)
    np.testing.assert_allclose(halved.encode_queries(TEXTS).vectors, before, atol=1e-5)


def test_what_is_nested_already_keeps_its_order(settings, trained, tmp_path):
    again = replace(settings, base=str(trained), steps=1, learning_rate=0)
    assert same(weights(train_encoder(again, tmp_path / "out").out), weights(trained))


def test_a_training_without_it_takes_the_mark_away(settings, trained, tmp_path):
    plain = replace(settings, base=str(trained), nested=False, steps=1)
    out = train_encoder(plain, tmp_path / "out").out
    assert KEY not in json.loads((out / "config.json").read_text())


def test_what_has_no_such_layers_is_refused(settings, tmp_path):
    folder = tiny_models.state_space(tmp_path / "mamba")
    with pytest.raises(InputError, match="is a mamba, not a BERT or RoBERTa"):
        train_encoder(replace(settings, base=str(folder)), tmp_path / "out")
