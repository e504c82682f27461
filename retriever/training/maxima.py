"""SPLADE's pooling, computed in another order while a model is trained.

The weight of a term is max over positions of log(1 + ReLU(logit)) (SPLADE v2, Formal et al. 2021, arXiv 2109.10086).
The maximum commutes with the increasing log(1 + ReLU(.)), and only the position of a term's maximum gets a gradient,
only where the logit is above zero: some hundred of a text's n_tokens x n_terms logits. So all logits are computed once
without a graph to find these, and these few are computed again with one. Values and gradients are those of
sentence-transformers' modules (`tests/training/test_maxima.py`), in a fraction of the memory and half of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder
    from torch import Tensor


@contextmanager
def maxima_first(model: SparseEncoder) -> Iterator[None]:
    """Let a model of a masked-language-model transformer and max pooling compute in this order inside the block.

    Its modules and weights stay what they are: what is saved inside the block is an ordinary model.
    """
    decoder, pooling = model[0].auto_model.get_output_embeddings(), model[1]
    decoder.forward = lambda hidden: hidden
    pooling.forward = partial(_pool, decoder)
    try:
        yield
    finally:
        del decoder.forward, pooling.forward


def _pool(decoder: Any, features: dict[str, Any]) -> dict[str, Any]:
    hidden = features["token_embeddings"]  # [n, length, d]: the decoder handed it through
    mask = features["attention_mask"].bool()
    return features | {"sentence_embedding": term_weights(hidden, mask, decoder.weight, decoder.bias)}


def term_weights(hidden: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """float32 [n, n_terms]: max over positions of log(1 + ReLU(hidden weight' + bias)).

    hidden: [n, length, d]; mask: bool [n, length]; weight: [n_terms, d]; bias: [n_terms]. Under autocast the maxima are
    looked for in its type: a term whose logit is within its rounding of zero may be missed, one whose maxima lie so
    close may get the second; the value is always float32.
    """
    import torch

    device = hidden.device.type
    fast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        text, term, position = _active(hidden.to(fast), mask, weight.to(fast), bias)
        at = hidden.float().flatten(0, 1).index_select(0, text * hidden.shape[1] + position)  # [n_active, d]
        logits = (at * weight.index_select(0, term)).sum(dim=1) + bias.index_select(0, term)
        empty = logits.new_zeros(hidden.shape[0], weight.shape[0])
        return empty.index_put((text, term), logits.relu().log1p())


def _active(hidden: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Text, term and position, int64 [n_active] each, of every maximum above zero."""
    import torch

    found = []
    with torch.no_grad():
        for number, (states, real) in enumerate(zip(hidden, mask, strict=True)):
            best, position = (states[real] @ weight.T).max(dim=0)  # [n_terms], of [length, n_terms]
            term = (best + bias > 0).nonzero()[:, 0]
            at = real.nonzero()[:, 0][position[term]]
            found.append((torch.full_like(term, number), term, at))
    text, term, position = (torch.cat(parts) for parts in zip(*found, strict=True))
    return text, term, position
