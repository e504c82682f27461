"""`Run` and `Qrels`, the values that flow from searching to measuring, the files they come from, and the one tie order.

Files, plain or compressed (`.gz`, `.zst`), in UTF-8, recognised by their columns:

| value | columns | read as |
| --- | --- | --- |
| run | `qid Q0 docid rank score tag` | TREC: the score counts, the rank is ignored, as in trec_eval |
| run | `qid docid rank` | MS MARCO, when the third column holds exactly the ranks 1..n of every query: score = 1/rank |
| run | `qid docid score` | Tevatron, when the third column is anything but whole numbers |
| judgements | `query-id corpus-id score` under that header | BEIR |
| judgements | `qid iteration docid grade` | TREC, MS MARCO: the iteration is ignored |
| judgements | `qid docid grade` | BEIR without its header |

Three columns parted by exactly two tabs may hold ids with spaces; all else is parted by white space.
The order of lines never matters.
"""

from __future__ import annotations

import errno
import gzip
import math
import operator
import os
import re
import secrets
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeVar

from retriever.errors import InputError

V = TypeVar("V")

_RUN_SHAPES = {6: "6 columns (qid Q0 docid rank score tag)", 3: "3 columns (qid docid rank, or qid docid score)"}
_QRELS_SHAPES = {4: "4 columns (qid iteration docid grade)", 3: "3 columns (query-id corpus-id score)"}
_BEIR_HEADER = ["query-id", "corpus-id", "score"]
_UNWRITABLE = re.compile(r"\s|\A\Z")


def tie_order(scores: Mapping[str, float]) -> dict[str, float]:
    """Sort a ranking best first: by score descending, then by document id descending.

    trec_eval ignores the rank column and orders a run itself, by score and then by strcmp on the id, both descending;
    it holds scores as C floats, so two that are equal in float32 are tied (`comp_sim_docno` in form_res_rels.c, `sim`
    in trec_format.h). Doing the same here makes the rank that we show, cut at and write the rank that is measured.
    Code points sort as UTF-8 bytes do. The scores themselves keep their float64 values.
    """
    rounded = array("f", scores.values())
    return {
        document: float(scores[document]) for _, document in sorted(zip(rounded, scores, strict=True), reverse=True)
    }


