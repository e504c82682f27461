"""What an encoder is to an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from retriever.types import Floats


class Encoded(NamedTuple):
    """vectors: float32 [n, d], in the order of the texts; truncated: texts longer than the encoder reads."""

    vectors: Floats
    truncated: int


class Encoder(Protocol):
    """Text to dense vectors. Inner product ranks them, unless the identity says `"similarity": "euclidean"`."""

    dimension: int

    def identity(self) -> Mapping[str, Any]:
        """All that decides the vectors, as JSON values: an index refuses an encoder with another identity."""

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        """float32 [n, d]; `progress` is told how many texts each batch held."""

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """float32 [n, d]."""
