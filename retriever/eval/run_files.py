"""Run files of millions of lines, measured as they are read: a query's lines at a time, in about trec_eval's own time.

The values are `retriever.eval.measures`' own, bit for bit: only reading, ordering and finding the judged documents are
done otherwise, in machine code (`retriever.eval.columns`). Memory is bounded by the largest query and the judgements.
A file that is not plain, in the sense of that module, is read by `retriever.runs`, whole.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.eval.measures import DEFAULT_MEASURES, Measuring, Results, evaluate, parse_measures
from retriever.runs import Qrels, Run, pieces

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from ir_measures import Measure

    from retriever.eval.columns import Bytes, Spans
    from retriever.types import Rows

LARGE = 16 << 20
"""Bytes of a file from which on loading the machine code pays."""
_PIECE = 8 << 20
_MOST = 1 << 30
"""Bytes of one query's lines that are taken; places in them are 32-bit numbers."""
_TAIL_FREE = {"nDCG", "RR", "AP", "Rprec", "Bpref", "infAP", "IPrec", "RBP"}
"""Measures to which, without a cutoff, what comes after the last judged document is the same as nothing."""


def evaluate_file(
    path: str | Path,
    qrels: Qrels,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    drop_identical: bool = False,
    large: int = LARGE,
) -> Results:
    """`evaluate(Run.read(path), qrels, measures)`; of a plain file of `large` bytes and more, the run is never kept.

    Raises: InputError as the two of them do.
    """
    path = Path(path)
    wanted = parse_measures(measures)
    if path.is_file() and path.stat().st_size >= large and qrels:
        results = _Streamed(wanted, qrels, drop_identical).read(path)
        if results:
            return results
    return evaluate(Run.read(path), qrels, measures, drop_identical=drop_identical)


class _Streamed:
    """One run file on its way through the measures."""

    def __init__(self, measures: Sequence[Measure], qrels: Qrels, drop_identical: bool) -> None:
        self._measuring = Measuring(measures, qrels)
        self._need, self._drop = _Need.of(measures), drop_identical
        self._queries = list(qrels)
        self._numbers = {query.encode(): number for number, query in enumerate(qrels)}
        self._ids = [document for row in qrels.values() for document in row]
        self._ends = [0, *accumulate(map(len, qrels.values()))]
        self._unjudged: list[str] = []
        self._seen: set[bytes] = set()
        self._found = self._answered = self._dropped = 0
        self._matched = False

    def read(self, path: Path) -> Results | None:
        """None where the file is not plain, or holds no judged query or document, of which `evaluate` tells."""
        from retriever.eval.columns import judged, places

        if any(document.startswith("\n") for document in self._ids):  # would be taken for one of `_unjudged`
            return None
        wanted = judged([document.encode() for document in self._ids])
        for block in _blocks(path):
            queries = self._queries_of(*block) if block else None
            if block is None or queries is None:
                return None
            text, spans, groups = block
            first, last = self._judged_of(queries)
            found = places(text, spans, wanted, first, last)
            if found is None:
                return None
            self._measure(queries, spans.groups[: groups + 1], *found)
        if not self._found or (self._answered and not self._matched):
            return None
        return self._measuring.results(
            answered=self._answered, ignored=len(self._seen) - self._found, dropped=self._dropped
        )

    def _queries_of(self, text: Bytes, spans: Spans, groups: int) -> list[int] | None:
        """The number of each group's query, -1 for one without judgements; None where one comes a second time."""
        lines = spans.groups[:groups]
        names = [
            text[at:end].tobytes()
            for at, end in zip(spans.query_at[lines].tolist(), spans.query_end[lines].tolist(), strict=True)
        ]
        before = len(self._seen)
        self._seen.update(names)
        return [self._numbers.get(name, -1) for name in names] if len(self._seen) == before + groups else None

    def _judged_of(self, queries: Sequence[int]) -> tuple[Rows, Rows]:
        """int64 [g], int64 [g]: which of all judged documents are each query's."""
        import numpy as np

        ends = np.array([*self._ends, 0])  # number -1 takes the 0 at the end, and the one at the beginning
        numbers = np.array(queries, dtype=np.int64)
        return ends[numbers], ends[np.where(numbers < 0, -2, numbers) + 1]

    def _measure(self, queries: Sequence[int], groups: npt.NDArray[np.int32], found: Rows, own: Rows) -> None:
        """Give the measures each judged query's ranking, shortened to what they need of it."""
        rankings, places, at = {}, found.tolist(), 0
        for number, itself, depth in zip(queries, own.tolist(), (groups[1:] - groups[:-1]).tolist(), strict=True):
            if number < 0:
                continue
            first, last = self._ends[number], self._ends[number + 1]
            hits = places[at : at + last - first]
            at += last - first
            ranking = self._ranking(depth, self._ids[first:last], hits)
            self._found += 1
            out = itself if self._drop else -1
            self._matched = self._matched or any(hit >= 0 and hit != out for hit in hits)
            if out >= 0:
                del ranking[out : out + 1]
                self._dropped += 1
                depth -= 1
            self._answered += depth > 0
            rankings[self._queries[number]] = ranking
        self._measuring.add(rankings)

    def _ranking(self, depth: int, documents: Sequence[str], hits: Sequence[int]) -> list[str]:
        """The judged documents at their places, among others that have no name but their place."""
        needed = depth if self._need.all else min(depth, self._need.depth(hits))
        if needed > len(self._unjudged):
            self._unjudged += [f"\n{place}" for place in range(len(self._unjudged), needed)]
        ranking = self._unjudged[:needed]
        for place, document in zip(hits, documents, strict=True):
            if 0 <= place < needed:
                ranking[place] = document
        return ranking


