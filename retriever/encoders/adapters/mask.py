"""Sparse fine-tuning (LT-SFT; Ansell et al., ACL 2022): an adapter that is a difference of few weights.

The difference phi is kept as positions and values of each tensor; theta0 + w1 phi1 + w2 phi2 is the adapted model.
theta + phi - phi is not theta in floating point, so what is touched is kept and put back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-7
"""Differences up to this size are dropped (Ansell et al.'s code)."""


class Change(NamedTuple):
    """Of one tensor. positions: integers [n] in the flattened tensor; none: all of it. values: float32 [n], added."""

    positions: Tensor | None
    values: Tensor


def choose(differences: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Which entries LT-SFT keeps: bool tensors, true where |difference| is among the `count` largest of all tensors
    together. Where several are as large as the last of them, all of these are kept; what is 0 never is.
    """
    import torch

    sizes = torch.cat([value.abs().flatten() for value in differences.values()])
    least = sizes.topk(min(count, len(sizes))).values[-1]
    return {name: (value.abs() >= least) & (value != 0) for name, value in differences.items()}


def difference(after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Change]:
    """What training changed by more than LEAST, by tensor; tensors without such a change are left out."""
    changes = {}
    for name, old in before.items():
        flat = (after[name].detach() - old).float().flatten()
        if len(positions := (flat.abs() > LEAST).nonzero()[:, 0]):
            changes[name] = Change(positions, flat[positions])
    return changes


def to_tensors(changes: Mapping[str, Change]) -> dict[str, Tensor]:
    """The form of adapter.safetensors: NAME.positions (int32) and NAME.values (float32)."""
    return {
        f"{name}.{part}": tensor
        for name, change in changes.items()
        for part, tensor in (("positions", change.positions.int()), ("values", change.values))  # type: ignore[union-attr]
    }


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Change]:
    """The inverse of `to_tensors`."""
    names = [name.removesuffix(".positions") for name in tensors if name.endswith(".positions")]
    return {name: Change(tensors[f"{name}.positions"].long(), tensors[f"{name}.values"]) for name in names}


def add(parameters: Mapping[str, Any], changes: Mapping[str, Change], weight: float = 1.0) -> Callable[[], None]:
    """Add weight times the changes, in place. Returns what puts the very bits back that were there.

    Raises: InputError where a model has no such tensor, or a smaller one.
    """
    for name, change in changes.items():
        last = -1 if change.positions is None else int(change.positions.max())
        if name not in parameters or last >= parameters[name].numel():
            raise InputError(f"an adapter changes {name}, which this model has not, or not so large")
    kept = [(parameters[name], *_change(parameters[name], change, weight)) for name, change in changes.items()]
    return partial(_put_back, kept)


def replace_with(parameters: Mapping[str, Any], values: Mapping[str, Tensor]) -> Callable[[], None]:
    """Set whole tensors, in place. Returns what puts the old ones back.

    Raises: InputError where a model has no such tensor, or one of another shape.
    """
    for name, value in values.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise InputError(f"an adapter brings {name}, which this model has not, or not in this shape")
    kept = []
    for name, value in values.items():
        kept.append((parameters[name], slice(None), parameters[name].detach().clone().flatten()))
        parameters[name].data.copy_(value)
    return partial(_put_back, kept)


def _change(parameter: Any, change: Change, weight: float) -> tuple[Any, Tensor]:
    """What was touched, and what stood there."""
    where = slice(None) if change.positions is None else change.positions.to(parameter.device)
    flat = parameter.data.view(-1)
    before = flat[where].clone()
    flat[where] = before + weight * change.values.to(parameter)
    return where, before


def _put_back(kept: list[tuple[Any, Any, Tensor]]) -> None:
    for parameter, where, before in reversed(kept):
        parameter.data.view(-1)[where] = before.to(parameter)
