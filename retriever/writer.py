"""Changing an index: every change writes new files beside the old ones and then replaces the manifest.

A writer holds the index's lock for its lifetime. Whatever it had not published when it dies is ignored by readers and
removed by the next writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retriever.errors import IndexMismatchError, InputError, RetrieverError
from retriever.indexers import indexer_class
from retriever.indexers.base import Indexer
from retriever.progress import advance, scaled
from retriever.snapshot import Snapshot, open_view
from retriever.spec import ViewSpec, component_of, configure, parse_view
from retriever.store import manifest as manifests
from retriever.store.documents import FOLDER, Documents, due_merge, unstorable, write_segment
from retriever.store.files import FileRecord, check, record, replacing
from retriever.store.manifest import Manifest, ViewState
from retriever.types import Document, Mask, Rows

ENCODED_SEGMENT = 4096
"""Documents in one commit where a view encodes them: what a kill can cost is the encoding of so many."""
LEXICAL_SEGMENT = 65_536
"""Documents in one commit where nothing is encoded."""
SEGMENT_CHARACTERS = 64_000_000
"""A commit is made earlier when its texts reach this length, so that memory stays bounded."""

Place = tuple[Any, int | None]


@dataclass
class Report:
    """What an `add` did. skipped: bad records left out; truncated: by view, texts longer than its encoder reads."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    truncated: dict[str, int] = field(default_factory=dict)


