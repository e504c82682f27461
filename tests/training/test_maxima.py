"""The other order of computing gives sentence-transformers' own values and gradients."""

import numpy as np
import pytest
import tiny_models

from retriever.training.start import sparse_encoder

TEXTS = ["the wing", "lift over a plate is not drag in the flow of heat", "shock"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return sparse_encoder(str(tiny_models.masked_lm(tmp_path_factory.mktemp("model"))), TEXTS, max_length=32)


def weights(model, training):
    """Term weights of TEXTS and, of a loss of them, the gradient of every parameter."""
    import torch

    model.train(training)
    torch.manual_seed(0)  # dropout
    model.zero_grad()
    found = model(model.preprocess(TEXTS))["sentence_embedding"]
    (found * torch.linspace(0, 1, found.shape[1])).square().sum().backward()
    return found.detach().numpy(), {name: value.grad.numpy() for name, value in model.named_parameters()}


@pytest.mark.parametrize("training", [False, True])
def test_values_and_gradients_are_those_of_the_modules(model, training):
    from retriever.training.maxima import maxima_first

    if not training:  # the modules work in place there, and have no gradient
        import torch

        with torch.no_grad():
            expected = model.eval()(model.preprocess(TEXTS))["sentence_embedding"].numpy()
            with maxima_first(model):
                given = model(model.preprocess(TEXTS))["sentence_embedding"].numpy()
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
        return
    expected, gradients = weights(model, training)
    with maxima_first(model):
        given, others = weights(model, training)
    assert (expected > 0).any(axis=1).all()
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(others[name], gradient, rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_worked_example_of_splade():
    """Logits [[1, -2, .5], [.5, 3, -1]] pool to (.693147, 1.386294, .405465)."""
    import torch

    from retriever.training.maxima import term_weights

    logits = torch.tensor([[[1.0, -2.0, 0.5], [0.5, 3.0, -1.0], [9.0, 9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])  # what is masked counts for nothing
    found = term_weights(logits, mask, torch.eye(3), torch.zeros(3))
    np.testing.assert_allclose(found.numpy(), [[0.693147, 1.386294, 0.405465]], atol=1e-6)


def test_bfloat16_loses_only_terms_near_zero(model):
    import torch

    from retriever.training.maxima import maxima_first

    with torch.no_grad(), maxima_first(model.eval()):
        exact = model(model.preprocess(TEXTS))["sentence_embedding"]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(model.preprocess(TEXTS))["sentence_embedding"]
    assert rounded.dtype == torch.float32
    assert (exact - rounded).abs().max() < 0.05 * exact.max()


def test_what_is_saved_inside_is_an_ordinary_model(model, tmp_path):
    from sentence_transformers import SparseEncoder

    from retriever.training.maxima import maxima_first

    expected = model.encode(TEXTS).to_dense()
    with maxima_first(model):
        model.save_pretrained(str(tmp_path), create_model_card=False)
    assert (model.encode(TEXTS).to_dense() == expected).all()
    assert (SparseEncoder(str(tmp_path), device="cpu").encode(TEXTS).to_dense() == expected).all()
