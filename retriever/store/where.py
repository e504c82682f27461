"""Metadata filters: `year >= 1950 and lang in ['en', 'de'] and not draft`, compiled to SQL.

    filter     = term { "or" term }        term = factor { "and" factor }
    factor     = "not" factor | "(" filter ")" | comparison
    comparison = FIELD (= | == | != | < | <= | > | >=) value | FIELD ["not"] "in" "[" values "]"
               | FIELD "like" 'pattern%' | value "in" FIELD | FIELD
    value      = number | 'text' | true | false

FIELD is a metadata key (`author.name` reaches inside objects), or id, title, text. `value in FIELD` looks inside a
list. A lone FIELD asks that it is there and not false, 0 or ''. `like` is SQL's: % and _, A the same as a.
A document without the field, or with null in it, satisfies no comparison, and one with a value of another type only
`!=`; so they satisfy the `not` of it: each condition is either true or false, never unknown.
"""

from __future__ import annotations

import json
import re
from typing import Any

from retriever.errors import SpecError
from retriever.spec import expectation, tokenize

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.]))"
    r"|(?P<sign><=|>=|!=|==|[=<>(),\[\]])|(?P<word>[^\W\d][\w.\-]*))"
)
_COMPARE = {"=": "=", "==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_KEYWORDS = {"and", "or", "not", "in", "like", "true", "false"}
_COLUMNS = {"id", "title", "text"}
_CONDITIONS, _NESTING = 500, 15
"""Limits of one filter, below those of SQLite (1000 levels in a tree, 100 entries on its parser's stack)."""

Sql = tuple[str, list[Any]]


def compile_where(text: str) -> Sql:
    """A filter as an SQL condition over the documents table, with its parameters.

    Raises: SpecError with a caret under the fault.
    """
    parser = _Parser(text)
    sql = parser.any_of()
    if parser.kind != "end":
        raise parser.fail("'and', 'or' or the end")
    return sql


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [*tokenize(text, _TOKEN), ("end", "", len(text))]
        self.next = self.depth = self.conditions = 0

    @property
    def kind(self) -> str:
        return self.tokens[self.next][0]

    @property
    def word(self) -> str:
        kind, word, _ = self.tokens[self.next]
        return word.lower() if kind == "word" and word.lower() in _KEYWORDS else word

    def accept(self, *words: str) -> bool:
        if self.kind in ("word", "sign") and self.word in words:
            self.next += 1
            return True
        return False

    def fail(self, expected: str) -> SpecError:
        kind, word, position = self.tokens[self.next]
        return expectation(expected, kind, word, self.text, position)

    def any_of(self) -> Sql:
        parts = [self.all_of()]
        while self.accept("or"):
            parts.append(self.all_of())
        return " OR ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]

    def all_of(self) -> Sql:
        parts = [self.factor()]
        while self.accept("and"):
            parts.append(self.factor())
        return " AND ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]

    def factor(self) -> Sql:
        if self.depth >= _NESTING and self.kind in ("word", "sign") and self.word in ("not", "("):
            raise self.fail(f"at most {_NESTING} levels of 'not' and '('")
        if self.accept("not"):
            self.depth += 1
            sql, values = self.factor()
            self.depth -= 1
            return f"(NOT {sql})", values
        if self.accept("("):
            self.depth += 1
            sql, values = self.any_of()
            self.depth -= 1
            if not self.accept(")"):
                raise self.fail("')'")
            return f"({sql})", values
        self.conditions += 1
        if self.conditions > _CONDITIONS:
            raise self.fail(f"at most {_CONDITIONS} conditions (FIELD in [...] is one, however long)")
        if self.kind == "word" and self.word not in _KEYWORDS:
            return self.comparison(self.field())
        return self.membership()

    def field(self) -> str:
        if self.kind != "word" or self.word in _KEYWORDS:
            raise self.fail("a field's name")
        self.next += 1
        return self.tokens[self.next - 1][1]

    def value(self) -> Any:
        kind, word = self.kind, self.word
        if kind == "text":
            result: Any = re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)
        elif kind == "number":
            result = _number(word)
        elif kind == "word" and word in ("true", "false"):
            result = word == "true"
        else:
            raise self.fail("a number, a 'quoted text', true or false")
        self.next += 1
        return result

    def comparison(self, name: str) -> Sql:
        negated = self.accept("not")
        if self.accept("in"):
            sql, values = self.one_of(name)
            return (f"(NOT {sql})" if negated else sql), values
        if negated:
            raise self.fail("'in'")
        if self.accept("like"):
            return self.like(name)
        for sign, operator in _COMPARE.items():
            if self.accept(sign):
                return _compare(name, operator, self.value())
        if name in _COLUMNS:
            return f"({name} != '')", []
        return _truth("json_extract(metadata, ?) NOT IN (0, '')", _path(name))

    def like(self, name: str) -> Sql:
        if self.kind != "text":
            raise self.fail("a 'pattern%' in quotes")
        if name in _COLUMNS:
            return f"({name} LIKE ?)", [self.value()]
        typed = "json_type(metadata, ?) = 'text' AND json_extract(metadata, ?) LIKE ?"
        return _truth(typed, [*_path(name), *_path(name), self.value()])

    def one_of(self, name: str) -> Sql:
        if not self.accept("["):
            raise self.fail("'['")
        wanted: list[Any] = []
        while not self.accept("]"):
            if wanted and not self.accept(","):
                raise self.fail("',' or ']'")
            wanted.append(self.value())
        if name in _COLUMNS:
            return f"({name} IN (SELECT value FROM json_each(?)))", [json.dumps([str(value) for value in wanted])]
        path = _path(name)
        conditions: list[str] = []
        values: list[Any] = []
        for types in dict.fromkeys(map(_types, wanted)):
            same = [value for value in wanted if _types(value) == types]
            conditions.append(
                f"(json_type(metadata, ?) IN {types} AND json_extract(metadata, ?) IN (SELECT value FROM json_each(?)))"
            )
            values += [*path, *path, json.dumps(same)]
        return _truth(f"({' OR '.join(conditions) or '0'})", values)

    def membership(self) -> Sql:
        value = self.value()
        if not self.accept("in"):
            raise self.fail("'in' and a field's name")
        name = self.field()
        if name in _COLUMNS:
            self.next -= 1
            raise self.fail(f"a list in the metadata ({name} is text)")
        items = "SELECT 1 FROM json_each(metadata, ?) WHERE value = ? AND type IN " + _types(value)
        return f"EXISTS ({items})", [*_path(name), value]


