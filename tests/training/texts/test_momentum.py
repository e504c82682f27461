"""The momentum encoder, its queue, and the loss, against the formulas of ESimCSE and hand-computed values."""

import math

import pytest
import tiny_models

from retriever.training.settings import EsimcseTraining
from retriever.training.texts.momentum import contrast, follow, info_nce, push


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_models.bi_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def model(base):
    """Without dropout, so that it can be asked twice."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(base), device="cpu").eval()


def settings(**changes):
    return EsimcseTraining(**{"base": "", "texts": (), **changes})


TEXTS = [["the wing", "heat of a body"], ["drag", "a flow"], ["shock", "the plate is over"]]


def batches(model):
    """Each batch beside itself."""
    return [[dict(model.preprocess(texts)) for _ in range(2)] for texts in TEXTS]


def test_the_momentum_encoder_after_three_steps():
    """theta_m = 1 and theta_e = 0 give .995 ** 3 = .985075."""
    import torch

    slow, quick = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(slow.weight)
    torch.nn.init.zeros_(quick.weight)
    for _ in range(3):
        follow(slow, quick, 0.995)
    assert slow.weight.item() == pytest.approx(0.985075, abs=1e-6)
    assert quick.weight.item() == 0


def test_info_nce_of_known_cosines():
    """Cosines [[.9, .1], [.2, .8]] at temperature 1: the mean of ln(1 + e^-.8) and ln(1 + e^-.6), .404294."""
    import torch

    first = torch.tensor([[0.9, 0.1, math.sqrt(1 - 0.82)], [0.2, 0.8, math.sqrt(1 - 0.68)]])
    second = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    empty = torch.zeros(0, 3)
    assert info_nce(first, second, empty, 1.0).item() == pytest.approx(0.404294, abs=1e-6)
    assert info_nce(3 * first, 5 * second, empty, 1.0).item() == pytest.approx(0.404294, abs=1e-6)
    queue = torch.tensor([[0.0, 0.0, 1.0]])
    expected = [
        math.log(sum(math.exp(each) for each in row)) - row[i]
        for i, row in enumerate([[0.9, 0.1, math.sqrt(1 - 0.82)], [0.2, 0.8, math.sqrt(1 - 0.68)]])
    ]
    assert info_nce(first, second, queue, 1.0).item() == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_the_queue_keeps_the_last_vectors_in_order():
    import torch

    queue = torch.zeros(0, 1)
    for batch in ([[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [6.0]]):
        queue = push(queue, torch.tensor(batch), 5)
    assert queue[:, 0].tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert push(queue, torch.tensor([[7.0]]), 0).shape == (0, 1)


def test_an_empty_queue_is_the_loss_of_simcse(model):
    from torch.nn.functional import cosine_similarity

    loss = contrast(model, settings(queue=0))
    texts = batches(model)[0]
    vectors = loss.head(model(dict(texts[0]))["sentence_embedding"])
    cosines = cosine_similarity(vectors.unsqueeze(1), vectors.unsqueeze(0), dim=2) / 0.05
    expected = -cosines.log_softmax(dim=1).diagonal().mean()
    assert loss(texts).item() == pytest.approx(expected.item(), abs=1e-5)
    assert loss.queue.shape == (0, 32)


def test_the_queue_holds_what_came_before_and_never_the_batch_itself(model):
    loss = contrast(model, settings(queue=3))
    for number, texts in enumerate(batches(model)):
        before = loss.queue.clone()
        assert len(before) == min(3, 2 * number)
        first, second = (loss.head(model(dict(text))["sentence_embedding"]) for text in texts)
        expected = info_nce(first, second, before, 0.05).item()
        assert loss(texts).item() == pytest.approx(expected, abs=1e-5)
        seen = loss.slow_head(loss.slow(dict(texts[0]))["sentence_embedding"])
        assert (loss.queue[-2:] - seen).abs().max() < 1e-6
    assert len(loss.queue) == 3


def test_the_momentum_encoder_reads_the_original_without_dropout_and_learns_nothing_itself(model):
    import torch

    loss = contrast(model, settings(queue=8))
    model.train()
    original, other = model.preprocess(TEXTS[0]), model.preprocess(TEXTS[1])
    with torch.no_grad():
        expected = loss.slow_head(loss.slow(dict(original))["sentence_embedding"])
    value = loss([dict(original), dict(other)])
    assert (loss.queue - expected).abs().max() < 1e-5  # but for rounding; dropout changes far more
    assert (loss.head(model(dict(original))["sentence_embedding"]) - expected).abs().max() > 1e-3
    value.backward()
    assert all(not parameter.requires_grad for parameter in [*loss.slow.parameters(), *loss.slow_head.parameters()])
    assert all(parameter.grad is not None for parameter in loss.head.parameters())
    assert not loss.queue.requires_grad


def test_the_momentum_encoder_follows_in_every_step(model):
    import torch

    loss = contrast(model, settings(momentum=0.5))
    name, start = next((name, value.clone()) for name, value in loss.slow.named_parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    loss(batches(model)[0])
    assert torch.allclose(dict(loss.slow.named_parameters())[name], start + 0.5)
    loss(batches(model)[1])
    assert torch.allclose(dict(loss.slow.named_parameters())[name], start + 0.75)
