"""HMDE's training: its loss, that it learns, that it goes on where it was killed, and what it leaves."""

import json
from dataclasses import replace

import collections_on_disk
import numpy as np
import pytest
import tiny_models

from retriever import InputError
from retriever.encoders.hmde import Hmde
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.training import course, hmde
from retriever.training.hmde import contrastive, train_hmde
from retriever.training.settings import HmdeTraining


def long_things(folder):
    """The toy collection as documents of four segments, three of which say what the document is about."""
    pairs = {f"{thing}-{place}": (thing, place) for thing in collections_on_disk.THINGS for place in ("in", "over")}
    before = "a document of the query is not a"
    documents = {
        f"d-{name}": f"{before} " + f"the passage is not a {thing} {place} body " * 3
        for name, (thing, place) in pairs.items()
    }
    queries = {f"q-{name}": f"query : {place} {thing}" for name, (thing, place) in pairs.items()}
    judged = [f"q-{name} d-{name} 1" for name in pairs]
    return collections_on_disk.write(folder, documents, queries, train=judged, dev=judged)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return HmdeTraining(
        base=str(tiny_models.bi_encoder(folder)),
        data=(str(long_things(folder / "things")),),
        dev=(str(folder / "things"),),
        window=8,
        segments=6,
        heads=4,
        feed_forward=32,
        steps=60,
        batch_size=8,
        learning_rate=1e-2,
        evaluate_every=20,
        precision="float32",
    )


def log(out):
    return [json.loads(line) for line in (out / course.LOG).read_text().splitlines()]


def weights(out):
    from safetensors.numpy import load_file

    return load_file(out / "upper.safetensors")


def unit(generator, rows):
    import torch

    return torch.nn.functional.normalize(torch.randn(rows, 6, generator=generator), dim=1)


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_same_with_its_sides_swapped():
    import torch

    drawn = torch.Generator().manual_seed(1)
    first, second = unit(drawn, 5), unit(drawn, 4)  # three pairs; two and one negatives
    spare = torch.zeros(5, 4, dtype=torch.bool)
    spare[0, 2] = True
    loss = contrastive(first, second, 3, spare)
    assert loss.item() == pytest.approx(contrastive(second, first, 3, spare.T).item(), abs=1e-6)


def test_the_loss_is_two_softmaxes_over_twenty_times_the_cosine():
    import torch

    first, second = torch.eye(3)[:2], torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])
    spare = torch.zeros(2, 3, dtype=torch.bool)
    there = [[20, 12, 0], [0, 16, 0]]
    back = [[20, 0], [12, 16]]
    expected = sum(
        np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(np.array(rows, float))])
        for rows in (there, back)
    )
    assert contrastive(first, second, 2, spare).item() == pytest.approx(expected, abs=1e-5)
    spare[0, 1] = True  # the second document is relevant to the first query as well
    left = np.mean([np.log(np.exp(20) + 1) - 20, np.log(np.exp(16) + 2) - 16]) + np.mean(
        [np.log(np.exp(20) + 1) - 20, 0.0]
    )
    assert contrastive(first, second, 2, spare).item() == pytest.approx(left, abs=1e-5)


def test_a_batch_has_no_two_of_one_document_or_query():
    from random import Random

    from retriever.training.data import Example

    examples = [Example(f"q{i % 4}", f"d{i % 3}", ()) for i in range(12)]
    material = hmde.Material({"one": examples}, {}, [], [])
    batch = hmde._batch(material, 8, Random(0))
    assert len(batch) == len({each.query for each in batch}) == len({each.positive for each in batch}) == 3


# -- the training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"layout": "bert", "pooling": "dcls"}, {"queries": "documents"}, {"negatives": 2}]
)
def test_it_learns_and_leaves_a_folder_that_a_view_reads(settings, tmp_path, changes):
    trained = train_hmde(replace(settings, **changes), tmp_path / "out")
    assert trained.notes == ["things: 16 examples over 16 documents; left out: 0 queries without a relevant document"]
    entries = log(trained.out)
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses[-1] < 0.95 * losses[0]
    measured = [entry["eval_nDCG@10"] for entry in entries if "eval_nDCG@10" in entry]
    assert max(measured) > measured[0] + 0.05
    encoder = Hmde(str(trained.out), "float32")
    assert encoder.encode_documents(["a wing"], lambda _: None).vectors.shape == (1, 32)
    assert (trained.out / "curve.svg").exists()
    assert not (trained.out / course.CHECKPOINTS).exists()
    again = train_hmde(replace(settings, **changes), trained.out)
    assert again.notes == [f"{trained.out} is finished already; give another folder to train anew"]


