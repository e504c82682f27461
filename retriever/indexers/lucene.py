"""Lexical search on Lucene, with Anserini's analysis and free k1 and b: what published BM25 baselines ran on.

score = sum over query terms of idf * tf / (tf + k1 * (1 - b + b * |d| / avgdl)) with
idf = ln(1 + (N - df + 0.5) / (df + 0.5)), and |d| in one lossy byte (Lucene's BM25Similarity; it has no factor k1 + 1).
N, df and avgdl count deleted documents until `compact`. tests/indexers/test_lucene.py holds it to Pyserini's numbers.

Lucene's segment files never change once written: a commit works in a new folder that hard-links those of the last one,
as in `bm25.py`. A document's number in Lucene is its row. An index that Anserini or Pyserini made is searched where it
lies, and a file beside holds the number that each row has in it.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from retriever.errors import CorruptIndexError, IndexMismatchError, InputError
from retriever.indexers import lucene_jvm
from retriever.indexers.base import Frequencies, Terms, best_and_ties, moved, search_time, stack
from retriever.indexers.lucene_jvm import LuceneReader
from retriever.spec import suggest
from retriever.store.files import FileRecord, grow, link_files, mapped, record, sync_folder
from retriever.store.manifest import ViewState
from retriever.types import Document, Hits, Mask, Rows

LANGUAGES = dict.fromkeys("ar bn da de en es fa fi fr hi hu id it ja ko nl no pl pt ru sv te th tr uk zh".split())
"""The codes of Anserini's analyzers."""
_NUMBER = np.dtype("<i4")


@dataclass(frozen=True)
class LuceneConfig:
    """language: the analyzer, by the code that Anserini and Pyserini have for it.
    index: a Lucene index (Anserini's layout: fields `id` and `contents`), made with the same language, to search in
    place of one of our own. What is there and no document here counts as filtered out; `retriever info` says how many.
    """

    k1: float = search_time(0.9)
    b: float = search_time(0.4)
    language: str = "en"
    index: str | None = None

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f"Anserini has no analyzer {self.language!r}; {suggest(self.language, LANGUAGES)}")
        if not (0 <= self.k1 < math.inf and 0 <= self.b <= 1):
            raise ValueError(f"k1 is at least 0 and b from 0 to 1, not {self.k1} and {self.b}")


