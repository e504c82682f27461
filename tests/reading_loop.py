"""python reading_loop.py INDEX SECONDS: search again and again, and fail at the first answer that is of no generation.

The writer adds, changes and deletes documents by families of four, each family in one commit: so every generation has
four members of each of its families, all of one version.
"""

import itertools
import sys
import time
from collections import defaultdict
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


def read(path: Path, seconds: float) -> tuple[int, set[int]]:
    """Search with an index that stays as it was opened, one that is refreshed, and one opened anew each time."""
    kept, refreshed = Retriever(path), Retriever(path)
    end, searches, sizes = time.monotonic() + seconds, 0, set()
    for number, pipeline in enumerate(itertools.cycle(PIPELINES)):
        if time.monotonic() > end:
            return searches, sizes
        if number % 16 == 0:
            kept = Retriever(path)
        refreshed.refresh()
        for index in (kept, refreshed, Retriever(path)):
            sizes.add(check(index, pipeline))
            searches += 1
        check_filtered(Retriever(path))
    raise AssertionError


if __name__ == "__main__":
    print(*read(Path(sys.argv[1]), float(sys.argv[2])))  # noqa: T201
