"""How texts reach a transformer: token ids cut to its length, in batches of like length by a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from retriever.encoders.runtime import Features, Runtimes
from retriever.types import Mask

NO_LIMIT = 10**9
"""A tokenizer's length above it is transformers' way of saying that there is none."""


class Tokens(NamedTuple):
    """Token ids of n texts, cut to the model's length.

    cut: bool [n], whose text was longer. encodings: the tokenizer's own, with words and offsets; none from a slow one.
    """

    ids: list[list[int]]
    cut: Mask
    encodings: list[Any]

    @property
    def truncated(self) -> int:
        """How many texts were cut."""
        return int(np.count_nonzero(self.cut))


def tokenize(tokenizer: Any, texts: list[str], max_length: int | None, *, special: bool = True) -> Tokens:
    """At most `max_length` tokens of each text, the special ones that are added where `special` included.

    max_length: none for the tokenizer's own, which may be none too.
    """
    if not texts:
        return Tokens([], np.zeros(0, dtype=np.bool_), [])
    limited = (max_length or tokenizer.model_max_length) <= NO_LIMIT
    options: dict[str, Any] = {"truncation": limited, "max_length": max_length, "add_special_tokens": special}
    if not getattr(tokenizer, "is_fast", False):
        plain = tokenizer(texts, **options)["input_ids"]
        return Tokens(plain, np.array([len(ids) >= (max_length or len(ids) + 1) for ids in plain]), [])
    encoded = tokenizer(
        texts,
        **options,
        return_overflowing_tokens=True,  # what overflows tells which texts were cut
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    owners = np.asarray(encoded["overflow_to_sample_mapping"])
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    counts = np.diff(np.append(first, len(owners)))
    return Tokens(
        [encoded["input_ids"][i] for i in first], np.asarray(counts > 1), [encoded.encodings[i] for i in first]
    )


def hidden_states(
    ids: Sequence[Sequence[int]], tokenizer: Any, runtimes: Runtimes, types: Sequence[Sequence[int]] | None = None
) -> Iterator[tuple[list[int], Features]]:
    """Batches, longest texts first: their positions among the texts, and features with `token_embeddings`.

    types: the token_type_ids, for a model that is given them.
    To be called in `torch.inference_mode()`. A batch's embeddings are valid until the next is asked for.
    """
    lengths = [len(row) for row in ids]
    runtime = runtimes.of(sum(lengths))
    places = list(by_budget(lengths, runtime.token_budget))
    padded = (
        features([ids[i] for i in place], tokenizer, runtimes.device, types and [types[i] for i in place])
        for place in places
    )
    yield from zip(places, runtime.run(padded), strict=True)


def features(
    ids: Sequence[Sequence[int]], tokenizer: Any, device: Any, types: Sequence[Sequence[int]] | None = None
) -> Features:
    """int64 tensors [n, longest]: ids, mask and, where given, types, padded on the side that the tokenizer pads on."""
    import torch

    width = max(1, *map(len, ids))  # a tokenizer that adds nothing makes no token of an empty text
    padded = np.full((len(ids), width), tokenizer.pad_token_id or 0, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for i, row in enumerate(ids):
        where = slice(width - len(row), width) if tokenizer.padding_side == "left" else slice(len(row))
        padded[i, where], mask[i, where] = row, 1
    arrays = {"input_ids": padded, "attention_mask": mask}
    if types is not None:
        kinds = np.full_like(padded, tokenizer.pad_token_type_id)
        kinds[mask > 0] = [kind for row in types for kind in row]
        arrays["token_type_ids"] = kinds
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def vocabulary(tokenizer: Any, size: int) -> list[str]:
    """Tokens by id, all different; an id that the tokenizer has no token for is named by its number."""
    tokens = tokenizer.convert_ids_to_tokens(range(size))
    return [f"[id {i}]" if token is None else token for i, token in enumerate(tokens)]


def by_budget(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions of texts, longest first, in batches of at most `budget` tokens with padding."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
