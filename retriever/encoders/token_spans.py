"""Where a model's tokens stand in a text."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever.encoders.models import find_model
from retriever.errors import InputError

_PIECE = 100_000
"""Characters that are tokenized at once: a tokenizer takes some hundred bytes for each token."""


class TokenSpans:
    """The places of a model's tokens, without special ones and without a limit."""

    def __init__(self, model: str) -> None:
        self._folder = find_model(model)

    def __call__(self, text: str) -> npt.NDArray[np.int64]:
        """int64 [n, 2]: the characters where each token begins and ends."""
        places = [np.zeros((0, 2), dtype=np.int64)]
        start = 0
        while start < len(text):
            cut = _SPACE.search(text, start + _PIECE)  # a piece begins with its space: some tokenizers mark it
            stop = cut.start() if cut else len(text)
            encoded = self._tokenizer.backend_tokenizer.encode(text[start:stop], add_special_tokens=False)
            places.append(np.array(encoded.offsets, dtype=np.int64).reshape(-1, 2) + start)
            start = stop
        found = np.concatenate(places)
        return found[found[:, 1] > found[:, 0]]

    @property
    def limit(self) -> int:
        """Tokens that the model reads, where its tokenizer says so; 512 otherwise."""
        length = int(self._tokenizer.model_max_length)
        return length if length < _UNSAID else 512

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as problem:
            raise InputError(f"{self._folder}: has no tokenizer that can be loaded: {problem}") from None
        if not tokenizer.is_fast:
            raise InputError(
                f"{self._folder}: its tokenizer does not tell where tokens stand; expected one with a tokenizer.json"
            )
        tokenizer.backend_tokenizer.no_truncation()  # the file may ask for it
        tokenizer.backend_tokenizer.no_padding()
        return tokenizer


_SPACE = re.compile(r"\s")
_UNSAID = 1_000_000
