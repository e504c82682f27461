"""BM25 with free k1 and b, on the term-weight index: what `bm25` is where tantivy's fixed 1.2 and 0.75 will not do."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import regex

from retriever.analyzers import WORDS
from retriever.encoders.words import Words
from retriever.indexers.base import search_time
from retriever.indexers.bm25_formula import VARIANTS
from retriever.indexers.term_weights import TermWeightIndex
from retriever.spec import suggest

_WORD = regex.compile(r"\w{1,40}")  # at most so many where no spaces are written
_NEAR = 40
"""A snippet begins and ends at a space, where there is one within so many characters."""


@dataclass(frozen=True)
class FreeBm25Config:
    """language: as in tantivy's `bm25`; or `lucene`: Lucene's default English analysis, term for term; or chinese,
    japanese, korean, thai, hindi or vietnamese: `analyzers.UnicodeWords`.
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
        return self._words

    @cached_property
    def _words(self) -> Words:
        return Words(self.config.language)

    def snippet(self, query: str, text: str, width: int = 160) -> str:
        """The part of `text` that holds most of the query's words; its beginning where it holds none."""
        analyze = self._words.analyze
        wanted = set(analyze(query))
        found = [(word.start(), word.end(), wanted.intersection(analyze(word[0]))) for word in _WORD.finditer(text)]
        marks = [(start, end, terms) for start, end, terms in found if terms]
        best, most = (0, 0), 0
        for first, (start, _, _) in enumerate(marks):
            inside = [(end, terms) for _, end, terms in marks[first:] if end <= start + width]
            distinct = len(set().union(*(terms for _, terms in inside)))
            if distinct > most:
                best, most = (start, inside[-1][0]), distinct
        begin = max(0, best[0] - (width - (best[1] - best[0])) // 2) if most else 0
        if (space := text.rfind(" ", max(0, begin - _NEAR), begin)) >= 0 or begin <= _NEAR:
            begin = space + 1
        cut = text[begin : begin + width]
        if begin + width < len(text) and (space := cut.rfind(" ", width - _NEAR)) > 0:
            cut = cut[:space]
        return " ".join(cut.split())
