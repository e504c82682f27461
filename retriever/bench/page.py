"""An experiment as one HTML page that loads nothing from elsewhere: tables that sort, plots, differences, hard queries.

The page is page.html, page.css and page.js beside this file. Texts of queries and documents are data: they enter as
text of elements (`markup`) and as JSON, never as markup; beyond that, the page's content security policy names its one
script by hash, so no other would run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from itertools import chain
from string import Template
from textwrap import shorten
from typing import Any
from xml.etree.ElementTree import Element

from retriever.bench import summary
from retriever.bench.markup import Cell, Heading, markup, table
from retriever.bench.outcome import Collection, Experiment, Outcome
from retriever.bench.plots import Point, scatter
from retriever.eval.report import Row
from retriever.eval.significance import Comparison
from retriever.svg import element

_PLOTS = (("p50", "latency p50, ms"), ("bytes_per_document", "index, bytes/document"))
_TEXT = 240
"""Characters of a document on the page."""


def html(experiment: Experiment) -> str:
    """The page, for a file in UTF-8."""
    style, script = _file("page.css"), _file("page.js")
    return Template(_file("page.html")).substitute(
        title=markup([element("span", _title(experiment))]).removeprefix("<span>").removesuffix("</span>"),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        head=markup(_head(experiment)),
        navigation=markup(_navigation(experiment)),
        overview=markup(_overview(experiment)),
        collections=markup([_section(experiment, number) for number in range(len(experiment.collections))]),
        data=_embedded(_differences(experiment)),
    )


def _file(name: str) -> str:
    return files("retriever.bench").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(value: Any) -> str:
    """JSON that ends no script element and opens no comment in it: `<` stands in strings only, as an escape there."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _differences(experiment: Experiment) -> dict[str, Any]:
    """What page.js draws: of each collection the queries, and per system and measure their values to six digits."""
    return {
        "measures": experiment.measures,
        "collections": [
            _values(experiment, collection) for collection in experiment.collections if experiment.of(collection.name)
        ],
    }


def _values(experiment: Experiment, collection: Collection) -> dict[str, Any]:
    outcomes = experiment.of(collection.name)
    queries = list(outcomes[0].results.per_query[experiment.measures[0]])
    return {
        "name": collection.name,
        "queries": [[query, _text(collection.queries, query)] for query in queries],
        "systems": [outcome.system for outcome in outcomes],
        "values": [
            [
                [round(outcome.results.per_query[measure][query], 6) for query in queries]
                for measure in experiment.measures
            ]
            for outcome in outcomes
        ],
    }


def _title(experiment: Experiment) -> str:
    systems, collections = len(experiment.systems), len(experiment.collections)
    return f"{systems} system{'s'[: systems > 1]} on {collections} collection{'s'[: collections > 1]}"


def _head(experiment: Experiment) -> list[Element]:
    told = {"Machine": experiment.machine, "Date": experiment.date, "Measures": ", ".join(experiment.measures)}
    return [
        element("pre", element("code", experiment.command)),
        element("dl", *chain.from_iterable((element("dt", name), element("dd", text)) for name, text in told.items())),
    ]


def _navigation(experiment: Experiment) -> list[Element]:
    places = [("overview", "Overview"), *((_id(n), each.name) for n, each in enumerate(experiment.collections))]
    places.append(("differences", "Differences query by query"))
    return [element("li", element("a", name, href=f"#{place}")) for place, name in places]


def _id(number: int) -> str:
    return f"collection-{number + 1}"


def _overview(experiment: Experiment) -> list[Element]:
    """Every system with its number in the plots and its means over the collections."""
    averages = summary.averages(experiment)
    best = _best({each.system: each.means for each in averages if each.means}, experiment.measures)
    headings = [_NUMBER, Heading("system"), *(Heading(each, number=True) for each in experiment.measures)]
    rows = [
        [
            Cell(str(number), number),
            Cell(each.system, name=True),
            *(_mean(each.means.get(measure), each.system in best[measure]) for measure in experiment.measures),
            Cell(f"{each.collections} of {len(experiment.collections)}", each.collections),
        ]
        for number, each in enumerate(averages, 1)
    ]
    caption = (
        "Means over the collections, each counting the same; none for a system that did not run on all. Bold: best."
    )
    return [
        element(
            "section",
            element("h2", "Overview", id="overview-title"),
            table(caption, [*headings, Heading("collections", number=True)], rows),
            id="overview",
            aria_labelledby="overview-title",
        )
    ]


