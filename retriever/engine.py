"""Retriever: one index directory, opened, searched and changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from retriever.errors import CorruptIndexError, IndexLockedError, IndexMismatchError, InputError
from retriever.indexers.base import Terms, TermView
from retriever.pipeline import Batch, compile_pipeline, default_pipeline
from retriever.progress import advance
from retriever.runs import Run
from retriever.snapshot import Snapshot
from retriever.spec import parse_pipeline, parse_view, suggest
from retriever.store import manifest as manifests
from retriever.store.files import check
from retriever.types import Document, Hit, Hits, Query
from retriever.writer import Report, Writer

DEFAULT_VIEWS = ("bm25", "dense")
QUERY_BATCH = 4096
"""Queries searched at once: bounds memory at k results each, and is what FAISS multiplies at once."""

Result = TypeVar("Result")


class Retriever:
    """An index directory.

    Reading never waits for a writer: this object sees the generation that was current when it was opened or last
    refreshed. Where a writer has removed a file of it that no search had opened yet, the search is done on the newest
    generation instead. A change made through this object is seen by it at once.
    """

    def __init__(self, path: str | Path) -> None:
        """Open an index. Raises: InputError where there is none, CorruptIndexError, IndexMismatchError."""
        self.path = Path(path)
        self._snapshot = Snapshot.newest(self.path)

    @classmethod
    def create(cls, path: str | Path, views: Sequence[str] = DEFAULT_VIEWS) -> Retriever:
        """Make an empty index with these views, each in the text form.

        Raises: InputError when the folder holds something already, SpecError for a view that does not parse.
        """
        folder = Path(path)
        if (folder / manifests.NAME).exists():
            raise InputError(f"{folder}: holds an index already; open it with Retriever({str(folder)!r})")
        return cls.prepare(folder, views)

    @classmethod
    def prepare(cls, path: str | Path, views: Sequence[str] | None = None, *, finish: bool = True) -> Retriever:
        """Create the index or, where it is there, see that it has these views (None: those it has, else the default).

        A missing view is built from the stored documents, a changed FAISS factory from the stored vectors.
        finish: False when an `add` follows, which builds FAISS indexes of the old and the new documents at once.
        """
        folder = Path(path)
        new = not (folder / manifests.NAME).exists()
        specs = [parse_view(view) for view in (views if views is not None else DEFAULT_VIEWS if new else ())]
        if len({spec.name for spec in specs}) < len(specs):
            raise InputError(
                f"two views have one name: {', '.join(map(str, specs))}; write NAME = ... before one of them"
            )
        made = new and _claim(folder)
        with Writer(folder, create=new) as writer:
            try:
                writer.set_views(specs, finish=finish)
            except BaseException:
                if made:  # under the lock: nobody else can have begun to write here
                    _remove(folder)
                raise
        return cls(folder)

    def add(self, documents: Iterable[Document], on_bad: Callable[[InputError], None] | None = None) -> Report:
        """Add documents from any iterable, in bounded memory, committed in segments.

        A document whose id is in the index replaces it if it differs. on_bad: receives bad records, which are skipped
        and counted; without it the first one is raised.

        Raises: InputError for a bad document, IndexLockedError while another process writes. What was committed stays.
        """
        with Writer(self.path) as writer:
            report = writer.add(documents, on_bad)
        self.refresh()
        return report

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents by id, in every view; returns how many were there."""
        with Writer(self.path) as writer:
            count = writer.delete(list(ids))
        self.refresh()
        return count

    def compact(self) -> None:
        """Give back the space of deleted documents; statistics of lexical views forget them."""
        with Writer(self.path) as writer:
            writer.compact()
        self.refresh()

    def refresh(self) -> None:
        """See the newest generation."""
        if manifests.load(self.path).generation != self._snapshot.manifest.generation:
            self._snapshot = Snapshot.newest(self.path)  # another thread may still be using the old one

    def search(
        self, query: str, k: int = 10, where: str | None = None, pipeline: str | None = None, language: str = ""
    ) -> list[Hit]:
        """The k best documents for one query, with their texts and a snippet.

        where: metadata filter (`store/where.py`); pipeline: text form, by default all views fused by rrf; language: the
        query's, for a pipeline with `by-language`.

        Raises: SpecError for a filter or pipeline that does not parse, InputError for an empty query.
        """
        asked = [Query("", query, language)]
        return self._retry(lambda snapshot: _hits(snapshot, query, _search(snapshot, asked, k, where, pipeline)))

    def run(
        self, queries: Iterable[Query], k: int = 1000, where: str | None = None, pipeline: str | None = None
    ) -> Run:
        """The k best documents of every query, as a run tagged with the pipeline."""
        asked = list(queries)
        if len({query.id for query in asked}) < len(asked):
            raise InputError("two queries have one id; a run holds one ranking a query")

        def rank(snapshot: Snapshot) -> Run:
            rankings: dict[str, dict[str, float]] = {}
            for first in range(0, len(asked), QUERY_BATCH):
                part = asked[first : first + QUERY_BATCH]
                hits = _search(snapshot, part, k, where, pipeline)
                rankings.update(_rankings(snapshot, part, hits))
                advance(len(part))
            return Run.ranked(rankings, _canonical(snapshot, pipeline))

        return self._retry(rank)

    def info(self) -> dict[str, Any]:
        """What the index holds, as JSON values."""
        manifest = self._snapshot.manifest
        sizes = {name: sum(known.size for known in state.files.values()) for name, state in manifest.views.items()}
        return {
            "path": str(self.path),
            "generation": manifest.generation,
            "documents": manifest.live,
            "deleted": manifest.rows - manifest.live,
            "bytes": sum(known.size for known in manifest.all_files().values()),
            "views": {
                name: {
                    "spec": state.spec,
                    "config": dict(state.config),
                    "engine": state.data.get("engine", "faiss"),
                    "documents": state.rows,
                    "truncated": state.truncated,
                    "bytes": sizes[name],
                    "encoder": dict(state.encoder),
                }
                for name, state in manifest.views.items()
            },
        }

    def verify(self) -> list[str]:
        """Read every file against its checksum; returns what is wrong, nothing when all is well."""
        return verify_index(self.path)

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Stored documents by id; ids that are not in the index are left out."""

        def fetch(snapshot: Snapshot) -> dict[str, Document]:
            found = snapshot.documents.find(ids)
            rows = np.array(list(found.values()), dtype=np.int64)
            return dict(zip(found, snapshot.documents.fetch(rows), strict=True))

        return self._retry(fetch)

    def weighted_terms(self, view: str) -> Iterator[tuple[Document, Terms]]:
        """The documents, in the order of adding, each with its terms and their weights in a view.

        Raises: InputError where there is no such view or it has no terms, IndexMismatchError where a writer removes
        files of this generation meanwhile.
        """
        snapshot = self._snapshot
        if view not in snapshot.manifest.views:
            raise InputError(f"this index has no view {view!r}; {suggest(view, snapshot.manifest.views)}")
        held = snapshot.view(view)
        if not isinstance(held, TermView):
            raise InputError(f"view {view!r} is {snapshot.manifest.views[view].spec}: it has no weighted terms")
        return _weighted_terms(snapshot, held)

    def discard_if_empty(self) -> None:
        """Remove an index to which nothing was ever committed; for a caller whose first `add` failed.

        Not while another process is writing to it: it may be about to commit.
        """
        with suppress(IndexLockedError), manifests.writing(self.path):
            if manifests.load(self.path).rows == 0:
                self.close()
                _remove(self.path)

    def close(self) -> None:
        """Let go of the files."""
        self._snapshot.documents.close()

    def __len__(self) -> int:
        return self._snapshot.manifest.live

    def _retry(self, work: Callable[[Snapshot], Result]) -> Result:
        """Do it on this generation; if a writer has removed its files meanwhile, on the newest."""
        while True:
            snapshot = self._snapshot
            try:
                return work(snapshot)
            except FileNotFoundError as missing:
                if not self._newer(snapshot):
                    raise CorruptIndexError(f"{missing.filename or missing}: is missing") from None
            except CorruptIndexError:
                if not self._newer(snapshot):
                    raise

    def _newer(self, snapshot: Snapshot) -> bool:
        """Whether the newest generation, which is open then, is another than this one."""
        self.refresh()
        return self._snapshot.manifest.generation != snapshot.manifest.generation


def _weighted_terms(snapshot: Snapshot, view: TermView) -> Iterator[tuple[Document, Terms]]:
    live = np.flatnonzero(~snapshot.deleted)
    for first in range(0, len(live), QUERY_BATCH):
        rows = live[first : first + QUERY_BATCH]
        try:
            documents = snapshot.documents.fetch(rows)
            terms = view.document_terms(rows, documents)
        except FileNotFoundError:
            raise IndexMismatchError(f"{snapshot.folder}: was changed while it was being read; begin again") from None
        yield from zip(documents, terms, strict=True)
        advance(len(rows))


def verify_index(folder: Path) -> list[str]:
    """Read every file of an index against its checksum, also where damage keeps it from being opened.

    Raises: CorruptIndexError where the manifest itself is damaged.
    """
    while True:
        manifest = manifests.load(folder)
        problems = []
        for name, known in manifest.all_files().items():
            try:
                check(folder / name, known)
            except CorruptIndexError as problem:
                problems.append(str(problem))
        if manifests.load(folder).generation == manifest.generation:
            return problems


def _search(snapshot: Snapshot, queries: Sequence[Query], k: int, where: str | None, pipeline: str | None) -> Hits:
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
    for query in queries:
        if not query.text.strip():
            raise InputError("the query is empty; give at least one word")
    node = parse_pipeline(pipeline) if pipeline else default_pipeline(snapshot)
    batch = Batch([query.text for query in queries], snapshot.allowed(where), [query.language for query in queries])
    return compile_pipeline(node, snapshot, k)(batch)


def _canonical(snapshot: Snapshot, pipeline: str | None) -> str:
    return str(parse_pipeline(pipeline) if pipeline else default_pipeline(snapshot))


def _rankings(snapshot: Snapshot, queries: Sequence[Query], hits: Hits) -> dict[str, dict[str, float]]:
    found = hits.rows >= 0
    ids, scores = snapshot.documents.ids(hits.rows[found]), hits.scores[found].tolist()
    ends = found.sum(axis=1).cumsum().tolist()
    bounds = zip(queries, [0, *ends], ends, strict=False)
    return {query.id: dict(zip(ids[start:end], scores[start:end], strict=True)) for query, start, end in bounds}


def _hits(snapshot: Snapshot, query: str, hits: Hits) -> list[Hit]:
    rows = hits.rows[0][hits.rows[0] >= 0]
    documents = snapshot.documents.fetch(rows)
    snippets = _snippets(snapshot, query, documents)
    return [
        Hit(rank, document.id, score, document.text, document.title, document.metadata, snippet)
        for rank, (document, score, snippet) in enumerate(
            zip(documents, hits.scores[0].tolist(), snippets, strict=False), 1
        )
    ]


def _snippets(snapshot: Snapshot, query: str, documents: Sequence[Document]) -> list[str]:
    """Excerpts around the query's words, by the first lexical view; beginnings where there is none."""
    for name in snapshot.manifest.views:
        if snippet := getattr(snapshot.view(name), "snippet", None):
            return [snippet(query, document.text) for document in documents]
    return [" ".join(document.text[:400].split())[:160] for document in documents]


def _claim(folder: Path) -> bool:
    """Make the folder of a new index; says whether it was not there before."""
    if folder.is_dir():
        if {path.name for path in folder.iterdir()} - {manifests.LOCK, manifests.NAME + ".tmp"}:
            raise InputError(f"{folder}: is not empty and holds no index; give another folder")
        return False
    if folder.exists():
        raise InputError(f"{folder}: is a file; an index is a folder")
    folder.mkdir(parents=True)
    return True


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
