"""Training as a whole: it learns, it goes on where it was killed, and leaves an ordinary model."""

import json
from dataclasses import replace

import collections_on_disk
import pytest
import tiny_models
from training_runs import log, same, train_and_kill, weights

from retriever import InputError
from retriever.training import course
from retriever.training.settings import SparseTraining
from retriever.training.sparse import train_sparse


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return SparseTraining(
        base=str(tiny_models.masked_lm(folder / "base", initializer_range=0.1)),
        data=(str(collections_on_disk.things(folder / "things")),),
        dev=(str(folder / "things"),),
        steps=30,
        batch_size=8,
        learning_rate=5e-3,
        query_weight=0.02,
        document_weight=0.01,
        train_length=16,
        max_length=32,
        evaluate_every=10,
        precision="float32",
    )


def test_it_learns_and_leaves_a_model_that_sentence_transformers_loads(settings, tmp_path):
    from sentence_transformers import SparseEncoder

    trained = train_sparse(settings, tmp_path / "out")
    assert trained.notes[0].startswith("things: 30 examples")  # of 32 queries, two are held out for dev
    entries = log(trained.out)
    losses = [entry["base_loss"] for entry in entries if "base_loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    measured = [entry["eval_nDCG@10"] for entry in entries if "eval_nDCG@10" in entry]
    assert max(measured) > measured[0] + 0.2
    assert {"step", "seconds", "eval_document_terms", "eval_query_terms"} <= entries[0].keys()
    assert json.loads((trained.out / course.SETTINGS).read_text())["learning_rate"] == 5e-3
    model = SparseEncoder(str(trained.out), device="cpu")
    assert model.max_seq_length == 32
    inner = model[0].auto_model
    assert inner.get_output_embeddings().weight is inner.get_input_embeddings().weight
    query = model.encode_query("query : in wing")
    wing, plate = model.encode_document(["the wing is in a body", "the plate is of a body"])
    assert model.similarity(query, wing) > model.similarity(query, plate)


def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, tmp_path):
    whole = train_sparse(settings, tmp_path / "whole").out
    train_and_kill(train_sparse, settings, tmp_path / "killed", steps=14)
    cut = tmp_path / "killed" / course.CHECKPOINTS / "checkpoint-20"  # while it was written
    cut.mkdir()
    (cut / "trainer_state.json").write_text('{"best_metric": 0.')
    again = train_sparse(settings, tmp_path / "killed").out
    assert same(weights(again), weights(whole))
    times = {"seconds", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    times |= {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
    first, second = (
        [{key: entry[key] for key in entry.keys() - times} for entry in log(out)] for out in (whole, again)
    )
    assert first[:-1] == second[:-1]


def test_a_finished_training_is_not_done_again(settings, tmp_path):
    short = replace(settings, steps=2, dev=())
    out = train_sparse(short, tmp_path / "out").out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train_sparse(short, out).notes == [f"{out} is finished already; give another folder to train anew"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_settings_need_another_folder(settings, tmp_path):
    train_sparse(replace(settings, steps=1, dev=()), tmp_path / "out")
    with pytest.raises(InputError, match=r"other settings \(dev, steps\); give those, or another folder"):
        train_sparse(settings, tmp_path / "out")


def test_a_folder_with_something_else_is_left_alone(settings, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder and holds no training"):
        train_sparse(settings, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ()}, "there is nothing to train on: give at least one folder with data"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"negatives": -1}, "negatives must be at least 0, not -1"),
        ({"batch_size": 1, "negatives": 0}, "a batch of one query without negatives teaches nothing"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_sparse(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_folders_of_one_name(settings, tmp_path):
    other = str(collections_on_disk.things(tmp_path / "other" / "things"))
    with pytest.raises(InputError, match="two folders have one name: things, things; rename one"):
        train_sparse(replace(settings, data=(*settings.data, other)), tmp_path / "out")


def test_the_regulariser_is_the_papers():
    """FLOPS of [[1, 0, 2], [3, 0, 0]] is 5; halfway through its rise the weight is a quarter."""
    import torch
    from sentence_transformers.sparse_encoder import losses
    from sentence_transformers.sparse_encoder.callbacks import SpladeRegularizerWeightSchedulerCallback

    flops = losses.FlopsLoss(None).compute_loss_from_embeddings(torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]]))
    assert flops == 5.0
    loss = losses.SpladeLoss(None, losses.SparseMultipleNegativesRankingLoss(None), 0.8, 0.4)
    rise = SpladeRegularizerWeightSchedulerCallback(loss)
    rise.warmup_steps = 100
    assert rise._calculate_weight_value(50, 0.8) == pytest.approx(0.2)
