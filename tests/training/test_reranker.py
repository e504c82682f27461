"""A cross-encoder as a whole: it learns by every loss, goes on where it was killed, and leaves an ordinary model."""

from dataclasses import replace

import collections_on_disk
import pytest
import tiny_models
from training_runs import log, same, train_and_kill, weights

from retriever import InputError
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.training.reranker import train_reranker
from retriever.training.settings import RerankerTraining


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return RerankerTraining(
        base=str(tiny_models.masked_lm(folder / "base", initializer_range=0.1)),
        data=(str(collections_on_disk.things(folder / "things")),),
        dev=(str(folder / "things"),),
        steps=60,
        batch_size=8,
        negatives=3,
        learning_rate=1e-2,
        train_length=32,
        max_length=64,
        evaluate_every=60,
        precision="float32",
    )


def test_an_encoder_becomes_a_cross_encoder_that_sentence_transformers_loads(settings, tmp_path):
    from sentence_transformers import CrossEncoder as Peer

    trained = train_reranker(settings, tmp_path / "out")
    assert trained.notes[0].startswith("things: 30 examples; negatives: 0 judged irrelevant, 78 by bm25, 12 at random")
    entries = log(trained.out)
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    measured = [entry["eval_nDCG@10"] for entry in entries if "eval_nDCG@10" in entry]
    assert max(measured) > measured[0]
    assert "eval_things_first_nDCG@10" in entries[0]
    peer = Peer(str(trained.out), device="cpu")
    assert peer.max_seq_length == 64
    pairs = [("query : in wing", "the wing is in a body"), ("query : in wing", "the plate is of a body")]
    expected = peer.predict(pairs)
    ours = CrossEncoder(CrossEncoderConfig(str(trained.out), precision="float32")).score(pairs)
    assert ours == pytest.approx(expected, abs=1e-4)


def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, tmp_path):
    short = replace(settings, steps=20, evaluate_every=10)
    whole = train_reranker(short, tmp_path / "whole").out
    train_and_kill(train_reranker, short, tmp_path / "killed", steps=14)
    again = train_reranker(short, tmp_path / "killed").out
    assert same(weights(again), weights(whole))


@pytest.mark.parametrize("loss", ["pairwise", "margin-mse", "kl"])
def test_each_loss_teaches(settings, tmp_path, loss):
    teacher = None
    if loss in ("margin-mse", "kl"):
        teacher = f"cross-encoder('{tiny_models.cross_encoder(tmp_path / 'teacher')}')"
    out = train_reranker(replace(settings, loss=loss, teacher=teacher, dev=()), tmp_path / "out").out
    losses = [entry["loss"] for entry in log(out) if "loss" in entry]
    assert losses[-1] < losses[0]


def test_localized_contrastive_estimation_is_the_softmax_over_the_texts_of_a_query(tmp_path):
    """-log softmax of the relevant text's logit, as the labels SURE and 0 make sentence-transformers compute it."""
    import torch
    from sentence_transformers import CrossEncoder as Peer
    from sentence_transformers.cross_encoder import losses

    from retriever.training.reranker import SURE

    peer = Peer(str(tiny_models.cross_encoder(tmp_path)), device="cpu", activation_fn=torch.nn.Identity())
    texts = ["the wing", "a plate", "heat of a body"]
    logits = torch.from_numpy(peer.predict([("lift", text) for text in texts]))
    loss = losses.ListNetLoss(peer)([["lift"], [texts]], [torch.tensor([SURE, 0.0, 0.0])])
    assert loss.item() == pytest.approx(-logits.log_softmax(0)[0].item(), abs=1e-5)


def test_margin_mse_is_the_papers(tmp_path):
    """Scores (3, 1) and the teacher's (2.5, .5) give 0; the teacher's (1, .5) give 2.25."""
    import torch
    from sentence_transformers import CrossEncoder as Peer
    from sentence_transformers.cross_encoder import losses

    loss = losses.MarginMSELoss(Peer(str(tiny_models.cross_encoder(tmp_path)), device="cpu"))
    given = {"good": 3.0, "bad": 1.0}
    loss.logits_from_pairs = lambda pairs, **_: torch.tensor([given[text] for _, text in pairs])
    inputs = [["query"], ["good"], ["bad"]]
    assert loss(inputs, [torch.tensor([2.5, 0.5])]).item() == 0
    assert loss(inputs, [torch.tensor([1.0, 0.5])]).item() == pytest.approx(2.25)


def test_negatives_come_from_the_pipeline_that_is_named(settings, tmp_path):
    mined = replace(settings, views=("bm25", "wide = bm25(k1=2.0, b=0.0)"), mine="bm25 + wide >> rrf", steps=1, dev=())
    notes = train_reranker(mined, tmp_path / "out").notes
    assert "by bm25 + wide >> rrf, " in notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hinge"}, "loss is one of lce, pairwise, margin-mse, kl, not 'hinge'"),
        ({"negatives": 0}, "negatives must be at least 1, not 0"),
        ({"loss": "kl"}, "loss kl learns from a teacher: give one"),
        ({"teacher": "cross-encoder(x)"}, "loss lce reads no teacher; take margin-mse or kl"),
        ({"data": ()}, "there is nothing to train on"),
        ({"base": "no/such-model"}, "model 'no/such-model' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_reranker(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
