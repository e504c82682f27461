"""Analysed words and how often they occur: what BM25 counts."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from retriever.analyzers import words
from retriever.encoders.base import TermWeights


class Words:
    """Terms of a language's analyzer, weighted by their number of occurrences."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.analyze = words(language)

    def identity(self) -> Mapping[str, Any]:
        """The analyzer."""
        return {"language": self.language}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        """Counts, float32; nothing is truncated."""
        counts = counted(map(self.analyze, texts))
        progress(len(texts))
        return counts

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """Counts, float32."""
        return counted(map(self.analyze, texts))


def counted(texts: Iterable[Sequence[str]]) -> TermWeights:
    """Texts that are lists of words, as counts of each word."""
    return collected(map(Counter, texts))


def collected(texts: Iterable[Mapping[str, float]]) -> TermWeights:
    """Texts that are weights by term."""
    from scipy.sparse import csr_array

    columns: dict[str, int] = {}
    indices, data, ends = array("q"), array("f"), array("q", [0])
    for text in texts:
        indices.extend([columns.setdefault(term, len(columns)) for term in text])
        data.extend(text.values())
        ends.append(len(indices))
    parts = np.frombuffer(data, np.float32), np.frombuffer(indices, np.int64), np.frombuffer(ends, np.int64)
    return TermWeights(csr_array(parts, shape=(len(ends) - 1, len(columns))), list(columns), 0)
