"""The values that flow: frozen, and without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Document:
    """One retrievable text. `metadata` holds JSON values and is what `where` filters on."""

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def contents(self) -> str:
        """Title and text joined by a space, BEIR's "flat" form: what every view indexes."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """One information need. language: as its source calls it, what `by-language` in a pipeline goes by; or empty."""

    id: str
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result with its document; `snippet` is a short excerpt around the query's words."""

    rank: int
    id: str
    score: float
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    snippet: str = ""


class Hits(NamedTuple):
    """Results of a batch, best first.

    rows: int64 [n_queries, k], -1 where a query has fewer than k results.
    scores: float32 [n_queries, k], -inf at those places.
    """

    rows: Rows
    scores: Floats
