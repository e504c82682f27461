"""python reading_loop.py INDEX STOP: search until the file STOP is there; fail at the first answer of no generation.

The writer adds, changes and deletes documents by families of four, each family in one commit: so every generation has
four members of each of its families, all of one version.
"""

import itertools
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from retriever import Query, Retriever

FAMILY = 4
PIPELINES = ["bm25", "dense", "ann(nprobe=2)", None]


def check(index: Retriever, pipeline: str | None) -> int:
    """All documents that one search returns; says how many."""
    hits = index.search("family", 1000, pipeline=pipeline)
    members, versions = defaultdict(set), defaultdict(set)
    for hit in hits:
        family, member = hit.id.split("-")
        words = hit.text.split()
        assert words[:3] == ["family", family, member], (hit.id, hit.text)
        members[family].add(member)
        versions[family].add(words[3])
    assert all(len(found) == FAMILY for found in members.values()), members
    assert all(len(found) == 1 for found in versions.values()), versions
    assert len(hits) == FAMILY * len(members)
    return len(hits)


def check_filtered(index: Retriever) -> None:
    run = index.run([Query("q", "family")], 1000, where="member < 2", pipeline="bm25 + dense >> rrf")
    found = sorted(run.get("q", {}))
    assert len(found) % 2 == 0
    assert all(id.endswith(("-0", "-1")) for id in found), found


def read(path: Path, stop: Path, ready: Callable[[], object]) -> set[int]:
    """Search with an index that stays as it was opened, one that is refreshed, and one opened anew each time.

    The first round is over when `ready` is called, the last one begins when the writer is done. Returns the numbers of
    documents seen.
    """
    refreshed, sizes = Retriever(path), set()
    for number in itertools.count():
        if number % 4 == 0:
            kept = Retriever(path)
        done = stop.exists()
        for pipeline in PIPELINES:
            refreshed.refresh()
            sizes.update(check(index, pipeline) for index in (kept, refreshed, Retriever(path)))
        check_filtered(Retriever(path))
        if number == 0:
            ready()
        if done:
            return sizes
    raise AssertionError


if __name__ == "__main__":
    found = read(Path(sys.argv[1]), Path(sys.argv[2]), lambda: print("ready", flush=True))  # noqa: T201
    print(*sorted(found))  # noqa: T201
