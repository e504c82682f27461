"""MiniLM's losses against the paper's formula, written out, and against transformers' own attention."""

import numpy as np
import pytest
import tiny_models

from retriever import InputError
from retriever.training.texts.distillation import distillation_loss, divergence, log_relation


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return tiny_models.bi_encoder(folder / "one"), other(folder / "two")


def other(folder, hidden=32, heads=4):
    """An encoder with other weights, and of another size where it is said."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertModel

    torch.manual_seed(8)
    settings = tiny_models.config(initializer_range=0.5, hidden_size=hidden, num_attention_heads=heads)
    BertModel(settings).save_pretrained(folder / "base")
    tiny_models.tokenizer(32).save_pretrained(folder / "base")
    model = SentenceTransformer(modules=[Transformer(str(folder / "base")), Pooling(hidden)], device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def load(folder):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu").eval()
    model[0].auto_model.set_attn_implementation("eager")
    return model


def losses(student, teacher, texts, embedding=1.0):
    loss = distillation_loss(student, teacher, embedding)([student.preprocess(texts)])
    return {name: value.item() for name, value in loss.items()}


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_the_worked_example():
    """T = [[.7, .3], [.4, .6]], S uniform: the mean KL is .051209, in every head alike."""
    import torch

    teacher = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).log().expand(1, 3, 2, 2)
    student = torch.full((1, 3, 2, 2), 0.5).log()
    assert divergence(teacher, student, torch.ones(1, 2, dtype=torch.bool)).item() == pytest.approx(0.051209, abs=1e-6)


def test_a_relation_is_the_scaled_softmax_of_each_head():
    import torch

    left, right = np.random.default_rng(0).normal(size=(2, 1, 3, 8)).astype(np.float32)
    mask = torch.ones(1, 3, dtype=torch.bool)
    given = log_relation(torch.from_numpy(left), torch.from_numpy(right), mask, 2).exp()
    for head in range(2):
        first, second = (states[0, :, 4 * head : 4 * head + 4] for states in (left, right))
        np.testing.assert_allclose(given[0, head], softmax(first @ second.T / 2), atol=1e-6)


def test_identical_models_have_nothing_to_learn(folders):
    found = losses(load(folders[0]), load(folders[0]), ["the wing", "lift over the plate in a flow"])
    assert found == pytest.approx({"attention": 0.0, "values": 0.0, "embedding": 0.0}, abs=1e-6)


def test_the_losses_are_the_papers(folders):
    """With the attention that transformers itself tells, and values from the layer's own weights."""
    import torch

    teacher, student = load(folders[0]), load(folders[1])
    found = losses(student, teacher, ["lift over the plate"], embedding=2.0)
    attentions, values, vectors = [], [], []
    for model in (teacher, student):
        ids = model.preprocess(["lift over the plate"])
        with torch.inference_mode():
            told = model[0].auto_model(**ids, output_attentions=True, output_hidden_states=True)
            states = model[0].auto_model.encoder.layer[-1].attention.self.value(told.hidden_states[-2])[0].numpy()
        heads = states.reshape(len(states), 4, 8).transpose(1, 0, 2)
        values.append(softmax(heads @ heads.transpose(0, 2, 1) / np.sqrt(8)))
        attentions.append(told.attentions[-1][0].numpy())
        vectors.append(model.encode(["lift over the plate"])[0])
    for name, (of_teacher, of_student) in (("attention", attentions), ("values", values)):
        kl = (of_teacher * np.log(of_teacher / of_student)).sum() / (4 * of_teacher.shape[1])
        assert found[name] == pytest.approx(kl, rel=1e-4)
        assert kl > 0.01
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert found["embedding"] == pytest.approx(2 * (1 - cosine), rel=1e-4)


def test_padding_is_neither_a_row_nor_a_column(folders):
    teacher, student = load(folders[0]), load(folders[1])
    texts = ["wing", "lift over the plate in a flow of heat"]
    alone = [losses(student, teacher, [text]) for text in texts]
    together = losses(student, teacher, texts)
    assert together == pytest.approx({name: (alone[0][name] + alone[1][name]) / 2 for name in together}, rel=1e-4)


def test_other_sizes_with_as_many_heads_can_be_compared(folders, tmp_path):
    found = losses(load(other(tmp_path, hidden=16)), load(folders[0]), ["lift of a wing"], embedding=0.0)
    assert found.keys() == {"attention", "values"}
    assert all(value > 0 for value in found.values())


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"heads": 2}, "the teacher has 4 attention heads and the student 2; .* expected as many"),
        ({"hidden": 16}, "the teacher's vectors have 32 dimensions and the student's 16, .* give embedding 0"),
    ],
)
def test_models_that_cannot_be_compared(folders, tmp_path, size, message):
    with pytest.raises(InputError, match=message):
        distillation_loss(load(other(tmp_path, **size)), load(folders[0]), 1.0)
