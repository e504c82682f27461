"""The one text form: what a view is, how a search runs.

    view      = [NAME "="] component
    pipeline  = sum { ">>" component-or-group }
    sum       = item { "+" item }
    item      = component | "(" pipeline ")"
    component = NAME [ "(" [argument { "," argument }] ")" ]
    argument  = [KEY "="] value
    value     = number | true | false | none | 'quoted' | bare/word | "[" values "]"

`+` binds tighter than `>>`: `a + b >> rrf` fuses a and b. Printing is canonical, so `parse(str(x)) == x`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, TypeAlias, get_args, get_type_hints

from retriever.errors import SpecError

Value: TypeAlias = "str | int | float | bool | list[Value] | None"
Node: TypeAlias = "Component | Chain | Sum"

_TOKEN = re.compile(
    r"\s*(?:(?P<shift>>>)|(?P<quoted>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<sign>[+(),=\[\]])"
    r"|(?P<word>[^\s()\[\],=+'\">]+(?:\+[0-9]+(?=[\s,)\]]|$))?))"  # the tail is an exponent: 1e+30
)
_BARE = re.compile(r"[A-Za-z_./~][^\s()\[\],=+'\">]*\Z")
_NAME = re.compile(r"[A-Za-z_][\w.\-:]*\Z")
_NESTING = 50
"""Levels of brackets in one text."""
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Component:
    """A named part with its arguments: `dense(MODEL, index='Flat')`. `at` is where it stood in the text."""

    name: str
    args: tuple[Value, ...] = ()
    options: tuple[tuple[str, Value], ...] = ()
    at: int = field(default=0, compare=False, repr=False)
    text: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        inside = [*map(_print, self.args), *(f"{key}={_print(value)}" for key, value in self.options)]
        return f"{self.name}({', '.join(inside)})" if inside else self.name

    def error(self, message: str) -> SpecError:
        """An error that shows this component's place in the text it was parsed from."""
        return SpecError(message, self.text or str(self), self.at if self.text else 0)


@dataclass(frozen=True)
class Chain:
    """`a >> b`: each step receives what the one before made."""

    steps: tuple[Node, ...]

    def __str__(self) -> str:
        return " >> ".join(
            f"({step})" if isinstance(step, Sum) and i else str(step) for i, step in enumerate(self.steps)
        )


@dataclass(frozen=True)
class Sum:
    """`a + b`: results side by side, for a fusion stage to join."""

    parts: tuple[Node, ...]

    def __str__(self) -> str:
        return " + ".join(f"({part})" if isinstance(part, Chain) else str(part) for part in self.parts)


@dataclass(frozen=True)
class ViewSpec:
    """One representation of the corpus under a name of its own."""

    name: str
    component: Component

    def __str__(self) -> str:
        return str(self.component) if self.name == self.component.name else f"{self.name} = {self.component}"


def parse_view(text: str) -> ViewSpec:
    """Parse `NAME = component(...)` or `component(...)`.

    Raises: SpecError with a caret under the fault.
    """
    parser = _Parser(text)
    alias = None
    if parser.at_sign("=", ahead=1):
        alias = parser.name("a view's name")
        parser.take("=")
    component = parser.component()
    parser.end()
    name = alias or component.name
    if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise SpecError(f"a view of {component.name!r} needs a name of letters, digits, _ and -: NAME = ...", text, 0)
    return ViewSpec(name, component)


def parse_pipeline(text: str) -> Node:
    """Parse a search pipeline.

    Raises: SpecError with a caret under the fault.
    """
    parser = _Parser(text)
    node = parser.chain()
    parser.end()
    return node


def configure(config: Callable[..., Any], component: Component) -> Any:
    """Build the frozen dataclass `config` from a component's arguments; positional ones follow its field order.

    Raises: SpecError naming the component, the wrong argument and the known ones.
    """
    known: dict[str, Field[Any]] = {f.name: f for f in fields(config) if f.init}  # type: ignore[arg-type]
    hints = get_type_hints(config)
    if len(component.args) > len(known):
        raise component.error(f"{component.name} takes at most {len(known)} arguments: {', '.join(known) or 'none'}")
    given: dict[str, Value] = dict(zip(known, component.args, strict=False))
    for key, value in component.options:
        if key not in known:
            raise component.error(f"{component.name} has no argument {key!r}; it takes: {', '.join(known) or 'none'}")
        if key in given:
            raise component.error(f"{component.name}: {key!r} is given twice")
        given[key] = value
    for key, spec in known.items():
        if key not in given and spec.default is MISSING and spec.default_factory is MISSING:
            raise component.error(f"{component.name} needs {key!r}, as in {component.name}({key.upper()})")
    converted = {key: _convert(component, key, value, hints[key]) for key, value in given.items()}
    try:
        return config(**converted)
    except ValueError as problem:
        raise component.error(f"{component.name}: {problem}") from None


def component_of(name: str, config: Any) -> Component:
    """The canonical component of a configuration: what differs from the defaults or is marked `always`, required fields
    by position.
    """
    args: list[Value] = []
    options: list[tuple[str, Value]] = []
    for spec in fields(config):
        value = getattr(config, spec.name)
        if spec.default is MISSING and spec.default_factory is MISSING:
            args.append(value)
        elif value != spec.default or spec.metadata.get("always"):
            options.append((spec.name, list(value) if isinstance(value, tuple) else value))
    return Component(name, tuple(args), tuple(options))


