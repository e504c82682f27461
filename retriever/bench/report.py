"""The folder of a comparison: its values as JSON, its pages, and every run."""

from __future__ import annotations

import re
from pathlib import Path

from retriever.bench import page, tables
from retriever.bench.outcome import Experiment, Outcome
from retriever.runs import Run, written

_UNSAFE = re.compile(r"[^\w.+=-]+")


def file_name(name: str) -> str:
    """A name cut down to what any file system takes."""
    return _UNSAFE.sub("_", name).strip("_")[:100]


def write_run(folder: Path, outcome: Outcome, run: Run) -> None:
    """Write an outcome's run as runs/COLLECTION/SYSTEM.trec.gz."""
    path = folder / "runs" / file_name(outcome.collection) / f"{file_name(outcome.system)}.trec.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    run.write(path)


def write_report(folder: Path, experiment: Experiment) -> None:
    """Write report.json, report.html, report.md and report.tex."""
    pages = {
        "json": experiment.to_json(),
        "html": page.html(experiment),
        "md": tables.markdown(experiment),
        "tex": tables.latex(experiment),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in pages.items():
        with written(folder / f"report.{suffix}") as stream:
            stream.write(text.encode())
