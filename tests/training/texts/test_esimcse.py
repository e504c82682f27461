"""ESimCSE as a whole: its pairs, that it learns and resumes with its queue, and the ordinary model that it leaves."""

import random
from dataclasses import replace
from pathlib import Path

import collections_on_disk
import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from training_runs import log, logged, same, train_and_kill, weights

from retriever import InputError
from retriever.training import course
from retriever.training.settings import EsimcseTraining
from retriever.training.texts.esimcse import Pairs, Sentences, read_sentences, repeated, train_esimcse
from retriever.training.texts.momentum import FILE

DISTINCT = st.lists(st.integers(), min_size=1, max_size=60, unique=True)


@given(DISTINCT, st.floats(0.01, 1), st.none() | st.integers(0, 9), st.integers(0, 99))
def test_repetition_keeps_the_order_and_repeats_each_token_at_most_once(ids, rate, most, seed):
    twice = repeated(ids, rate, most, random.Random(seed))
    assert list(dict.fromkeys(twice)) == ids
    assert sorted(twice, key=ids.index) == twice  # a repetition stands beside its token
    assert max(twice.count(token) for token in ids) <= 2
    assert len(twice) - len(ids) <= min(max(2, int(rate * len(ids))), len(ids), len(ids) if most is None else most)


def test_how_much_is_repeated_is_drawn_uniformly():
    """Of 20 tokens at a rate of .32, 0 to 6 are."""
    counts = [len(repeated(range(20), 0.32, None, random.Random(seed))) - 20 for seed in range(1400)]
    assert {count: counts.count(count) for count in range(7)} == pytest.approx(dict.fromkeys(range(7), 200), rel=0.25)
    short = {len(repeated(range(4), 0.32, None, random.Random(seed))) - 4 for seed in range(100)}
    assert short == {0, 1, 2}  # of 4 tokens not int(.32 * 4) = 1 but 2


@given(DISTINCT, st.integers(0, 99))
def test_a_rate_of_0_is_simcse(ids, seed):
    assert repeated(ids, 0.0, None, random.Random(seed)) == ids


def settings_for(folder, **changes):
    given = {"base": str(folder), "texts": (str(folder),), "train_length": 16, "precision": "float32"}
    return EsimcseTraining(**{**given, **changes})


def test_special_tokens_are_not_repeated_and_the_first_of_a_pair_is_the_original(tmp_path):
    tokenizer = tiny_models.tokenizer(32)
    rows = [tokenizer("the wing is in a body", add_special_tokens=False)["input_ids"], [17, 18, 19]]
    pairs = Pairs(settings_for(tmp_path, repetition=1.0), Sentences(rows, 0, 0), tokenizer)
    grown = 0
    for draw in range(20):
        batch = pairs([{"sentence": 0, "draw": draw}, {"sentence": 1, "draw": draw + 20}])
        kinds = ("original", "repeated")
        real = [
            [
                row[mask > 0].tolist()
                for row, mask in zip(batch[f"{kind}_input_ids"], batch[f"{kind}_attention_mask"], strict=True)
            ]
            for kind in kinds
        ]
        assert real[0] == [[2, *row, 3] for row in rows]
        assert [(row[0], row[-1], row.count(2), row.count(3)) for row in real[1]] == [(2, 3, 1, 1)] * 2
        assert [list(dict.fromkeys(row)) for row in real[1]] == real[0]
        grown += len(real[1][0]) > len(real[0][0])
    assert grown > 10
    again = pairs([{"sentence": 0, "draw": 3}])["repeated_input_ids"]
    assert (again == pairs([{"sentence": 0, "draw": 3}])["repeated_input_ids"]).all()


def test_texts_become_sentences():
    text = (
        "The wing is in a body. A plate. Heat of the flow over the drag is in the shock! Heat. The wing is in a body."
    )
    tokenizer = tiny_models.tokenizer(32)
    found = read_sentences([text], tokenizer, 8)
    words = [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in found.rows]
    assert words == ["the wing is in a body", "a plate [UNK]", "heat of the flow over the"]
    assert (found.cut, found.short) == (2, 1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return EsimcseTraining(
        base=str(tiny_models.bi_encoder(folder / "base")),
        texts=(str(collections_on_disk.things(folder / "things")),),
        dev=(str(folder / "things"),),
        queue=12,
        steps=30,
        batch_size=8,
        learning_rate=1e-3,
        train_length=16,
        evaluate_every=10,
        precision="float32",
    )


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    return train_esimcse(settings, tmp_path_factory.mktemp("trained") / "out")


def test_it_learns_and_leaves_a_model_that_sentence_transformers_loads(settings, trained):
    from sentence_transformers import SentenceTransformer

    assert trained.notes[0] == "32 sentences, 0 of them cut to 16 tokens; left out: 0 of less than 3 tokens"
    assert trained.notes[1:] == course.kept(trained.out)
    losses = logged(trained.out, "loss")
    assert losses[-1] < losses[0]
    assert len(logged(trained.out, "eval_nDCG@10")) == 4
    model = SentenceTransformer(str(trained.out), device="cpu")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
    assert model.max_seq_length == 32
    assert weights(trained.out).keys() == weights(Path(settings.base)).keys()  # without head and queue
    assert not (trained.out / FILE).exists()


def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, trained, tmp_path):
    """The queue is full, and the momentum encoder far behind, when it is killed: both come back."""
    train_and_kill(train_esimcse, settings, tmp_path / "out", steps=25)
    kept = course.newest_checkpoint(tmp_path / "out")
    assert (kept.name, (kept / FILE).exists()) == ("checkpoint-20", True)
    out = train_esimcse(settings, tmp_path / "out").out
    assert logged(out, "loss") == logged(trained.out, "loss")
    assert same(weights(out), weights(trained.out))


def test_the_weights_differ_without_queue_and_without_repetition(settings, trained, tmp_path):
    for changes in ({"queue": 0}, {"repetition": 0.0}):
        out = train_esimcse(replace(settings, dev=(), steps=10, **changes), tmp_path / next(iter(changes))).out
        assert logged(out, "loss")[0] != logged(trained.out, "loss")[0]


def test_a_loss_that_is_no_number_ends_the_training(settings, tmp_path):
    import numpy as np

    wild = replace(settings, learning_rate=1e35, evaluate_every=1, dev=())
    with pytest.raises(
        InputError, match=r"the loss or its gradient is (nan|inf) in step \d+; the last good checkpoint"
    ):
        train_esimcse(wild, tmp_path / "out")
    kept = course.newest_checkpoint(tmp_path / "out")
    assert all(np.isfinite(value).all() for value in weights(kept).values())
    assert [entry["step"] for entry in log(tmp_path / "out")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": ()}, "there is nothing to train on"),
        ({"batch_size": 1}, "batch_size must be at least 2, not 1: the other sentences of a batch are the negatives"),
        ({"batch_size": 33}, "32 sentences are too few for a batch of 33: lower batch_size"),
        ({"repetition": 1.5}, "repetition must be from 0 to 1, not 1.5"),
        ({"momentum": -1.0}, "momentum must be from 0 to 1, not -1.0"),
        ({"queue": -1}, "queue and most_repeated must be at least 0"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"train_length": 4}, "train_length 4 leaves no room for a sentence"),
        ({"train_length": 60}, "may grow to 79 tokens by repetition, and the base has positions for 64: lower it"),
        ({"base": "no/such-model"}, "model 'no/such-model' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_esimcse(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_no_sentence_encoder(settings, tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(InputError, match="sentence-transformers cannot load it"):
        train_esimcse(replace(settings, base=str(tmp_path / "base")), tmp_path / "out")