def _convert(component: Component, key: str, value: Value, hint: Any) -> Any:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for option in options:
        if option is NoneType and value is None:
            return None
        if option is bool and isinstance(value, bool):
            return value
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option is str and isinstance(value, str):
            return value
        if getattr(option, "__origin__", None) is tuple and isinstance(value, list):
            return tuple(_convert(component, key, item, get_args(option)[0]) for item in value)
    if value is None and str in options:
        return "none"  # the name of a choice, as in bm25(language=none), where it cannot mean "not given"
    expected = " or ".join("none" if o is NoneType else getattr(o, "__name__", str(o)) for o in options)
    raise component.error(f"{component.name}: {key} must be {expected}, not {_print(value)}")


def _print(value: Value) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_print, value))}]"
    if isinstance(value, str):
        if _BARE.match(value) and value not in _CONSTANTS and _number(value) is None:
            return value
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


def _number(word: str) -> int | float | None:
    for kind in (int, float):
        try:
            number = kind(word)
        except ValueError:
            continue
        return number if math.isfinite(number) and "_" not in word else None
    return None


def tokenize(text: str, pattern: re.Pattern[str]) -> list[tuple[str, str, int]]:
    """The kind (the pattern's group), the characters and the position of each token.

    Raises: SpecError at the first character that begins none.
    """
    tokens: list[tuple[str, str, int]] = []
    position = 0
    while text[position:].strip():
        match = pattern.match(text, position)
        if match is None or match.lastgroup is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            raise SpecError("not understood from here", text, start)
        tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        position = match.end()
    return tokens


def expectation(expected: str, kind: str, word: str, text: str, position: int) -> SpecError:
    """What a parser wanted at a place, and what stands there."""
    found = "the end" if kind == "end" else repr(word)
    return SpecError(f"expected {expected}, found {found}", text, position)


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text, self.next, self.depth = text, 0, 0
        self.tokens = tokenize(text, _TOKEN)

    def peek(self, ahead: int = 0) -> tuple[str, str, int]:
        index = self.next + ahead
        return self.tokens[index] if index < len(self.tokens) else ("end", "", len(self.text))

    def at_sign(self, sign: str, ahead: int = 0) -> bool:
        kind, word, _ = self.peek(ahead)
        return kind in ("sign", "shift") and word == sign

    def fail(self, expected: str) -> SpecError:
        kind, word, position = self.peek()
        return expectation(expected, kind, word, self.text, position)

    def take(self, sign: str) -> None:
        if not self.at_sign(sign):
            raise self.fail(repr(sign))
        self.next += 1

    @contextmanager
    def nested(self) -> Iterator[None]:
        if self.depth >= _NESTING:
            raise self.fail(f"at most {_NESTING} levels of brackets")
        self.depth += 1
        self.next += 1
        yield
        self.depth -= 1

    def end(self) -> None:
        if self.peek()[0] != "end":
            raise self.fail("'>>', '+' or the end")

    def name(self, what: str) -> str:
        kind, word, _ = self.peek()
        if kind != "word" or not _NAME.match(word):
            raise self.fail(what)
        self.next += 1
        return word

    def chain(self) -> Node:
        steps = [self.sum()]
        while self.at_sign(">>"):
            self.next += 1
            steps.append(self.item())
        flat = [inner for step in steps for inner in (step.steps if isinstance(step, Chain) else (step,))]
        return flat[0] if len(flat) == 1 else Chain(tuple(flat))

    def sum(self) -> Node:
        parts = [self.item()]
        while self.at_sign("+"):
            self.next += 1
            parts.append(self.item())
        flat = [inner for part in parts for inner in (part.parts if isinstance(part, Sum) else (part,))]
        return flat[0] if len(flat) == 1 else Sum(tuple(flat))

    def item(self) -> Node:
        if not self.at_sign("("):
            return self.component()
        with self.nested():
            node = self.chain()
        self.take(")")
        return node

    def component(self) -> Component:
        at = self.peek()[2]
        name = self.name("a component's name")
        args: list[Value] = []
        options: list[tuple[str, Value]] = []
        if self.at_sign("("):
            self.next += 1
            while not self.at_sign(")"):
                if args or options:
                    self.take(",")
                self.argument(args, options)
            self.next += 1
        return Component(name, tuple(args), tuple(options), at, self.text)

    def argument(self, args: list[Value], options: list[tuple[str, Value]]) -> None:
        if self.at_sign("=", ahead=1):
            key = self.name("an argument's name")
            self.next += 1
            if key in dict(options):
                self.next -= 2
                raise self.fail(f"{key!r} only once")
            options.append((key, self.value()))
        elif options:
            raise self.fail("key=value (positional arguments come first)")
        else:
            args.append(self.value())

    def value(self) -> Value:
        kind, word, _ = self.peek()
        if self.at_sign("["):
            items: list[Value] = []
            with self.nested():
                while not self.at_sign("]"):
                    if items:
                        self.take(",")
                    items.append(self.value())
            self.next += 1
            return items
        if kind not in ("word", "quoted"):
            raise self.fail("a value")
        self.next += 1
        if kind == "quoted":
            return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        number = _number(word)
        return word if number is None else number


def suggest(name: str, known: Mapping[str, Any]) -> str:
    """The tail of an error about an unknown name: the near match, if any, and what there is."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(sorted(known))}"