def _number(word: str) -> int | float:
    """As SQLite holds it: whole numbers of more than 64 bits become floats."""
    if re.search(r"[.eE]", word) or not -(2**63) <= int(word) < 2**63:
        return float(word)
    return int(word)


def _path(name: str) -> list[Any]:
    return ["$." + ".".join(f'"{key}"' for key in name.split("."))]


def _types(value: Any) -> str:
    if isinstance(value, bool):
        return "('true', 'false')"
    return "('text')" if isinstance(value, str) else "('integer', 'real')"


def _compare(name: str, operator: str, value: Any) -> Sql:
    if name in _COLUMNS:
        return _truth(f"{name} {operator} ?", [value if isinstance(value, str) else str(value)])
    path = _path(name)
    typed = f"json_type(metadata, ?) IN {_types(value)} AND json_extract(metadata, ?) {operator} ?"
    if operator == "!=":  # a value of another type differs, a missing one does not
        kind = f"json_type(metadata, ?) NOT IN {_types(value)} OR json_extract(metadata, ?) != ?"
        return _truth(f"json_type(metadata, ?) != 'null' AND ({kind})", [*path, *path, *path, value])
    return _truth(typed, [*path, *path, value])


def _truth(sql: str, values: list[Any]) -> Sql:
    return f"coalesce({sql}, 0)", values