_NUMBER = Heading("#", number=True, low=True)


def _best(means: dict[str, dict[str, float]], measures: Sequence[str]) -> dict[str, set[str]]:
    return {measure: summary.best({name: each[measure] for name, each in means.items()}) for measure in measures}


def _mean(value: float | None, best: bool, star: str = "") -> Cell:
    if value is None:
        return Cell("–")
    return Cell(f"{value:.4f}{star}", value, "best" if best else "")


@dataclass(frozen=True)
class _Part:
    """A collection with what ran on it. rows: of the outcomes, each against the first."""

    experiment: Experiment
    collection: Collection
    outcomes: list[Outcome]
    rows: list[Row]

    @property
    def measures(self) -> list[str]:
        return self.experiment.measures

    def number(self, system: str) -> int:
        """The system's, by which all plots and tables name it."""
        return self.experiment.systems.index(system) + 1


def _section(experiment: Experiment, number: int) -> Element:
    collection = experiment.collections[number]
    outcomes = experiment.of(collection.name)
    title = f"{_id(number)}-title"
    parts = [
        element("h2", collection.name, id=title),
        element("p", summary.size(collection, outcomes), class_="quiet"),
    ]
    if outcomes:
        part = _Part(experiment, collection, outcomes, summary.compared(experiment, collection.name))
        makers = (_results, _plots, _differing, _published, _costs, _hardest, _notes)
        parts += chain.from_iterable(make(part) for make in makers)
    else:
        parts.append(element("p", "No system ran on it."))
    return element("section", *parts, id=_id(number), aria_labelledby=title)


def _results(part: _Part) -> Iterator[Element]:
    best = _best({row.name: row.results.means for row in part.rows}, part.measures)
    caption = (
        f"Means over the judged queries. Bold: best. * differs from {part.rows[0].name}: p < .05, paired t-test, "
        "corrected for all comparisons on this collection (Holm)."
    )
    headings = [_NUMBER, Heading("system"), *(Heading(each, number=True) for each in part.measures)]
    yield table(caption, headings, [_result(part, row, best) for row in part.rows])


def _result(part: _Part, row: Row, best: dict[str, set[str]]) -> list[Cell]:
    number = part.number(row.name)
    values = [
        Cell(row.value(measure), row.results.means[measure], "best" if row.name in best[measure] else "")
        for measure in part.measures
    ]
    return [Cell(str(number), number), Cell(row.name, name=True), *values]


def _plots(part: _Part) -> Iterator[Element]:
    """Effectiveness against latency and against size, of the systems that have both."""
    measure = part.measures[0]
    figures = []
    for field, name in _PLOTS:
        points = [
            Point(part.number(each.system), each.system, cost, each.results.means[measure])
            for each in part.outcomes
            if (cost := getattr(each.cost, field))
        ]
        if points:
            caption = element("figcaption", f"{measure} against {name} (logarithmic). Numbers are those of the table.")
            figures.append(element("figure", scatter(points, name, measure), caption))
    if figures:
        yield element("div", *figures, class_="plots")


def _differing(part: _Part) -> Iterator[Element]:
    """Every system against the first in every measure, with how sure that is."""
    rows = [
        [Cell(row.name, name=True), Cell(measure), *_sureness(versus)]
        for row in part.rows
        for measure, versus in row.versus_first.items()
    ]
    if rows:
        names = ("difference", "from", "to", "p", "p corrected", "effect, d", "detectable")
        headings = [Heading("system"), Heading("measure"), *(Heading(name, number=True) for name in names)]
        caption = (
            "From, to: the bootstrap's 95% interval of the difference. Effect: Cohen's d of the paired differences. "
            "Detectable: the smallest difference that so many queries show four times in five."
        )
        body = [element("summary", f"Against {part.rows[0].name}, with intervals"), table(caption, headings, rows)]
        yield element("details", *body)


