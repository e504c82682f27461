"""Several runs side by side: values, differences to the first, and what of them is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from retriever.errors import InputError
from retriever.eval.corrections import CORRECTIONS
from retriever.eval.intervals import LEVEL, Interval, bootstrap
from retriever.eval.measures import Results
from retriever.eval.significance import Comparison, Statistics, compare


@dataclass(frozen=True)
class Row:
    """One run. `versus_first`: measure -> comparison with the first run, empty for the first run itself."""

    name: str
    results: Results
    versus_first: dict[str, Comparison] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)

    def value(self, measure: str) -> str:
        """The mean to four digits, as trec_eval prints it, starred where significantly unlike the first run's."""
        versus = self.versus_first.get(measure)
        return f"{self.results.means[measure]:.4f}" + ("*" if versus and versus.p_corrected < LEVEL else "")


def report(runs: Sequence[tuple[str, Results]], statistics: Statistics | None = None) -> list[Row]:
    """Compare every run, given as (name, results), with the first; the correction is over all comparisons.

    Raises: InputError when there is no run, or they were measured differently.
    """
    if not runs:
        raise InputError("a report needs at least one run")
    how = statistics or Statistics()
    (first, baseline), *others = runs
    versus = compare(baseline.per_query, [results.per_query for _, results in others], how)
    against = zip(others, versus, strict=True)
    return [Row(first, baseline, statistics=how), *(Row(*run, comparisons, how) for run, comparisons in against)]


def values_table(rows: Sequence[Row]) -> list[list[str]]:
    """A header and a line per run: name, then each measure's mean; `*` marks corrected p < .05 against the first."""
    measures = list(rows[0].results.means)
    return [["run", *measures], *([row.name, *map(row.value, measures)] for row in rows)]


def differences_table(rows: Sequence[Row]) -> list[list[str]]:
    """A header and a line per further run and measure: difference to the first run, its 95% interval, p, corrected p.

    [] for one run.
    """
    lines = [
        [
            row.name,
            measure,
            f"{versus.difference:+.4f}",
            _interval(versus),
            f"{versus.p:.4g}",
            f"{versus.p_corrected:.4g}",
        ]
        for row in rows
        for measure, versus in row.versus_first.items()
    ]
    corrected = f"p ({CORRECTIONS[rows[0].statistics.correction][0]})"
    return [["run", "measure", "difference", "95% interval", "p", corrected], *lines] if lines else []


def _interval(versus: Comparison) -> str:
    return "{:+.4f} {:+.4f}".format(*versus.interval) if versus.interval else "-"


def as_text(rows: Sequence[Row]) -> str:
    """Both tables, tab-separated, with an empty line between them."""
    tables = filter(None, (values_table(rows), differences_table(rows)))
    return "\n\n".join("\n".join("\t".join(line) for line in table) for table in tables)


def per_query_lines(rows: Sequence[Row]) -> list[str]:
    """`measure<TAB>qid<TAB>value` for every query, then for `all`, as trec_eval -q; several runs have a name before."""
    return [
        "\t".join([*([row.name] if len(rows) > 1 else []), measure, query, f"{value:.4f}"])
        for row in rows
        for measure, values in row.results.per_query.items()
        for query, value in [*values.items(), ("all", row.results.means[measure])]
    ]


def as_json(rows: Sequence[Row], *, per_query: bool = False) -> dict[str, Any]:
    """Everything at full precision, ready for `json.dumps`; the values per query only if asked for.

    intervals: the bootstrap's 95% interval of every mean; none for fewer than two queries.
    """
    return {"statistics": asdict(rows[0].statistics), "runs": [_as_json(row, per_query) for row in rows]}


def _as_json(row: Row, per_query: bool) -> dict[str, Any]:
    values = asdict(row.results)
    if not per_query:
        del values["per_query"]
    values["intervals"] = {measure: _of_mean(row, measure) for measure in row.results.means}
    if row.versus_first:
        values["versus_first"] = {measure: asdict(versus) for measure, versus in row.versus_first.items()}
    return {"name": row.name, **values}


def _of_mean(row: Row, measure: str) -> Interval | None:
    """Of the sum, for the counts, whose "mean" is a sum."""
    values = [*row.results.per_query[measure].values()]
    interval, scale = bootstrap(values, row.statistics.seed), len(values) if measure.startswith("Num") else 1
    return (interval[0] * scale, interval[1] * scale) if interval else None
