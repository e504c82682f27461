"""Training of heads: each learns, ends in a folder that its reranker reads, and leaves nothing half done."""

import json
from dataclasses import replace
from pathlib import Path

import collections_on_disk
import numpy as np
import pytest
import tiny_models

from retriever import InputError
from retriever.components import component_from, load_class
from retriever.rerankers import RERANKERS
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.parade import AGGREGATORS, Parade, ParadeConfig, ParadeHead
from retriever.training import course, heads
from retriever.training.heads import Case, train_head
from retriever.training.settings import HEADS, HeadTraining


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return HeadTraining(
        method="parade",
        base=str(tiny_models.cross_encoder(folder / "base")),
        data=(str(collections_on_disk.things(folder / "things")),),
        dev=(str(folder / "things"),),
        aggregator="attention",
        epochs=12,
        batch_size=8,
        negatives=2,
        learning_rate=0.02,
    )


def log(out):
    return [json.loads(line) for line in (out / course.LOG).read_text().splitlines()]


def weights(out, name="head"):
    from safetensors.numpy import load_file

    return load_file(Path(out) / f"{name}.safetensors")


def same(one, other):
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all((value == second[name]).all() for name, value in first.items())


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_it_learns_and_leaves_a_folder_that_parade_and_cross_encoders_read(settings, tmp_path, aggregator):
    trained = train_head(replace(settings, aggregator=aggregator, learning_rate=0.01, dev=()), tmp_path / "out")
    assert trained.notes == [
        "things: 32 of 32 examples; negatives: 0 judged irrelevant, 64 by bm25, 0 at random; left out: 0 queries "
        "without a relevant document"
    ]
    entries = log(trained.out)
    assert [entry["epoch"] for entry in entries] == list(range(13))
    assert entries[-1]["loss"] < 0.7 * entries[1]["loss"]
    assert json.loads((trained.out / "head.json").read_text()) == {"method": "parade", "aggregator": aggregator}
    assert json.loads((trained.out / course.SETTINGS).read_text())["learning_rate"] == 0.01
    assert np.isfinite(Parade(ParadeConfig(str(trained.out), aggregator)).score([("query : in wing", "plate")])).all()
    pairs = [("wing", "the wing is in a body")]
    before, after = (
        CrossEncoder(CrossEncoderConfig(str(folder))).score(pairs) for folder in (settings.base, trained.out)
    )
    assert before == after


def test_a_relevant_text_rises_above_the_others(settings):
    """By the hinge's margin: their vectors differ in one element, and the others are noise."""
    head = ParadeHead(Path(settings.base), "avg")
    chosen = np.random.default_rng(1)
    cases = []
    for _ in range(20):
        texts = 0.1 * chosen.normal(size=(3, 2, 32)).astype(np.float32)
        texts[:, :, 3] = [[1], [-1], [-1]]
        cases.append(Case(list(texts), None))
    entries = heads._fit(head, cases[:15], cases[15:], replace(settings, epochs=30))
    assert entries[-1]["loss"] < 0.01
    assert max(entry["dev_mrr"] for entry in entries) == 1.0
    assert entries[0]["dev_loss"] > 0.3 > 0.03 > min(entry["dev_loss"] for entry in entries)


def test_the_same_seed_gives_the_same_head_and_the_callers_chance_is_left_alone(settings, tmp_path):
    import torch

    given = replace(settings, aggregator="transformer", epochs=2)
    made = []
    for number in range(2):
        torch.manual_seed(number)
        state = torch.random.get_rng_state()
        made.append(train_head(given, tmp_path / str(number)).out)
        assert (torch.random.get_rng_state() == state).all()
    one, again = made
    assert same(one, again)
    assert not same(one, train_head(replace(given, seed=1), tmp_path / "other").out)


def test_the_epoch_that_is_best_on_dev_is_kept(settings, tmp_path):
    hasty = replace(settings, learning_rate=1.0)
    trained = train_head(hasty, tmp_path / "out")
    entries = log(trained.out)
    best = min(entries, key=lambda entry: entry["dev_loss"])
    assert trained.notes[0].startswith("things: 30 of 30 examples")  # of 32 queries, two are held out for dev
    assert trained.notes[-1] == (
        f"epoch {best['epoch']} of 12 is kept: its loss on the dev examples is {best['dev_loss']:.4f} "
        f"(start: {entries[0]['dev_loss']:.4f})"
    )
    assert all(0 < entry["dev_mrr"] <= 1 for entry in entries)
    assert 0 < best["epoch"] < 12
    assert same(trained.out, train_head(replace(hasty, epochs=best["epoch"]), tmp_path / "shorter").out)


def test_a_start_that_no_epoch_betters_is_kept(settings, tmp_path):
    trained = train_head(replace(settings, epochs=2, learning_rate=1e6), tmp_path / "out")
    assert trained.notes[-1].startswith("the start, which no epoch bettered, is kept: ")
    assert (weights(trained.out)["linear.weight"] == weights(settings.base, "model")["classifier.weight"]).all()