class _Need(NamedTuple):
    """How much of a ranking the measures need: so many documents; if `judged`, up to the last judged one; or all."""

    cutoff: int
    judged: bool
    all: bool

    @classmethod
    def of(cls, measures: Sequence[Measure]) -> _Need:
        """Measures without a cutoff need more than those with one; some, such as NumRet, need everything."""
        cutoffs = [measure.params.get("cutoff", 0) for measure in measures]
        uncut = any(not cutoff or m.params.get("judged_only") for m, cutoff in zip(measures, cutoffs, strict=True))
        tail = any(not cutoff and m.NAME not in _TAIL_FREE for m, cutoff in zip(measures, cutoffs, strict=True))
        return cls(max(cutoffs) + 1, uncut, tail)  # + 1: the query's own id may be taken out

    def depth(self, hits: Sequence[int]) -> int:
        """How many documents that is, where the judged ones have the places `hits`, from 0, or -1."""
        return max(self.cutoff, max(hits) + 1) if self.judged else self.cutoff


def _blocks(path: Path) -> Iterator[tuple[Bytes, Spans, int] | None]:
    """Text, its lines, and how many queries at its beginning are complete; None, as the last, where it is not plain."""
    held: list[bytes] = []
    size, enough = 0, _PIECE
    for piece in pieces(path, _PIECE):
        held.append(piece)
        size += len(piece)
        if size < enough:
            continue
        text = b"".join(held)
        block = _block(text, text.rfind(b"\n") + 1) if size < _MOST else None
        if block is None:
            yield None
            return
        groups = max(0, block[2] - 1)
        yield block[0], block[1], groups
        rest = text[block[1].query_at[block[1].groups[groups]] :] if groups else text
        held, size, enough = [rest], len(rest), max(_PIECE, 2 * len(rest))
    text = b"".join(held) + b"\n"
    yield _block(text, len(text))


def _block(text: bytes, size: int) -> tuple[Bytes, Spans, int] | None:
    import numpy as np

    from retriever.eval.columns import split

    whole = np.frombuffer(text, np.uint8, size)
    spans = split(whole)
    if spans is None or not _scored(text, spans):
        return None
    return whole, spans, len(spans.groups) - 1


def _scored(text: bytes, spans: Spans) -> bool:
    """Read, the way `retriever.runs` does, the scores that the machine code left; False where one is no number."""
    import numpy as np

    for line in np.flatnonzero(np.isnan(spans.scores)).tolist():
        try:
            score = float(text[spans.score_at[line] : spans.score_end[line]].decode())
        except ValueError:
            return False
        if math.isnan(score):
            return False
        spans.scores[line] = array("f", [score])[0]
    return True
