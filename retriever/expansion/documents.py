"""Expanding a corpus: the protocol of what makes the words, and the loop that writes them down.

Every document is expanded by itself: what it gets depends on its text and the configuration, not on its neighbours. So
a run that was killed and goes on ends at the very file of a run that was left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from retriever.components import component_from
from retriever.expansion import DOCUMENT_EXPANSIONS
from retriever.expansion.records import Records, appending, fingerprint, in_batches
from retriever.progress import advance
from retriever.types import Document


class Expanded(NamedTuple):
    """expansions: of each text, in order; truncated: texts longer than the model reads."""

    expansions: list[list[str]]
    truncated: int


class DocumentExpansion(Protocol):
    """Texts to what is appended to them. `batch` documents are expanded, and their lines written, at once."""

    Config: ClassVar[Any]
    batch: ClassVar[int]
    config: Any

    def __init__(self, config: Any) -> None: ...

    def identity(self) -> Mapping[str, Any]:
        """The model behind it, as JSON values: a file that was begun with another one is not gone on with."""

    def expand(self, texts: Sequence[str], progress: Callable[[float], None]) -> Expanded:
        """Queries or words for each text, which depend on nothing but it; `progress` is told how many are done."""


@dataclass
class Report:
    """Documents: expanded now, there already; and of those expanded now, longer than the model reads."""

    expanded: int = 0
    known: int = 0
    truncated: int = 0


def expand(documents: Iterable[Document], path: Path, text: str) -> Report:
    """Write the expansions of a corpus to a file (`files.py`), or add those that the file has not.

    text: which expansion, as in "doc2query(MODEL, n=40)". Killed, the same call goes on after the last whole batch.

    Raises: SpecError for a text that is no expansion; InputError where the file was made by another.
    """
    component, expansion = component_from(text, DOCUMENT_EXPANSIONS, "document expansion")
    header = {"expansion": str(component), "config": asdict(expansion.config), "model": dict(expansion.identity())}
    report = Report()
    with appending(path, header, "expansion") as append:
        known = Records(path, "expansion")
        for batch in in_batches(documents, expansion.batch):
            found = known.find([(document.id, fingerprint(document.contents)) for document in batch])
            new = [document for document, (_, record) in zip(batch, found, strict=True) if record is None]
            report.known += len(batch) - len(new)
            advance(len(batch) - len(new))
            if new:
                made = expansion.expand([document.contents for document in new], advance)
                append(_record(*pair) for pair in zip(new, made.expansions, strict=True))
                report.expanded += len(new)
                report.truncated += made.truncated
    return report


def _record(document: Document, expansion: list[str]) -> dict[str, Any]:
    return {"id": document.id, "sha256": fingerprint(document.contents), "expansion": expansion}
