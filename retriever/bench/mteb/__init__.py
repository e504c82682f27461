"""MTEB (Muennighoff et al., arXiv 2210.07316) and this bench, both ways: its retrieval tasks as collections (tasks.py),
our results in its format (results.py), our encoders and pipelines as its models (models.py). Needs the extra `mteb`.
"""

from __future__ import annotations

from typing import Any

from retriever.errors import MissingDependencyError


def import_mteb(purpose: str) -> Any:
    """The package. Raises: MissingDependencyError where it is not installed."""
    try:
        import mteb
    except ImportError as error:
        raise MissingDependencyError(purpose, "mteb", "mteb") from error
    return mteb
