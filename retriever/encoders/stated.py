"""How a model is to be used where its files do not say, or say otherwise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retriever.errors import InputError
from retriever.types import Floats

POOLINGS = {"mean": "mean", "cls": "cls", "last": "lasttoken", "eos": "lasttoken"}
"""By the names that they have here, sentence-transformers'."""


@dataclass(frozen=True)
class Stated:
    """None: as the model's own files say.

    pooling: mean, cls, last (the last token of the text as the tokenizer gives it) or eos (the same, and the
    end-of-sequence token is put there where the tokenizer does not). query_prefix, document_prefix: what stands before
    the text. max_length: tokens that are read. normalize: vectors of unit length, compared by cosine, or as the model
    gives them, by inner product. dimensions: only the first so many are kept (Kusupati et al., NeurIPS 2022).
    adapters: a stack of them on the transformer, as `encoders.adapters.stack` writes it: "LANGUAGE + 0.5*RANKING".
    remote_code: run the Python code that came with the model, as its user; without it such a model is refused.
    """

    pooling: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    max_length: int | None = None
    normalize: bool | None = None
    dimensions: int | None = None
    adapters: str | None = None
    remote_code: bool | None = None

    def __post_init__(self) -> None:
        if self.pooling not in (None, *POOLINGS):
            raise ValueError(f"pooling is {', '.join(POOLINGS)}, not {self.pooling!r}")
        for name in ("max_length", "dimensions"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")

    def given(self) -> dict[str, Any]:
        """What is stated."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def refuse(self, names: tuple[str, ...], model: str, reason: str) -> None:
        """Raise InputError where one of these is stated."""
        if wrong := [name for name in names if getattr(self, name) is not None]:
            raise InputError(f"{model}: {reason}, so a view cannot state its {', '.join(wrong)}")

    def prefixed(self, texts: list[str], kind: str) -> list[str]:
        """The texts of this kind, "query" or "document", behind their prefix."""
        prefix = self.query_prefix if kind == "query" else self.document_prefix
        return [prefix + text for text in texts] if prefix else texts

    def shaped(self, vectors: Floats) -> Floats:
        """float32 [n, d]: cut to the dimensions, then to unit length, where that is stated."""
        vectors = vectors[:, : self.dimensions]
        if self.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors
