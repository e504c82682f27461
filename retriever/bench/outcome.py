"""What a comparison of systems consists of; it goes to JSON and back, so a page can be made anew without a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retriever.eval.measures import Results


@dataclass(frozen=True)
class Cost:
    """What a system took on a collection; none where it was not measured, as for a run file.

    documents_per_second, tokens_per_second: of encoding and indexing together. build_seconds: of the same.
    queries_per_second: all queries in one call. p50, p95, p99: milliseconds of one query alone, after a warm-up.
    bytes_per_document: of what a search of its views reads. peak_mb: most memory of the process while it was built and
    searched.
    parameters: of its models. device, precision: what they ran on and in.
    """

    documents_per_second: float | None = None
    tokens_per_second: float | None = None
    build_seconds: float | None = None
    queries_per_second: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    bytes_per_document: float | None = None
    peak_mb: float | None = None
    parameters: int | None = None
    device: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Outcome:
    """One system on one collection. found: query id -> its first documents' ids, best first. notes: what was cut, left
    out or taken from a cache, in words. published: measure -> the registry's number beside ours, where it has one.
    """

    collection: str
    system: str
    results: Results
    cost: Cost
    found: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    published: dict[str, Published] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A number from elsewhere. tolerance: how far ours may be from it; within: whether it is no farther."""

    value: float
    tolerance: float
    source: str
    within: bool


@dataclass(frozen=True)
class Collection:
    """What the page tells of a collection. queries: id -> text. texts: id -> the beginning of the text, of the
    documents that are shown. grades: query id -> document id -> grade.
    """

    name: str
    documents: int
    queries: dict[str, str]
    texts: dict[str, str]
    grades: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Experiment:
    """Everything of one `retriever bench`. The first system is the baseline of every collection's comparison.

    command: what was typed. machine: processor, cores and the versions that decide numbers.
    """

    command: str
    machine: str
    date: str
    measures: list[str]
    systems: list[str]
    collections: list[Collection]
    outcomes: list[Outcome]

    def of(self, collection: str) -> list[Outcome]:
        """A collection's outcomes, in the systems' order."""
        found = {outcome.system: outcome for outcome in self.outcomes if outcome.collection == collection}
        return [found[system] for system in self.systems if system in found]

    def to_json(self) -> str:
        """One JSON object, all digits."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """What `to_json` wrote."""
        values = json.loads(text)
        values["collections"] = [Collection(**each) for each in values["collections"]]
        values["outcomes"] = [_outcome(each) for each in values["outcomes"]]
        return cls(**values)


def _outcome(values: Mapping[str, Any]) -> Outcome:
    published = {measure: Published(**each) for measure, each in values["published"].items()}
    made = {**values, "published": published, "results": Results(**values["results"]), "cost": Cost(**values["cost"])}
    return Outcome(**made)
