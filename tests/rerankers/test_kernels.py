"""Soft counts against the worked example, and what padding must not do."""

from typing import Any

import numpy as np
import pytest

from retriever.rerankers.kernels import EXACT, MUS, SOFT, log_counts, soft_counts

SIGMAS = [SOFT] * 10 + [EXACT]


def everywhere() -> Any:
    import torch

    return torch.ones(1, dtype=torch.bool)


def test_the_worked_example():
    import torch

    cosines = torch.tensor([[1.0, 0.5]])  # one query token, two of the document
    logs = log_counts(soft_counts(cosines, everywhere(), SIGMAS), everywhere(), plus=1e-6)
    expected = [
        *(-13.8155, -13.8155, -13.8155, -13.8155, -13.8004, -7.9970, -2.0000, 0.0000, -1.9211, -0.4994, 0.0000),
    ]
    np.testing.assert_allclose(logs, expected, atol=1e-4)


def test_a_kernel_counts_what_is_near_its_cosine():
    import torch

    exact = soft_counts(torch.tensor([[mu for mu in MUS]]), everywhere(), SIGMAS)[0]
    assert exact[-1] == pytest.approx(1, abs=1e-6)  # only an equal vector counts as one
    assert soft_counts(torch.tensor([[0.99]]), everywhere(), SIGMAS)[0, -1] < 1e-20
    assert soft_counts(torch.tensor([[0.99]]), everywhere(), [SOFT] * 11)[0, -1] == pytest.approx(
        np.exp(-0.005), abs=1e-6
    )
    assert soft_counts(torch.tensor([[0.3] * 5]), everywhere(), SIGMAS)[0, 6] == pytest.approx(5, abs=1e-5)


def test_padding_counts_nothing_in_text_and_query():
    import torch

    cosines = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(1))
    text, query = torch.ones(2, 6, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)
    text[1, 3:], query[1, 2:] = False, False
    made = log_counts(soft_counts(cosines, text[:, None], SIGMAS), query, plus=1e-6)
    alone = log_counts(soft_counts(cosines[1:, :2, :3], everywhere(), SIGMAS), everywhere(), plus=1e-6)
    torch.testing.assert_close(made[1:], alone)
    assert not torch.allclose(made[0], made[1])


def test_a_query_token_that_meets_nothing_is_no_padding():
    import torch

    counts = soft_counts(torch.zeros(1, 2, 3), torch.zeros(1, 1, 3, dtype=torch.bool), SIGMAS)
    there = torch.tensor([[True, False]])
    assert log_counts(counts, there, plus=1e-6)[0].tolist() == pytest.approx([np.log(1e-6)] * 11)
    assert log_counts(counts, there, least=1e-4)[0].tolist() == pytest.approx([np.log(1e-4)] * 11)
    assert log_counts(counts, ~there | there, least=1e-4)[0].tolist() == pytest.approx([2 * np.log(1e-4)] * 11)
