"""What a search has to say besides its results: texts that were cut, answers that could not be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_open: ContextVar[Counter[str] | None] = ContextVar("tallies", default=None)


def tally(what: str, count: int) -> None:
    """Say that something happened so often, to whoever counts. what: in words that follow a number above one."""
    counter = _open.get()
    if counter is not None and count:
        counter[what] += count


@contextmanager
def tallies() -> Iterator[Counter[str]]:
    """Count the `tally` calls of the block, by what they say."""
    counter: Counter[str] = Counter()
    token = _open.set(counter)
    try:
        yield counter
    finally:
        _open.reset(token)


def told(what: str, count: int) -> str:
    """What was counted, as a sentence."""
    if count != 1:
        return f"{count:,} {what}"
    one = {" were ": " was ", " have ": " has "}
    return "1 of the " + re.sub("|".join(one), lambda found: one[found[0]], what, count=1)
