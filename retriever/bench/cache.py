"""What is kept between comparisons: an index of each collection with the views that systems needed, and their runs.

    CACHE/
      beir/NAME/                       downloads
      collections/DIGEST/              DIGEST: of the corpus's content
        index/                         documents, and views by what they are made of
        about.json                     written when all documents are in: counts, and what was left out
        builds.json                    what each view took
        outcomes/KEY.trec.gz  .json    KEY: of the system, the queries, k and this package's code: the run, what it took

Nothing here is ever mixed up: another corpus, model, setting or version of the code has another name.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from retriever.bench.cost import peak_mb
from retriever.bench.outcome import Cost
from retriever.bench.sources import Source
from retriever.bench.systems import System, View
from retriever.engine import Retriever
from retriever.errors import InputError
from retriever.progress import bar
from retriever.runs import Run, written
from retriever.store import manifest as manifests
from retriever.store.documents import Documents
from retriever.types import Document, Query


def default_cache() -> Path:
    """Where this platform keeps what can be made again."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "retriever"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retriever"


@dataclass(frozen=True)
class Build:
    """What a view took. documents: that were encoded in these seconds; 0 for a change of settings alone."""

    seconds: float
    documents: int
    peak_mb: float


@dataclass(frozen=True)
class Kept:
    """A system's run and what it took. made: when."""

    run: Run
    cost: Cost
    notes: list[str]
    made: str


class Indexed:
    """One collection in the cache."""

    def __init__(self, source: Source, folder: Path, *, skip_bad: bool) -> None:
        """Store the documents, or what is missing of them.

        Raises: InputError for a bad record, unless they are to be skipped.
        """
        self.folder = folder / "collections" / source.digest[:24]
        self.index_folder = self.folder / "index"
        self._about = _read(self.folder / "about.json") or self._store(source, skip_bad=skip_bad)
        if self.skipped and not skip_bad:
            raise InputError(f"{self._about['first']} ({self.skipped:,} bad records; --skip-bad leaves them out)")
        self.index = Retriever(self.index_folder)

    @property
    def skipped(self) -> int:
        """Bad records that were left out."""
        return int(self._about["skipped"])

    def __len__(self) -> int:
        return len(self.index)

    def release(self) -> None:
        """Let go of views and models that earlier systems loaded."""
        self.index.close()
        self.index = Retriever(self.index_folder)

    def _store(self, source: Source, *, skip_bad: bool) -> dict[str, Any]:
        problems: list[InputError] = []
        on_bad = problems.append if skip_bad else None
        index = Retriever.prepare(self.index_folder, [])
        documents = source.documents(on_bad)
        with bar(f"{source.name}: documents", "documents") as progress:
            report = index.add(progress.follow(documents), on_bad)
        skipped = max(report.skipped, len(problems))
        about = {"name": source.name, "skipped": skipped, "first": str(problems[0]) if problems else ""}
        _write(self.folder / "about.json", about)
        return about

    def sample(self, count: int) -> list[Document]:
        """Up to so many documents, spread over the collection."""
        manifest = manifests.load(self.index_folder)
        stored = Documents(self.index_folder, manifest.segments, np.zeros(manifest.rows, dtype=np.bool_))
        try:
            return stored.fetch(np.unique(np.linspace(0, manifest.rows - 1, count).astype(np.int64)))
        finally:
            stored.close()

    # -- views ---------------------------------------------------------------------------------------------------------

    def prepare(self, view: View) -> list[str]:
        """Build what is missing of a view; says what was not."""
        notes = []
        views = manifests.load(self.index_folder).views
        if any(other.rows < len(self) for name, other in views.items() if name != view.spec.name):
            Retriever.prepare(self.index_folder)  # what was interrupted is completed first, not in this view's time
        state = manifests.load(self.index_folder).views.get(view.spec.name)
        rows = state.rows if state else 0
        if not state or rows < len(self):
            if rows:
                notes.append(f"{view.spec.component}: {rows:,} documents were encoded before an interruption")
            self._build(view.base, len(self) - rows)
        else:
            notes.append(f"{view.spec.component}: taken from the cache, with what its making took")
        if manifests.load(self.index_folder).views[view.spec.name].spec != str(view.spec):
            self._build(view.spec, 0)
        state = manifests.load(self.index_folder).views[view.spec.name]
        if "index" in dict(view.spec.component.options) and not any(path.endswith(".faiss") for path in state.files):
            notes.append(f"{view.spec.component}: too few documents to train this index; they are searched exactly")
        return notes

    def _build(self, spec: Any, documents: int) -> None:
        start = time.perf_counter()
        with bar(f"building {spec.component}", "documents", total=documents or None):
            self.index = Retriever.prepare(self.index_folder, [str(spec)])
        build = Build(time.perf_counter() - start, documents, peak_mb())
        known = _read(self.folder / "builds.json") or {}
        key = spec.name if documents else str(spec)
        _write(self.folder / "builds.json", {**known, key: asdict(build)})

    def builds(self, view: View) -> list[Build]:
        """What its encoding took, and its indexing where that was done apart."""
        known = _read(self.folder / "builds.json") or {}
        found = [known.get(view.spec.name), known.get(str(view.spec)) if view.spec != view.base else None]
        return [Build(**each) for each in found if each]

    # -- runs ----------------------------------------------------------------------------------------------------------

    def key(self, system: System, queries: Sequence[Query], k: int) -> str:
        """What decides a run."""
        asked = [[query.id, query.text, *filter(None, [query.language])] for query in queries]
        return hashlib.sha256(json.dumps([system.key, asked, k, self._about, _code()]).encode()).hexdigest()[:32]

    def kept(self, key: str) -> Kept | None:
        """The run of that key, if it is here."""
        path = self.folder / "outcomes" / f"{key}.json"
        about = _read(path)
        if about is None:
            return None
        return Kept(
            Run.read(path.with_suffix(".trec.gz")), Cost(**about["cost"]), list(about["notes"]), str(about["made"])
        )

    def keep(self, key: str, kept: Kept) -> None:
        """Put a run here."""
        path = self.folder / "outcomes" / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept.run.write(path.with_suffix(".trec.gz"))
        _write(path, {"cost": asdict(kept.cost), "notes": kept.notes, "made": kept.made})


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        return None


def _write(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all: what is interrupted is not taken for done."""
    with written(path) as stream:
        stream.write(json.dumps(values, ensure_ascii=False, indent=1).encode())


@cache
def _code() -> str:
    """SHA-256 of this package's source: another version may find something else."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
