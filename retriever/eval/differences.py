"""Where two runs differ: query by query, and for a query document by document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retriever.eval.measures import Results, evaluate
from retriever.eval.significance import paired
from retriever.runs import Qrels, Run

DEPTH = 10
"""How far down a ranking every document counts; below it only relevant ones."""

_EQUAL = 1e-9


@dataclass(frozen=True)
class Move:
    """A document of a query. before, after: its rank in each run, from 1, none where it is not found.
    grade: none where it is not judged.
    """

    document: str
    before: int | None
    after: int | None
    grade: int | None


@dataclass(frozen=True)
class QueryDifference:
    """A query's value in both runs, and the documents that make the difference."""

    query: str
    before: float
    after: float
    moves: list[Move]

    @property
    def difference(self) -> float:
        """Above 0 where the second run is better."""
        return self.after - self.before


@dataclass(frozen=True)
class Differences:
    """Two runs in one measure.

    p: of the paired two-sided t-test. better, worse, equal: how many judged queries are so in the second run, where
    values that differ by no more than rounding (1e-9) are equal. gains, losses: the queries with the largest
    differences, the largest first.
    """

    measure: str
    before: Results
    after: Results
    p: float
    better: int
    worse: int
    equal: int
    gains: list[QueryDifference]
    losses: list[QueryDifference]


def differences(before: Run, after: Run, qrels: Qrels, measure: str, n: int) -> Differences:
    """Compare two runs; n: how many gains and how many losses to look into.

    Raises: InputError as `evaluate` does.
    """
    results = [evaluate(run, qrels, [measure]) for run in (before, after)]
    (name,) = results[0].means
    first, second = (each.per_query[name] for each in results)
    change = {query: second[query] - first[query] for query in first}
    gains = [query for query in sorted(change, key=lambda one: -change[one]) if change[query] > _EQUAL]
    losses = [query for query in sorted(change, key=change.__getitem__) if change[query] < -_EQUAL]

    def shown(queries: list[str]) -> list[QueryDifference]:
        return [
            QueryDifference(query, first[query], second[query], _moves_of(query, before, after, qrels))
            for query in queries[:n]
        ]

    return Differences(
        measure=name,
        before=results[0],
        after=results[1],
        p=paired(first, second)[1],
        better=len(gains),
        worse=len(losses),
        equal=len(change) - len(gains) - len(losses),
        gains=shown(gains),
        losses=shown(losses),
    )


def _moves_of(query: str, before: Run, after: Run, qrels: Qrels) -> list[Move]:
    return moves(before.get(query, {}), after.get(query, {}), qrels[query])


def moves(before: Iterable[str], after: Iterable[str], grades: Mapping[str, int]) -> list[Move]:
    """The documents that stand elsewhere in the second ranking: all within the first ten of either, and relevant ones
    wherever they are. Relevant ones come first, by grade, then the others; each by its better rank.
    """
    ranks = [{document: rank for rank, document in enumerate(ranking, 1)} for ranking in (before, after)]
    found = [
        Move(document, ranks[0].get(document), ranks[1].get(document), grades.get(document))
        for document in ranks[0] | ranks[1]
    ]
    moved = [each for each in found if each.before != each.after and (_relevance(each) or _top(each) <= DEPTH)]
    return sorted(moved, key=lambda each: (-_relevance(each), _top(each)))


def _relevance(move: Move) -> int:
    return max(0, move.grade or 0)


def _top(move: Move) -> int:
    return min(rank for rank in (move.before, move.after) if rank is not None)
