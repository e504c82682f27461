"""Effectiveness of a run under the field's measures, computed by ir-measures.

Names are ir-measures' own (https://ir-measur.es): `nDCG@10`, `RR@10`, `AP(rel=2)`, `R(rel=2)@1000`; its aliases
`MRR@10`, `MAP`, `Recall@100` are understood. The values come from trec_eval's code (pytrec_eval), except those that it
lacks: `RR@k` (MS MARCO's script), `Judged`, `Compat`, `ERR@k`, `RBP(rel=1)` (`retriever.eval.providers`).

`nDCG@10` has linear gain, the grade itself, as trec_eval has it; `nDCG(dcg='exp-log2')@10` has the gain 2^grade - 1, as
gdeval has it. They are the same where grades are 0 and 1. What a paper prints and what it ran need not be the same one.

The average is over all judged queries, `trec_eval -c`: a query without results counts as zero, and so does a query
without a relevant document, which no system can answer. (trec_eval without -c, and BEIR, average over the run's
queries only.)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any

from retriever.errors import InputError
from retriever.runs import Qrels, Run

if TYPE_CHECKING:
    from ir_measures import Measure

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10")

_EXAMPLES = (
    "nDCG@10, nDCG, RR@10 (or MRR@10), RR, AP (or MAP), AP@100, AP(rel=2), R@100 (or Recall@100), R(rel=2)@100, P@10, "
    "Success@5, Rprec, Bpref, infAP, IPrec@0.5, Judged@10, SetP, SetR, SetF, SetAP, NumRet, NumRel, Compat, "
    "nDCG(dcg='exp-log2')@10, ERR@20, RBP(rel=1)"
)
_NAMES = (
    *("nDCG", "RR", "MRR", "AP", "MAP", "R", "Recall", "P", "Precision", "Success", "Rprec", "Bpref", "infAP", "IPrec"),
    *("Judged", "SetP", "SetR", "SetF", "SetAP", "NumRet", "NumRel", "Compat", "ERR", "RBP"),
)
_LARGEST_GRADE = 1_000_000


@dataclass(frozen=True)
class Results:
    """What a run is worth.

    means: measure -> its mean over all judged queries (the sum for counts such as NumRet).
    per_query: measure -> query id -> value, for every judged query, in the judgements' order.
    judged: queries with judgements; what `means` averages over.
    missing: those of them for which the run has no results; each counts as zero.
    ignored: queries of the run without judgements; they change nothing.
    dropped: results taken out because their id is the query's own.
    strangers: where no document that was found is judged, in words, with ids of both sides; else empty.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]
    judged: int
    missing: int
    ignored: int
    dropped: int
    strangers: str = ""

    def notes(self) -> Iterator[str]:
        """What a reader of the numbers must know of them, in words."""
        if self.missing:
            yield f"judged queries without results, each counted as zero: {self.missing} of {self.judged}"
        if self.ignored:
            yield f"queries without judgements, ignored: {self.ignored}"
        if self.dropped:
            yield f"results with their query's own id, dropped: {self.dropped}"
        if self.strangers:
            yield self.strangers


def parse_measures(names: Sequence[str]) -> list[Measure]:
    """Parse measures' names; each is kept once, `str` of it is its canonical name.

    Raises: InputError for a name that is unknown, malformed or without a provider here, with near matches.
    """
    if not names:
        raise InputError(f"no measure given; known: {_EXAMPLES}")
    return list(dict.fromkeys(map(_parse_measure, names)))


def evaluate(
    run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES, *, drop_identical: bool = False
) -> Results:
    """Measure a run against judgements.

    Measured is the run's own order (`retriever.runs.tie_order`, which is trec_eval's): every measure sees the ranks and
    not the scores, because MS MARCO's script breaks ties the other way round.

    drop_identical: take out results whose id is the query's, for collections whose queries are documents (ArguAna,
        Quora); what pyserini calls --remove-query. A run cut at depth k then holds k - 1 results.

    Raises: InputError for measures that cannot be computed, or when run and judgements share no query.
    """
    measuring = Measuring(parse_measures(measures), qrels)
    _check_common_queries(run, qrels)
    found = {query: list(run[query]) for query in qrels if query in run}
    kept = {query: _without(query, ranking) if drop_identical else ranking for query, ranking in found.items()}
    measuring.add(kept)
    return measuring.results(
        answered=sum(map(bool, kept.values())),
        ignored=len(run) - len(found),
        dropped=sum(map(len, found.values())) - sum(map(len, kept.values())),
        strangers=_strangers(kept, qrels),
    )


