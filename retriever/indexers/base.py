"""What every kind of index does, whatever it stores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, field, replace
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from retriever.encoders.base import Encoder, TermEncoder
from retriever.errors import IndexMismatchError
from retriever.store.manifest import ViewState
from retriever.types import Document, Floats, Hits, Mask, Rows

AnyEncoder = TypeVar("AnyEncoder", Encoder, TermEncoder)


class Indexer(Protocol):
    """One view of the corpus: rows 0, 1, 2, ... in the order of adding.

    `Config` is its frozen configuration dataclass, `rebuilds` the fields that may change without encoding again,
    `encodes` says whether appending is dear; `state` describes its files as of now, for the manifest. A method
    that changes the view writes new files (or new bytes after the committed ones), makes them durable and sets
    `state`; nothing of the committed generation is touched, so forgetting the object undoes it.
    """

    Config: ClassVar[Any]
    encodes: ClassVar[bool]
    rebuilds: ClassVar[tuple[str, ...]]
    config: Any
    state: ViewState

    def __init__(self, folder: Path, config: Any, state: ViewState) -> None: ...

    def append(self, documents: Sequence[Document]) -> None:
        """Take the next rows; durable when this returns."""

    def finish(self) -> None:
        """Bring what is cheap to rebuild up to date; called at the end of an `add`."""

    def compact(self, live: Rows, documents: Iterable[Document]) -> None:
        """Keep only the rows `live` (int64, ascending), renumbered from 0; `documents` are theirs, in order."""

    def search(self, queries: Sequence[str], k: int, allowed: Mask | None, config: Any) -> Hits:
        """The best k rows of each query among `allowed` (bool [rows]; None: all), best first.

        Where rows tie with the k-th, all of them are returned (more than k columns): ids, which only the engine
        knows, decide ties. `config` is the view's own, with what a pipeline sets at search time.
        """


class Frequencies(NamedTuple):
    """How common terms are in a view. df: int64 [n], documents with each term; cf: float64 [n], its occurrences (in an
    index of learned weights: its summed weight); documents: how many there are; tokens: sum of cf over all terms.
    A view that does not count occurrences gives nan for cf and tokens.
    """

    df: Rows
    cf: npt.NDArray[np.float64]
    documents: int
    tokens: float


Terms = Mapping[str, float]
"""A text as a view's own weighted terms: for a lexical view, analysed terms and how often each occurs."""


@runtime_checkable
class TermView(Protocol):
    """A view that can be asked with weighted terms: what query expansion by terms needs, beside `Indexer`."""

    def query_terms(self, texts: Sequence[str]) -> list[Terms]:
        """Queries, as `search` would understand them."""

    def document_terms(self, rows: Rows, documents: Sequence[Document]) -> list[Terms]:
        """What the index holds of these rows; `documents` are theirs, for a view that has to read them again."""

    def frequencies(self, terms: Sequence[str]) -> Frequencies:
        """Of these terms, over all rows."""

    def search_terms(self, queries: Sequence[Terms], k: int, allowed: Mask | None, config: Any) -> Hits:
        """`search`, for queries that are weighted terms already."""


@runtime_checkable
class VectorView(Protocol):
    """A view that can be asked with vectors, beside `Indexer`."""

    def query_vectors(self, texts: Sequence[str]) -> Floats:
        """float32 [n, d]: queries, as `search` would understand them."""

    def passage_vectors(self, texts: Sequence[str]) -> Floats:
        """float32 [n, d]: texts, encoded as documents are."""

    def document_vectors(self, rows: Rows) -> Floats:
        """float32 [n, d]: what the index holds of these rows."""

    def nearest(self, vectors: Floats, k: int, allowed: Mask | None, config: Any) -> Hits:
        """`search`, for queries that are vectors already."""


def check_encoder(encoder: AnyEncoder, state: ViewState, view: str, given: str) -> AnyEncoder:
    """The encoder that a view was given, where it is the one that encoded what the view holds.

    Raises: IndexMismatchError naming both.
    """
    made_by, now = dict(state.encoder), dict(encoder.identity())
    if made_by and made_by != now:
        differs = [
            f"{key}: {made_by.get(key)!r}, now {now.get(key)!r}"
            for key in made_by | now
            if made_by.get(key) != now.get(key)
        ]
        raise IndexMismatchError(
            f"view {view!r} was encoded by another encoder than {given!r} ({'; '.join(differs)}). "
            "Give the encoder that made it, or make a new index."
        )
    return encoder


def search_time(default: Any) -> Any:
    """A configuration field that a pipeline may set for one search."""
    return field(default=default, metadata={"search": True})


def searchable(config_field: Field[Any]) -> bool:
    """Whether a pipeline may set this field."""
    return bool(config_field.metadata.get("search"))


def stack(results: Sequence[tuple[Sequence[int], Sequence[float]]]) -> Hits:
    """Rows and scores of single queries, padded to one rectangle."""
    width = max((len(rows) for rows, _ in results), default=0)
    rows = np.full((len(results), width), -1, dtype=np.int64)
    scores = np.full((len(results), width), -np.inf, dtype=np.float32)
    for i, (found, values) in enumerate(results):
        rows[i, : len(found)], scores[i, : len(found)] = found, values
    return Hits(rows, scores)


def best_and_ties(
    ask: Callable[[int], tuple[list[int], list[float]]], k: int, most: int, allowed: Mask | None
) -> tuple[list[int], list[float]]:
    """The k best allowed rows and all that tie with the last of them, of an engine that only knows its best of all.

    ask: the best so many rows with their scores, best first; most: how many it can have.
    """
    limit = k + 1
    while True:
        rows, scores = ask(min(limit, most))
        last = scores[-1] if len(rows) == limit < most else -math.inf
        if allowed is not None:
            kept = allowed[np.array(rows, dtype=np.int64)].tolist()
            rows, scores = list(compress(rows, kept)), list(compress(scores, kept))
        if last == -math.inf or (len(rows) >= k and scores[k - 1] > last):
            cut = min(k, len(rows))
            while cut < len(rows) and scores[cut] == scores[k - 1]:
                cut += 1
            return rows[:cut], scores[:cut]
        limit *= 4


def moved(state: ViewState, **changes: Any) -> ViewState:
    """The state after a change."""
    return replace(state, **changes)
