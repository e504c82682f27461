"""Progress of long work: a bar with rate and time left on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
_listener: ContextVar[Callable[[float], None] | None] = ContextVar("progress", default=None)


def advance(count: float) -> None:
    """Say that `count` more items are done, to whoever listens."""
    if listener := _listener.get():
        listener(count)


@contextmanager
def scaled(factor: float) -> Iterator[None]:
    """Let `advance` inside the block count so much less: each of n passes over the items is one n-th of the work."""
    outer = _listener.get()
    token = _listener.set(None if outer is None else lambda count: outer(count * factor))
    try:
        yield
    finally:
        _listener.reset(token)


class Bar:
    """Where nobody looks: shows nothing."""

    def follow(self, items: Iterable[T]) -> Iterable[T]:
        """The same items; a shown bar estimates from their `bytes_read` and `bytes_total` how many will come."""
        return items


class _Shown(Bar):
    def __init__(self, display: Progress, task: TaskID, unit: str) -> None:
        self._display, self._task, self._unit = display, task, unit

    def listen(self, count: float) -> None:
        self._display.advance(self._task, count)
        state = self._display.tasks[0]
        speed = f", {state.speed:,.0f}/s" if state.speed else ""
        self._display.update(self._task, rate=f"{state.completed:,.0f} {self._unit}{speed}")

    def follow(self, items: Iterable[T]) -> Iterable[T]:
        return _Followed(items, lambda total: self._display.update(self._task, total=total))


class _Followed(Generic[T]):
    """Items on their way, with all attributes of their source (the place in its file, for error messages)."""

    def __init__(self, source: Iterable[T], set_total: Callable[[float], None]) -> None:
        self._source, self._set_total = source, set_total

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __iter__(self) -> Iterator[T]:
        for count, item in enumerate(self._source, 1):
            yield item
            if count % 256 == 0 and (done := getattr(self._source, "bytes_read", None)):
                self._set_total(count * (getattr(self._source, "bytes_total", None) or done) / done)


@contextmanager
def bar(what: str, unit: str, total: float | None = None) -> Iterator[Bar]:
    """Show the `advance` calls of the block on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(TextColumn(what), *columns, console=Console(stderr=True), transient=True) as display:
        shown = _Shown(display, display.add_task(what, total=total, rate=""), unit)
        token = _listener.set(shown.listen)
        try:
            yield shown
        finally:
            _listener.reset(token)
