"""One generation of an index, opened for reading."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from retriever.errors import CorruptIndexError, IndexMismatchError
from retriever.indexers import indexer_class
from retriever.indexers.base import Indexer
from retriever.spec import configure, parse_view
from retriever.store import manifest as manifests
from retriever.store.documents import Documents
from retriever.store.files import check
from retriever.store.manifest import Manifest, ViewState
from retriever.types import Mask


class Snapshot:
    """Documents, deletions and views as of one manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.deleted = self._deleted()
        self.documents = Documents(folder, manifest.segments, self.deleted)
        self.views: dict[str, Indexer] = {}

    @classmethod
    def newest(cls, folder: Path) -> Snapshot:
        """The current generation. A writer may replace it between two reads: then the newer one is opened."""
        while True:
            manifest = manifests.load(folder)
            try:
                return cls(folder, manifest)
            except FileNotFoundError as missing:
                if manifests.load(folder).generation == manifest.generation:
                    raise CorruptIndexError(f"{missing.filename or missing}: is missing") from None
            except CorruptIndexError:
                if manifests.load(folder).generation == manifest.generation:
                    raise

    def view(self, name: str) -> Indexer:
        """A view, opened at its first use.

        Raises: IndexMismatchError while the view is still being built.
        """
        state = self.manifest.views[name]
        if state.rows < self.manifest.rows:
            raise IndexMismatchError(
                f"view {name!r} holds {state.rows:,} of {self.manifest.rows:,} documents: its build was interrupted; "
                "run the same `retriever index` command again to complete it"
            )
        return self.writable_view(name)

    def writable_view(self, name: str) -> Indexer:
        """A view in whatever state it is."""
        if name not in self.views:
            self.views[name] = open_view(self.folder, name, self.manifest.views[name])
        return self.views[name]

    def allowed(self, where: str | None) -> Mask | None:
        """Bool [rows]: live rows that satisfy the filter; None where that is every row."""
        if where is not None:
            return self.documents.matching(where) & ~self.deleted
        return ~self.deleted if self._any_deleted else None

    @cached_property
    def _any_deleted(self) -> bool:
        return bool(self.deleted.any())

    def _deleted(self) -> Mask:
        mask = np.zeros(self.manifest.rows, dtype=np.bool_)
        if self.manifest.deleted:
            path = self.folder / self.manifest.deleted
            check(path, self.manifest.files[self.manifest.deleted])  # small, and a lost bit would bring a document back
            mask[np.load(path)] = True
        return mask


def open_view(folder: Path, name: str, state: ViewState) -> Indexer:
    """The indexer of a view, from what the manifest says of it."""
    spec = parse_view(state.spec)
    indexer = indexer_class(spec.component)
    view: Indexer = indexer(folder / "views" / name, configure(indexer.Config, spec.component), state)
    return view
