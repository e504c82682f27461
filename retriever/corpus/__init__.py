"""Readers of collections and queries: they stream in bounded memory and name file and line of what they refuse."""

from __future__ import annotations

from retriever.corpus.base import Corpus
from retriever.corpus.layout import read_corpus
from retriever.corpus.queries import read_queries
from retriever.corpus.records import MAX_DOCUMENT_BYTES

__all__ = ["MAX_DOCUMENT_BYTES", "Corpus", "read_corpus", "read_queries"]