def test_the_sentence_encoder_stays_as_it_is_or_learns_too(settings, tmp_path):
    from sentence_transformers import SentenceTransformer

    frozen = train_hmde(replace(settings, steps=3), tmp_path / "frozen").out
    learned = train_hmde(
        replace(settings, steps=12, lower_learning_rate=1e-3, evaluate_every=4, dev=()), tmp_path / "learned"
    ).out
    base, same, other = (
        SentenceTransformer(str(path), device="cpu").encode(["the wing", "heat"])
        for path in (settings.base, frozen / "lower", learned / "lower")
    )
    np.testing.assert_array_equal(base, same)
    assert np.abs(base - other).max() > 1e-3
    losses = [entry["loss"] for entry in log(learned) if "loss" in entry]
    assert losses[-1] < losses[0]


def test_the_best_step_is_kept_be_it_the_start(settings, tmp_path, monkeypatch):
    falling = iter([0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(hmde, "measured", lambda *_: {"nDCG@10": next(falling)})
    out = train_hmde(replace(settings, evaluate_every=2), tmp_path / "out").out
    assert log(out)[-1]["step"] == 2 * course.PATIENCE  # of 60: an early end
    plain, made = SentenceTransformerEncoder(settings.base, "float32"), Hmde(str(out), "float32")
    expected = plain.encode_documents(["the wing"], lambda _: None).vectors
    np.testing.assert_allclose(made.encode_documents(["the wing"], lambda _: None).vectors, expected, atol=1e-5)


class Killed(BaseException):
    """The process, at some step."""


def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, tmp_path, monkeypatch):
    short = replace(settings, steps=12, evaluate_every=4)
    whole = train_hmde(short, tmp_path / "whole").out
    steps = iter(range(7))

    def die(_):
        if next(steps, None) is None:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(hmde, "advance", die)
        with pytest.raises(Killed):
            train_hmde(short, tmp_path / "killed")
    read = []
    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformerEncoder, "_encode", lambda *given: read.append(given))
        again = train_hmde(short, tmp_path / "killed").out
    assert not read, "the segments are read once"
    expected = weights(whole)
    assert all((value == expected[name]).all() for name, value in weights(again).items())
    told = [{**entry, "seconds": 0} for entry in log(again)]
    assert told == [{**entry, "seconds": 0} for entry in log(whole)]


def test_without_layers_there_is_nothing_to_train(settings, tmp_path):
    trained = train_hmde(replace(settings, layers=0, data=(), dev=()), tmp_path / "mean")
    assert trained.notes == [
        "without layers there is nothing to train: a document is the mean of its segments' vectors"
    ]
    texts = ["a wing in the flow of heat over", "the body is not under a shock of"]
    plain = SentenceTransformerEncoder(settings.base, "float32").encode_documents(texts, lambda _: None).vectors
    made = Hmde(str(trained.out), "float32").encode_documents([" ".join(texts)], lambda _: None).vectors[0]
    np.testing.assert_allclose(made, plain.sum(0) / np.linalg.norm(plain.sum(0)), atol=1e-5)


def test_what_is_cut_is_told(settings, tmp_path):
    notes = train_hmde(replace(settings, segments=3, steps=1), tmp_path / "out").notes
    assert notes[1:] == ["16 of 16 documents have more than 3 segments: so many of each are read, evenly spaced"]


def test_a_loss_that_is_no_number_ends_the_training(settings, tmp_path, monkeypatch):
    real = hmde.contrastive
    steps = iter(range(1, 100))
    monkeypatch.setattr(hmde, "contrastive", lambda *given: real(*given) * (float("nan") if next(steps) > 25 else 1))
    with pytest.raises(InputError, match="the loss is nan in step 26; the last good checkpoint is kept"):
        train_hmde(settings, tmp_path / "out")
    assert (tmp_path / "out" / course.CHECKPOINTS / hmde.STATE).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ()}, "there is nothing to train on"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": 1}, "a batch of one query without negatives teaches nothing"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"heads": 5}, "5 heads do not divide vectors of 32 dimensions"),
        ({"stride": 20}, "stride must be from 1 to window"),
        ({"base": "no/such-model"}, "model 'no/such-model' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_hmde(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
