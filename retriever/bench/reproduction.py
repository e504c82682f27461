"""Experiments with a name, whose numbers are known: experiments.json. They run as `retriever bench` does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
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

_MODEL = "{model}"


@dataclass(frozen=True)
class Expected:
    """What one system gave. system: {model} in it stands for a model that was trained here. means: measure -> its mean.
    tolerance: how far another machine's may be from it.
    """

    system: str
    means: dict[str, float]
    tolerance: float

    def text(self, model: str | None) -> str:
        """The system with the model in its place."""
        return self.system.replace(_MODEL, model or "")


@dataclass(frozen=True)
class Named:
    """An experiment. collection: a folder's name, or BEIR's. source: the page that prints its numbers and, where
    that is not the collection's own, the section. queries: so many of the judged ones (`Source.limit`); none: all.
    """

    name: str
    collection: str
    split: str
    k: int
    skip_bad: bool
    source: str
    systems: tuple[Expected, ...]
    queries: int | None = None

    def plan(self, data: Path | None, cache_folder: Path, model: str | None = None) -> Plan:
        """What to run. data: the folder that the collection's is in; without it, it is downloaded. model: the trained
        one, where the experiment is of one.

        Raises: InputError where the collection can be found in neither place, or a model is missing or too many.
        """
        trained = any(_MODEL in expected.system for expected in self.systems)
        if trained and model is None:
            raise InputError(
                f"{self.name} is of a model that was trained as {self.source} says; give it: --model MODEL"
            )
        if model is not None and not trained:
            raise InputError(f"{self.name} is of no model that was trained here; leave --model out")
        if data is None and self.collection not in BEIR:
            raise InputError(f"{self.collection} cannot be downloaded; give the folder that it lies in: --data DIR")
        text = f"beir:{self.collection}" if data is None else str(data / self.collection)
        measures = list(dict.fromkeys(measure for expected in self.systems for measure in expected.means))
        return Plan(
            sources=[replace(parse_source(text, self.split, cache_folder), limit=self.queries)],
            systems=[parse_system(expected.text(model)) for expected in self.systems],
            measures=measures,
            k=self.k,
            skip_bad=self.skip_bad,
            again=True,
        )

    def checks(self, experiment: Experiment) -> Iterator[Check]:
        """Ours beside what is expected, number by number."""
        for expected, name in zip(self.systems, experiment.systems, strict=True):  # the systems are the plan's
            means = next(outcome.results.means for outcome in experiment.outcomes if outcome.system == name)
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
