"""Students as a whole: how they begin, that they learn, and that they are ordinary models in the end."""

from dataclasses import replace

import collections_on_disk
import numpy as np
import pytest
import tiny_models
from training_runs import log, same, train_and_kill, weights

from retriever import InputError
from retriever.training import course
from retriever.training.settings import StudentTraining
from retriever.training.texts.student import make_student, train_student

TEXTS = ["the wing is in a body", "lift over the plate in a flow"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    teacher = tiny_models.bi_encoder(folder / "teacher", "cls", {"query": "query : "})
    things = str(collections_on_disk.things(folder / "things"))
    return StudentTraining(
        base=str(teacher),
        texts=(things,),
        dev=(things,),
        depth=1,
        steps=30,
        batch_size=8,
        learning_rate=3e-3,
        train_length=16,
        evaluate_every=10,
        precision="float32",
    )


def load(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def test_it_learns_and_leaves_a_model_that_sentence_transformers_loads(settings, tmp_path):
    trained = train_student(settings, tmp_path / "out")
    assert trained.notes == ["32 texts, 0 of them cut to 16 tokens", *course.kept(trained.out)]
    entries = [entry for entry in log(trained.out) if "attention" in entry]
    assert all(entries[-1][name] < 0.7 * entries[0][name] for name in ("attention", "values", "embedding"))
    assert "eval_nDCG@10" in log(trained.out)[0]
    student, teacher = load(trained.out), load(settings.base)
    assert student[0].auto_model.config.num_hidden_layers == 1
    assert student[1].get_config_dict() == teacher[1].get_config_dict()  # the pooling
    assert (student.prompts["query"], student.max_seq_length) == ("query : ", 32)
    cosines = (student.encode_document(TEXTS) * teacher.encode_document(TEXTS)).sum(axis=1)
    untrained = make_student(teacher, settings).encode_document(TEXTS)
    assert (cosines > (untrained * teacher.encode_document(TEXTS)).sum(axis=1)).all()


def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, tmp_path):
    short = replace(settings, steps=20)
    whole = train_student(short, tmp_path / "whole").out
    train_and_kill(train_student, short, tmp_path / "killed", steps=14)
    again = train_student(short, tmp_path / "killed").out
    assert same(weights(again), weights(whole))


def test_a_student_begins_with_the_teachers_layers(settings):
    teacher = load(settings.base)
    for taken, place in (((), 1), ((1,), 0)):  # the last of its two, where none is named
        student = make_student(teacher, replace(settings, taken=taken))
        begun = student[0].auto_model.encoder.layer[0].state_dict()
        wanted = teacher[0].auto_model.encoder.layer[place].state_dict()
        assert all((begun[name] == wanted[name]).all() for name in wanted)
    whole = make_student(teacher, replace(settings, depth=2))
    np.testing.assert_array_equal(whole.encode(TEXTS), teacher.encode(TEXTS))


def test_the_layers_of_all_minilm_are_cut_to_its_three_layer_form(settings):
    """22,713,216 parameters, of which a layer has 1,774,464."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
    teacher = SentenceTransformer(modules=[load(settings.base)[0]], device="cpu")
    with torch.device("meta"):
        teacher[0].model = BertModel(BertConfig(**sizes))
    assert teacher[0].model.num_parameters() == 22_713_216
    small = make_student(teacher, replace(settings, depth=3))[0].model
    assert small.num_parameters() == 17_389_824
    random = make_student(teacher, replace(settings, depth=6, hidden=192))[0].model
    assert random.num_parameters() == 8_665_536


def test_a_smaller_student_begins_with_random_weights_of_the_seed(settings, tmp_path):
    small = replace(settings, hidden=16, embedding=0.0, steps=20, dev=())
    out = train_student(small, tmp_path / "out").out
    entries = [entry for entry in log(out) if "attention" in entry]
    assert entries[-1]["values"] < entries[0]["values"]
    student = load(out)
    assert student.encode(TEXTS).shape == (2, 16)
    assert student[1].pooling_mode == "cls"
    first, second, third = (
        make_student(load(settings.base), replace(small, seed=seed)).encode(TEXTS) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, third)


def test_a_student_can_teach_the_next(settings, tmp_path):
    assistant = train_student(replace(settings, depth=2, hidden=16, embedding=0.0, steps=2, dev=()), tmp_path / "ta")
    last = replace(settings, base=str(assistant.out), steps=2, dev=())
    assert load(train_student(last, tmp_path / "out").out)[0].auto_model.config.num_hidden_layers == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, "depth must be from 1 to the teacher's 2, not 3"),
        ({"depth": 2, "taken": (1, 3)}, "taken names the teacher's layers, from 1 to 2, for each of 2; not 1, 3"),
        ({"hidden": 18}, "expected at least one layer, a multiple of the teacher's 4 heads"),
        ({"hidden": 16}, "the teacher's vectors have 32 dimensions and the student's 16"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"base": "no/such-model"}, "model 'no/such-model' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_student(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_another_architecture_is_refused(settings, tmp_path):
    folder = tiny_models.state_space(tmp_path / "mamba")
    with pytest.raises(InputError, match="is a mamba, not a BERT or RoBERTa"):
        train_student(replace(settings, base=str(folder)), tmp_path / "out")
