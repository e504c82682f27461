"""Several runs side by side: values, differences to the first, and what of them is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from retriever.errors import InputError
from retriever.eval.measures import Results
from retriever.eval.significance import Comparison, compare

LEVEL = 0.05


@dataclass(frozen=True)
class Row:
    """One run. `versus_first`: measure -> comparison with the first run, empty for the first run itself."""

    name: str
    results: Results
    versus_first: dict[str, Comparison] = field(default_factory=dict)

    def value(self, measure: str) -> str:
        """The mean to four digits, as trec_eval prints it, starred where significantly unlike the first run's."""
        versus = self.versus_first.get(measure)
        return f"{self.results.means[measure]:.4f}" + ("*" if versus and versus.p_holm < LEVEL else "")


def report(runs: Sequence[tuple[str, Results]]) -> list[Row]:
    """Compare every run, given as (name, results), with the first; Holm's correction is over all comparisons.

    Raises: InputError when there is no run, or they were measured differently.
    """
    if not runs:
        raise InputError("a report needs at least one run")
    (first, baseline), *others = runs
    versus = compare(baseline.per_query, [results.per_query for _, results in others])
    return [Row(first, baseline), *(Row(*run, against) for run, against in zip(others, versus, strict=True))]


def values_table(rows: Sequence[Row]) -> list[list[str]]:
    """A header and a line per run: name, then each measure's mean; `*` marks p < .05 after Holm against the first."""
    measures = list(rows[0].results.means)
    return [["run", *measures], *([row.name, *map(row.value, measures)] for row in rows)]


def differences_table(rows: Sequence[Row]) -> list[list[str]]:
    """A header and a line per further run and measure: difference to the first run, p, p after Holm; [] for one run."""
    lines = [
        [row.name, measure, f"{versus.difference:+.4f}", f"{versus.p:.4g}", f"{versus.p_holm:.4g}"]
        for row in rows
        for measure, versus in row.versus_first.items()
    ]
    return [["run", "measure", "difference", "p", "p (Holm)"], *lines] if lines else []


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
    """Everything at full precision, ready for `json.dumps`; the values per query only if asked for."""
    return {"runs": [_as_json(row, per_query) for row in rows]}


def _as_json(row: Row, per_query: bool) -> dict[str, Any]:
    values = asdict(row.results)
    if not per_query:
        del values["per_query"]
    if row.versus_first:
        values["versus_first"] = {measure: asdict(versus) for measure, versus in row.versus_first.items()}
    return {"name": row.name, **values}
