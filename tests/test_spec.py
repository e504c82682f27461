"""The one text form: what prints parses back to the same, and what does not parse is shown with a caret."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.errors import SpecError
from retriever.spec import (
    Chain,
    Component,
    Node,
    Sum,
    Value,
    ViewSpec,
    component_of,
    configure,
    parse_pipeline,
    parse_view,
)

names = st.from_regex(r"[A-Za-z_][\w.\-]{0,8}(:[A-Za-z_]\w{0,5})?", fullmatch=True)
view_names = st.from_regex(r"[A-Za-z_][\w-]{0,8}", fullmatch=True)
values: st.SearchStrategy[Value] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=12),
        st.sampled_from(
            ["true", "none", "1e5", "-3", ".5", "inf", "nan", "it's", 'say "so"', "a\\", "a+b", "x>>y", "/m-2"]
        ),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
components = st.builds(
    Component,
    names,
    st.lists(values, max_size=2).map(tuple),
    st.dictionaries(names, values, max_size=3).map(lambda options: tuple(options.items())),
)


def grouped(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """Chains of everything but chains and sums of everything but sums: what the parser gives for nested ones."""
    longer = st.lists(parts, min_size=2, max_size=3)
    return longer.map(lambda steps: Chain(tuple(flat(steps, Chain)))) | longer.map(
        lambda part: Sum(tuple(flat(part, Sum)))
    )


def flat(nodes: list[Node], kind: type) -> list[Node]:
    return [
        inner
        for node in nodes
        for inner in (getattr(node, "steps", getattr(node, "parts", ())) if isinstance(node, kind) else [node])
    ]


pipelines = st.recursive(components, grouped, max_leaves=6)


# -- parse(str(x)) == x ------------------------------------------------------------------------------------------------


@given(
    st.builds(ViewSpec, view_names, components)
    | components.filter(lambda c: c.name.isalpha()).map(lambda c: ViewSpec(c.name, c))
)
@settings(deadline=None)
def test_a_view_prints_and_parses_back(view):
    assert parse_view(str(view)) == view
    assert str(parse_view(str(view))) == str(view)


@given(pipelines)
@settings(deadline=None)
def test_a_pipeline_prints_and_parses_back(pipeline):
    assert parse_pipeline(str(pipeline)) == pipeline


@given(pipelines, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_white_space_between_the_parts_says_nothing(pipeline, dice):
    text = str(pipeline)
    loose = respaced(text, lambda: " \t\n"[dice.randrange(3)] * dice.randrange(3))
    assert parse_pipeline(loose) == parse_pipeline(respaced(text, lambda: "")) == pipeline


def respaced(text: str, space: Callable[[], str]) -> str:
    """The text with other white space around its signs, its quoted values left alone."""
    out, position = [], 0
    while position < len(text):
        character = text[position]
        if character == "'":
            end = position + 1
            while text[end] != "'":
                end += 2 if text[end] == "\\" else 1
            out.append(text[position : end + 1])
            position = end + 1
        elif text.startswith(">>", position):
            out.append(f"{space()}>>{space()}")
            position += 2
        elif character == " ":
            position += 1
        elif character in "(),=[]" or (character == "+" and text[position - 1] != "e"):
            out.append(f"{space()}{character}{space()}")
            position += 1
        else:
            out.append(character)
            position += 1
    return "".join(out)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("bm25", "bm25"),
        ("  bm25( k = 200 )+dense  >>rrf ", "bm25(k=200) + dense >> rrf"),
        ("dense(org/model-v1.5, index='IVF256,PQ48')", "dense(org/model-v1.5, index='IVF256,PQ48')"),
        ('dense("/models/my model")', "dense('/models/my model')"),
        ("(a + b) + c >> rrf", "a + b + c >> rrf"),
        ("(a)", "a"),
        ("(a >> x) >> y", "a >> x >> y"),
        ("(a >> x) + b >> rrf", "(a >> x) + b >> rrf"),
        (
            "a + (b + c >> rrf(c=10)) >> wsum([0.5, 1], norm=zscore)",
            "a + (b + c >> rrf(c=10)) >> wsum([0.5, 1], norm=zscore)",
        ),
        ("f(none, true, -1, 1e-05, 1e+30, [], [a, [1]])", "f(none, true, -1, 1e-05, 1e+30, [], [a, [1]])"),
        ("their.module:Stage(depth=5)", "their.module:Stage(depth=5)"),
    ],
)
def test_printing_is_canonical(text, canonical):
    assert str(parse_pipeline(text)) == canonical


def test_plus_binds_tighter_than_handing_on():
    assert parse_pipeline("a + b >> rrf") == Chain((Sum((Component("a"), Component("b"))), Component("rrf")))


def test_a_view_has_the_name_of_its_component_or_one_of_its_own():
    assert parse_view("bm25") == ViewSpec("bm25", Component("bm25"))
    assert parse_view("german = bm25(german)") == ViewSpec("german", Component("bm25", ("german",)))
    assert str(ViewSpec("bm25", Component("bm25"))) == "bm25"


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 0, "expected a component's name, found the end"),
        ("bm25 +", 6, "expected a component's name, found the end"),
        ("bm25 >> >> rrf", 8, "expected a component's name, found '>>'"),
        ("bm25 > rrf", 5, "not understood from here"),
        ("bm25 rrf", 5, "expected '>>', '+' or the end, found 'rrf'"),
        ("bm25(k=5", 8, "expected ',', found the end"),
        ("bm25(k=5))", 9, "expected '>>', '+' or the end, found ')'"),
        ("bm25(k=)", 7, "expected a value, found ')'"),
        ("bm25(k=1, 5)", 10, "expected key=value (positional arguments come first), found '5'"),
        ("bm25(k=1, k=2)", 10, "expected 'k' only once, found 'k'"),
        ("bm25(5=k)", 5, "expected an argument's name, found '5'"),
        ("(bm25 + dense", 13, "expected ')', found the end"),
        ("dense('it's')", 11, "not understood from here"),
        ("dense('open", 6, "not understood from here"),
        ("2fast", 0, "expected a component's name, found '2fast'"),
        ("f([1, 2)", 7, "expected ',', found ')'"),
        ("(" * 51 + "a" + ")" * 51, 50, "expected at most 50 levels of brackets, found '('"),
        ("f(" + "[" * 5000, 52, "expected at most 50 levels of brackets, found '['"),
    ],
)
def test_a_caret_stands_under_the_fault(text, column, message):
    with pytest.raises(SpecError) as caught:
        parse_pipeline(text)
    first, shown, caret = str(caught.value).split("\n")
    assert (first, shown, caret) == (message, f"  {text}", " " * (column + 2) + "^")


@pytest.mark.parametrize("text", ["their.module:Index", "my.view = bm25", "a/b = bm25"])
def test_a_view_needs_a_name_that_can_be_a_folders(text):
    with pytest.raises(SpecError, match=r"needs a name of letters, digits, _ and -: NAME = ...|expected a view's name"):
        parse_view(text)


@given(st.text("abk25(),=+> '\"[]\\.e-\n", max_size=20))
@settings(deadline=None)
def test_any_text_parses_or_is_refused_inside_its_bounds(text):
    for parse in parse_pipeline, parse_view:
        position, parsed = 0, None
        try:
            parsed = parse(text)
        except SpecError as problem:
            position = problem.position
        assert 0 <= position <= len(text)
        assert parsed is None or parse(str(parsed)) == parsed


# -- configure ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    model: str
    depth: int = 100
    scale: float = 1.0
    exact: bool = False
    limit: int | None = None
    weights: tuple[float, ...] | None = None
    language: str = "english"
    extra: str = field(default="x", init=False)

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError("depth must be at least 1")


def configured(text: str) -> Config:
    component = parse_pipeline(text)
    assert isinstance(component, Component)
    config: Config = configure(Config, component)
    return config


def test_arguments_go_by_position_or_by_name():
    assert configured("f(m)") == Config("m")
    assert configured("f(m, 5, 2)") == configured("f(model=m, depth=5, scale=2.0)") == Config("m", 5, 2.0)
    assert configured("f(m, exact=true, limit=3)") == Config("m", exact=True, limit=3)
    assert configured("f(m, limit=none, weights=[1, 0.5])") == Config("m", weights=(1.0, 0.5))
    assert configured("f('5')").model == "5"
    assert configured("f(m, language=none)").language == "none"
    assert str(component_of("f", configured("f(m, language=none)"))) == "f(m, language='none')"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f", "f needs 'model', as in f(MODEL)"),
        ("f(m, dept=5)", "f has no argument 'dept'; it takes: model, depth, scale, exact, limit, weights, language"),
        ("f(m, model=n)", "f: 'model' is given twice"),
        (
            "f(1, 2, 3, 4, 5, 6, 7, 8)",
            "f takes at most 7 arguments: model, depth, scale, exact, limit, weights, language",
        ),
        ("f(5)", "f: model must be str, not 5"),
        ("f(m, depth=1.5)", "f: depth must be int, not 1.5"),
        ("f(m, depth=true)", "f: depth must be int, not true"),
        ("f(m, scale=big)", "f: scale must be float, not big"),
        ("f(m, exact=1)", "f: exact must be bool, not 1"),
        ("f(m, limit='3')", "f: limit must be int or none, not '3'"),
        ("f(m, weights=[a])", "f: weights must be float, not a"),
        ("f(m, depth=0)", "f: depth must be at least 1"),
        ("f(m, extra=y)", "f has no argument 'extra'; it takes: model, depth, scale, exact, limit, weights, language"),
    ],
)
def test_a_wrong_argument_is_named(text, message):
    with pytest.raises(SpecError) as caught:
        configured(f"bm25 >> {text}"[8:])
    assert str(caught.value) == f"{message}\n  {text}\n  ^"


def test_a_wrong_argument_is_shown_where_it_stands():
    chain = parse_pipeline("bm25 + dense >> f(m, depth=0)")
    assert isinstance(chain, Chain)
    with pytest.raises(SpecError) as caught:
        configure(Config, chain.steps[1])  # type: ignore[arg-type]
    assert str(caught.value).endswith("\n  bm25 + dense >> f(m, depth=0)\n                  ^")


@given(
    st.builds(
        Config,
        st.text(max_size=9),
        st.integers(1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.none() | st.integers(),
        st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple),
    )
)
@settings(deadline=None)
def test_a_configuration_survives_its_text(config):
    assert configured(str(component_of("f", config))) == config
