"""The `retriever` command: one file per command; this one turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys

INTERRUPTED = 130
"""The shell's code for a program that Ctrl-C ended."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 1 the machine failed (disk, permissions, damage, a lock); 2 the input is wrong; 130 Ctrl-C.
    """
    from retriever.cli.app import EndedError, app
    from retriever.errors import RetrieverError

    try:
        try:
            app()
        except EndedError as end:
            raise end.cause from None
    except RetrieverError as problem:
        _fail(str(problem), problem.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; what was committed is kept, and the same command goes on from there", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; so do we
    except OSError as problem:
        _fail(_machine(problem), 1)


def _machine(problem: OSError) -> str:
    place = f"{problem.filename}: " if problem.filename else ""
    advice = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again: what was committed is kept",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission denied",
    }
    return place + advice.get(problem.errno or 0, problem.strerror or str(problem))


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(code)
