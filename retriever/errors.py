"""One exception tree; `exit_code` is what the command line returns."""

from __future__ import annotations

from pathlib import Path


class RetrieverError(Exception):
    """Base of everything this package raises on purpose. Exit code 1: the machine failed, not the user."""

    exit_code = 1


class InputError(RetrieverError):
    """What the user gave cannot be used. The message names the file and line where there is one."""

    exit_code = 2

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None) -> None:
        self.message, self.path, self.line = message, path, line
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(where + message)


class SpecError(InputError):
    """A view or pipeline that does not parse; the message shows the text with a caret under the fault."""

    def __init__(self, message: str, text: str, position: int) -> None:
        self.text, self.position = text, position
        super().__init__(f"{message}\n  {text}\n  {' ' * position}^")


class MissingDependencyError(InputError):
    """An optional package is absent; the message carries the pip command that brings it."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'retriever-engine[{extra}]'")


class IndexMismatchError(InputError):
    """The index was made with something else (encoder, view, format) than what is asked of it."""


class CorruptIndexError(RetrieverError):
    """A file of the index is missing or differs from its checksum."""


class IndexLockedError(RetrieverError):
    """Another process is writing to this index."""
