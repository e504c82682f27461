"""Further pre-training as a whole: it learns, resumes, and leaves a model for every other training."""

from dataclasses import replace

import collections_on_disk
import pytest
import tiny_models
from training_runs import log, logged, same, train_and_kill, weights

from retriever import InputError
from retriever.training import course
from retriever.training.settings import MaskedTraining
from retriever.training.texts.mlm import from_teacher, train_mlm


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return MaskedTraining(
        base=str(tiny_models.masked_lm(folder / "base", initializer_range=0.1)),
        texts=(str(collections_on_disk.things(folder / "things")),),
        steps=30,
        batch_size=8,
        learning_rate=5e-3,
        train_length=16,
        evaluate_every=10,
        precision="float32",
    )


@pytest.fixture(scope="module")
def first_round(settings, tmp_path_factory):
    return train_mlm(settings, tmp_path_factory.mktemp("first") / "round")


def test_it_learns_the_words_of_the_texts(settings, first_round):
    assert first_round.notes == [
        "32 texts in 32 blocks of tokens, 2 of them held out to measure the loss; left out: 0 texts without a token "
        "that the model knows"
    ]
    losses = logged(first_round.out, "eval_loss")
    assert min(losses) < losses[0] - 0.3
    assert {"step", "seconds", "loss", "learning_rate"} <= log(first_round.out)[1].keys()
    assert not (first_round.out / course.CHECKPOINTS).exists()
    assert (
        train_mlm(settings, first_round.out).notes[0].endswith("is finished already; give another folder to train anew")
    )


def test_the_result_is_a_base_for_others(first_round):
    from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder

    from retriever.training.start import quiet, sparse_encoder

    name = str(first_round.out)
    with quiet():
        assert SentenceTransformer(name, device="cpu").encode("the wing").shape == (32,)
        assert CrossEncoder(name, num_labels=1, device="cpu").predict([("lift", "the wing")]).shape == (1,)
    started = sparse_encoder(name, [], max_length=32)  # no text is needed: the head is there
    assert isinstance(started, SparseEncoder)


def test_a_sentence_encoder_stays_one_and_gets_a_head(settings, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModelForMaskedLM

    from retriever.training.start import quiet

    base = tiny_models.bi_encoder(tmp_path, pooling="cls", prompts={"query": "query : "}, max_length=24)
    out = train_mlm(replace(settings, base=str(base), steps=10), tmp_path / "out").out
    with quiet():
        model = SentenceTransformer(str(out), device="cpu")
        alone = AutoModelForMaskedLM.from_pretrained(out)
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
    assert (model[1].pooling_mode, model.max_seq_length, model.prompts["query"]) == ("cls", 24, "query : ")
    learnt = dict(alone.base_model.named_parameters())
    for name, value in model[0].auto_model.named_parameters():
        assert "pooler" in name or (value == learnt[name]).all()
    assert alone.get_output_embeddings().weight is alone.get_input_embeddings().weight


def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, first_round, tmp_path):
    train_and_kill(train_mlm, settings, tmp_path / "out", steps=15)
    out = train_mlm(settings, tmp_path / "out").out
    assert same(weights(out), weights(first_round.out))
    assert logged(out, "loss") == logged(first_round.out, "loss")


def _loaded(folder):
    from transformers import AutoModelForMaskedLM

    return AutoModelForMaskedLM.from_pretrained(folder).eval()


def test_the_distance_from_an_equal_teacher_is_zero(settings, first_round):
    import torch

    teacher = _loaded(first_round.out)
    inputs = {
        "input_ids": torch.tensor([[2, 17, 18, 3], [2, 19, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "labels": torch.full((2, 4), 17),
    }
    hidden = teacher(**inputs, output_hidden_states=True).hidden_states[-1]
    assert from_teacher(hidden, inputs, teacher).item() == 0
    moved = hidden + torch.tensor([[[3.0]], [[0.0]]])  # the tokens of one text, by 3 in each of 32 dimensions
    assert from_teacher(moved, inputs, teacher).item() == pytest.approx(9 * 32 * 4 / 7, rel=1e-5)
    from_teacher(moved.detach().requires_grad_(), inputs, teacher).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_self_distillation_starts_from_the_original_and_leaves_the_teacher_alone(settings, first_round, tmp_path):
    before = weights(first_round.out)
    still = replace(settings, steps=10, learning_rate=0.0)
    pupil = train_mlm(replace(still, self_distillation=str(first_round.out)), tmp_path / "pupil").out
    alone = train_mlm(still, tmp_path / "alone").out
    original = {name: value.numpy() for name, value in _loaded(settings.base).state_dict().items()}
    assert all((value == original[name]).all() for name, value in weights(pupil).items())
    assert not same(weights(pupil), before)
    assert same(weights(first_round.out), before)
    assert logged(pupil, "eval_loss") == logged(alone, "eval_loss")  # of the masked words alone
    assert logged(pupil, "loss")[0] > logged(alone, "loss")[0] + 1


def test_self_distillation_draws_the_pupil_to_its_teacher(settings, first_round, tmp_path):
    plain = replace(settings, self_distillation=str(first_round.out))
    losses = logged(train_mlm(plain, tmp_path / "out").out, "loss")
    assert losses[-1] < 0.9 * losses[0]


def test_a_teacher_of_another_base(settings, first_round, tmp_path):
    other = str(tiny_models.masked_lm(tmp_path / "other"))
    with pytest.raises(InputError, match="a teacher starts where its pupil does"):
        train_mlm(replace(settings, base=other, self_distillation=str(first_round.out)), tmp_path / "out")
    with pytest.raises(InputError, match="is no teacher: expected what `retriever train mlm` made of the same base"):
        train_mlm(replace(settings, self_distillation=other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_ends_the_training(settings, tmp_path):
    import numpy as np

    with pytest.raises(
        InputError, match=r"the loss or its gradient is (nan|inf) in step \d+; the last good checkpoint"
    ):
        train_mlm(replace(settings, learning_rate=1e35, evaluate_every=1), tmp_path / "out")
    kept = course.newest_checkpoint(tmp_path / "out")
    assert all(np.isfinite(value).all() for value in weights(kept).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": ()}, "there is nothing to train on"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"train_length": 2}, "train_length 2 leaves no room"),
        ({"base": "no/such-model"}, "model 'no/such-model' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_mlm(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_settings_need_another_folder(settings, first_round):
    with pytest.raises(InputError, match=r"other settings \(seed\); give those, or another folder"):
        train_mlm(replace(settings, seed=1), first_round.out)
