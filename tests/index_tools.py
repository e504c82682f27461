"""What the tests of durability and damage need to know of an index, read by its own public parts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from retriever import Document, Query, Retriever
from retriever.snapshot import Snapshot
from retriever.store import manifest as manifests

TESTS = Path(__file__).parent
RAM = Path("/dev/shm")
QUERIES = ["word1", "lift word2 word3", "a text that is in no document", "number 7", "new words"]


def corpus_line(number: int, words: str = "") -> str:
    """A short document; equal words and titles recur, so that scores tie."""
    text = f"lift word{number % 3} word{number % 5} number {number} {words}".strip()
    return json.dumps({"_id": f"d{number}", "title": f"title {number % 2}", "text": text, "part": number % 4})


def write_corpus(path: Path, numbers: Sequence[int], words: str = "") -> Path:
    path.write_text("".join(f"{corpus_line(number, words)}\n" for number in numbers))
    return path


def contents(path: Path) -> dict[str, Any]:
    """Everything that must be the same after a kill and a second run as after a run that nobody disturbed."""
    index = Retriever(path)
    snapshot = Snapshot.newest(path)
    manifest = snapshot.manifest
    queries = [Query(text, text) for text in QUERIES]
    seen = {
        "live": len(index),
        "deleted": snapshot.deleted.nonzero()[0].tolist(),
        "rows": [(row, document) for row, document in snapshot.documents.scan(0, manifest.rows)],
        "segments": [(start, stop) for _, start, stop in manifest.segments],
        "views": {
            name: (state.spec, state.rows, state.encoder, state.truncated) for name, state in manifest.views.items()
        },
        "vectors": {name: vectors(path, name) for name in manifest.views},
        "results": {
            str(pipeline): dict(index.run(queries, k=1000, pipeline=pipeline).items())
            for pipeline in (*manifest.views, None)
        },
    }
    snapshot.documents.close()
    index.close()
    return seen


def vectors(path: Path, view: str) -> list[bytes]:
    """The whole vector file of a dense view, the postings by row of one of term weights; nothing for tantivy's."""
    files = manifests.load(path).views[view].files
    return [(path / name).read_bytes() for name in files if name.endswith(".f32") or "postings" in name]


def documents(path: Path) -> dict[str, Document]:
    """The documents that are live, by id."""
    snapshot = Snapshot.newest(path)
    rows = snapshot.documents.scan(0, snapshot.manifest.rows)
    live = {document.id: document for row, document in rows if not snapshot.deleted[row]}
    snapshot.documents.close()
    return live


def environment(**more: str) -> dict[str, str]:
    """For a subprocess: it finds the toy encoders, and asks no network."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, "COLUMNS": "200", **more}


def retriever(*arguments: Any, env: Mapping[str, str] | None = None, **options: Any) -> Any:
    """The installed command, to its end."""
    command = [str(Path(sys.executable).with_name("retriever")), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment(**(env or {})), **options
    )


class Server:
    """A `crash_driver` that forks for each command."""

    def __init__(self, **env: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "crash_driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(**env),
        )

    def run(self, *arguments: Any, env: Mapping[str, str] | None = None, **request: Any) -> dict[str, Any]:
        """Run a command; `request` holds what `crash_driver` is to do to it."""
        request |= {"arguments": list(map(str, arguments)), "environment": env or {}}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A tmpfs on `folder`; skips where this may not be done."""
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", *(["-o", ",".join(options)] if options else []), "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def read_only(folder: Path) -> None:
    """Make a mounted file system read-only."""
    _mount("-o", "remount,ro", str(folder))


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"needs the right to mount a file system: {problem}")
