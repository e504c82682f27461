"""An inverted index over weighted terms from any encoder, with exact top-k: learned sparse retrieval, and BM25 with
free k1 and b.

The weights as the encoder gave them are the durable part: `postings`, `ends` and (for BM25) `lengths` only grow, a row
behind the other, like the vectors of a dense view; `lexicon.py` numbers the terms. The inverted index is made from
them: full tiles lie in `tiles` and `heads`, in the smallest type that holds the weights, quantised where the view says
so; the rows after the last full tile are inverted when the view is opened. Other bits or another range make new tiles
and encode nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from retriever.components import load_class
from retriever.encoders.base import TermEncoder, TermWeights
from retriever.encoders.words import collected
from retriever.errors import CorruptIndexError, InputError
from retriever.expansion.files import check_expansion, expanded, expansion_identity
from retriever.indexers import bm25_formula as bm25
from retriever.indexers.base import Frequencies, Terms, check_encoder, moved
from retriever.indexers.impact_search import Asked, Postings, Scoring, rescore, top_k
from retriever.indexers.lexicon import LEXICON, Lexicon
from retriever.indexers.tiles import (
    HEAD,
    TILE,
    Form,
    Tiles,
    block_sums,
    document_frequencies,
    make_tile,
    quantised,
    view_tiles,
)
from retriever.progress import advance
from retriever.store.files import FileRecord, grow, mapped
from retriever.store.manifest import ViewState
from retriever.types import Document, Floats, Hits, Mask, Rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_POSTING = np.dtype([("term", "<u4"), ("weight", "<f4")])
_BYTE = np.dtype(np.uint8)
_ENDS = np.dtype("<i8")
_CHUNK = 65_536
_ALL = np.zeros(0, dtype=np.bool_)
_NO_LENGTHS = np.frombuffer(b"", dtype=np.uint8)
_CANDIDATES = 100
"""An approximate search computes the full scores of so many candidates, or of 2 * k."""


class TermWeightIndex:
    """One row of term weights a document. A kind names its encoder, and its configuration says the rest: `bits` and
    `range` where it quantises, `k1`, `b` and `variant` where it is scored by BM25, `cut` where it searches
    approximately.
    """

    Config: ClassVar[Any]
    encodes: ClassVar[bool] = True
    rebuilds: ClassVar[tuple[str, ...]] = ("bits", "range", "cut", "precision")
    quantises_queries: ClassVar[bool] = False

    def __init__(self, folder: Path, config: Any, state: ViewState) -> None:
        self._folder, self.config, self.state = folder, config, state
        self._known: tuple[Sequence[str], Rows] = ([], np.zeros(0, dtype=np.int64))
        self._tables: dict[tuple[str, float, float], Floats] = {}

    def make_encoder(self) -> TermEncoder:
        """The encoder that the configuration names."""
        raise NotImplementedError

    @cached_property
    def encoder(self) -> TermEncoder:
        """The encoder, checked to be the one that encoded what is there.

        Raises: IndexMismatchError naming both.
        """
        given = str(getattr(self.config, "model", type(self).__name__))
        encoder = load_class(given)() if ":" in given else self.make_encoder()
        return check_encoder(encoder, self.state, self._folder.name, given)

    def encode(self, documents: Sequence[Document]) -> TermWeights:
        """The documents' weights."""
        return self.encoder.encode_documents(expanded(documents, self._expansion), self._progress)

    def append(self, documents: Sequence[Document]) -> None:
        """Encode the next rows, write them behind the others, and invert the tiles that they fill."""
        if self.state.rows:
            check_expansion(self._folder.name, self.state.data.get("expansion"), self._expansion)
        elif made_with := expansion_identity(self._expansion):
            self.state = moved(self.state, data={**self.state.data, "expansion": made_with})
        given = self.encode(documents)
        weights = self._check(given, len(documents))
        numbers = self._numbered(given.terms)
        postings = np.empty(weights.nnz, dtype=_POSTING)
        postings["term"], postings["weight"] = numbers[weights.indices], weights.data
        identity = self.state.encoder or dict(self.encoder.identity())
        self.state = moved(self.state, encoder=identity, truncated=self.state.truncated + given.truncated)
        self._store(postings, weights.indptr[1:].astype(np.int64))
        self._invert()

    def finish(self) -> None:
        """Make the tiles anew where other bits or another range are asked for."""
        self._invert()

    def compact(self, live: Rows, documents: Iterable[Document]) -> None:
        """Keep the weights of the live rows, in new files; nothing is encoded again."""
        ends, postings = self._ends, self._postings
        lexicon = {path: self.state.files[path] for name in LEXICON if (path := self._path(name)) in self.state.files}
        serial = int(self.state.data.get("serial", 0)) + 1
        data = {key: self.state.data[key] for key in ("engine", "expansion") if key in self.state.data}
        self.state = moved(self.state, rows=0, files=lexicon, data={**data, "serial": serial})
        self._forget()
        for first in range(0, len(live), _CHUNK):
            rows = live[first : first + _CHUNK]
            begins = np.where(rows > 0, ends[rows - 1], 0)
            counts = ends[rows] - begins
            chosen = np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            self._store(postings[chosen], np.cumsum(counts))
        self._invert()

    def search(self, queries: Sequence[str], k: int, allowed: Mask | None, config: Any) -> Hits:
        """Sums of products of query and document weights, or BM25."""
        if not queries or not self.state.rows:
            return _nothing(len(queries))
        given = self.encoder.encode_queries(queries)
        weights = self._check(given, len(queries))
        if self.quantises_queries:
            weights.data = quantised(weights.data, self._form.steps)
        return self._ranked(weights, self._found(given.terms), k, allowed, config)

    def search_terms(self, queries: Sequence[Terms], k: int, allowed: Mask | None, config: Any) -> Hits:
        """`search`, for queries that are weighted terms already."""
        if not queries or not self.state.rows:
            return _nothing(len(queries))
        given = collected(queries)
        weights = self._check(given, len(queries), counts=False)
        return self._ranked(weights, self._found(given.terms), k, allowed, config)

    def query_terms(self, texts: Sequence[str]) -> list[Terms]:
        """Queries as weighted terms."""
        given = self.encoder.encode_queries(texts)
        weights = given.weights
        terms, values = [given.terms[j] for j in weights.indices.tolist()], weights.data.tolist()
        return [dict(zip(terms[a:b], values[a:b], strict=True)) for a, b in pairwise(weights.indptr.tolist())]

    def document_terms(self, rows: Rows, documents: Sequence[Document]) -> list[Terms]:
        """The weights of these rows, as the encoder gave them."""
        if not len(rows):
            return []
        parts = [self._postings[self._ends[row - 1] if row else 0 : self._ends[row]] for row in rows.tolist()]
        postings = np.concatenate(parts)
        self._examine(postings)
        numbers, places = np.unique(postings["term"], return_inverse=True)
        texts = self._lexicon.text(numbers.astype(np.int64))
        terms, weights = [texts[place] for place in places.tolist()], postings["weight"].tolist()
        ends = np.cumsum([len(part) for part in parts]).tolist()
        return [dict(zip(terms[a:b], weights[a:b], strict=True)) for a, b in pairwise([0, *ends])]

    def frequencies(self, terms: Sequence[str]) -> Frequencies:
        """Of these terms, over all rows; cf is the sum of the weights as they stand in the index."""
        numbers = self._lexicon.find(terms)
        known = numbers >= 0
        df, cf = np.zeros(len(terms), dtype=np.int64), np.zeros(len(terms))
        df[known] = self._df[numbers[known]]
        cf[known] = sum(block_sums(tiles, numbers[known]) for tiles in (self._mapped, self._tail))
        return Frequencies(df, cf, self.state.rows, float(self.state.data.get("tokens", 0.0)))

    def _ranked(self, weights: csr_array, numbers: Rows, k: int, allowed: Mask | None, config: Any) -> Hits:
        """Search with a matrix of query weights, whose columns have these numbers in the index (-1: none)."""
        k = min(k, self.state.rows)
        owners = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
        terms = numbers[weights.indices]
        known = terms >= 0
        values = self._query_weights(weights.data, terms, config)
        ends = np.cumsum(np.bincount(owners[known], minlength=weights.shape[0]))
        asked = Asked(ends, terms[known], values[known])
        scoring = Scoring(_ALL if allowed is None else allowed, *self._table(config))
        cut = getattr(config, "cut", None)
        if cut is None:
            return top_k((self._mapped, self._tail), asked, k, scoring)
        candidates = min(max(_CANDIDATES, 2 * k), self.state.rows)
        rows = top_k((self._mapped, self._tail), asked.heaviest(cut), candidates, scoring).rows
        by_row = Postings(self._ends, self._postings["term"], self._postings["weight"], self._form.steps)
        scores = rescore(by_row, asked, rows)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Hits(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))

    def _query_weights(self, weights: Floats, terms: Rows, config: Any) -> Floats:
        """float32 [n]: what a posting's value is multiplied by."""
        if not self._scored:
            return weights
        documents = int(self.state.data.get("documents", 0))
        df = self._df[np.maximum(terms, 0)] if len(self._df) else np.zeros(len(terms), np.int64)
        return (weights * bm25.idf(config.variant, df, documents)).astype(np.float32)

    def _table(self, config: Any) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """BM25's saturation for this search and the rows' length classes; empty where weights count as they are."""
        if not self._scored:
            return np.zeros((0, 0), dtype=np.float32), _NO_LENGTHS
        key = (config.variant, config.k1, config.b)
        if key not in self._tables:
            data = self.state.data
            avgdl = float(data["tokens"]) / max(1, int(data["documents"]))
            self._tables[key] = bm25.saturation(*key, avgdl, min(int(data["largest"]), bm25.MOST) + 1)
        return self._tables[key], self._lengths

    @property
    def _scored(self) -> bool:
        return hasattr(self.config, "k1")

    @property
    def _form(self) -> Form:
        """How the weights of this generation stand in tiles."""
        data, bits = self.state.data, getattr(self.config, "bits", None)
        largest = float(data.get("largest", 0.0))
        steps = 2.0**bits / (self.config.range or largest or 1.0) if bits else 0.0
        highest = float(quantised(np.array([largest], dtype=np.float32), steps)[0])
        if not steps and not data.get("whole", True):
            return Form("float32", steps)
        return Form("uint8" if highest < 1 << 8 else "uint16" if highest < 1 << 16 else "float32", steps)

    def _check(self, given: TermWeights, count: int, counts: bool = True) -> csr_array:
        weights = given.weights
        data = weights.data
        if weights.shape != (count, len(given.terms)) or not (np.isfinite(data).all() and (data > 0).all()):
            raise InputError(
                f"view {self._folder.name!r}: its encoder gave weights of shape {weights.shape} for {count} texts and "
                f"{len(given.terms)} terms; expected finite positive float32 [{count}, {len(given.terms)}]"
            )
        if counts and self._scored and (data != np.floor(data)).any():
            raise InputError(f"view {self._folder.name!r}: BM25 needs counts, and its encoder gave {data.max()}")
        return weights

    def _numbered(self, terms: Sequence[str]) -> Rows:
        """The numbers of an encoder's terms; new ones are given and stored."""
        numbers = self._found(terms)
        if (numbers < 0).any():
            self._known = terms, self._lexicon.add(terms)
            files = {self._path(name): known for name, known in self._lexicon.files.items()}
            self.state = moved(self.state, files={**self.state.files, **files})
        return self._known[1]

    def _found(self, terms: Sequence[str]) -> Rows:
        """The numbers of terms, -1 for those that no document has."""
        if self._known[0] is not terms or (self._known[1] < 0).any():
            self._known = terms, self._lexicon.find(terms)
        return self._known[1]

    def _store(self, postings: npt.NDArray[Any], ends: Rows) -> None:
        """Write rows behind the committed ones; ends: int64 [n], where the postings of each end."""
        before = int(self._ends[-1]) if self.state.rows else 0
        self._grow("postings", postings.view(_BYTE))
        self._grow("ends", (ends + before).view(_BYTE))
        weights = postings["weight"]
        counts = np.diff(ends, prepend=0)
        lengths = np.bincount(np.repeat(np.arange(len(ends)), counts), weights=weights, minlength=len(ends))
        if self._scored:
            self._grow("lengths", bm25.length_class(lengths))
        data = {**self.state.data, "engine": "inverted"}
        data["tokens"] = float(data.get("tokens", 0.0)) + float(lengths.sum())
        data["documents"] = int(data.get("documents", 0)) + int(np.count_nonzero(counts))
        data["largest"] = max(float(data.get("largest", 0.0)), float(weights.max(initial=0.0)))
        data["whole"] = bool(data.get("whole", True)) and bool((weights == np.floor(weights)).all())
        self.state = moved(self.state, rows=self.state.rows + len(ends), data=data)
        self._forget()

    def _invert(self) -> None:
        """Write the tiles that are full; all of them anew where their form has changed."""
        if not self.state.rows:
            return
        form = list(self._form)
        if self.state.data.get("form", form) != form:
            self._drop_tiles()
        done = int(self.state.data.get("tiled", 0))
        while self.state.rows - done >= TILE:
            known = self._known_file("tiles")
            head, blob = self._tile(done, TILE, known.size if known else 0)
            self._grow("heads", head.view(_BYTE))
            self._grow("tiles", np.frombuffer(blob, dtype=_BYTE))
            done += TILE
        self.state = moved(self.state, data={**self.state.data, "form": form, "tiled": done})
        self._forget()

    def _tile(self, first: int, count: int, position: int) -> tuple[Rows, bytes]:
        begin, end = int(self._ends[first - 1]) if first else 0, int(self._ends[first + count - 1])
        postings = self._postings[begin:end]
        self._examine(postings)
        weights = self._form.of(postings["weight"])
        return make_tile(self._ends[first : first + count] - begin, postings["term"], weights, first, position)

    def _drop_tiles(self) -> None:
        dropped = {self._path(self._file(part)) for part in ("tiles", "heads")}
        files = {path: known for path, known in self.state.files.items() if path not in dropped}
        data = {**self.state.data, "tiled": 0, "build": int(self.state.data.get("build", 0)) + 1}
        self.state = moved(self.state, files=files, data=data)

    def _forget(self) -> None:
        for cached in ("_ends", "_postings", "_lengths", "_mapped", "_tail", "_df"):
            self.__dict__.pop(cached, None)
        self._tables = {}

    @cached_property
    def _lexicon(self) -> Lexicon:
        files = {name: self.state.files[path] for name in LEXICON if (path := self._path(name)) in self.state.files}
        return Lexicon(self._folder, files)

    @cached_property
    def _ends(self) -> Rows:
        """Where the postings of each row end. Raises: CorruptIndexError where that is outside of them."""
        ends = mapped(self._folder / self._file("ends"), self._known_file("ends"), _ENDS)
        if len(ends) and ((np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(self._postings)):
            raise self._damaged("ends", "its rows end outside the postings")
        return ends

    @cached_property
    def _postings(self) -> npt.NDArray[Any]:
        return mapped(self._folder / self._file("postings"), self._known_file("postings"), _POSTING)

    @cached_property
    def _lengths(self) -> npt.NDArray[np.uint8]:
        return mapped(self._folder / self._file("lengths"), self._known_file("lengths"), _BYTE)

    @cached_property
    def _mapped(self) -> Tiles:
        """The tiles on disk."""
        heads = mapped(self._folder / self._file("heads"), self._known_file("heads"), _ENDS).reshape(-1, HEAD)
        blob = mapped(self._folder / self._file("tiles"), self._known_file("tiles"), _BYTE)
        return self._viewed(heads, blob, "tiles", 0)

    @cached_property
    def _tail(self) -> Tiles:
        """The rows after them, inverted in memory."""
        heads, blobs, position = [np.zeros((0, HEAD), dtype=np.int64)], [b""], 0
        tiled = int(self.state.data.get("tiled", 0))
        for first in range(tiled, self.state.rows, TILE):
            head, blob = self._tile(first, min(TILE, self.state.rows - first), position)
            heads.append(head)
            blobs.append(blob)
            position += len(blob)
        return self._viewed(np.concatenate(heads), np.frombuffer(b"".join(blobs), dtype=_BYTE), "postings", tiled)

    def _viewed(self, heads: Rows, blob: npt.NDArray[np.uint8], part: str, first: int) -> Tiles:
        try:
            return view_tiles(heads, blob, self._form.dtype, first)
        except ValueError as problem:
            raise self._damaged(part, str(problem)) from None

    def _examine(self, postings: npt.NDArray[Any]) -> None:
        """Raises: CorruptIndexError for what cannot have been written: compiled code would not notice."""
        weights, largest = postings["weight"], float(self.state.data["largest"])
        if (postings["term"] >= len(self._lexicon)).any() or not ((weights > 0) & (weights <= largest)).all():
            raise self._damaged("postings", "it holds terms or weights that do not exist")

    def _damaged(self, part: str, problem: str) -> CorruptIndexError:
        return CorruptIndexError(f"{self._folder / self._file(part)}: {problem}; `retriever verify` tells more")

    @cached_property
    def _df(self) -> Rows:
        terms = len(self._lexicon)
        return document_frequencies(self._mapped, terms) + document_frequencies(self._tail, terms)

    @property
    def _expansion(self) -> str | None:
        """The expansion file, of kinds that can have one."""
        return getattr(self.config, "expansion", None)

    def _progress(self, texts: float) -> None:
        if self.encodes:
            advance(texts)

    def _grow(self, part: str, data: npt.NDArray[np.uint8]) -> None:
        name = self._file(part)
        known = grow(self._folder / name, np.ascontiguousarray(data).data, self.state.files.get(self._path(name)))
        self.state = moved(self.state, files={**self.state.files, self._path(name): known})

    def _file(self, part: str) -> str:
        """Files of tiles have a number that rises with every form, the others one that rises with every compaction."""
        serial, build = int(self.state.data.get("serial", 0)), int(self.state.data.get("build", 0))
        return f"{part}-{serial:04d}-{build:04d}.bin" if part in ("tiles", "heads") else f"{part}-{serial:04d}.bin"

    def _known_file(self, part: str) -> FileRecord | None:
        return self.state.files.get(self._path(self._file(part)))

    def _path(self, name: str) -> str:
        return f"views/{self._folder.name}/{name}"


def _nothing(queries: int) -> Hits:
    return Hits(np.full((queries, 0), -1, np.int64), np.zeros((queries, 0), np.float32))
