"""`retriever bench`: systems on collections, measured, timed and compared."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated

import typer

from retriever.cli.add import SkipBad
from retriever.cli.eval import DropIdentical, Measures

if TYPE_CHECKING:
    from retriever.bench.experiment import Plan
    from retriever.bench.outcome import Experiment, Outcome
    from retriever.runs import Run

Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Where downloads, indexes and runs are kept; a second comparison makes none of them again.",
        show_default="retriever, in the user's cache folder",
    ),
]

Collections = Annotated[
    list[str],
    typer.Argument(
        help="A BEIR folder, beir:NAME (downloaded), ir:ID (of ir_datasets), mteb:TASK (fetched by mteb), "
        "QUERIES->CORPUS (two folders), or CORPUS,QUERIES,QRELS (three files: MS MARCO, TREC DL); NAME= before it "
        "renames it."
    ),
]
Systems = Annotated[
    list[str],
    typer.Option(
        "--system",
        "-s",
        help='A pipeline with its views written out, "bm25 + dense(MODEL) >> rrf"; their.module:object, encoding; '
        "http://host:port/v1#MODEL, an embeddings endpoint; a run, PATH.trec ({collection} stands for the name); "
        "NAME = before it names it. Repeatable; the first is the baseline.",
    ),
]


def bench_command(  # noqa: PLR0913 - one parameter an option
    collection: Collections,
    system: Systems,
    out: Annotated[Path, typer.Option(help="The report's folder: report.html, .md, .tex, .json, and every run.")],
    split: Annotated[str, typer.Option(help="Whose judgements are used of BEIR folders.")] = "test",
    measure: Measures = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Results of a query.")] = 1000,
    cache: Cache = None,
    skip_bad: SkipBad = False,
    queries: Annotated[
        int | None,
        typer.Option(min=1, help="So many of each collection's judged queries, drawn by a seed.", show_default="all"),
    ] = None,
    drop_identical: DropIdentical = False,
    mteb: Annotated[
        bool, typer.Option("--mteb", help="Write every result in MTEB's format too, to OUT/mteb (extra `mteb`).")
    ] = False,
) -> None:
    """Compare systems on collections.

    Views that a system names are built once, in the cache; a comparison that was interrupted goes on where it stopped.
    """
    from retriever.bench.cache import default_cache
    from retriever.bench.experiment import Plan
    from retriever.bench.mteb.results import mteb_writer
    from retriever.bench.report import write_report, write_run
    from retriever.bench.sources import parse_source
    from retriever.bench.systems import parse_system
    from retriever.eval.measures import DEFAULT_MEASURES, parse_measures

    folder = cache or default_cache()
    measures = [str(each) for each in parse_measures(measure or DEFAULT_MEASURES)]
    systems = [parse_system(text) for text in system]
    sources = [replace(parse_source(text, split, folder), limit=queries) for text in collection]
    plan = Plan(sources, systems, measures, k, skip_bad, drop_identical)
    also = mteb_writer(plan, out / "mteb") if mteb else None

    def keep(outcome: Outcome, run: Run) -> None:
        write_run(out, outcome, run)
        if also:
            also(outcome, run)

    experiment = run_plan(plan, folder, keep)
    write_report(out, experiment)
    _print(experiment)
    typer.echo(f"{out / 'report.html'}: the report", err=True)


def run_plan(plan: Plan, cache: Path, keep: Callable[[Outcome, Run], None]) -> Experiment:
    """Compare, and say on standard error what is done."""
    from retriever.bench.cache import Indexed
    from retriever.bench.experiment import compare

    def tell(outcome: Outcome, run: Run) -> None:
        keep(outcome, run)
        means = ", ".join(f"{measure} {value:.4f}" for measure, value in outcome.results.means.items())
        typer.echo(f"{outcome.collection}: {outcome.system}: {means}", err=True)

    command = join(["retriever", *sys.argv[1:]])
    return compare(plan, command, lambda source: Indexed(source, cache, skip_bad=plan.skip_bad), tell)


def _print(experiment: Experiment) -> None:
    from rich.console import Console

    from retriever.bench import tables

    tables.terminal(experiment, Console())