def _sureness(versus: Comparison) -> list[Cell]:
    low, high = versus.interval or (None, None)
    return [
        _number(versus.difference, "+.4f"),
        _number(low, "+.4f"),
        _number(high, "+.4f"),
        _number(versus.p, ".2g"),
        _number(versus.p_corrected, ".2g"),
        _number(versus.effect, "+.2f"),
        _number(versus.detectable, ".4f"),
    ]


def _number(value: float | None, form: str = ".4f") -> Cell:
    return Cell("–") if value is None else Cell(format(value, form), value)


def _published(part: _Part) -> Iterator[Element]:
    rows = [
        [
            Cell(outcome.system, name=True),
            Cell(measure),
            *map(_number, (outcome.results.means[measure], published.value)),
            _number(outcome.results.means[measure] - published.value, "+.4f"),
            _number(published.tolerance),
            Cell("within") if published.within else Cell("✗ outside", mark="outside"),
            Cell(published.source),
        ]
        for outcome in part.outcomes
        for measure, published in outcome.published.items()
        if measure in outcome.results.means
    ]
    if rows:
        names = ("ours", "published", "difference", "tolerance")
        headings = [Heading("system"), Heading("measure"), *map(partial(Heading, number=True), names)]
        yield element("h3", "Beside published numbers")
        yield table(
            "Outside: farther from the published number than the tolerance.",
            [*headings, Heading("verdict"), Heading("source")],
            rows,
        )


def _costs(part: _Part) -> Iterator[Element]:
    columns = summary.costs_shown(part.outcomes)
    if columns:
        headings = [Heading(column.heading, number=True, low=column.low) for column in columns]
        rows = [
            [
                Cell(outcome.system, name=True),
                *(Cell(column.text(outcome.cost), column.value(outcome.cost)) for column in columns),
                Cell(summary.runs_on(outcome.cost)),
            ]
            for outcome in part.outcomes
        ]
        yield element("h3", "Costs")
        yield element("p", summary.COSTS_TOLD, class_="quiet")
        yield table("Costs on this machine.", [Heading("system"), *headings, Heading("runs on")], rows)


def _hardest(part: _Part) -> Iterator[Element]:
    measure = part.measures[0]
    hard = summary.hardest(part.outcomes, part.collection.grades, measure)
    if hard:
        yield element("h3", "Hardest queries")
        yield element(
            "p",
            f"The lowest mean {measure} over the systems. For each query: what the systems found first, at which rank, "
            "and relevant documents that none has there.",
            class_="quiet",
        )
        for each in hard:
            yield _hard(part, each)


def _hard(part: _Part, hard: summary.Hard) -> Element:
    ranks = [_ranks(outcome, hard.query) for outcome in part.outcomes]
    grades = part.collection.grades[hard.query]
    rows = [
        [
            Cell(document, name=True),
            _grade(grades.get(document)),
            *(Cell(str(each.get(document, "–")), each.get(document)) for each in ranks),
            Cell(_text(part.collection.texts, document)),
        ]
        for document in hard.documents
    ]
    systems = [Heading(f"rank in {part.number(each.system)}", number=True, low=True) for each in part.outcomes]
    text = _text(part.collection.queries, hard.query)
    return element(
        "details",
        element("summary", f"{hard.query}: {text} ", element("span", f"mean {hard.mean:.4f}", class_="quiet")),
        table(
            f"Found for {hard.query}; – is a document not among the {max(map(len, ranks), default=0)} kept of a system",
            [Heading("document"), Heading("grade", number=True), *systems, Heading("text")],
            rows,
            **{"class": "sortable texts"},
        ),
    )


def _ranks(outcome: Outcome, query: str) -> dict[str, int]:
    return {document: rank for rank, document in enumerate(outcome.found.get(query, []), 1)}


def _grade(grade: int | None) -> Cell:
    if grade is None:
        return Cell("not judged")
    return Cell(f"✓ {grade}", grade, "relevant") if grade > 0 else Cell(str(grade), grade)


def _text(texts: dict[str, str], name: str) -> str:
    return shorten(texts.get(name, ""), _TEXT, placeholder=" …")


def _notes(part: _Part) -> Iterator[Element]:
    told = [
        (outcome.system, note)
        for outcome, row in zip(part.outcomes, part.rows, strict=True)
        for note in summary.notes(outcome, row)
    ]
    if told:
        yield element("h3", "Notes")
        yield element("ul", *(element("li", f"{system}: {note}") for system, note in told))