class _Table(Mapping[str, Mapping[str, V]]):
    """An immutable two-level table: query id -> document id -> value. A query without documents is not in it.

    Ids are any text that UTF-8 can hold, without NUL, at which trec_eval's C code would end the id.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Mapping[str, dict[str, V]]) -> None:
        self._rows = {query: row for query, row in rows.items() if row}
        for query, row in self._rows.items():
            _check_ids(query, row)

    def __getitem__(self, query: str) -> Mapping[str, V]:
        return MappingProxyType(self._rows[query])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} queries, {sum(map(len, self._rows.values()))} documents>"


class Run(_Table[float]):
    """What a system found: query id -> {document id: score}, each ranking best first in `tie_order`.

    A query that found nothing is left out, as in a file: `run.get(query, {})`. Runs are equal when their rankings are;
    the tag is a label, kept without white space, because a TREC line has no room for it.

    Raises: InputError for a score that is NaN, or an id that UTF-8 cannot hold.
    """

    __slots__ = ("_tag",)

    def __init__(self, rankings: Mapping[str, Mapping[str, float]], tag: str = "retriever") -> None:
        for query, scores in rankings.items():
            for document, score in scores.items():
                if math.isnan(score):
                    raise InputError(f"query {query!r}, document {document!r}: the score is NaN, expected a number")
        super().__init__({query: tie_order(scores) for query, scores in rankings.items()})
        self._tag = "".join(tag.split()) or "retriever"

    @classmethod
    def ranked(cls, rankings: Mapping[str, dict[str, float]], tag: str) -> Run:
        """A run from rankings that an index made: in `tie_order` already, without NaN, their ids checked when added."""
        run = cls({}, tag)
        run._rows = {query: ranking for query, ranking in rankings.items() if ranking}
        return run

    @property
    def tag(self) -> str:
        """The system's name, TREC's last column."""
        return self._tag

    def top(self, k: int) -> Run:
        """The first k documents of every query.

        Raises: InputError for k below 1.
        """
        if k < 1:
            raise InputError(f"a run is cut at a depth of at least 1, not {k}")
        return Run({query: dict(islice(ranking.items(), k)) for query, ranking in self._rows.items()}, self.tag)

    def lines(self) -> Iterator[str]:
        """TREC lines `qid Q0 docid rank score tag` without line ends, ranks from 1, scores with all their digits.

        Raises: InputError, before the first line, for an id that white space would cut in two.
        """
        for query, ranking in self._rows.items():
            _check_writable("query", query)
            for document in ranking:
                _check_writable("document", document)
        return (
            f"{query} Q0 {document} {rank} {score!r} {self.tag}"
            for query, ranking in self._rows.items()
            for rank, (document, score) in enumerate(ranking.items(), 1)
        )

    def write(self, path: str | Path) -> None:
        """Write TREC lines, compressed if the name ends in .gz or .zst; the file appears whole or not at all.

        Raises: InputError for an id with white space, before anything is written, or a path that cannot be written.
        """
        lines = self.lines()
        with written(Path(path)) as stream:
            for line in lines:
                stream.write(f"{line}\n".encode())

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """Read a TREC, MS MARCO or Tevatron run (see the module); without a tag column the file's name is the tag.

        MS MARCO's rank becomes the score 1/rank, as in Anserini's convert_msmarco_to_trec_run.py.

        Raises: InputError naming file and line.
        """
        path = Path(path)
        rankings: dict[str, dict[str, float]] = {}
        tag, whole = _stem(path), True
        for line, fields in _rows(path, _RUN_SHAPES):
            if len(fields) == 6:
                query, _, document, _, score, tag = fields
            else:
                query, document, score = fields
            whole = whole and len(fields) == 3 and score.isdecimal()
            ranking = rankings.setdefault(query, {})
            if document in ranking:
                raise InputError(f"document {document!r} stands twice in the ranking of query {query!r}", path, line)
            ranking[document] = _score(score, path, line)
        return cls(_from_ranks(rankings, path) if whole else rankings, tag)


class Qrels(_Table[int]):
    """What was judged: query id -> {document id: grade}; 0 and below mean not relevant, as in trec_eval.

    Raises: InputError for a grade that is not a whole number, or an id that UTF-8 cannot hold.
    """

    __slots__ = ()

    def __init__(self, judgements: Mapping[str, Mapping[str, int]]) -> None:
        super().__init__({query: _grades(query, row) for query, row in judgements.items()})

    @classmethod
    def read(cls, path: str | Path) -> Qrels:
        """Read BEIR, TREC or MS MARCO judgements (see the module).

        The same judgement twice is harmless and accepted; trec_eval refuses it. Two grades for one pair are refused.

        Raises: InputError naming file and line.
        """
        path = Path(path)
        judgements: dict[str, dict[str, int]] = {}
        for line, fields in _rows(path, _QRELS_SHAPES):
            if fields == _BEIR_HEADER:
                continue
            query, document, text = fields[0], *fields[-2:]
            try:
                grade = int(text)
            except ValueError:
                raise InputError(f"expected a whole number as the grade, found {text!r}", path, line) from None
            if judgements.setdefault(query, {}).setdefault(document, grade) != grade:
                before = judgements[query][document]
                raise InputError(
                    f"query {query!r}, document {document!r} is graded {grade}, before it was {before}", path, line
                )
        return cls(judgements)


def _grades(query: str, row: Mapping[str, int]) -> dict[str, int]:
    try:
        return {document: operator.index(grade) for document, grade in row.items()}
    except TypeError as problem:
        raise InputError(f"query {query!r}: expected whole numbers as grades ({problem})") from None


def _score(text: str, path: Path, line: int) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise InputError(f"expected a number as the score, found {text!r}", path, line)
    return score


def _from_ranks(rankings: Mapping[str, Mapping[str, float]], path: Path) -> dict[str, dict[str, float]]:
    """Turn ranks into the scores 1/rank; refuse whole numbers that are not ranks, which could be meant either way."""
    for query, ranks in rankings.items():
        if sorted(ranks.values()) != list(range(1, len(ranks) + 1)):
            raise InputError(
                f"whole numbers in the third column, but for query {query!r} they are not the ranks 1 to {len(ranks)}; "
                "write scores with a decimal point, or the 6 columns of TREC",
                path,
            )
    return {query: {document: 1 / rank for document, rank in ranks.items()} for query, ranks in rankings.items()}


def _rows(path: Path, shapes: Mapping[int, str]) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields; the first line chooses one of `shapes`, the others must follow it."""
    for line, text in _text_lines(path):
        fields = text.split("\t")
        if len(fields) != 3:
            fields = text.split()
        if len(fields) not in shapes:
            raise InputError(f"expected {' or '.join(shapes.values())}, found {len(fields)}", path, line)
        shapes = {len(fields): shapes[len(fields)]}
        if not all(fields):
            raise InputError(f"expected {shapes[len(fields)]}, found an empty one", path, line)
        yield line, fields


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of every line that is not blank."""
    for line, raw in enumerate(_split(pieces(path)), 1):
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise InputError("expected text in UTF-8", path, line) from None
        if text and not text.isspace():
            yield line, text


def pieces(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of a file, about `size` at a time, decompressed where its name ends in .gz or .zst.

    Raises: InputError where it cannot be read or is damaged.
    """
    import zstandard

    try:
        with path.open("rb") as file:
            if path.suffix == ".zst":
                yield from _unzst(file)
            else:
                stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
                while piece := stream.read(size):
                    yield piece
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as problem:
        raise InputError(f"cannot be read: {getattr(problem, 'strerror', None) or problem}", path) from None