class Writer:
    """The only one who may change an index at a time; a context manager.

    create: where no index is yet, begin an empty one; it is there once `set_views` has published its first generation.

    Raises: IndexLockedError where another writer is at work.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = folder
        self._resources = ExitStack()
        self._resources.enter_context(manifests.writing(folder))
        try:
            if create and not (folder / manifests.NAME).exists():
                self._snapshot = Snapshot(folder, Manifest())
            else:
                self._reopen()
            self._clean()
        except BaseException:
            self._resources.close()
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        with self._resources:
            self._snapshot.documents.close()
            if failed and self.folder.is_dir():
                with suppress(OSError, RetrieverError):
                    self._clean()  # on a full disk, what did not come to be must not take the room

    def set_views(self, specs: Sequence[ViewSpec], *, finish: bool = True) -> None:
        """Add the views that are missing, and take over changed index settings of those that are there.

        finish: build what is cheap to rebuild now; otherwise the next `add` does.

        Raises: IndexMismatchError when a view of that name was made by something else.
        """
        manifest = self.manifest
        for spec in specs:
            indexer = indexer_class(spec.component)
            config = configure(indexer.Config, spec.component)
            text = str(ViewSpec(spec.name, component_of(spec.component.name, config)))
            old = manifest.views.get(spec.name)
            if old and old.spec != text:
                _check_same(spec.name, old, asdict(config), indexer, text)
            state = replace(old or ViewState(text), spec=text, config=_plain(asdict(config)))
            if state != old:
                manifest = manifest.with_view(spec.name, self._tried(spec.name, state))
        if manifest != self.manifest or not manifest.generation:
            self._publish(manifest)
        self._complete()
        if finish:
            self._finish()

    def add(self, documents: Iterable[Document], on_bad: Callable[[InputError], None] | None = None) -> Report:
        """Add documents, commit by commit; one whose id is there already replaces it, if it differs.

        Raises: InputError for an id that comes twice in this call; `on_bad` receives it instead where given.
        """
        self._complete()
        before = {name: state.truncated for name, state in self.manifest.views.items()}
        report = Report()
        touched = np.zeros(self.manifest.rows, dtype=np.bool_)
        for batch in self._batches(documents, report, on_bad):
            touched = self._add_batch(batch, touched, report, on_bad)
        self._finish()
        after = {name: state.truncated for name, state in self.manifest.views.items()}
        report.truncated = {name: after[name] - before[name] for name in after if after[name] > before[name]}
        report.skipped += getattr(documents, "skipped", 0)
        return report

    def delete(self, ids: Iterable[str]) -> int:
        """Take documents out of every view at once; says how many of the ids were there."""
        rows = list(self._snapshot.documents.find(ids).values())
        if rows:
            deleted = self._snapshot.deleted.copy()
            deleted[rows] = True
            self._publish(self._with_deleted(self.manifest, deleted))
        return len(rows)

    def compact(self) -> None:
        """Rewrite the index without its deleted documents; nothing is encoded again.

        Raises: CorruptIndexError where a file is damaged: a copy with a checksum of its own would hide that.
        """
        for name, known in self.manifest.all_files().items():
            check(self.folder / name, known)
        self._complete()
        live = np.flatnonzero(~self._snapshot.deleted)
        manifest = replace(self.manifest, rows=len(live), segments=(), deleted=None, files={})
        for first in range(0, len(live), LEXICAL_SEGMENT):
            rows = live[first : first + LEXICAL_SEGMENT]
            manifest = self._with_segment(manifest, enumerate(self._live(rows), first), first, first + len(rows))
        for name in manifest.views:
            view = self._snapshot.writable_view(name)
            view.compact(live, self._live(live))
            manifest = manifest.with_view(name, view.state)
        self._publish(manifest)

    def view(self, name: str) -> Indexer:
        """A view, to look at or to give an encoder that is loaded already."""
        return self._snapshot.writable_view(name)

    @property
    def manifest(self) -> Manifest:
        """The generation that was published last."""
        return self._snapshot.manifest

    def _batches(
        self, documents: Iterable[Document], report: Report, on_bad: Callable[[InputError], None] | None
    ) -> Iterator[dict[str, tuple[Document, Place]]]:
        """Documents by id, as many as one commit takes.

        The cuts depend on the documents alone: a build that was killed goes on in the same commits.
        """
        most = ENCODED_SEGMENT if self._encodes else LEXICAL_SEGMENT
        batch: dict[str, tuple[Document, Place]] = {}
        characters = 0
        for document in documents:
            place = (getattr(documents, "path", None), getattr(documents, "line", None))
            if problem := unstorable(document):
                _refuse(InputError(problem, *place), report, on_bad)
                continue
            if document.id in batch:
                _refuse(_duplicate(document, place), report, on_bad)
                continue
            batch[document.id] = document, place
            characters += len(document.text)
            if len(batch) >= most or characters >= SEGMENT_CHARACTERS:
                yield batch
                batch, characters = {}, 0
        if batch:
            yield batch

    def _add_batch(
        self,
        batch: Mapping[str, tuple[Document, Place]],
        touched: Mask,
        report: Report,
        on_bad: Callable[[InputError], None] | None,
    ) -> Mask:
        """Commit what is new or changed among a batch. touched, bool [rows]: rows that this call has seen."""
        found = self._snapshot.documents.find(batch)
        present = dict(
            zip(found, self._snapshot.documents.fetch(np.array(list(found.values()), np.int64)), strict=True)
        )
        new: list[Document] = []
        replaced: list[int] = []
        for id, (document, place) in batch.items():
            if id in found and touched[found[id]]:
                _refuse(_duplicate(document, place), report, on_bad)
            elif id in found and _same(document, present[id]):
                touched[found[id]] = True
                report.unchanged += 1
                advance(1)
            else:
                new.append(document)
                replaced.extend([found[id]] if id in found else [])
        if new:
            self._append(new, replaced)
        report.updated += len(replaced)
        report.added += len(new) - len(replaced)
        return np.concatenate([touched, np.ones(len(new), dtype=np.bool_)])

    def _append(self, documents: Sequence[Document], replaced: Sequence[int]) -> None:
        """One commit: the documents in every view, and the rows that they replace deleted."""
        start = self.manifest.rows
        stop = start + len(documents)
        manifest = replace(self.manifest, rows=stop)
        manifest = self._with_segment(manifest, enumerate(documents, start), start, stop)
        encoding = [name for name in manifest.views if self._snapshot.writable_view(name).encodes]
        for name in manifest.views:
            view = self._snapshot.writable_view(name)
            with scaled(1 / max(1, len(encoding))):
                view.append(documents)
            manifest = manifest.with_view(name, view.state)
        if not encoding:
            advance(len(documents))
        deleted = np.concatenate([self._snapshot.deleted, np.zeros(len(documents), dtype=np.bool_)])
        deleted[list(replaced)] = True
        manifest = replace(manifest, live=manifest.live + len(documents))
        if replaced:
            manifest = self._with_deleted(manifest, deleted)
        self._publish(self._merged(manifest), views=self._snapshot.views)

    def _tried(self, name: str, state: ViewState) -> ViewState:
        """The first of the work that a new or changed view asks for: what cannot work fails before it is published."""
        view = open_view(self.folder, name, state)
        if state.rows:
            view.finish()
        elif stop := min(ENCODED_SEGMENT, self.manifest.rows):
            view.append([document for _, document in self._snapshot.documents.scan(0, stop)])
        return view.state

    def _complete(self) -> None:
        """Bring views that hold fewer rows than the documents up to them, segment by segment.

        Their indexes are left to the end of the command: built now, of part of the rows, they would differ from those
        of a run that was not interrupted.
        """
        for name, state in self.manifest.views.items():
            rows = state.rows
            while rows < self.manifest.rows:
                stop = min(rows + ENCODED_SEGMENT, self.manifest.rows)
                view = self._snapshot.writable_view(name)
                view.append([document for _, document in self._snapshot.documents.scan(rows, stop)])
                self._publish(self.manifest.with_view(name, view.state), views=self._snapshot.views)
                rows = stop

    def _finish(self) -> None:
        manifest = self.manifest
        for name in manifest.views:
            view = self._snapshot.writable_view(name)
            view.finish()
            manifest = manifest.with_view(name, view.state)
        if manifest != self.manifest:
            self._publish(manifest)

    def _with_segment(
        self, manifest: Manifest, rows: Iterable[tuple[int, Document]], start: int, stop: int
    ) -> Manifest:
        (self.folder / FOLDER).mkdir(exist_ok=True)
        segment, known = write_segment(self.folder, rows, start, stop, self.manifest.generation + 1)
        return replace(manifest, segments=(*manifest.segments, segment), files={**manifest.files, segment[0]: known})

    def _merged(self, manifest: Manifest) -> Manifest:
        """The same documents with neighbouring small segments merged into one."""
        while count := due_merge(manifest.segments):
            kept, merged = manifest.segments[:-count], manifest.segments[-count:]
            for name, _, _ in merged:
                check(self.folder / name, manifest.files[name])
            start, stop = merged[0][1], merged[-1][2]
            source = Documents(self.folder, merged, np.zeros(stop, dtype=np.bool_))
            files = {
                path: known for path, known in manifest.files.items() if path not in {name for name, _, _ in merged}
            }
            manifest = self._with_segment(
                replace(manifest, segments=kept, files=files), source.scan(start, stop), start, stop
            )
            source.close()
        return manifest

    def _with_deleted(self, manifest: Manifest, deleted: Mask) -> Manifest:
        name = f"deleted-{self.manifest.generation + 1:06d}.npy"
        rows: Rows = np.flatnonzero(deleted)
        with replacing(self.folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, rows)
        files: dict[str, FileRecord] = {
            path: known for path, known in manifest.files.items() if path != manifest.deleted
        }
        files[name] = record(self.folder / name)
        return replace(manifest, deleted=name, live=manifest.rows - len(rows), files=files)

    def _live(self, rows: Rows) -> Iterator[Document]:
        chunks = (rows[first : first + ENCODED_SEGMENT] for first in range(0, len(rows), ENCODED_SEGMENT))
        return (document for chunk in chunks for document in self._snapshot.documents.fetch(chunk))

    def _publish(self, manifest: Manifest, views: Mapping[str, Indexer] | None = None) -> None:
        manifests.publish(self.folder, manifest)
        self._snapshot.documents.close()
        self._reopen()
        self._snapshot.views.update(views or {})
        self._clean()

    def _reopen(self) -> None:
        self._snapshot = Snapshot.newest(self.folder)

    @property
    def _encodes(self) -> bool:
        return any(self._snapshot.writable_view(name).encodes for name in self.manifest.views)

    def _clean(self) -> None:
        """Remove what the manifest does not name: leftovers of a killed writer, and files of earlier generations.

        The manifest is the one on disk: an interruption may have come between its replacement and our knowing of it.
        """
        published = (self.folder / manifests.NAME).exists()
        files = manifests.load(self.folder).all_files() if published else {}
        for name, known in files.items():
            if (path := self.folder / name).exists() and path.stat().st_size > known.size:
                os.truncate(path, known.size)
        named = {*files, manifests.NAME, manifests.LOCK}
        for path in self.folder.rglob("*"):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in named:
                path.unlink(missing_ok=True)
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                with suppress(OSError):  # a reader that is opening an old generation has put its lock file there
                    path.rmdir()


def _check_same(name: str, old: ViewState, config: Mapping[str, Any], indexer: Any, text: str) -> None:
    rebuilds = getattr(indexer, "rebuilds", ())
    changed = [key for key in config if _plain(config)[key] != old.config.get(key) and key not in rebuilds]
    if changed or indexer_class(parse_view(old.spec).component) is not indexer:
        raise IndexMismatchError(
            f"view {name!r} is {old.spec}, not {text}; keep it as it is, give the other a name of its own "
            f'(--view "{name}2 = ..."), or make a new index'
        )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON values, as it will be read back."""
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def _same(new: Document, old: Document) -> bool:
    if (new.text, new.title) != (old.text, old.title):
        return False
    return json.dumps(dict(new.metadata), sort_keys=True) == json.dumps(dict(old.metadata), sort_keys=True)


def _duplicate(document: Document, place: Place) -> InputError:
    return InputError(f"document id {document.id!r} comes a second time in this corpus; ids must be unique", *place)


def _refuse(problem: InputError, report: Report, on_bad: Callable[[InputError], None] | None) -> None:
    if on_bad is None:
        raise problem
    on_bad(problem)
    report.skipped += 1
