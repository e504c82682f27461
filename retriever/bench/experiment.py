"""All systems on all collections: built, searched, timed and measured, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

from retriever.bench import cost as costs
from retriever.bench.cache import Indexed, Kept
from retriever.bench.outcome import Collection, Cost, Experiment, Outcome
from retriever.bench.registry import published
from retriever.bench.sources import Source
from retriever.bench.summary import documents_shown
from retriever.bench.systems import System, View
from retriever.errors import InputError
from retriever.eval.measures import evaluate
from retriever.progress import bar
from retriever.runs import Qrels, Run
from retriever.tallies import tallies, told
from retriever.types import Query

FOUND = 10
"""Documents of each query that a report knows."""
_TEXT = 600
"""Characters of a document that a report shows."""
_CHECKED = 1000
"""Relevant documents that are looked for in the corpus."""


@dataclass(frozen=True)
class Plan:
    """What is compared. k: results of a query. again: search anew what the cache has a run of."""

    sources: Sequence[Source]
    systems: Sequence[System]
    measures: Sequence[str]
    k: int
    skip_bad: bool = False
    drop_identical: bool = False
    again: bool = False

    def __post_init__(self) -> None:
        for what, names in (
            ("systems", [system.name for system in self.systems]),
            ("collections", [source.name for source in self.sources]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InputError(f"two {what} are called {twice[0]!r}; write NAME = ... before one of them")
        files = [system for system in self.systems if system.run and "{collection}" not in system.run]
        if files and len(self.sources) > 1:
            raise InputError(
                f"{files[0].text}: a run is of one collection, and there are {len(self.sources)}; write {{collection}} "
                "in the place of its name, as in runs/{collection}.trec"
            )


def compare(
    plan: Plan, command: str, indexed: Callable[[Source], Indexed], keep: Callable[[Outcome, Run], None]
) -> Experiment:
    """Make, or take from the cache, every outcome. indexed: opens a collection. keep: takes each outcome with its run
    as soon as it is there.

    Raises: InputError for judgements and runs that do not belong to a collection, and all that systems raise.
    """
    collections, outcomes = [], []
    for source in plan.sources:
        kept = indexed(source)
        _check_belongs(source, kept)
        here = [_outcome(plan, source, kept, system, keep) for system in plan.systems]
        collections.append(_collection(source, kept, here))
        outcomes += here
    measures = list(outcomes[0].results.means) if outcomes else []
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    names = [system.name for system in plan.systems]
    return Experiment(command, costs.machine(), date, measures, names, collections, outcomes)


def _outcome(
    plan: Plan, source: Source, kept: Indexed, system: System, keep: Callable[[Outcome, Run], None]
) -> Outcome:
    made = _from_file(source, system, plan.k) if system.run else _from_cache(plan, source, kept, system)
    drop = plan.drop_identical or source.drop_identical
    try:
        results = evaluate(made.run, source.judgements, plan.measures, drop_identical=drop)
    except InputError as problem:
        raise InputError(f"{source.name}: {system.name}: {problem}") from None
    outcome = Outcome(
        collection=source.name,
        system=system.name,
        results=results,
        cost=made.cost,
        found={query: list(islice(made.run[query], FOUND)) for query in source.judgements if query in made.run},
        notes=made.notes,
        published=published(source, system, results),
    )
    keep(outcome, made.run)
    return outcome


def _from_file(source: Source, system: System, k: int) -> Kept:
    assert system.run
    path = system.run.replace("{collection}", source.name)
    run = Run.read(path)
    deepest = max(map(len, run.values()), default=0)
    notes = [f"read from {path}"]
    if deepest > k:
        run, notes = run.top(k), [*notes, f"cut to {k:,} results a query; the file has up to {deepest:,}"]
    return Kept(run, Cost(), notes, "")


def _from_cache(plan: Plan, source: Source, kept: Indexed, system: System) -> Kept:
    key = kept.key(system, source.asked, plan.k)
    if not plan.again and (known := kept.kept(key)):
        return replace(known, notes=[*known.notes, f"the run is the cache's, of {known.made}"])
    made = _searched(source, kept, system, plan.k)
    kept.keep(key, made)
    return made


def _searched(source: Source, kept: Indexed, system: System, k: int) -> Kept:
    kept.release()
    fresh = costs.forget_peak()
    notes = [note for view in system.views for note in kept.prepare(view)]
    if kept.skipped:
        notes.append(f"bad records of the corpus left out: {kept.skipped:,}")
    queries = source.asked

    def ask(asked: Sequence[Query]) -> Run:
        return kept.index.run(asked, k=k, pipeline=system.pipeline)

    for query in queries[: costs.WARM]:
        ask([query])
    with bar(f"{source.name}: {system.name}", "queries", total=len(queries)), tallies() as counted:
        start = time.perf_counter()
        run = ask(queries)
        seconds = time.perf_counter() - start
    p50, p95, p99 = costs.latencies(lambda query: ask([query]), queries)
    measured = Cost(queries_per_second=len(queries) / seconds, p50=p50, p95=p95, p99=p99, peak_mb=costs.peak_mb())
    notes += [told(what, count) for what, count in counted.items()]
    if not fresh:
        notes.append("peak memory is that of the whole process since it began")
    info = kept.index.info()["views"]
    notes += [
        f"{view.spec.component}: {cut:,} documents are longer than its encoder reads and were cut"
        for view in system.views
        if (cut := info[view.spec.name]["truncated"])
    ]
    cost = _cost(kept, system, measured)
    named = Run.ranked({query: dict(ranking) for query, ranking in run.items()}, system.name)
    return Kept(named, cost, notes, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def _cost(kept: Indexed, system: System, measured: Cost) -> Cost:
    """The measured cost, with what building took and what the models are."""
    info = kept.index.info()["views"]
    builds = [build for view in system.views for build in kept.builds(view)]
    encoded = sum(build.documents for build in builds)
    seconds = sum(build.seconds for build in builds)
    models = list(dict.fromkeys([*(model for view in system.views for model in view.models), *system.models]))
    encoding = next((view for view in system.views if view.models), None)
    device, precision = costs.runs_on(models, info[encoding.spec.name]["config"] if encoding else None)
    # of a system with several views, each document is encoded once by each
    speed = encoded / len(system.views) / seconds if encoded and seconds else None
    tokens = _tokens(kept, system.views[0]) if len(system.views) == 1 else None
    return replace(
        measured,
        documents_per_second=speed,
        tokens_per_second=speed * tokens if speed and tokens else None,
        build_seconds=seconds or None,
        peak_mb=max([measured.peak_mb or 0.0, *(build.peak_mb for build in builds)]),
        bytes_per_document=costs.bytes_of(kept.index_folder, [view.spec.name for view in system.views]) / len(kept),
        parameters=costs.parameters(models),
        device=device,
        precision=precision,
    )


def _tokens(kept: Indexed, view: View) -> float | None:
    """Mean tokens of a document that the view's model reads, of up to 1,000 documents spread over the collection."""
    if not view.models:
        return None
    most = kept.index.info()["views"][view.spec.name]["encoder"].get("max_length")
    texts = [document.contents for document in kept.sample(costs.SAMPLE)]
    return costs.tokens_each(view.models[0], texts, most)


def _check_belongs(source: Source, kept: Indexed) -> None:
    """Raise InputError where none of the relevant documents is in the corpus."""
    judged = ((query.id, source.judgements[query.id]) for query in source.asked)
    relevant = [document for _, row in judged for document, grade in row.items() if grade > 0][:_CHECKED]
    if relevant and not kept.index.documents(relevant):
        theirs = ", ".join(map(repr, relevant[:3]))
        ours = ", ".join(repr(document.id) for document in kept.sample(3))
        raise InputError(
            f"{source.name}: no relevant document of {source.qrels} is in {source.corpus}: judged are {theirs}; the "
            f"corpus has {ours}; do they belong to the same collection?"
        )


def _collection(source: Source, kept: Indexed, outcomes: Sequence[Outcome]) -> Collection:
    judgements: Qrels = source.judgements
    grades = {query.id: dict(judgements[query.id]) for query in source.asked}
    shown = documents_shown(outcomes, grades, next(iter(outcomes[0].results.means)))
    texts = {id_: document.contents[:_TEXT] for id_, document in kept.index.documents(shown).items()}
    return Collection(source.name, len(kept), {query.id: query.text for query in source.asked}, texts, grades)
