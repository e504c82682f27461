"""Bottlenecks behind each layer's feed-forward part, as Pfeiffer et al. place them (AdapterFusion, EACL 2021), and the
invertible adapter around the embeddings of MAD-X (Pfeiffer et al., EMNLP 2020).

With h the feed-forward output, x its input and LN the layer's own last norm, a layer gives
LN(h + up(relu(down(LN(h + x)))) + x): the residual h is taken before the norm, the norm reads the adapter's input and
its output, and the adapter has no norm of its own. h + x is all that LN is given, so an adapter is a function before
LN, s -> s + up(relu(down(LN(s)))), and several of them are stacked by doing this in turn.

Proven: the arithmetic and the published parameter counts. Not proven: the papers' effectiveness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from retriever.encoders.adapters.files import body_of
from retriever.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Undo = Callable[[], None]
STD = 0.02
"""Of the weights of a new adapter that are not 0, as BERT's."""


def count_parameters(width: int, layers: int, reduction: int, *, invertible: bool = False) -> int:
    """Of an adapter for a transformer with so many layers of this width, whose bottlenecks have width / reduction."""
    half = width // 2
    outer = 2 * _pair(half, half // reduction) if invertible else 0
    return layers * _pair(width, width // reduction) + outer


def _pair(width: int, narrow: int) -> int:
    return 2 * width * narrow + narrow + width


def new_adapter(width: int, layers: int, reduction: int, *, invertible: bool) -> Any:
    """A ModuleDict: `layers` holds a bottleneck for each layer, `invertible` the two functions of the coupling.

    The last weights of each are 0, so that a new adapter changes nothing; torch's random numbers decide the others.

    Raises: InputError where the reduction leaves no width.
    """
    from torch import nn

    half = width // 2
    if not 1 <= reduction <= (half if invertible else width):
        raise InputError(f"reduction is from 1 to {half if invertible else width} for this model, not {reduction}")
    parts = {"layers": nn.ModuleList(_bottleneck(width, width // reduction) for _ in range(layers))}
    if invertible:
        parts["invertible"] = nn.ModuleList(_bottleneck(half, half // reduction) for _ in range(2))
    return nn.ModuleDict(parts)


def _bottleneck(width: int, narrow: int) -> Any:
    from torch import nn

    down, up = nn.Linear(width, narrow), nn.Linear(narrow, width)
    nn.init.normal_(down.weight, std=STD)
    for zero in (down.bias, up.weight, up.bias):
        nn.init.zeros_(zero)
    return nn.Sequential(down, nn.ReLU(), up)


def last_norms(model: Any) -> list[Any]:
    """The norm at the end of each layer of the body.

    Raises: InputError for a transformer that does not end its layers with one.
    """
    from torch.nn import LayerNorm

    body = body_of(model)
    try:
        if hasattr(body, "transformer"):  # DistilBERT
            norms = [layer.output_layer_norm for layer in body.transformer.layer]
        else:
            norms = [layer.output.LayerNorm for layer in body.encoder.layer]
    except (AttributeError, TypeError):
        norms = []
    if not norms or not all(isinstance(norm, LayerNorm) for norm in norms):
        raise InputError(
            f"a bottleneck needs layers that end with a norm, as BERT, RoBERTa, XLM-R and MiniLM have them; "
            f"{type(body).__name__} has none; a LoRA or a mask fits it"
        )
    return norms


def attach(model: Any, adapters: Sequence[Any], weight: float = 1.0) -> Undo:
    """Put one adapter before all that are there already, or two: the first for a query's tokens and the second for a
    document's. Returns what takes it off again.

    weight: of what the adapter adds. Raises: InputError where it has not as many layers as the model.
    """
    from torch.nn import ModuleList

    norms = last_norms(model)
    for adapter in adapters:
        layers = len(adapter["layers"])
        if layers != len(norms):
            raise InputError(f"an adapter for {layers} layers does not fit a model of {len(norms)}")
    side = _Side(model) if len(adapters) == 2 else None
    undo: list[Undo] = [side.leave] if side else []
    for norm, *parts in zip(norms, *(adapter["layers"] for adapter in adapters), strict=True):
        held = ModuleList(parts).to(norm.weight.device)  # a child of the norm: it follows it to other types and devices
        name = next(name for name in map("adapter_{}".format, count()) if name not in norm._modules)
        norm.add_module(name, held)
        handle = norm.register_forward_pre_hook(partial(_through, held, weight, side))
        undo += [handle.remove, partial(norm._modules.pop, name)]
    return partial(_all, undo)


def _through(held: Any, weight: float, side: _Side | None, norm: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """What the norm is to be given: s + weight * up(relu(down(LN(s)))); s: float32 [n, tokens, d]."""
    import torch

    (given,) = inputs
    normed = norm.forward(given)  # not norm(...), which would come back here
    added = [part(normed) for part in held]
    if side is None:
        return (given + weight * added[0],)
    query = side.query[:, : given.shape[1], None]  # [n, tokens, 1]; fewer tokens where only the first is computed
    return (given + weight * torch.where(query, added[0], added[1]),)


class _Side:
    """Which tokens of a pair are the query's: by the token types, or up to the end of the first text where there is
    one type only. query: bool [n, tokens], of the batch that the model is reading.
    """

    def __init__(self, model: Any) -> None:
        body = body_of(model)
        self._end = body.config.eos_token_id if (getattr(body.config, "type_vocab_size", None) or 1) < 2 else None
        self.query: Any = None
        self.leave = body.register_forward_pre_hook(self._look, with_kwargs=True).remove

    def _look(self, _: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self._end is None:
            if named.get("token_type_ids") is None:
                raise InputError("A | B: a split needs pairs of texts, which a cross-encoder reads")
            self.query = named["token_type_ids"] == 0
        else:
            ends = (named.get("input_ids", *inputs[:1]) == self._end).long()
            self.query = ends.cumsum(dim=1) - ends == 0


def couple(functions: Any, given: Tensor) -> Tensor:
    """NICE's coupling of two halves, y1 = x1 + F(x2), y2 = x2 + G(y1). given: float32 [..., d]."""
    import torch

    first, second = given.chunk(2, dim=-1)  # [..., d / 2] each
    first = first + functions[0](second)
    return torch.cat([first, second + functions[1](first)], dim=-1)


def uncouple(functions: Any, given: Tensor) -> Tensor:
    """The inverse of `couple`."""
    import torch

    first, second = given.chunk(2, dim=-1)  # [..., d / 2] each
    second = second - functions[1](first)
    return torch.cat([first - functions[0](second), second], dim=-1)


def attach_invertible(model: Any, functions: Any) -> Undo:
    """Put the coupling behind a language model's embeddings, and its inverse before the output embeddings."""
    embeddings, decoder = body_of(model).embeddings, model.get_output_embeddings()
    embeddings.add_module("invertible", functions)
    behind = embeddings.register_forward_hook(lambda module, inputs, given: couple(functions, given))
    before = decoder.register_forward_pre_hook(lambda module, inputs: (uncouple(functions, inputs[0]),))
    return partial(_all, [behind.remove, before.remove, partial(embeddings._modules.pop, "invertible")])


def _all(steps: Sequence[Undo]) -> None:
    for step in reversed(steps):
        step()
