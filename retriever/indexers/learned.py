"""Views of learned term weights: each an encoder, its published quantisation, and the term-weight index."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retriever.encoders.base import TermEncoder, TermWeights
from retriever.encoders.runtime import PRECISIONS
from retriever.encoders.words import collected, counted
from retriever.errors import InputError
from retriever.indexers.base import search_time
from retriever.indexers.bm25_formula import VARIANTS
from retriever.indexers.term_weights import TermWeightIndex
from retriever.types import Document


def _check(config: Any) -> None:
    """What the configurations below have in common."""
    if getattr(config, "precision", "auto") not in PRECISIONS:
        raise ValueError(f"precision is {' or '.join(PRECISIONS)}, not {config.precision!r}")
    bits, reach, cut = (getattr(config, name, None) for name in ("bits", "range", "cut"))
    if bits is not None and not 1 <= bits <= 16:
        raise ValueError(f"bits are 1 to 16, or none for the weights as they are, not {bits}")
    if reach is not None and not reach > 0:
        raise ValueError(f"range must be above 0, not {reach}")
    if cut is not None and cut < 1:
        raise ValueError(f"cut must be at least 1, not {cut}")


@dataclass(frozen=True)
class SpladeConfig:
    """model: a sentence-transformers SparseEncoder's name or path (SPLADE of every kind), or "their.module:Class"
    (`encoders.base.TermEncoder`).
    bits, range: quantise weights to ceil(w / range * 2 ** bits); range none: the largest weight of the index, which
    becomes 2 ** bits itself (with bits=8 it is 256, and every weight takes two bytes, not one); bits none: the model's
    own float weights.
    cut: an approximate search: candidates by the heaviest `cut` terms of a query, then their full scores. It pays for
    the first ten or so of a large collection (docs/term_weights.md); for k = 1000 it is slower than the exact search.
    expansion: a file of `retriever expand`; precision: as for `dense`.
    """

    model: str
    bits: int | None = None
    range: float | None = None
    cut: int | None = search_time(None)
    expansion: str | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        _check(self)


class Splade(TermWeightIndex):
    """SPLADE: every term of the model's vocabulary, for documents and queries."""

    Config = SpladeConfig

    def make_encoder(self) -> TermEncoder:
        """Through sentence-transformers."""
        from retriever.encoders.splade import Splade as Encoder

        return Encoder(self.config.model, self.config.precision)


@dataclass(frozen=True)
class UniCoilConfig(SpladeConfig):
    """As for `splade`; queries are quantised like documents. The defaults are published: 8 bits up to a weight of 5."""

    bits: int | None = 8
    range: float | None = 5.0


class UniCoil(TermWeightIndex):
    """uniCOIL: the terms of the (expanded) text, weighted by the model, for documents and queries."""

    Config = UniCoilConfig
    quantises_queries = True

    def make_encoder(self) -> TermEncoder:
        """BERT with one scalar a token."""
        from retriever.encoders.token_weights import UniCoil as Encoder

        return Encoder(self.config.model, self.config.precision)


@dataclass(frozen=True)
class DeepImpactConfig(SpladeConfig):
    """As for `splade`. The published quantisation: 8 bits up to the largest weight of the collection."""

    bits: int | None = 8


class DeepImpact(TermWeightIndex):
    """DeepImpact: the words of the (expanded) text, weighted by the model; a query's distinct words count 1 each."""

    Config = DeepImpactConfig

    def make_encoder(self) -> TermEncoder:
        """BERT with one scalar a word."""
        from retriever.encoders.token_weights import DeepImpact as Encoder

        return Encoder(self.config.model, self.config.precision)


class Tilde(TermWeightIndex):
    """TILDEv2: the tokens of the (expanded) text, weighted by the model; a query's tokens count 1 each."""

    Config = SpladeConfig

    def make_encoder(self) -> TermEncoder:
        """BERT with one scalar a token."""
        from retriever.encoders.token_weights import TildeV2 as Encoder

        return Encoder(self.config.model, self.config.precision)


@dataclass(frozen=True)
class DeepCtConfig:
    """model: a DeepCT checkpoint's name or path. k1, b, variant: BM25 over its term frequencies, by default the
    authors' 10 and 0.9 (18 and 0.7 with sqrt).
    sqrt: frequencies from the square root of a weight. passage: words in a passage, for HDCT: frequencies of long
    documents, averaged over their passages by position; none: the document as far as the model reads.
    """

    model: str
    k1: float = search_time(10.0)
    b: float = search_time(0.9)
    variant: str = search_time("lucene")
    sqrt: bool = False
    passage: int | None = None
    expansion: str | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        _check(self)
        if self.passage is not None and self.passage < 1:
            raise ValueError(f"passage must be at least 1 word, not {self.passage}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {self.variant!r}")


class DeepCt(TermWeightIndex):
    """DeepCT and HDCT: BM25 over term frequencies that a model predicts."""

    Config = DeepCtConfig
    rebuilds = ("k1", "b", "variant", "precision")

    def make_encoder(self) -> TermEncoder:
        """BERT with one scalar a word."""
        from retriever.encoders.token_weights import DeepCt as Encoder

        return Encoder(self.config.model, self.config.precision, sqrt=self.config.sqrt, passage=self.config.passage)


@dataclass(frozen=True)
class ImpactsConfig:
    """field: the metadata field that holds a document's weights by term, as in Anserini's JSON vectors and CIFF.
    A query is its terms, separated by white space; a term that is repeated counts so many times.
    bits, range, cut: as for `splade`.
    """

    field: str = "vector"
    bits: int | None = None
    range: float | None = None
    cut: int | None = search_time(None)

    def __post_init__(self) -> None:
        _check(self)


class Impacts(TermWeightIndex):
    """Weights that were computed elsewhere and came in with the documents."""

    Config = ImpactsConfig
    encodes = False
    rebuilds = ("bits", "range", "cut")

    def make_encoder(self) -> TermEncoder:
        """Queries as Anserini's `-pretokenized -impact` reads them."""
        return _Given()

    def encode(self, documents: Sequence[Document]) -> TermWeights:
        """The weights in the documents' metadata.

        Raises: InputError naming the document whose field holds no positive numbers by term.
        """
        return collected([_vector(document, self.config.field) for document in documents])


class _Given:
    def identity(self) -> Mapping[str, Any]:
        return {"terms": "as given"}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        progress(len(texts))
        return self.encode_queries(texts)

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        return counted([text.split() for text in texts])


def _vector(document: Document, field: str) -> dict[str, float]:
    given = document.metadata.get(field)
    if not isinstance(given, Mapping):
        raise InputError(
            f"document {document.id!r}: its field {field!r} holds no term weights; expected an object such as "
            '{"wing": 3, "stall": 12}; name the field that does with impacts(field=...)'
        )
    for term, weight in given.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise InputError(
                f"document {document.id!r}: the weight of {term!r} is {weight!r}; expected a number from 0"
            )
    return {term: float(weight) for term, weight in given.items() if weight}
