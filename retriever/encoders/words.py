"""Analysed words and how often they occur: what BM25 counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
        counts = counted([self.analyze(text) for text in texts])
        progress(len(texts))
        return counts

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """Counts, float32."""
        return counted([self.analyze(text) for text in texts])


def counted(texts: Sequence[Sequence[str]]) -> TermWeights:
    """Texts that are lists of words, as counts of each word."""
    return collected([Counter(words) for words in texts])


def collected(texts: Sequence[Mapping[str, float]]) -> TermWeights:
    """Texts that are weights by term."""
    from scipy.sparse import csr_array

    columns: dict[str, int] = {}
    indices = [columns.setdefault(term, len(columns)) for text in texts for term in text]
    data = [weight for text in texts for weight in text.values()]
    ends = np.cumsum([0, *map(len, texts)])
    shape = (len(texts), len(columns))
    matrix = csr_array((np.array(data, dtype=np.float32), np.array(indices, dtype=np.int64), ends), shape=shape)
    return TermWeights(matrix, list(columns), 0)
