"""BERT for a head that reads the first token alone: the last layer computes no other."""

from __future__ import annotations

import copy
from typing import Any


def first_token_only(base: Any) -> Any:
    """A transformer's copy, sharing its parameters, whose output is the first token's: [n, 1, d].

    None for one that is not built as BERT is (RoBERTa, ELECTRA and their like are). It saves five sixths of a layer:
    keys and values are of all tokens, but query, output and feed-forward of one. So little is left that it stays in
    float32 where `encoders.runtime` turns the others into bfloat16: the order of like scores is better kept.
    """
    try:
        encoder, layers = base.encoder, base.encoder.layer
        last = _layer(layers[-1])
    except (TypeError, AttributeError, IndexError):  # a model of another build
        return None
    shortened = type(layers)([*layers[:-1], last])
    inner = _with(encoder, layer=shortened)
    return _with(base, encoder=inner, **({"pooler": None} if getattr(base, "pooler", None) else {}))


def _with(module: Any, **parts: Any) -> Any:
    """A copy of a module with other parts, and the same ones for the rest."""
    made = copy.copy(module)
    made._modules = {**module._modules, **parts}
    return made.eval()


def _layer(layer: Any) -> Any:
    """BERT's layer for the first token. Raises: AttributeError where it is another's layer."""
    import torch

    own, output = layer.attention.self, layer.attention.output
    heads, query, key, value = own.num_attention_heads, own.query, own.key, own.value
    if own.is_decoder:
        raise AttributeError("its tokens see only those before them")

    class FirstToken(torch.nn.Module):  # type: ignore[misc]
        exact = True

        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.output = query, key, value, output
            self.inner, self.outer = layer.intermediate, layer.output

        def forward(self, hidden: Any, mask: Any = None, *_: Any, **__: Any) -> Any:
            dtype = next(self.parameters()).dtype
            hidden = hidden.to(dtype)
            first = hidden[:, :1]
            parts = (self.query(first), self.key(hidden), self.value(hidden))
            split = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts]  # [n, heads, tokens, d / heads]
            seen = None if mask is None else mask[:, :, :1]  # [n, 1, 1, tokens]
            if seen is not None and seen.is_floating_point():
                seen = seen.to(dtype)
            attended = torch.nn.functional.scaled_dot_product_attention(*split, attn_mask=seen)
            context = self.output(attended.transpose(1, 2).flatten(2), first)  # [n, 1, d]
            return self.outer(self.inner(context), context)

    return FirstToken()
