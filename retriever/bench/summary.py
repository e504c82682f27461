"""What every form of the report tells: values with their marks, averages, costs, the hardest queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from retriever.bench.outcome import Collection, Cost, Experiment, Outcome
from retriever.eval import report
from retriever.eval.significance import cautions

HARDEST = 10
"""Queries of a collection that the page shows."""

DEPTH = 5
"""Documents of each system that it shows for such a query; as many relevant ones that none found come on top."""


@dataclass(frozen=True)
class Column:
    """A cost as the tables print it. low: whether less is better. per: what the number is divided by."""

    field: str
    heading: str
    digits: int
    low: bool
    per: float = 1

    def value(self, cost: Cost) -> float | None:
        """The number in the heading's unit; none where it was not measured."""
        value = getattr(cost, self.field)
        return None if value is None else value / self.per

    def text(self, cost: Cost) -> str:
        """The number, or a dash."""
        value = self.value(cost)
        return "–" if value is None else f"{value:,.{self.digits}f}"


COSTS = (
    Column("documents_per_second", "documents per s", 0, low=False),
    Column("tokens_per_second", "tokens per s", 0, low=False),
    Column("build_seconds", "build, s", 1, low=True),
    Column("queries_per_second", "queries per s", 0, low=False),
    Column("p50", "p50, ms", 2, low=True),
    Column("p95", "p95, ms", 2, low=True),
    Column("p99", "p99, ms", 2, low=True),
    Column("bytes_per_document", "bytes per document", 0, low=True),
    Column("peak_mb", "peak memory, MB", 0, low=True),
    Column("parameters", "parameters, millions", 1, low=True, per=1e6),
)

COSTS_TOLD = (
    "Documents, tokens, build: encoding and indexing; queries: all in one call; p50, p95, p99: one query alone, "
    "after a warm-up; bytes: the views on disk; memory: the most while it was built and searched."
)


def costs_shown(outcomes: Sequence[Outcome]) -> list[Column]:
    """The costs that were measured for at least one of them."""
    return [column for column in COSTS if any(column.value(outcome.cost) is not None for outcome in outcomes)]


def runs_on(cost: Cost) -> str:
    """`cpu, float32`, or a dash."""
    return ", ".join(filter(None, (cost.device, cost.precision))) or "–"


def costs_table(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """A header and a line per system; only the header's first cell and no line where nothing was measured."""
    columns = costs_shown(outcomes)
    lines = [
        [outcome.system, *(column.text(outcome.cost) for column in columns), runs_on(outcome.cost)]
        for outcome in outcomes
    ]
    return [["system", *(column.heading for column in columns), "runs on"], *lines] if columns else []


def compared(experiment: Experiment, collection: str) -> list[report.Row]:
    """A collection's systems, each compared with the first that ran on it; Holm's family is the collection."""
    return report.report([(outcome.system, outcome.results) for outcome in experiment.of(collection)])


def best(values: Mapping[str, float]) -> set[str]:
    """Those whose value is highest at the four digits that are printed; none where there is nothing to compare."""
    if len(values) < 2:
        return set()
    highest = max(round(value, 4) for value in values.values())
    return {name for name, value in values.items() if round(value, 4) == highest}


@dataclass(frozen=True)
class Average:
    """A system over all collections. collections: on how many it ran; means: measure -> unweighted mean over the
    collections, empty unless it ran on all of them: means over different collections do not compare.
    """

    system: str
    collections: int
    means: dict[str, float]


def averages(experiment: Experiment) -> list[Average]:
    """Every system's, in their order."""
    return [_average(experiment, system) for system in experiment.systems]


def _average(experiment: Experiment, system: str) -> Average:
    means = [outcome.results.means for outcome in experiment.outcomes if outcome.system == system]
    whole = len(means) == len(experiment.collections)
    return Average(
        system,
        len(means),
        {measure: fmean(each[measure] for each in means) for measure in experiment.measures} if whole else {},
    )


@dataclass(frozen=True)
class Hard:
    """A query that is hard for all. mean: of the first measure over the systems; documents: the ids to show."""

    query: str
    mean: float
    documents: list[str]


def hardest(outcomes: Sequence[Outcome], grades: Mapping[str, Mapping[str, int]], measure: str) -> list[Hard]:
    """The queries with the lowest mean over the systems, hardest first; ties in the judgements' order.

    Queries without a relevant document are left out: nobody can answer them. The documents to show are the first of
    each system, by their best rank, and then relevant ones that no system has there.
    """
    values = [outcome.results.per_query[measure] for outcome in outcomes]
    means = {
        query: fmean(each[query] for each in values)
        for query in (values[0] if values else ())
        if any(grade > 0 for grade in grades.get(query, {}).values())
    }
    queries = sorted(means, key=means.__getitem__)[:HARDEST]
    return [Hard(query, means[query], _documents(outcomes, grades[query], query)) for query in queries]


def _documents(outcomes: Sequence[Outcome], grades: Mapping[str, int], query: str) -> list[str]:
    tops = [outcome.found.get(query, [])[:DEPTH] for outcome in outcomes]
    found = dict.fromkeys(top[rank] for rank in range(DEPTH) for top in tops if rank < len(top))
    relevant = sorted((document for document in grades if grades[document] > 0), key=lambda one: -grades[one])
    return [*found, *[document for document in relevant if document not in found][:DEPTH]]


def documents_shown(
    outcomes: Sequence[Outcome], grades: Mapping[str, Mapping[str, int]], measure: str
) -> set[str]:  # fmt: skip
    """The documents whose texts the page shows: what `Collection.texts` should hold."""
    return {document for hard in hardest(outcomes, grades, measure) for document in hard.documents}


def notes(outcome: Outcome, row: report.Row) -> Iterator[str]:
    """What a reader of the numbers and of their comparison with the first system's must know of them."""
    return chain(outcome.results.notes(), cautions(outcome.results.judged, row.versus_first), outcome.notes)


def size(collection: Collection, outcomes: Sequence[Outcome]) -> str:
    """`5,183 documents, 300 judged queries`."""
    judged = outcomes[0].results.judged if outcomes else 0
    return f"{collection.documents:,} documents, {judged:,} judged queries"
