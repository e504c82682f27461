"""One JSON object per line: BEIR's corpus.jsonl, Pyserini's JSONL and whatever else names its fields so."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.corpus.lines import decode, numbered_lines
from retriever.corpus.records import Schema, document, json_type, refuse_surrogates
from retriever.errors import InputError
from retriever.types import Document

if TYPE_CHECKING:
    from retriever.corpus.base import Corpus

_EXPECTED = "expected one JSON object per line"


def read_jsonl(corpus: Corpus, path: Path, schema: Schema) -> Iterator[Document]:
    """The documents of a JSONL file; blank lines are passed over."""
    return corpus.make(numbered_lines(corpus, path), partial(_document, schema))


def _document(schema: Schema, line: bytes) -> Document | None:
    text = decode(line).rstrip()
    return document(_record(text), schema) if text else None


def _record(text: str) -> dict[str, Any]:
    start = 0 if text[0] == "{" else len(text) - len(text.lstrip())
    try:
        value, end = _raw_decode(text, start)
    except json.JSONDecodeError as error:
        hint = "; jq -c '.[]' makes such lines of an array" if text.startswith("[", start) else ""
        raise InputError(f"broken JSON at column {error.colno}: {error.msg}; {_EXPECTED}{hint}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"JSON that cannot be used: {error}") from None
    if end != len(text):
        raise InputError(f"broken JSON at column {end + 1}: something follows the first value; {_EXPECTED}")
    if type(value) is not dict:
        raise InputError(f"the line is {json_type(value)}: {_EXPECTED}")
    # The line itself is UTF-8, so half a surrogate pair can only have come in by an escape. One character is found at
    # the speed of memchr, three are not, and whether a string is ASCII is a flag in it: so ask in this order.
    if "\\" in text and not _ascii(value) and ("\\ud" in text or "\\uD" in text):
        refuse_surrogates(json.dumps(value, ensure_ascii=False))
    return value


def _ascii(record: dict[str, Any]) -> bool:
    return all(type(each) is str and each.isascii() for each in chain(record, record.values()))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number; write null or leave the field out")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits} is too large for a double")
    return number


# loads() costs twice as much as this for a short passage: it looks for white space and options line by line.
_raw_decode = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).raw_decode
