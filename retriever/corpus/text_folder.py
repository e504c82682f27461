"""A folder of .txt and .md files, each of them a document."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus.lines import content, kind, open_binary, uncompressed
from retriever.corpus.records import DOCUMENTS, MAX_DOCUMENT_BYTES, check_size, document
from retriever.errors import InputError
from retriever.types import Document

if TYPE_CHECKING:
    from retriever.corpus.base import Corpus

_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")


def read_texts(corpus: Corpus, folder: Path) -> Iterator[Document]:
    """One document per file: the id is its path inside the folder, the title a heading or the file's name."""
    return corpus.make(_places(corpus, folder), lambda path: _document(path, folder))


def _places(corpus: Corpus, folder: Path) -> Iterator[tuple[None, Path]]:
    for corpus.path in text_files(folder):
        yield None, Path(corpus.path)


def text_files(folder: Path) -> Iterator[Path]:
    """The .txt and .md files at any depth, in the order of their names; hidden files and folders are left out."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from text_files(path)
        elif kind(path) in {".txt", ".md"} and entry.is_file():
            yield path


def _document(path: Path, folder: Path) -> Document:
    id_ = path.relative_to(folder).as_posix()
    text = _text(path, id_)
    if not text.strip():
        raise InputError("empty text: fill the file or remove it")
    title = (_heading(text) if kind(path) == ".md" else "") or uncompressed(path).stem
    return document({"id": id_, "title": title, "text": text, "path": str(path)}, DOCUMENTS)


def _text(path: Path, id_: str) -> str:
    with open_binary(path) as file:
        data = b""
        for piece in content(file, path):
            data += piece
            if len(data) > MAX_DOCUMENT_BYTES:
                check_size(id_, max(len(data), path.stat().st_size))
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        at = f"byte {error.start + 1} of the file is 0x{data[error.start]:02x}"
        raise InputError(f"not UTF-8: {at}; convert the file to UTF-8", line=line) from None


def _heading(text: str) -> str:
    """The first Markdown heading that starts with # and stands outside of fenced code."""
    fenced = False
    for line in text.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and (heading := _HEADING.match(line)):
            return heading[1]
    return ""
