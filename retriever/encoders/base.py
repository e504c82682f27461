"""What an encoder is to an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from retriever.types import Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class Encoded(NamedTuple):
    """vectors: float32 [n, d], in the order of the texts; truncated: texts longer than the encoder reads."""

    vectors: Floats
    truncated: int


class TermWeights(NamedTuple):
    """Weighted terms of n texts.

    weights: CSR float32 [n, len(terms)] without stored zeros, column j the weight of `terms[j]`. terms: distinct; an
    encoder with a vocabulary of its own gives the same object in every call.
    truncated: texts longer than the encoder reads.
    """

    weights: csr_array
    terms: Sequence[str]
    truncated: int


class Encoder(Protocol):
    """Text to dense vectors. Inner product ranks them, unless the identity says `"similarity": "euclidean"`."""

    @property
    def dimension(self) -> int:
        """The vectors' length."""

    def identity(self) -> Mapping[str, Any]:
        """All that decides the vectors, as JSON values: an index refuses an encoder with another identity."""

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        """float32 [n, d]; `progress` is told how many texts each batch held."""

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """float32 [n, d]."""


class TermEncoder(Protocol):
    """Text to weighted terms. The weights are the model's own, not quantised: that is the index's part."""

    def identity(self) -> Mapping[str, Any]:
        """All that decides the weights, as JSON values: an index refuses an encoder with another identity."""

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        """Positive weights; `progress` is told how many texts each batch held."""

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """Positive weights; a text may have none."""
