"""Runs the `retriever` command in a process that is killed: from outside, or by itself at its n-th step on disk.

    python crash_driver.py index CORPUS INDEX ...     one command; says "started" once everything is imported
    python crash_driver.py                            a server: each line of standard input is a request in JSON

The server imports everything once and forks for each request, so that hundreds of kills take seconds. It never runs
a command itself: no thread of tantivy or FAISS is alive when it forks.

A step is a call that changes what is on disk: opening for writing, fsync, rename, link, unlink, mkdir, rmdir, and
SQLite's opening of a file. Commits are made small by RETRIEVER_TEST_COMMIT documents, so that few documents make many.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMIT = "RETRIEVER_TEST_COMMIT"
_STEPS = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "sqlite3.connect"}


def steps(act: Callable[[int], None]) -> Callable[[], int]:
    """Call `act` with the number of every step from now on, just before it happens; returns their count so far."""
    count, acting = 0, False

    def step() -> None:
        nonlocal count, acting
        if not acting:
            count, acting = count + 1, True
            try:
                act(count)
            finally:
                acting = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STEPS or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            step()

    fsync = os.fsync

    def counted(handle: int) -> None:
        step()
        fsync(handle)

    os.fsync = counted
    sys.addaudithook(hook)
    return lambda: count


def run(arguments: list[str]) -> int:
    """The command line as a user calls it; its exit code."""
    from retriever import cli

    set_commits()
    sys.argv = ["retriever", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def set_commits() -> None:
    """Small commits, if the environment asks for them."""
    from retriever import writer
    from retriever.indexers import term_weights

    if documents := int(os.environ.get(COMMIT, "0")):
        writer.ENCODED_SEGMENT = writer.LEXICAL_SEGMENT = documents
        term_weights.TILE = documents + 1  # full tiles, and rows after them


def load() -> None:
    """Import what the commands will need; nothing here starts a thread that a fork would lose."""
    import faiss
    import numpy as np
    import tantivy  # noqa: F401
    import toy_encoders  # noqa: F401

    from retriever.indexers import tiles

    faiss.omp_set_num_threads(1)
    empty = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint32)
    for dtype in ("uint8", "float32"):
        head, blob = tiles.make_tile(*empty, np.zeros(0, dtype=dtype), 0, 0)  # numba compiles here, once
        tiles.view_tiles(head, np.frombuffer(blob, dtype=np.uint8), dtype)
    with contextlib.redirect_stderr(io.StringIO()):
        run(["info", os.devnull])  # an error: it imports what typer imports late


def serve() -> None:
    load()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)  # noqa: T201


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command in a fork: {"arguments", "environment", ...} gives {"code", "steps", "output"}.

    kill_at, interrupt_at, fail_at: the step that is not made any more, or fails as on a full disk.
    copy: [FOLDER, COPIES] copies the folder to COPIES/n before the n-th step.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as steps_made:
        child = os.fork()
        if child == 0:
            _child(request, output.fileno(), steps_made.fileno())
        _, status = os.waitpid(child, 0)
        output.seek(0)
        steps_made.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "steps": int(steps_made.read() or 0),
            "output": output.read().decode(errors="replace"),
        }


def _act(number: int, request: dict[str, Any]) -> None:
    if number == request.get("kill_at"):
        os.kill(os.getpid(), signal.SIGKILL)
    if number == request.get("interrupt_at"):
        raise KeyboardInterrupt
    if number == request.get("fail_at"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if (copy := request.get("copy")) and Path(copy[0]).exists():
        shutil.copytree(copy[0], f"{copy[1]}/{number}")


def _child(request: dict[str, Any], output: int, steps_made: int) -> None:
    code = 70
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(request.get("environment", {}))
        made = steps(lambda number: _act(number, request))
        code = run(request["arguments"])
        os.write(steps_made, str(made()).encode())
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born ignoring Ctrl-C
    if arguments := sys.argv[1:]:
        load()
        print("started", flush=True)  # noqa: T201
        sys.exit(run(arguments))
    serve()