class Measuring:
    """The measures of one run, which comes some rankings at a time; zero for every judged query without one.

    Raises: InputError for grades that trec_eval cannot hold.
    """

    def __init__(self, measures: Sequence[Measure], qrels: Qrels) -> None:
        self._measures = measures
        self._judged = {query: _gradable(query, row) for query, row in qrels.items()}
        self._values = {str(measure): dict.fromkeys(self._judged, 0.0) for measure in measures}

    def add(self, rankings: Mapping[str, Sequence[str]]) -> None:
        """Measure rankings of judged queries, query id -> document ids, best first."""
        from retriever.eval.providers import provider

        ranked = {query: _by_rank(ranking) for query, ranking in rankings.items() if ranking}
        judged = {query: self._judged[query] for query in ranked}
        names = {measure: str(measure) for measure in self._measures}
        for metric in provider().evaluator(self._measures, judged).iter_calc(ranked):
            self._values[names[metric.measure]][metric.query_id] = float(metric.value)

    def results(self, *, answered: int, ignored: int, dropped: int, strangers: str = "") -> Results:
        """What was measured. answered: judged queries with results; the others: as in `Results`."""
        return Results(
            means={str(measure): _mean(measure, self._values[str(measure)]) for measure in self._measures},
            per_query=self._values,
            judged=len(self._judged),
            missing=len(self._judged) - answered,
            ignored=ignored,
            dropped=dropped,
            strangers=strangers,
        )


def _without(query: str, ranking: list[str]) -> list[str]:
    return [document for document in ranking if document != query]


def _gradable(query: str, row: Mapping[str, int]) -> dict[str, int]:
    """The judgements as trec_eval's C code can take them, which counts grades in an array from 0 to the highest.

    A query with negative grades only, worth zero in any case, would be counted in memory that is not there: they become
    0. For a grade beyond all memory it would silently answer zero: it is refused.
    """
    highest = max(row.values())
    if highest > _LARGEST_GRADE:
        raise InputError(f"query {query!r} has the grade {highest}; trec_eval can hold none above {_LARGEST_GRADE}")
    return dict(row) if highest >= 0 else dict.fromkeys(row, 0)


def _by_rank(ranking: Sequence[str]) -> dict[str, float]:
    """Scores -1, -2, ...: the same order without ties; exact in trec_eval's C floats up to 16 million results."""
    return {document: -float(rank) for rank, document in enumerate(ranking, 1)}


def _mean(measure: Measure, values: Mapping[str, float]) -> float:
    aggregator = measure.aggregator()
    for value in values.values():
        aggregator.add(value)
    return float(aggregator.result())


def _parse_measure(name: str) -> Measure:
    import ir_measures

    from retriever.eval.providers import ABSENT, provider

    try:
        measure = ir_measures.parse_measure(name)
        measure.validate_params()
    except NameError:
        raise InputError(f"unknown measure {name!r}; {_near(name)}known: {_EXAMPLES}") from None
    except (ValueError, TypeError, AttributeError, AssertionError):
        measure = None
    if measure is None or not _sound(measure.params):
        raise InputError(f"measure {name!r} is not well-formed: one name each, written like {_EXAMPLES}")
    if not provider().supports(measure):
        why = ABSENT.get(measure.NAME, "no provider has it in this form")
        raise InputError(f"measure {name!r} cannot be computed here: {why}; known: {_EXAMPLES}")
    return measure


def _sound(params: Mapping[str, Any]) -> bool:
    """Whether trec_eval can be handed these: a cutoff of 0 ends the whole process there, in C."""
    gains = params.get("gains", {})
    numbers = [params.get("cutoff", 1), params.get("rel", 1)]
    if not 0 < params.get("p", 0.5) < 1:
        return False
    return all(type(number) is int and number > 0 for number in numbers) and all(
        type(grade) is int for grade in (*gains, *gains.values())
    )


def _near(name: str) -> str:
    """`did you mean nDCG@10? ` for `ndgc@10`, or nothing."""
    written = re.match(r"\w*", name)
    stem = written.group() if written else ""
    known = {measure.lower(): measure for measure in _NAMES}
    near = get_close_matches(stem.lower(), known, n=2)
    return f"did you mean {' or '.join(known[one] + name[len(stem) :] for one in near)}? " if near else ""


def _check_common_queries(run: Run, qrels: Qrels) -> None:
    if not qrels:
        raise InputError("there are no judgements to measure against")
    if not run:
        raise InputError("the run is empty: it has no results for any query")
    if run.keys().isdisjoint(qrels):
        raise InputError(
            "the run and the judgements share no query: "
            f"the run has {_first(run)}; the judgements have {_first(qrels)}; do they belong to the same collection?"
        )


def _strangers(rankings: Mapping[str, Sequence[str]], qrels: Qrels) -> str:
    """Words for a run in which no judged document was found, which is more often a wrong file than a bad system."""
    if any(document in qrels[query] for query, ranking in rankings.items() for document in ranking):
        return ""
    query = next((query for query, ranking in rankings.items() if ranking), None)
    if query is None:
        return ""
    return (
        f"no judged document was found for any query: for {query!r} the run has {_first(rankings[query])}; "
        f"the judgements have {_first(qrels[query])}; do they belong to the same collection?"
    )


def _first(ids: Collection[str]) -> str:
    shown = ", ".join(map(repr, islice(ids, 3)))
    return f"{shown}, ..." if len(ids) > 3 else shown
