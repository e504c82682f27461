"""Dense, lexical and hybrid retrieval with reranking and evaluation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retriever.corpus import read_corpus, read_queries
    from retriever.engine import Retriever
    from retriever.errors import InputError, RetrieverError
    from retriever.eval.measures import evaluate
    from retriever.runs import Qrels, Run
    from retriever.types import Document, Hit, Query

_HOMES = {
    "Document": "retriever.types",
    "Hit": "retriever.types",
    "InputError": "retriever.errors",
    "Qrels": "retriever.runs",
    "Query": "retriever.types",
    "Retriever": "retriever.engine",
    "RetrieverError": "retriever.errors",
    "Run": "retriever.runs",
    "evaluate": "retriever.eval.measures",
    "read_corpus": "retriever.corpus",
    "read_queries": "retriever.corpus",
}

__all__ = [
    "Document",
    "Hit",
    "InputError",
    "Qrels",
    "Query",
    "Retriever",
    "RetrieverError",
    "Run",
    "evaluate",
    "read_corpus",
    "read_queries",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home at first use: `import retriever` itself loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'retriever' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
