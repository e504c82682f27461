"""The scans against their recurrence, token by token in float64."""

import numpy as np
import pytest

from retriever.encoders import selective_scan as scans
from retriever.encoders.selective_scan import dual_scan, selective_scan

LENGTHS = [1, 5, 63, 64, 65, 200]


def recurrence(x, dt, a, b, c, start):
    """h_t = exp(dt A) h + dt B x, y_t = C h_t for one text: x, dt [length, d]; a [d, states]; b, c [length, states]."""
    h, outputs = start.copy(), []
    for t in range(len(x)):
        h = np.exp(dt[t][:, None] * a) * h + dt[t][:, None] * b[t][None] * x[t][:, None]
        outputs.append(h @ c[t])
    return np.array(outputs), h


def mamba(length, n=2, d=6, states=3, dtype="float64"):
    """Inputs of `selective_scan`, and a state to begin at."""

    import torch

    pick = torch.Generator().manual_seed(length)
    x, steps = (torch.randn(n, length, d, generator=pick, dtype=torch.float64) for _ in range(2))
    b, c = (torch.randn(n, length, states, generator=pick, dtype=torch.float64) for _ in range(2))
    a = -torch.arange(1, states + 1, dtype=torch.float64).expand(d, states)
    start = torch.randn(n, d, states, generator=pick, dtype=torch.float64)
    given = (x, torch.nn.functional.softplus(steps - 2), a.contiguous(), b, c, start)
    return tuple(each.to(getattr(torch, dtype)) for each in given)


def mamba2(length, n=2, groups=2, heads=4, d=3, states=5, dtype="float64"):
    """Inputs of `dual_scan`, and a state to begin at."""

    import torch

    pick = torch.Generator().manual_seed(length)
    x = torch.randn(n, length, heads, d, generator=pick, dtype=torch.float64)
    steps = torch.randn(n, length, heads, generator=pick, dtype=torch.float64)
    b, c = (torch.randn(n, length, groups, states, generator=pick, dtype=torch.float64) for _ in range(2))
    a = -torch.arange(1, heads + 1, dtype=torch.float64)
    start = torch.randn(n, heads, d, states, generator=pick, dtype=torch.float64)
    return tuple(
        each.to(getattr(torch, dtype)) for each in (x, torch.nn.functional.softplus(steps - 2), a, b, c, start)
    )


def expected_mamba(x, dt, a, b, c, start):
    """float64 [n, length, d] and [n, d, states]."""
    arrays = [each.double().numpy() for each in (x, dt, b, c, start)]
    rows = [recurrence(x, dt, a.double().numpy(), b, c, start) for x, dt, b, c, start in zip(*arrays, strict=True)]
    return np.stack([y for y, _ in rows]), np.stack([end for _, end in rows])


def expected_mamba2(x, dt, a, b, c, start):
    """float64 [n, length, heads, d] and [n, heads, d, states]: each head is a Mamba with one decay for all states."""
    x, dt, a, b, c, start = (each.double().numpy() for each in (x, dt, a, b, c, start))
    y, end = np.empty_like(x), np.empty_like(start)
    for i, head in np.ndindex(x.shape[0], x.shape[2]):
        group = head * b.shape[2] // x.shape[2]
        decay = np.full((x.shape[3], b.shape[3]), a[head])
        steps = np.repeat(dt[i, :, head, None], x.shape[3], axis=1)
        y[i, :, head], end[i, head] = recurrence(
            x[i, :, head], steps, decay, b[i, :, group], c[i, :, group], start[i, head]
        )
    return y, end


KINDS = pytest.mark.parametrize(
    ("scan", "inputs", "expected"),
    [(selective_scan, mamba, expected_mamba), (dual_scan, mamba2, expected_mamba2)],
    ids=["mamba", "mamba2"],
)


def test_five_tokens_by_hand():
    import torch

    x, dt = torch.tensor([1.0, 2, 0, -1, 3]), torch.tensor([0.5, 0.1, 1.0, 0.2, 0.3])
    y, end = selective_scan(
        x[None, :, None], dt[None, :, None], torch.tensor([[-2.0]]), torch.ones(1, 5, 1), x[None, :, None]
    )
    h, wanted = 0.0, []
    for step, value in zip(dt.tolist(), x.tolist(), strict=True):
        h = np.exp(-2 * step) * h + step * value
        wanted.append(value * h)
    np.testing.assert_allclose(y[0, :, 0], wanted, rtol=1e-6)
    np.testing.assert_allclose(end.item(), h, rtol=1e-6)
    np.testing.assert_allclose(wanted[:2], [0.5, 2 * (np.exp(-0.2) * 0.5 + 0.2)], rtol=1e-6)


@KINDS
@pytest.mark.parametrize("length", LENGTHS)
def test_a_scan_is_its_recurrence(scan, inputs, expected, length):
    given = inputs(length)
    for got, wanted in zip(scan(*given), expected(*given), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


@KINDS
def test_without_a_state_it_begins_at_zero(scan, inputs, expected):
    *given, start = inputs(70)
    for got, wanted in zip(scan(*given), expected(*given, start * 0), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


@KINDS
def test_float32_stays_close_over_thousands_of_tokens(scan, inputs, expected):
    given = inputs(3000, n=1, dtype="float32")
    wanted = expected(*given)[0]
    error = np.abs(scan(*given)[0].numpy() - wanted).max()
    assert error < 1e-5 * np.abs(wanted).max()


@KINDS
@pytest.mark.parametrize("cuts", [[1, 2, 100], [64], [3]])
def test_a_scan_in_parts_is_the_whole_scan(scan, inputs, expected, cuts):
    import torch

    *given, start = inputs(130)
    whole, end = scan(*given, start)
    x, dt, a, b, c = given
    parts, state = [], start
    for first, stop in zip([0, *cuts], [*cuts, 130], strict=True):
        y, state = scan(x[:, first:stop], dt[:, first:stop], a, b[:, first:stop], c[:, first:stop], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state, end, rtol=1e-10, atol=1e-12)


@KINDS
def test_gradients_are_those_of_finite_differences(monkeypatch, scan, inputs, expected):
    import torch

    monkeypatch.setattr(scans, "BLOCK", 3 * 2 * 6 * 3)  # blocks of three tokens
    monkeypatch.setattr(scans, "DUAL_BLOCK", 3)
    given = [each.requires_grad_() for each in inputs(7)]
    assert torch.autograd.gradcheck(scan, given)


def test_under_autocast_the_scan_stays_in_float32():
    import torch

    given = mamba(40, dtype="float32")
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(*given)[0]
    torch.testing.assert_close(y, selective_scan(*given)[0], rtol=0, atol=0)
