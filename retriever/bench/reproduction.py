"""Experiments with a name, whose numbers are known: experiments.json. They run as `retriever bench` does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from retriever.bench.downloads import BEIR
from retriever.bench.experiment import Plan
from retriever.bench.outcome import Experiment
from retriever.bench.sources import parse_source
from retriever.bench.systems import parse_system
from retriever.errors import InputError
from retriever.spec import suggest


@dataclass(frozen=True)
class Expected:
    """What one system gave. means: measure -> its mean. tolerance: how far another machine's may be from it."""

    system: str
    means: dict[str, float]
    tolerance: float


@dataclass(frozen=True)
class Named:
    """An experiment. collection: a folder's name, or BEIR's. source: where its numbers are printed."""

    name: str
    collection: str
    split: str
    k: int
    skip_bad: bool
    source: str
    systems: tuple[Expected, ...]

    def plan(self, data: Path | None, cache_folder: Path) -> Plan:
        """What to run. data: the folder that the collection's is in; without it, it is downloaded.

        Raises: InputError where it can be found in neither place.
        """
        if data is None and self.collection not in BEIR:
            raise InputError(f"{self.collection} cannot be downloaded; give the folder that it lies in: --data DIR")
        text = f"beir:{self.collection}" if data is None else str(data / self.collection)
        measures = list(dict.fromkeys(measure for expected in self.systems for measure in expected.means))
        return Plan(
            sources=[parse_source(text, self.split, cache_folder)],
            systems=[parse_system(expected.system) for expected in self.systems],
            measures=measures,
            k=self.k,
            skip_bad=self.skip_bad,
            again=True,
        )

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        """Ours beside what is expected, number by number."""
        ours = {outcome.system: outcome.results.means for outcome in experiment.outcomes}
        for expected in self.systems:
            means = ours[parse_system(expected.system).name]
            for measure, value in expected.means.items():
                yield Check(expected.system, measure, means[measure], value, expected.tolerance)


@dataclass(frozen=True)
class Check:
    """One number."""

    system: str
    measure: str
    ours: float
    expected: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether it is within the tolerance; what was printed was rounded to four digits."""
        return abs(self.ours - self.expected) <= self.tolerance + 0.00005


def named(name: str) -> Named:
    """The experiment of that name. Raises: InputError where there is none."""
    if name not in experiments():
        raise InputError(f"no experiment is called {name!r}; {suggest(name, experiments())}")
    return experiments()[name]


@cache
def experiments() -> dict[str, Named]:
    """All there are."""
    text = (files("retriever.bench") / "experiments.json").read_text("utf-8")
    made = {}
    for name, values in json.loads(text).items():
        systems = tuple(Expected(**each) for each in values.pop("systems"))
        made[name] = Named(name=name, systems=systems, **values)
    return made
