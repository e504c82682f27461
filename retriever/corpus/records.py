"""One record with named fields becomes one Document: the records of every format pass through here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, time
from typing import Any

from retriever.errors import InputError
from retriever.types import Document

MAX_DOCUMENT_BYTES = 8 << 20

# C0 and C1 controls, line and paragraph separators, and surrogates, which UTF-8 cannot hold.
_FORBIDDEN_IN_IDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_JSON_TYPES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Schema:
    """The names a field may go by (the first one present counts), and the columns of a TSV without a header."""

    id: tuple[str, ...]
    title: tuple[str, ...]
    text: tuple[str, ...]
    headerless: tuple[tuple[str, ...], ...]
    required: tuple[str, ...] = ("id", "text")

    def with_columns(self, columns: Mapping[str, str] | None) -> Schema:
        """The schema under the user's own names, which then stand in a header. Raises InputError for other keys."""
        if not columns:
            return self
        if unknown := columns.keys() - {"id", "title", "text"}:
            raise InputError(f"columns gives {listed(sorted(unknown))} a name: expected only 'id', 'title' and 'text'")
        names = {field: (name,) for field, name in columns.items()}
        return replace(self, headerless=(), required=tuple(dict.fromkeys((*self.required, *columns))), **names)

    def check(self, names: list[str]) -> None:
        """Raises InputError where the columns of a table repeat a name or lack one that is required."""
        if repeated := {name for name in names if names.count(name) > 1}:
            raise InputError(f"the header names {listed(sorted(repeated))} twice: rename one")
        for field in self.required:
            if not set(getattr(self, field)) & set(names):
                wanted = one_of(getattr(self, field))
                raise InputError(
                    f"no column for the {field}: expected {wanted}, got {listed(names)}; map it by columns"
                )


DOCUMENTS = Schema(
    id=("_id", "id", "docid", "pid"),
    title=("title",),
    text=("text", "contents", "content", "body", "passage"),
    headerless=(("pid", "text"), ("docid", "url", "title", "body")),  # MS MARCO's passages and documents
)


def document(record: dict[str, Any], schema: Schema) -> Document:
    """Takes the record apart: what is not id, title or text becomes metadata. Raises InputError without a place.

    A record without text whose `vector` holds weights by term (Anserini, Seismic, CIFF) has those terms as its text.
    """
    id_ = _take(record, schema.id, "id")
    if type(id_) is not str or not id_ or id_.isspace() or not id_.isprintable():
        id_ = _checked_id(id_)
    text = _take(record, schema.text, "" if type(record.get("vector")) is dict else "text")
    title = _take(record, schema.title) if schema.title else ""
    if type(text) is not str or type(title) is not str:
        what, value = ("text", text) if type(text) is not str else ("title", title)
        raise InputError(f"the {what} is {json_type(value)}: expected a string")
    if (not text or text.isspace()) and (not title or title.isspace()):
        text, title = _terms(record.get("vector")), ""
        if not text:
            both = " and title" if schema.title else ""
            raise InputError(f"empty text{both} in {id_!r}: fill it or leave the record out")
    if len(text) + len(title) > MAX_DOCUMENT_BYTES // 4:
        check_size(id_, len(text.encode()) + len(title.encode()))
    return Document(id_, text, title, _merged(record) if "metadata" in record else record)


def _take(record: dict[str, Any], names: tuple[str, ...], required: str = "") -> Any:
    """The first of the fields that is there, out of the record; one not required may lack or be null, and is ""."""
    for name in names:
        if name in record:
            value = record.pop(name)
            return "" if value is None and not required else value
    if not required:
        return ""
    raise InputError(f"no {required}: expected {one_of(names)}, got {listed(record) or 'no fields'}")


def _terms(vector: Any) -> str:
    """The terms of a vector, heaviest first, those of one weight in the order of their characters."""
    if type(vector) is not dict:
        return ""
    for term, weight in vector.items():
        if type(weight) not in (int, float):
            raise InputError(f"the vector's weight of {term!r} is {json_type(weight)}: expected a number")
    return " ".join(sorted((term for term in vector if vector[term]), key=lambda term: (-vector[term], term)))


def _checked_id(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise InputError(f"the id is {json_type(value)}: expected a string or a whole number")
    if not value.strip():
        raise InputError("empty id: every record needs one of its own")
    if _FORBIDDEN_IN_IDS.search(value):
        raise InputError(f"the id {value!r} holds control characters, line breaks or surrogates: remove them")
    return value


def check_size(id_: str, size: int) -> None:
    """Raises InputError where a document's title and text have more bytes of UTF-8 than MAX_DOCUMENT_BYTES."""
    if size > MAX_DOCUMENT_BYTES:
        raise InputError(
            f"document {id_!r} has {size:,} bytes of text, the limit is {MAX_DOCUMENT_BYTES:,}: split it into passages"
        )


def _merged(record: dict[str, Any]) -> dict[str, Any]:
    """The fields left in the record together with those of its object `metadata`."""
    nested = record.pop("metadata")
    if type(nested) is not dict:
        return record if nested is None else record | {"metadata": nested}
    for name in record.keys() & nested.keys():
        if record[name] != nested[name]:
            raise InputError(f"field {name!r} has one value in the record and another in its metadata: keep one")
    return record | nested


def json_value(name: str, value: Any) -> Any:
    """A value of a format richer than JSON as JSON has it, dates as ISO 8601. Raises InputError where it has none."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [json_value(name, each) for each in value]
    if isinstance(value, dict):
        return {key: json_value(name, each) for key, each in value.items()}
    raise InputError(f"field {name!r} holds {value!r:.40}, which JSON cannot: make it text or leave it out")


def refuse_surrogates(value: str) -> None:
    """Raises InputError where text holds half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = ord(value[error.start])
        raise InputError(f"the lone surrogate \\u{half:04x} is no character and has no UTF-8: remove it") from None


def listed(names: Iterable[str]) -> str:
    """Names as a message shows them."""
    return ", ".join(repr(name) for name in names)


def one_of(names: tuple[str, ...]) -> str:
    """Names of which one is wanted, as a message shows them."""
    return listed(names) if len(names) == 1 else f"one of {listed(names)}"


def json_type(value: Any) -> str:
    """What JSON calls a value, for a message."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value}"
    return _JSON_TYPES.get(type(value), f"a {type(value).__name__}")