def test_the_last_epoch_is_kept_where_nothing_is_measured(settings, tmp_path):
    one = train_head(replace(settings, dev=(), epochs=1), tmp_path / "one").out
    two = train_head(replace(settings, dev=(), epochs=2), tmp_path / "two").out
    assert not same(one, two)
    assert "dev_loss" not in log(two)[-1]


class Killed(BaseException):
    """The process, at some batch."""


@pytest.mark.parametrize("reached", [0, 3])
def test_a_training_that_is_interrupted_leaves_nothing_and_starts_again(settings, tmp_path, monkeypatch, reached):
    steps = iter(range(reached))

    def die(_):
        if next(steps, None) is None:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(heads, "advance", die)
        with pytest.raises(Killed):
            train_head(settings, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.tmp").mkdir()  # a kill while the folder was written
    (tmp_path / "out.tmp" / "config.json").write_text("{")
    train_head(replace(settings, epochs=1), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "config.json").read_text() != "{"


def test_a_finished_training_is_not_done_again_and_others_are_left_alone(settings, tmp_path):
    short = replace(settings, epochs=1)
    out = train_head(short, tmp_path / "out").out
    assert "loss on dev" in (out / "curve.svg").read_text()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train_head(short, out).notes == [f"{out} is finished already; give another folder to train anew"]
    with pytest.raises(InputError, match=r"other settings \(epochs\); give those, or another folder"):
        train_head(settings, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(InputError, match="is not an empty folder and holds no training"):
        train_head(settings, tmp_path)


def test_a_head_that_diverges_leaves_nothing(settings, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(heads, "_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(InputError, match="the loss is nan: train anew with a lower learning rate"):
        train_head(settings, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_head_on_a_head_folder_is_the_only_one_there(settings, tmp_path):
    first = train_head(replace(settings, epochs=1), tmp_path / "first").out
    second = train_head(replace(settings, epochs=1, base=str(first), aggregator="max"), tmp_path / "second").out
    assert json.loads((second / "head.json").read_text())["aggregator"] == "max"
    assert "query" not in weights(second)


def test_examples_are_limited_by_whole_queries(settings, tmp_path):
    lines = [f"q-wing-in d-wing-{place} 1" for place in collections_on_disk.PLACES]
    lines += ["q-lift-in d-lift-in 1", "q-drag-in d-drag-in 1", "q-heat-in d-heat-in 0"]
    folder = collections_on_disk.things(tmp_path / "few", train=lines)
    given = replace(settings, data=(str(folder),), dev=(), epochs=1)
    (note,) = train_head(replace(given, limit=3), tmp_path / "out").notes
    assert note == (
        "few: 2 of 6 examples; negatives: 0 judged irrelevant, 4 by bm25, 0 at random; left out: 1 queries without a "
        "relevant document"
    )
    only = collections_on_disk.things(tmp_path / "only", train=lines[:4])
    with pytest.raises(InputError, match="no train query has from 1 to 3 relevant documents; raise limit"):
        train_head(replace(given, data=(str(only),), limit=3), tmp_path / "none")


def test_what_is_cut_is_said(settings, tmp_path):
    long = {f"d{i}": "wing lift " * (50 * i) for i in range(1, 5)}
    folder = collections_on_disk.write(tmp_path / "long", long, {"q": "wing"}, train=["q d3 1"])
    notes = train_head(replace(settings, data=(str(folder),), dev=(), epochs=1, negatives=3), tmp_path / "out").notes
    assert notes[1:] == [
        f"6 passages were longer, with the query, than the 64 tokens that {settings.base} reads, and cut"
    ]


@pytest.mark.parametrize("method", HEADS)
def test_every_method_makes_a_folder_that_its_reranker_reads(settings, tmp_path, method):
    assert load_class(HEADS[method]).method == method
    given = replace(settings, method=method, aggregator=None, learning_rate=0.01)
    trained = train_head(given, tmp_path / "out")
    entries = log(trained.out)
    assert entries[-1]["loss"] < entries[1]["loss"]
    assert all(np.isfinite(entry["dev_loss"]) for entry in entries)
    _, reranker = component_from(f"{method}({trained.out})", RERANKERS, "reranker")
    pairs = [("query : in wing", "the wing is in a body"), ("query : in wing", ""), ("", "the plate is of a body")]
    found = reranker.score(pairs)
    assert np.isfinite(found).all()
    _, before = component_from(f"{method}({train_head(replace(given, seed=1), tmp_path / 'other').out})", RERANKERS, "")
    assert not np.array_equal(found, before.score(pairs))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "parode"}, "no head is called 'parode'; did you mean 'parade'"),
        ({"method": "cedr"}, "aggregator belongs to parade; cedr has none"),
        ({"aggregator": "sum"}, "aggregator is one of max, avg, attention, transformer, not 'sum'"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"negatives": 0}, "negatives must be at least 1, not 0"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0, not 0\.0"),
        ({"data": ()}, "there is nothing to train on: give at least one folder with data"),
        ({"base": "no/such"}, "model 'no/such' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_head(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_no_cross_encoder(settings, tmp_path):
    folder = tiny_models.bi_encoder(tmp_path / "bi")
    with pytest.raises(InputError, match="is no cross-encoder"):
        train_head(replace(settings, base=str(folder)), tmp_path / "out")
