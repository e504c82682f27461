"""Progress of long work: a bar with rate and time left on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Advance = Callable[[int], None]
_listener: ContextVar[Advance | None] = ContextVar("progress", default=None)


def advance(count: int) -> None:
    """Say that `count` more items are done, to whoever listens."""
    if listener := _listener.get():
        listener(count)


class Bar:
    """What a caller may tell a bar: how much there is to do, as soon as it is known."""

    def set_total(self, total: float) -> None:
        """The number of items in all; may be an estimate and may change."""


@contextmanager
def bar(what: str, unit: str, total: float | None = None) -> Iterator[Bar]:
    """Show the `advance` calls of the block on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(what, total=total, rate="")

        def listen(count: int) -> None:
            display.advance(task, count)
            speed = display.tasks[0].speed
            display.update(
                task, rate=f"{display.tasks[0].completed:,.0f} {unit}" + (f", {speed:,.0f}/s" if speed else "")
            )

        class Shown(Bar):
            def set_total(self, total: float) -> None:
                display.update(task, total=total)

        token = _listener.set(listen)
        try:
            yield Shown()
        finally:
            _listener.reset(token)
