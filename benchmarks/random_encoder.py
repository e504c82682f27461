"""A stand-in for a model: vectors drawn from a hash of the text, at no cost, so that all else can be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from retriever.encoders.base import Encoded


class RandomEncoder:
    """float32 [n, 384] of unit length; equal texts get equal vectors."""

    dimension = 384

    def __init__(self) -> None:
        self._pool = np.random.default_rng(0).standard_normal((4096, self.dimension), dtype=np.float32)
        self._pool /= np.linalg.norm(self._pool, axis=1, keepdims=True)

    def identity(self) -> Mapping[str, Any]:
        """There is only one."""
        return {"model": "random", "dimension": self.dimension}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        """As queries."""
        progress(len(texts))
        return self.encode_queries(texts)

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """The sum of three pool vectors a text, chosen by its hash: as many different ones as hashes."""
        hashes = np.array([crc32(text.encode()) for text in texts], dtype=np.int64)
        vectors = self._pool[hashes % 4096] + self._pool[hashes // 4096 % 4096] + self._pool[hashes // 4096**2]
        return Encoded(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 0)
