"""Collections of ir_datasets, written `ir:` and the id, as in `ir:beir/scifact/test`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from retriever.corpus.records import DOCUMENTS, Schema, document, json_value, refuse_surrogates
from retriever.errors import InputError, MissingDependencyError, RetrieverError
from retriever.types import Document

if TYPE_CHECKING:
    from retriever.corpus.base import Corpus

PREFIX = "ir:"


def read_ir_documents(corpus: Corpus, source: str) -> Iterator[Document]:
    """The documents; scalar fields beside title and text become metadata.

    The text is ir_datasets' default text, and where that begins with the title, what follows the title. Raises
    InputError for an unknown id or one without documents, RetrieverError where ir_datasets cannot provide them.
    """
    return corpus.make(_records(source, "docs"), _document)


def read_ir_queries(corpus: Corpus, source: str, schema: Schema) -> Iterator[Document]:
    """The queries by their default text; raises as read_ir_documents does."""

    def make(record: Any) -> Document:
        return document({"id": record.query_id, "text": _text(record, ("text",))}, schema)

    return corpus.make(_records(source, "queries"), make)


def _records(source: str, what: str) -> Iterator[tuple[int, Any]]:
    try:
        import ir_datasets
    except ImportError as error:
        raise MissingDependencyError(f"reading {source}", "ir_datasets", "data") from error
    try:
        dataset = ir_datasets.load(source.removeprefix(PREFIX))
    except KeyError:
        raise InputError("ir_datasets knows no such id: its catalogue is https://ir-datasets.com", source) from None
    if not getattr(dataset, f"has_{what}")():
        raise InputError(f"has no {what}: choose an id of ir_datasets that has", source)
    try:
        yield from enumerate(getattr(dataset, f"{what}_iter")(), 1)
    except (OSError, RuntimeError) as error:
        raise RetrieverError(f"{source}: ir_datasets cannot provide the {what}: {error}") from error


def _document(record: Any) -> Document:
    fields = record._asdict()
    id_ = fields.pop("doc_id")
    text = _text(record, tuple(fields))
    title = fields.pop("title", None)
    if not (isinstance(title, str) and text.startswith(title)):
        title = ""
    metadata = {
        name: json_value(name, value)
        for name, value in fields.items()
        if isinstance(value, str | int | float) and name not in DOCUMENTS.text
    }
    return document({"_id": id_, "title": title, "text": text[len(title) :].lstrip(), "metadata": metadata}, DOCUMENTS)


def _text(record: Any, names: tuple[str, ...]) -> str:
    """ir_datasets' own choice of text; without one, the field `text`; without that, the text fields given, joined."""
    if hasattr(record, "default_text"):
        text = record.default_text()
    elif hasattr(record, "text"):
        text = record.text
    else:
        values = (getattr(record, name, None) for name in names if not name.endswith(("id", "url")))
        text = "\n".join(value for value in values if isinstance(value, str) and value)
    refuse_surrogates(text)
    return str(text)


def read_ir_judgements(source: str) -> dict[str, dict[str, int]]:
    """Query id -> document id -> grade, of `ir:` and an id; raises as read_ir_documents does."""
    judged: dict[str, dict[str, int]] = {}
    for _, record in _records(source, "qrels"):
        judged.setdefault(record.query_id, {})[record.doc_id] = int(record.relevance)
    return judged
