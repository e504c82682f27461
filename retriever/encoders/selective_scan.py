"""The recurrences of Mamba and Mamba-2 in plain torch, with gradients, in memory that does not grow with the length.

    h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t        y_t = C_t h_t

(Gu & Dao, "Mamba", arXiv 2312.00752, equations 2 and 3, the zero-order hold of A, Euler's step of B; the skip D x_t and
the gate are the caller's.) Both functions go from block to block of tokens and hold the states of one block only. Both
begin at any state and give the last one, so a text can be read in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 18
"""Numbers of a block of states in `selective_scan`: a megabyte, which stays in a core's cache."""
DUAL_BLOCK = 64
"""Tokens of a block in `dual_scan`, which computes all pairs of a block's tokens."""


def selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba: float [n, length, d], and the state after the last token, float [n, d, states].

    x, dt (after softplus): [n, length, d]; a (negative): [d, states]; b, c: [n, length, states]; start: [n, d, states],
    none for zeros. Computed in float32, in float64 where one of them is. Token after token: each channel and state has
    its own decay, so that no product of matrices gives a block, and the cumulative form leaves the range of float32.
    """
    import torch

    with torch.autocast(x.device.type, enabled=False):
        x, dt, a, b, c = _wide(x, dt, a, b, c)
        state = x.new_zeros(len(x), a.shape[1], a.shape[0]) if start is None else start.to(x).transpose(1, 2)
        y, end = _function().apply(dt, dt * x, a.T.contiguous(), b, c, state)
    return y, end.transpose(1, 2)


def dual_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba-2: float [n, length, heads, d], and the state after the last token, float [n, heads, d, states].

    x: [n, length, heads, d]; dt (after softplus): [n, length, heads]; a (negative): [heads]; b, c: [n, length, groups,
    states], a group for as many heads each; start: [n, heads, d, states], none for zeros. The block form of Dao & Gu,
    "Transformers are SSMs", arXiv 2405.21060, section 6: within a block as masked attention, between blocks by state.
    """
    import torch

    with torch.autocast(x.device.type, enabled=False):
        x, dt, a, b, c = _wide(x, dt, a, b, c)
        n, length, heads, d = x.shape
        shape = (b.shape[2], heads // b.shape[2])
        values = (x * dt[..., None]).unflatten(2, shape).permute(0, 2, 3, 1, 4)  # [n, groups, heads, length, d]
        decay = (dt * a).unflatten(2, shape).permute(0, 2, 3, 1)  # [n, groups, heads, length]
        keys, asked = (each.transpose(1, 2)[:, :, None] for each in (b, c))  # [n, groups, 1, length, states]
        state = x.new_zeros(n, heads, d, b.shape[3]) if start is None else start.to(x)
        state, parts = state.unflatten(1, shape), []
        for part in _blocks(length, DUAL_BLOCK):
            at = (values[:, :, :, part], decay[..., part], keys[:, :, :, part], asked[:, :, :, part])
            y, state = _dual_block(*at, state)
            parts.append(y)
        whole = torch.cat(parts, dim=3).permute(0, 3, 1, 2, 4)  # [n, length, groups, heads, d]
    return whole.flatten(2, 3), state.flatten(1, 2)


def _dual_block(values: Tensor, decay: Tensor, keys: Tensor, asked: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """values: [n, groups, heads, t, d]; decay: its logarithms, without d; state: [n, groups, heads, d, states]."""
    import torch

    since = decay.cumsum(dim=-1)
    later = torch.ones(decay.shape[-1], decay.shape[-1], dtype=torch.bool, device=decay.device).triu(1)
    between = (since[..., :, None] - since[..., None, :]).masked_fill(later, -torch.inf).exp()  # [..., t, t]
    own = (asked @ keys.transpose(-1, -2) * between) @ values
    y = own + asked @ state.transpose(-1, -2) * since.exp()[..., None]
    left = (since[..., -1:] - since).exp()[..., None]  # what the block's end keeps of each token
    return y, state * since[..., -1, None, None].exp() + (values * left).transpose(-1, -2) @ keys


def _wide(*tensors: Tensor) -> list[Tensor]:
    """In one type, float32 at least."""
    import torch

    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    return [tensor.to(wide) for tensor in tensors]


def _blocks(length: int, size: int) -> Iterator[slice]:
    return (slice(*ends) for ends in pairwise([*range(0, length, size), length]))


def _parts(u: Tensor, a: Tensor) -> list[slice]:
    return list(_blocks(u.shape[1], max(1, BLOCK // (len(u) * a.numel()))))


def _states(dt: Tensor, u: Tensor, a: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Decay and states of a block, [t, n, states, d]; dt, u = dt x: [t, n, d]; a: [states, d]; b: [t, n, states].

    The channels lie innermost: all arithmetic runs along them.
    """
    decay = (dt[:, :, None] * a).exp_()
    states = u[:, :, None] * b[..., None]
    before = start
    for state, kept in zip(states.unbind(), decay.unbind(), strict=True):
        before = state.addcmul_(kept, before)
    return decay, states


@cache
def _function() -> Any:
    """The scan as torch's autograd calls it: going back, it makes the states of each block again."""
    import torch

    class SelectiveScan(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
            dt, u, a, b, c, state = given
            y, starts = torch.empty_like(u), []
            for part in _parts(u, a):
                starts.append(state)
                steps, driven, keys, asked = _by_time(part, dt, u, b, c)
                _, states = _states(steps, driven, a, keys, state)
                y[:, part] = (asked[:, :, None] @ states)[:, :, 0].transpose(0, 1)
                state = states[-1].clone()  # a view would hold the block
            ctx.save_for_backward(dt, u, a, b, c, *starts)
            return y, state

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
            with torch.autocast(grads[0].device.type, enabled=False):
                return _backward(ctx.saved_tensors, *grads)

    return SelectiveScan


def _by_time(part: slice, *tensors: Tensor) -> list[Tensor]:
    """The part of [n, length, ...] as [t, n, ...]."""
    return [tensor[:, part].transpose(0, 1) for tensor in tensors]


def _backward(saved: tuple[Tensor, ...], grad_y: Tensor, carried: Tensor) -> tuple[Tensor, ...]:
    """Gradients of dt, u, a, b, c and the first state; carried: that of the last state, [n, states, d]."""
    import torch

    dt, u, a, b, c, *starts = saved
    grads = [torch.empty_like(each) for each in (dt, u, b, c)]
    grad_a = torch.zeros_like(a)
    for part, start in reversed(list(zip(_parts(u, a), starts, strict=True))):
        steps, driven, keys, asked, wanted = _by_time(part, dt, u, b, c, grad_y)
        decay, states = _states(steps, driven, a, keys, start)
        grad = asked[..., None] * wanted[:, :, None]  # of the states, [t, n, states, d]
        grad[-1] += carried
        for now in range(len(grad) - 2, -1, -1):
            grad[now].addcmul_(decay[now + 1], grad[now + 1])
        carried = decay[0] * grad[0]
        grad_u = (keys[:, :, None] @ grad)[:, :, 0]
        grad_b = (grad @ driven[..., None])[..., 0]
        grad_c = (states @ wanted[..., None])[..., 0]
        grad.mul_(torch.cat([start[None], states[:-1]])).mul_(decay)  # now of the logarithm of the decay, dt a
        grad_a += (grad * steps[:, :, None]).sum(dim=(0, 1))
        for whole, of_part in zip(grads, ((grad * a).sum(dim=2), grad_u, grad_b, grad_c), strict=True):
            whole[:, part] = of_part.transpose(0, 1)
    return grads[0], grads[1], grad_a, grads[2], grads[3], carried
