"""MatFormer: the first hidden units of a feed-forward layer are a smaller layer (Devvrit et al., NeurIPS 2024, arXiv
2310.07707).

With the first m of its d_ff units a layer computes W_down[:, :m] act(W_up[:m] x + b_up[:m]) + b_down; attention and all
the rest is shared. The model has to be trained so (`retriever train encoder --nested`): the first units of an ordinary
BERT are no better than any others, and to take them alone is random pruning. Therefore a model is refused whose
config.json does not say which widths it was trained with.

What is used here is a small encoder of queries for documents encoded by the whole one. The paper's own encoders and
code for retrieval are not public, so its numbers could not be reproduced.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeAlias

from retriever.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS = (0.125, 0.25, 0.5, 1.0)
"""The shares of the units that training draws from."""
KEY = "matformer"
"""What config.json calls the widths that a model was trained with."""
Width: TypeAlias = float | tuple[float, ...]
"""Of all layers, or one a layer (Mix'n'Match), which may not fall with depth; the paper advises to rise slowly."""


def feed_forward_layers(transformer: Any, model: str) -> list[Any]:
    """The layers of a BERT, RoBERTa and the like, with their units in `intermediate.dense` and `output.dense`.

    Raises: InputError for a model that is built otherwise.
    """
    layers = list(getattr(getattr(transformer, "encoder", None), "layer", []))
    if not layers or not all(hasattr(layer, "intermediate") and hasattr(layer, "output") for layer in layers):
        kind = getattr(getattr(transformer, "config", None), "model_type", type(transformer).__name__)
        raise InputError(f"{model}: is a {kind}, not a BERT or RoBERTa, whose feed-forward layers can be taken apart")
    return layers


def narrowed(transformer: Any, width: Width, model: str) -> Any:
    """A transformer of its own with fewer units, made of a trained one; the weights outside of `intermediate` and
    `output.dense` are the very same tensors.

    Raises: InputError where the model was not trained with these widths.
    """
    widths = _checked(transformer, width, model)
    shared = {id(tensor): tensor for tensor in (*transformer.parameters(), *transformer.buffers())}
    small = copy.deepcopy(transformer, shared)
    for layer, share in zip(feed_forward_layers(small, model), widths, strict=True):
        up, down = layer.intermediate.dense, layer.output.dense
        units = units_of(up.out_features, share)
        layer.intermediate.dense = _linear(up.weight[:units], up.bias[:units])
        layer.output.dense = _linear(down.weight[:, :units], down.bias)
    return small


def units_of(units: int, share: float) -> int:
    """How many of a layer's hidden units a width means."""
    return max(1, round(units * share))


def _checked(transformer: Any, width: Width, model: str) -> tuple[float, ...]:
    """A width for each layer."""
    trained = getattr(getattr(transformer, "config", None), KEY, None)
    if not trained:
        raise InputError(
            f"{model}: was not trained with nested feed-forward layers, so its first units are no better than any "
            "others; train it with `retriever train encoder --nested`"
        )
    layers = feed_forward_layers(transformer, model)
    widths = width if isinstance(width, tuple) else (width,) * len(layers)
    if len(widths) != len(layers):
        raise InputError(f"{model}: has {len(layers)} layers, and query_width names {len(widths)}")
    if wrong := [share for share in widths if share not in trained]:
        raise InputError(f"{model}: was trained with widths {', '.join(map(str, trained))}, not {wrong[0]}")
    if list(widths) != sorted(widths):
        raise InputError(f"query_width may not fall from a layer to the next: {', '.join(map(str, widths))}")
    return widths


def _linear(weight: Tensor, bias: Tensor) -> Any:
    import torch

    made = torch.nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    made.weight = torch.nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    made.bias = torch.nn.Parameter(bias.detach(), requires_grad=False)
    return made