def _unzst(file: IO[bytes]) -> Iterator[bytes]:
    """Decompressed pieces. zstandard's own reader does not notice that a file was cut short; this does."""
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    while piece := file.read(1 << 20):
        while piece:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(piece)
            piece = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    yield rest


def _check_ids(query: str, documents: Iterable[str]) -> None:
    """Raise InputError for an id that is no text; checked on all of a query's at once, for speed."""
    try:
        if b"\0" not in "".join([query, *documents]).encode():
            return
        problem = "a NUL character"
    except UnicodeEncodeError:
        problem = "a lone surrogate"
    raise InputError(f"query {query!r}: its id or that of a document has {problem}, which is no text")


def _check_writable(what: str, name: str) -> None:
    if _UNWRITABLE.search(name):
        raise InputError(f"{what} id {name!r} cannot stand in a TREC run, whose columns are parted by white space")


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content takes the place of `path` in one step when all went well, and else leaves no trace.

    Compressed where the name ends in .gz or .zst. Raises: InputError where it cannot be written, OSError where the disk
    is full or fails: that is the machine's fault.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise InputError("cannot be written: not a regular file", path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            with _compressed(path, file) as stream:
                yield stream
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise OSError(problem.errno, problem.strerror, str(path)) from None
        raise InputError(f"cannot be written: {problem.strerror}", path) from None
    finally:
        part.unlink(missing_ok=True)


def _compressed(path: Path, file: IO[bytes]) -> AbstractContextManager[Any]:
    """The compressor that the name asks for; the bytes depend on the content alone, on no clock."""
    if path.suffix == ".gz":
        return gzip.GzipFile("", "wb", fileobj=file, mtime=0)
    if path.suffix == ".zst":
        import zstandard

        return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    return nullcontext(file)


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz").removesuffix(".zst")).stem
