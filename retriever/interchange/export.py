"""Documents' weighted terms into files that other systems read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from retriever.errors import InputError
from retriever.interchange.ciff import write_ciff
from retriever.runs import written
from retriever.types import Document

Weights = Mapping[str, float]
Vectors = Iterable[tuple[Document, Weights]]


@dataclass
class Exported:
    """What was written. dropped: weights that were rounded to 0 and left out; empty: documents without a term."""

    documents: int = 0
    weights: int = 0
    dropped: int = 0
    empty: int = 0


def export(documents: Vectors, out: Path, scale: float | None, description: str) -> Exported:
    """Write documents with their weights by term, in the format that the file's name ends in (`FORMATS`).

    scale: what weights are multiplied by, before they are rounded to whole numbers (a half to the even one); None: they
    are written as they are. description: what the file is to say of itself, where its format has a place for it.
    The file is there when all is written, and not before.

    Raises: InputError for another name, and for weights that the format cannot hold.
    """
    write = FORMATS.get(Path(out.name.removesuffix(".gz").removesuffix(".zst")).suffix)
    if write is None:
        raise InputError(f"a file of no known format: expected {', '.join(FORMATS)}, plain, .gz or .zst", out)
    if scale is not None and not scale > 0:
        raise InputError(f"weights can be multiplied by a number above 0, not by {scale}")
    done = Exported()
    with written(out) as file:
        write(file, _prepared(documents, scale, done), description)
    return done


def _prepared(documents: Vectors, scale: float | None, done: Exported) -> Iterator[tuple[Document, Weights]]:
    """The documents with the weights to be written: whole ones as int."""
    for document, weights in documents:
        if scale is None:
            vector = {term: int(weight) if weight == int(weight) else weight for term, weight in weights.items()}
        else:
            vector = {term: round(weight * scale) for term, weight in weights.items()}
        kept = {term: weight for term, weight in vector.items() if weight}
        done.documents += 1
        done.weights += len(kept)
        done.dropped += len(vector) - len(kept)
        done.empty += not kept
        yield document, kept


def _write_jsonl(file: IO[bytes], documents: Vectors, description: str) -> None:
    """Anserini's JsonVectorCollection, which Pyserini writes and PISA's tools read too. Anserini cuts weights to whole
    numbers; title and text stand together in `contents`.
    """
    for document, weights in documents:
        record = {"id": document.id, "contents": document.contents, "vector": weights}
        file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _write_ciff(file: IO[bytes], documents: Vectors, description: str) -> None:
    write_ciff(file, ((document.id, weights) for document, weights in documents), description)  # type: ignore[misc]


FORMATS: dict[str, Callable[[IO[bytes], Vectors, str], None]] = {".jsonl": _write_jsonl, ".ciff": _write_ciff}
