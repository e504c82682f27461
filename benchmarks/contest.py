"""Engines side by side: how soon they are built, how large they are, how fast they answer, whether they are right."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from engines import Answers, SciPy
from run import alternate
from scipy.sparse import csr_array

DEPTHS = (10, 1000)


@dataclass
class Contender:
    """An engine with its name; search: k and threads to what it finds; answers: that and k to rows and scores."""

    name: str
    search: Callable[[int, int], Any]
    answers: Callable[[Any, int], Answers] = field(default=lambda found, _: found)
    build: float | None = None
    peak: float | None = None
    bytes: float | None = None


def contender(name: str, make: Callable[[], Any], **options: Any) -> Contender:
    """Build an engine; options: for every search."""
    with peak_memory() as peak:
        started = time.perf_counter()
        engine = make()
        seconds = time.perf_counter() - started
    print(f"{name}: built in {seconds:.1f} s, {peak[0] / 1e6:,.0f} MB", flush=True)
    made = Contender(name, partial(engine.search, **options), build=seconds, peak=peak[0], bytes=engine.bytes)
    if hasattr(engine, "answers"):
        made.answers = engine.answers
    return made


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The most bytes that are resident meanwhile, beyond those that were before; of this process, mapped files too."""
    before, found = _resident("VmRSS"), [0.0]
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    yield found
    found[0] = max(0.0, _resident("VmHWM") - before)


def _resident(entry: str) -> float:
    found = re.search(rf"{entry}:\s*(\d+)", Path("/proc/self/status").read_text())
    return 1024.0 * int(found[1]) if found else 0.0


@contextmanager
def bound_to(cores: int) -> Iterator[None]:
    """All threads of this process, those of a Java machine in it too, share so many cores."""
    every = os.sched_getaffinity(0)
    _bind(set(sorted(every)[:cores]))
    try:
        yield
    finally:
        _bind(every)


def _bind(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), cores)


class Truth:
    """The weights that decide who is right: the scores of SciPy's product."""

    def __init__(self, documents: csr_array, queries: csr_array) -> None:
        self._documents, self._queries = documents, queries
        _, self._best = SciPy(documents, queries).search(max(DEPTHS), 1)

    def verdict(self, contender: Contender) -> str:
        """Whether all that is found scores as the best k do: "exact", or the share of it that does, for each k."""
        found = [self._recall(contender.answers(contender.search(k, 1), k)[0], k) for k in DEPTHS]
        return "exact" if min(found) == 1 else "recall " + ", ".join(f"{recall:.3f}" for recall in found)

    def _recall(self, rows: Any, k: int) -> float:
        shares = []
        for number, best in enumerate(self._best[:, :k]):
            wanted = best[np.isfinite(best)]
            known = np.unique(rows[number][rows[number] >= 0])
            scores = self._documents[known] @ self._queries[[number]].toarray()[0]
            shares.append(
                min(1.0, float((scores >= wanted[-1] * (1 - 1e-5)).sum()) / len(wanted)) if len(wanted) else 1.0
            )
        return float(np.mean(shares))


def contest(title: str, contenders: Sequence[Contender], truth: Truth, sizes: tuple[int, int], rounds: int) -> str:
    """One table. sizes: postings and queries."""
    postings, queries = sizes
    verdicts = {c.name: truth.verdict(c) for c in contenders}
    speeds: dict[tuple[int, int], dict[str, float]] = {}
    for cores in (1, len(os.sched_getaffinity(0))):
        with bound_to(cores):
            for k in DEPTHS:
                turns = {c.name: partial(c.search, k, cores) for c in contenders}
                seconds = alternate(turns, rounds)
                speeds[k, cores] = {name: queries / value for name, value in seconds.items()}
    return _table(title, contenders, verdicts, speeds, postings)


def _table(
    title: str,
    contenders: Sequence[Contender],
    verdicts: dict[str, str],
    speeds: dict[tuple[int, int], dict[str, float]],
    postings: int,
) -> str:
    columns = sorted(speeds)
    names = [f"k = {k}, {cores} core{'s' if cores > 1 else ''}" for k, cores in columns]
    lines = [f"### {title}", "", f"| queries/s | {' | '.join(names)} | results | build, s | peak, MB | bytes/posting |"]
    lines.append("| --- " + "| ---: " * len(columns) + "| --- | ---: | ---: | ---: |")
    for c in contenders:
        first = contenders[0].name
        cells = [f"{speeds[at][c.name]:,.0f} ({speeds[at][c.name] / speeds[at][first]:.2f})" for at in columns]
        size = None if c.bytes is None else c.bytes / postings
        peak = None if c.peak is None else c.peak / 1e6
        rest = [verdicts[c.name], _number(c.build, ".1f"), _number(peak, ",.0f"), _number(size, ".1f")]
        lines.append(f"| {c.name} | {' | '.join([*cells, *rest])} |")
    text = "\n".join(lines) + "\n"
    print(text, flush=True)
    return text


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