class Lucene:
    """A Lucene index over `contents`: title and text. A filter cuts a longer result list down: a narrow one costs."""

    Config = LuceneConfig
    encodes = False
    rebuilds = ("k1", "b")

    def __init__(self, folder: Path, config: LuceneConfig, state: ViewState) -> None:
        self._root, self.config, self.state = folder, config, state
        for name in state.files:
            (folder.parent.parent / name).stat()

    def append(self, documents: Sequence[Document]) -> None:
        """Add the next rows in a folder of their own; or look them up in the index that there is.

        Raises: InputError where that index lacks one of them, IndexMismatchError where it has changed.
        """
        if self.config.index is None:
            self._write(documents, self._folder if self.state.rows else None, self.state.rows)
        else:
            self._note(self._looked_up(self.config.index, documents), self._serial)

    def finish(self) -> None:
        """Nothing: every commit is searchable."""

    def compact(self, live: Rows, documents: Iterable[Document]) -> None:
        """Index the remaining documents afresh: deleted ones leave the statistics too, but for an index not ours."""
        if self.config.index is None:
            self._write(documents, None, 0)
        else:
            numbers = self._numbers[live]
            self.state = moved(self.state, rows=0, files={})
            self._note(numbers, self._serial + 1)

    def search(self, queries: Sequence[str], k: int, allowed: Mask | None, config: LuceneConfig) -> Hits:
        """BM25 of each query, one at a time, pruned by Lucene's block-max WAND."""
        return self.search_terms(self.query_terms(queries), k, allowed, config)

    def query_terms(self, texts: Sequence[str]) -> list[Terms]:
        """Analysed terms and their counts."""
        return [Counter(lucene_jvm.analyze(self.config.language, text)) for text in texts]

    def document_terms(self, rows: Rows, documents: Sequence[Document]) -> list[Terms]:
        """Analysed terms of the contents and their counts: the index keeps no document vectors."""
        return self.query_terms([document.contents for document in documents])

    def frequencies(self, terms: Sequence[str]) -> Frequencies:
        """Of these terms, over all documents of the Lucene index."""
        if not self.state.rows:
            return Frequencies(np.zeros(len(terms), np.int64), np.zeros(len(terms)), 0, 0.0)
        df, cf, tokens = self._reader.frequencies(terms)
        return Frequencies(np.array(df, np.int64), np.array(cf), self._reader.documents, tokens)

    def search_terms(self, queries: Sequence[Terms], k: int, allowed: Mask | None, config: LuceneConfig) -> Hits:
        """BM25 of each query, its terms weighted.

        Raises: InputError for a negative weight.
        """
        if not self.state.rows:
            return stack([([], [])] * len(queries))
        if self.config.index is None:
            return stack([self._best(terms, k, allowed, config) for terms in queries])
        rows = self._rows
        inside = rows >= 0 if allowed is None else (rows >= 0) & allowed[rows]
        found = [self._best(terms, k, inside, config) for terms in queries]
        return stack([(rows[numbers].tolist(), scores) for numbers, scores in found])

    def _best(
        self, terms: Mapping[str, float], k: int, allowed: Mask | None, config: LuceneConfig
    ) -> tuple[list[int], list[float]]:
        """The best documents by their numbers in Lucene, among which `allowed` chooses too."""
        reader = self._reader
        return best_and_ties(lambda limit: reader.best(terms, limit, config.k1, config.b), k, reader.documents, allowed)

    @property
    def _serial(self) -> int:
        return int(self.state.data.get("serial", 0))

    @property
    def _folder(self) -> Path:
        return self._root / f"{self._serial:06d}"

    @cached_property
    def _reader(self) -> LuceneReader:
        if self.config.index is None:
            reader = LuceneReader(self._folder)
            if reader.documents != self.state.rows:
                raise CorruptIndexError(f"{self._folder}: holds {reader.documents} documents, not {self.state.rows}")
            return reader
        reader = _existing(self.config.index)
        if self.state.data.get("version", reader.version) != reader.version:
            raise IndexMismatchError(
                f"the Lucene index {self.config.index} has changed since view {self._root.name!r} was made of it: "
                "add a view of it under another name"
            )
        return reader

    def _write(self, documents: Iterable[Document], base: Path | None, first: int) -> None:
        serial = self._serial + 1
        folder = self._root / f"{serial:06d}"
        shutil.rmtree(folder, ignore_errors=True)  # left by a commit that did not happen
        folder.mkdir(parents=True)
        if base:
            link_files(base, folder)
        lucene_jvm.write(folder, (document.contents for document in documents), first, self.config.language)
        (folder / "write.lock").unlink()
        files = self._record(folder, base)
        self.__dict__.pop("_reader", None)
        rows = LuceneReader(folder).documents
        self.state = moved(self.state, rows=rows, data={"serial": serial, "engine": "lucene"}, files=files)

    def _record(self, folder: Path, base: Path | None) -> dict[str, FileRecord]:
        view = f"views/{self._root.name}"
        earlier = {Path(name).name: known for name, known in self.state.files.items()} if base else {}
        known = {
            f"{view}/{folder.name}/{path.name}": earlier.get(path.name) or record(path)
            for path in sorted(folder.iterdir())
        }
        for made in (folder, self._root, self._root.parent):
            sync_folder(made)
        return known

    def _looked_up(self, index: str, documents: Sequence[Document]) -> Rows:
        numbers = self._reader.numbers([document.id for document in documents])
        if len(missing := np.flatnonzero(numbers < 0)):
            raise InputError(
                f"the Lucene index {index} lacks {len(missing):,} of these {len(documents):,} documents, "
                f"{documents[int(missing[0])].id!r} the first: give the collection that it was made of, or a part of it"
            )
        return numbers

    def _note(self, numbers: Rows, serial: int) -> None:
        """Write the numbers of the next rows behind the others."""
        name = f"views/{self._root.name}/numbers-{serial:06d}.i32"
        known = grow(self._root.parent.parent / name, numbers.astype(_NUMBER).tobytes(), self.state.files.get(name))
        rows = self.state.rows + len(numbers)
        data = {"serial": serial, "version": self._reader.version}
        self.state = moved(self.state, rows=rows, data=data, files={name: known})
        for cached in ("_numbers", "_rows"):
            self.__dict__.pop(cached, None)
        outside = np.count_nonzero(self._rows < 0)
        note = f", {outside:,} of the {self._reader.documents:,} documents in its index are not here" if outside else ""
        self.state = moved(self.state, data={**data, "engine": f"lucene{note}"})

    @cached_property
    def _numbers(self) -> Rows:
        """int64 [rows]: the number of each row in an index that is not ours."""
        ((name, known),) = self.state.files.items()
        return mapped(self._root.parent.parent / name, known, _NUMBER).astype(np.int64)

    @cached_property
    def _rows(self) -> Rows:
        """int64 [documents in Lucene]: the newest row of each, -1 where it has none."""
        rows = np.full(self._reader.documents, -1, dtype=np.int64)
        rows[self._numbers] = np.arange(len(self._numbers))
        return rows


def _existing(index: str) -> LuceneReader:
    """Raises: InputError where there is no Lucene index."""
    if not any(Path(index).glob("segments_*")):
        raise InputError(f"{index}: no Lucene index here: expected a folder with a file segments_N")
    return LuceneReader(Path(index))
