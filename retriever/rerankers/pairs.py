"""Pairs of texts as a model's tokenizer joins them, each distinct text tokenised once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from retriever.types import Mask


class PairTokens(NamedTuple):
    """Token ids and token types of n pairs, and cut: bool [n], which pairs were longer than the model reads."""

    ids: list[list[int]]
    types: list[list[int]]
    cut: Mask


class Frame(NamedTuple):
    """The special tokens before, between and behind two texts, and the types of all parts, in their order."""

    special: tuple[list[int], list[int], list[int]]
    types: tuple[list[int], int, list[int], int, list[int]]

    def __len__(self) -> int:
        return sum(map(len, self.special))


def tokenize_pairs(tokenizer: Any, pairs: Sequence[tuple[str, str]], max_length: int | None) -> PairTokens:
    """What `tokenizer(pairs, truncation="longest_first", max_length=max_length)` gives, and which pairs it cut.

    That is what sentence-transformers' CrossEncoder asks for: tokens are dropped from the longer of the two texts, as a
    rule the document.
    """
    frame = frame_of(tokenizer)
    if frame is None:
        return _as_it_is(tokenizer, pairs, max_length)
    lefts, rights = (_tokenize(tokenizer, [pair[side] for pair in pairs], max_length) for side in (0, 1))
    (before, between, behind), types = frame.special, frame.types
    room = None if max_length is None else max(0, max_length - len(frame))
    ids, kinds, cut = [], [], np.zeros(len(pairs), dtype=np.bool_)
    for i, (left_text, right_text) in enumerate(pairs):
        (left, long_left), (right, long_right) = lefts[left_text], rights[right_text]
        if room is not None and long_left + long_right > room:
            first, second = longest_first(long_left, long_right, room)
            left, right, cut[i] = left[:first], right[:second], True
        ids.append([*before, *left, *between, *right, *behind])
        kinds.append([*types[0], *[types[1]] * len(left), *types[2], *[types[3]] * len(right), *types[4]])
    return PairTokens(ids, kinds, cut)


def longest_first(left: int, right: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts, too long together, are kept: the longer loses them until both are alike."""
    short = min(left, right, room // 2)
    long = room - short
    return (short, long) if left <= right else (long, short)


def _tokenize(tokenizer: Any, texts: Sequence[str], max_length: int | None) -> dict[str, tuple[list[int], int]]:
    """By text: the first `max_length` of its token ids, without special tokens, and how many it has."""
    distinct = list(dict.fromkeys(texts))
    encoded = tokenizer(
        distinct,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids = encoded["input_ids"]
    return {text: (row[:max_length], len(row)) for text, row in zip(distinct, ids, strict=True)}


def frame_of(tokenizer: Any) -> Frame | None:
    """Where a tokenizer's special tokens stand; none for one that does not say, or that cuts beginnings."""
    if not getattr(tokenizer, "is_fast", False) or tokenizer.truncation_side != "right":
        return None
    encoding = tokenizer("a", "a").encodings[0]
    owners = encoding.sequence_ids
    if 0 not in owners or 1 not in owners:
        return None
    left, right = ([i for i, owner in enumerate(owners) if owner == side] for side in (0, 1))
    parts = slice(0, left[0]), slice(left[-1] + 1, right[0]), slice(right[-1] + 1, None)
    ids, types = encoding.ids, encoding.type_ids
    before, between, behind = ([*types[part]] for part in parts)
    return Frame(
        (ids[parts[0]], ids[parts[1]], ids[parts[2]]),
        (before, types[left[0]], between, types[right[0]], behind),
    )


def _as_it_is(tokenizer: Any, pairs: Sequence[tuple[str, str]], max_length: int | None) -> PairTokens:
    """By the tokenizer alone. A pair that fills the model's length counts as cut."""
    encoded = tokenizer(
        list(pairs),
        truncation="longest_first" if max_length is not None else False,
        max_length=max_length,
        return_token_type_ids=True,
        verbose=False,
    )
    ids = encoded["input_ids"]
    cut = np.array([len(row) >= (max_length or len(row) + 1) for row in ids], dtype=np.bool_)
    return PairTokens(ids, encoded["token_type_ids"], cut)
