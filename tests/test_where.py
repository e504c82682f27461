"""Metadata filters against the same filter written in Python, over documents made at random."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.errors import SpecError
from retriever.store.documents import FOLDER, Documents, write_segment
from retriever.types import Document

Metadata = Mapping[str, Any]
Test = Callable[[Document], bool]

BOOKS = [
    Document("1", "On wings", "Lift", {"year": 1950, "lang": "en", "tags": ["air", "wing"], "draft": True}),
    Document("2", "On heat", "", {"year": 1961.5, "lang": "de", "author": {"name": "Prandtl", "born": 1875}}),
    Document("3", "on wings", "It's", {"year": "1950", "lang": None, "tags": [], "draft": False, "größe": 3}),
    Document("0", "", "Nothing", {}),
    Document("5", "100% sure", "A\\B", {"year": 10**19, "pages": 0, "note": "", "tags": [1, True, "1"]}),
]


def matching(folder: Path, documents: list[Document], where: str) -> set[str]:
    (folder / FOLDER).mkdir(exist_ok=True)
    segment, _ = write_segment(folder, enumerate(documents), 0, len(documents), 1)
    store = Documents(folder, [segment], np.zeros(len(documents), dtype=np.bool_))
    mask = store.matching(where)
    store.close()
    return {document.id for document, chosen in zip(documents, mask, strict=True) if chosen}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("year = 1950", "1"),
        ("year == 1950.0", "1"),
        ("year = '1950'", "3"),
        ("year != 1950", "2 3 5"),
        ("year >= 1950", "1 2 5"),
        ("year < 1961.5", "1"),
        ("year <= 1961.5 and year > 1950", "2"),
        ("year > 99999999999999999999", ""),
        ("year < 99999999999999999999", "1 2 5"),
        ("year > -1e3", "1 2 5"),
        ("lang = 'en'", "1"),
        ("lang in ['en', 'de']", "1 2"),
        ("lang not in ['en']", "2 3 0 5"),
        ("lang in []", ""),
        ("year in [1950, '1950', 7, true]", "1 3"),
        ("id in ['1', 2]", "1 2"),
        ("draft", "1"),
        ("not draft", "2 3 0 5"),
        ("draft = true", "1"),
        ("draft = false", "3"),
        ("draft = 1", ""),
        ("draft != false", "1"),
        ("pages or note", ""),
        ("tags", "1 3 5"),
        ("id", "1 2 3 0 5"),
        ("title", "1 3 0 5"),
        ("text", "1 2 3 5"),
        ("author.name = 'Prandtl'", "2"),
        ("author.born < 1900", "2"),
        ("author.name.first = 'L'", ""),
        ("'wing' in tags", "1"),
        ("1 in tags", "5"),
        ("true in tags", "5"),
        ("'1' in tags", "5"),
        ("not 'wing' in tags", "2 3 0 5"),
        ("größe = 3", "3"),
        ("lang like 'E_'", "1"),
        ("text like '%WINGS'", "1 3"),
        ("year like '19%'", "3"),
        ("tags like '%wing%'", ""),
        ("not lang like 'e%'", "2 3 0 5"),
        ("title = 'It\\'s'", "3"),
        ('title = "It\'s"', "3"),
        (r"title = 'A\\B'", "5"),
        ("text = '100% sure'", "5"),
        ("year = 1950 or lang = 'de' and draft", "1"),
        ("(year = 1950 or lang = 'de') and not draft", "2"),
        ("not (year = 1950 or not lang = 'de')", "2"),
        ("YEAR = 1950", ""),
        ("year = 1950 AND NOT lang IN ['de']", "1"),
        ("nothing = 'x' or nothing != 'x' or nothing > 0 or nothing", ""),
        ("lang != 'en'", "2"),
    ],
)
def test_a_filter(tmp_path, where, expected):
    assert matching(tmp_path, BOOKS, where) == set(expected.split())


def test_a_list_may_be_long_and_a_filter_may_be_deep(tmp_path):
    many = ", ".join(map(str, range(50_000)))
    assert matching(tmp_path, BOOKS, f"year in [{many}]") == {"1"}
    ids = ", ".join(f"'{i}'" for i in range(3, 50_000))
    assert matching(tmp_path, BOOKS, f"id in [{ids}]") == {"3", "5"}
    assert matching(tmp_path, BOOKS, " or ".join(["year = 1950"] * 500)) == {"1"}
    assert matching(tmp_path, BOOKS, " or ".join(["year = 1950 and draft"] * 250)) == {"1"}
    assert matching(tmp_path, BOOKS, "not " * 15 + "draft") == {"2", "3", "0", "5"}
    nested = "year in [0, '0'] or year > 1900 and draft"
    for _ in range(14):
        nested = f"(lang = 'de' and nothing or year = 1950 and not draft or pages = 1 and {nested} or draft)"
    assert matching(tmp_path, BOOKS, nested) == {"1"}


@pytest.mark.parametrize(
    ("where", "column", "message"),
    [
        ("", 0, "expected a number, a 'quoted text', true or false, found the end"),
        ("year", None, ""),
        ("year =", 6, "expected a number, a 'quoted text', true or false, found the end"),
        ("year = en", 7, "expected a number, a 'quoted text', true or false, found 'en'"),
        ("year 1950", 5, "expected 'and', 'or' or the end, found '1950'"),
        ("year = 1950 lang", 12, "expected 'and', 'or' or the end, found 'lang'"),
        ("year = 1950 and", 15, "expected a number, a 'quoted text', true or false, found the end"),
        ("(year = 1950", 12, "expected ')', found the end"),
        ("year in 1950", 8, "expected '[', found '1950'"),
        ("year in [1950 1951]", 14, "expected ',' or ']', found '1951'"),
        ("year in [1950,]", 14, "expected a number, a 'quoted text', true or false, found ']'"),
        ("year not 1950", 9, "expected 'in', found '1950'"),
        ("year like 19", 10, "expected a 'pattern%' in quotes, found '19'"),
        ("year ~ 1950", 5, "not understood from here"),
        ("lang = 'en", 7, "not understood from here"),
        ("'x' in title", 7, "expected a list in the metadata (title is text), found 'title'"),
        ("'x'", 3, "expected 'in' and a field's name, found the end"),
        ("'x' in 'y'", 7, "expected a field's name, found \"'y'\""),
        ("(" * 16 + "a", 15, "expected at most 15 levels of 'not' and '(', found '('"),
        ("not " * 5000 + "a", 60, "expected at most 15 levels of 'not' and '(', found 'not'"),
        ("a or " * 501 + "a", 2500, "expected at most 500 conditions (FIELD in [...] is one, however long), found 'a'"),
    ],
)
def test_a_caret_stands_under_the_fault(tmp_path, where, column, message):
    if column is None:
        assert matching(tmp_path, BOOKS, where) == {"1", "2", "3", "5"}
        return
    with pytest.raises(SpecError) as caught:
        matching(tmp_path, BOOKS, where)
    assert str(caught.value) == f"{message}\n  {where}\n  {' ' * column}^"


# -- any filter over any documents -------------------------------------------------------------------------------------

FIELDS = ["year", "lang", "a.b", "größe", "x-y"]
scalars = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0.5, -1.0, 2.0, 1e300, 0.1]),
    st.sampled_from(["", "en", "De", "é", "1", "it's", "a\\b", 'say "x"', "new\nline", "true"]),
)
stored = st.one_of(scalars, st.none(), st.lists(scalars, max_size=3))
metadata = st.dictionaries(st.sampled_from([field for field in FIELDS if "." not in field]), stored).flatmap(
    lambda made: st.one_of(
        st.just(made), stored.map(lambda inner: {**made, "a": {"b": inner}}), st.just({**made, "a": 1})
    )
)
documents = st.lists(metadata, min_size=1, max_size=8).map(
    lambda many: [Document(str(i), "text", metadata=made) for i, made in enumerate(many)]
)


def written(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def look_up(metadata: Metadata, name: str) -> Any:
    value: Any = metadata
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def kind(value: Any) -> str:
    return "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else type(value).__name__


def same(one: Any, other: Any) -> bool:
    return kind(one) == kind(other) and sized(one) == sized(other)


def sized(value: Any) -> Any:
    """Whole numbers of more than 64 bits are floats to SQLite."""
    return float(value) if kind(value) == "number" and not -(2**63) <= value < 2**63 else value


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": same,
    "!=": lambda have, want: have is not None and not same(have, want),
    "<": lambda have, want: kind(have) == kind(want) and sized(have) < sized(want),
    "<=": lambda have, want: kind(have) == kind(want) and sized(have) <= sized(want),
    ">": lambda have, want: kind(have) == kind(want) and sized(have) > sized(want),
    ">=": lambda have, want: kind(have) == kind(want) and sized(have) >= sized(want),
}


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, Test]:
    """A comparison, and what it means."""
    name = draw(st.sampled_from(FIELDS))
    shape = draw(st.sampled_from(["compare", "compare", "in", "not in", "holds", "alone"]))
    if shape == "compare":
        sign, want = draw(st.sampled_from(list(COMPARISONS))), draw(scalars)
        return f"{name} {sign} {written(want)}", lambda d: COMPARISONS[sign](look_up(d.metadata, name), want)
    if shape == "holds":
        want = draw(scalars)

        def holds(d: Document) -> bool:
            have = look_up(d.metadata, name)
            return any(same(each, want) for each in (have if isinstance(have, list) else [have]))

        return f"{written(want)} in {name}", holds
    if shape == "alone":
        return name, lambda d: look_up(d.metadata, name) not in (None, False, 0, "")
    wanted = draw(st.lists(scalars, max_size=3))
    inside = f"{name} {shape} [{', '.join(map(written, wanted))}]"
    return inside, lambda d: any(same(look_up(d.metadata, name), want) for want in wanted) == (shape == "in")


def joined(inner: st.SearchStrategy[tuple[str, Test]]) -> st.SearchStrategy[tuple[str, Test]]:
    def both(sign: str, one: tuple[str, Test], other: tuple[str, Test]) -> tuple[str, Test]:
        unite = any if sign == "or" else all
        return f"({one[0]}) {sign} ({other[0]})", lambda d: unite([one[1](d), other[1](d)])

    negated = inner.map(lambda one: (f"not ({one[0]})", lambda d: not one[1](d)))
    return negated | st.builds(both, st.sampled_from(["and", "or"]), inner, inner)


@given(documents, st.recursive(conditions(), joined, max_leaves=4))
@settings(deadline=None, max_examples=300)
def test_a_filter_means_what_its_words_say(tmp_path_factory, documents, condition):
    where, test = condition
    folder = tmp_path_factory.mktemp("where")
    expected = {document.id for document in documents if test(document)}
    found = matching(folder, documents, where)
    assert found == expected, f"{where} over {json.dumps([d.metadata for d in documents])}"
