"""BM25 with free k1 and b, on the term-weight index: what `bm25` is where tantivy's fixed 1.2 and 0.75 will not do."""

from __future__ import annotations

from dataclasses import dataclass, field

from retriever.analyzers import WORDS
from retriever.encoders.words import Words
from retriever.indexers.base import search_time
from retriever.indexers.bm25_formula import VARIANTS
from retriever.indexers.term_weights import TermWeightIndex
from retriever.spec import suggest


@dataclass(frozen=True)
class FreeBm25Config:
    """language: as in tantivy's `bm25`, or `lucene`: Lucene's default English analysis, term for term.
    k1, b: by default Anserini's; variant: `indexers/bm25_formula.py` has the formulas; all three may be set by a
    search.
    expansion: a file of `retriever expand`, whose texts are indexed behind the documents' own.
    """

    language: str = "english"
    k1: float = field(default=0.9, metadata={"search": True, "always": True})
    b: float = field(default=0.4, metadata={"search": True, "always": True})
    variant: str = search_time("lucene")
    expansion: str | None = None

    def __post_init__(self) -> None:
        if self.language not in WORDS:
            raise ValueError(f"no analyzer for language {self.language!r}; {suggest(self.language, WORDS)}")
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise ValueError(f"k1 is at least 0 and b from 0 to 1, not {self.k1} and {self.b}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {self.variant!r}")


class FreeBm25(TermWeightIndex):
    """Counts of analysed words, scored at search time: other k1, b or another variant index nothing again."""

    Config = FreeBm25Config
    encodes = False
    rebuilds = ("k1", "b", "variant")

    def make_encoder(self) -> Words:
        """The analyzer as an encoder."""
        return Words(self.config.language)
