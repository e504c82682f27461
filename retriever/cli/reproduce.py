"""`retriever reproduce`: run a named experiment and say whether its numbers came out."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from retriever.cli.bench import run_plan

if TYPE_CHECKING:
    from retriever.bench.reproduction import Check


def reproduce_command(
    name: Annotated[str | None, typer.Argument(help="The experiment; without it, all are listed.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder that the collection's own lies in; without it, BEIR's are downloaded."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model that was trained, for an experiment that measures one.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Where downloads and indexes are kept, and taken from if they are there.", show_default="nowhere"
        ),
    ] = None,
) -> None:
    """Run a named experiment; pass or fail, number by number. The exit code is 1 where one is outside its tolerance.

    All is searched anew; without --cache all is built anew too.
    """
    from retriever.bench.reproduction import experiments, named

    if name is None:
        for each in experiments().values():
            typer.echo(f"{each.name}\t{each.collection}, {each.split}, {len(each.systems)} systems, {each.source}")
        return
    experiment = named(name)
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:  # tantivy may be making lock files again
        folder = cache or Path(temporary)
        found = run_plan(experiment.plan(data, folder, model), folder, lambda *_: None)
    checks = list(experiment.checks(found))
    typer.echo("\n".join(["\t".join(("system", "measure", "ours", "expected", "tolerance", "")), *map(_line, checks)]))
    failed = sum(not check.passed for check in checks)
    typer.echo(f"{name}: {f'fail: {failed} of {len(checks)} numbers' if failed else 'pass'}", err=True)
    if failed:
        raise typer.Exit(1)


def _line(check: Check) -> str:
    said = "pass" if check.passed else "FAIL"
    numbers = f"{check.ours:.4f}\t{check.expected:.4f}\t{check.tolerance}"
    return f"{check.system}\t{check.measure}\t{numbers}\t{said}"
