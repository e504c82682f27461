"""Pipelines over a real index: what each stage passes on, and what is said of one that cannot work."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from tiny_models import cross_encoder
from toy_encoders import HashEncoder

from retriever import InputError, Query, Retriever, Run
from retriever.encoders.base import Encoded
from retriever.errors import SpecError
from retriever.query_expansion import QUERY_EXPANSIONS
from retriever.rerankers import RERANKERS
from retriever.rerankers.cross_encoder import CrossEncoder
from retriever.spec import parse_pipeline
from retriever.types import Document, Floats

VIEWS = ["bm25", "dense(toy_encoders:TopicEncoder)", "plain = bm25(language=none)"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    made = Retriever.create(tmp_path_factory.mktemp("pipeline") / "index", views=VIEWS)
    made.add(Document(f"d{i:03d}", f"wing{i % 7} flows number {i}" + " heat" * (i % 3)) for i in range(300))
    return made


FOLLOW = (
    f"cannot follow '>>' here; rerankers can: {', '.join(RERANKERS)}; and a view can behind a query expansion: "
    "rm3, rocchio, bo1, kl, vector-prf, hyde, query2doc"
)


BETWEEN = (
    "stands between a search, which gives it feedback, and a view, which takes its query, as in bm25 >> rm3 >> bm25"
)
BEGINS = "takes no feedback: it begins a search, and a view takes its query, as in hyde(...) >> dense"
TERMS = "it needs a view of terms; here: bm25, plain"
COUNTS = (
    "needs to know how often each term occurs in the collection, which this view does not count; "
    "NAME = bm25(k1=1.2, b=0.75) makes one that does"
)


def ids(index: Retriever, query: str, pipeline: str | None = None, k: int = 10) -> list[str]:
    return [hit.id for hit in index.search(query, k=k, pipeline=pipeline)]


def rrf(*rankings: list[str], c: int = 60) -> list[str]:
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id in enumerate(ranking, 1):
            scores[id] = scores.get(id, 0.0) + 1 / (c + rank)
    return sorted(sorted(scores, reverse=True), key=lambda id: -round(scores[id], 9))


def test_the_default_fuses_all_views_and_is_named_in_the_run(index):
    run = index.run([Query("q", "wing3 flow")])
    assert run.tag == "bm25+dense+plain>>rrf"
    assert ids(index, "wing3 flow") == ids(index, "wing3 flow", "bm25 + dense + plain >> rrf")


def test_one_view_is_searched_as_it_is(index, tmp_path):
    single = Retriever.create(tmp_path / "single", views=["plain = bm25(language=none)"])
    single.add([Document("a", "wing")])
    assert single.run([Query("q", "wing")]).tag == "plain"
    assert ids(index, "flow", "plain") == []  # no stemming: only `flows` is there
    assert ids(index, "flow", "bm25") != []


def test_views_feed_rrf_a_hundred_each_or_k_if_that_is_more(index):
    for k in 10, 150:
        depth = max(k, 100)
        parts = [ids(index, "wing3 heat", view, k=depth) for view in ("bm25", "dense")]
        assert ids(index, "wing3 heat", "bm25 + dense >> rrf", k=k) == rrf(*parts)[:k]
    parts = [ids(index, "wing3 heat", "bm25", k=5), ids(index, "wing3 heat", "dense", k=7)]
    assert ids(index, "wing3 heat", "bm25(k=5) + dense(k=7) >> rrf(c=1)", k=100) == rrf(*parts, c=1)


def test_a_group_is_fused_before_it_is_joined(index):
    inner = ids(index, "wing3 heat", "bm25 + dense >> rrf", k=100)
    assert (
        ids(index, "wing3 heat", "(bm25 + dense >> rrf) + plain >> rrf")
        == (rrf(inner, ids(index, "wing3 heat", "plain", k=100))[:10])
    )


@pytest.mark.parametrize("norm", ["minmax", "zscore", "none"])
def test_a_weight_of_one_gives_back_that_view_alone(index, norm):
    for weights, view in ("1, 0", "bm25"), ("0, 1", "dense"):
        pipeline = f"bm25 + dense >> wsum(weights=[{weights}], norm={norm})"
        assert index.search("wing3 heat", pipeline=pipeline) == index.search("wing3 heat", pipeline=view)


def test_a_weighted_sum_where_one_view_finds_nothing(index):
    for norm in "minmax", "zscore", "none":
        pipeline = f"bm25 + dense >> wsum(norm={norm})"
        assert ids(index, "unheard of", pipeline) == ids(index, "unheard of", "dense")
        run = index.run([Query("a", "unheard of"), Query("b", "wing3")], k=5, pipeline=pipeline)
        assert list(run["b"]) == ids(index, "wing3", pipeline, k=5)


def test_ties_between_fused_documents_go_to_the_larger_id(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25", "dense(toy_encoders:HashEncoder)"])
    index.add(Document(id, "wing") for id in ["b", "c", "a"])
    for pipeline in "bm25", "dense", "bm25 + dense >> rrf", "bm25 + dense >> wsum":
        assert ids(index, "wing", pipeline) == ["c", "b", "a"]


@pytest.mark.parametrize(
    "pipeline",
    [
        None,
        "bm25",
        "bm25(k=20, title_boost=0.5)",
        "  bm25 + dense(k=20)>>rrf(c = 10)",
        "(bm25 + dense >> rrf) + plain >> wsum(weights=[0.25, 1e-3], norm=zscore)",
    ],
)
def test_the_tag_of_a_run_is_its_pipeline(index, tmp_path, pipeline):
    run = index.run([Query("q", "wing3 flow")], k=5, pipeline=pipeline)
    run.write(tmp_path / "run.trec")
    again = Run.read(tmp_path / "run.trec")
    assert again == run
    assert parse_pipeline(again.tag) == parse_pipeline(pipeline or "bm25 + dense + plain >> rrf")
    assert index.run([Query("q", "wing3 flow")], k=5, pipeline=again.tag) == run


def test_a_search_and_a_run_of_many_give_the_same(index):
    queries = [Query(str(i), f"wing{i % 7} number {i} heat") for i in range(40)] + [Query("none", "???")]
    for pipeline in "bm25", "dense", "bm25 + dense >> rrf", "bm25 + dense >> wsum":
        run = index.run(queries, k=5, pipeline=pipeline)
        for query in queries:
            hits = index.search(query.text, k=5, pipeline=pipeline)
            assert list(run.get(query.id, {})) == [hit.id for hit in hits]
            assert list(run.get(query.id, {}).values()) == pytest.approx([hit.score for hit in hits], abs=1e-6)


@pytest.mark.parametrize(
    ("pipeline", "column", "message"),
    [
        ("bm52", 0, "this index has no view 'bm52'; did you mean 'bm25'? known: bm25, dense, plain"),
        ("bm25 + sparse >> rrf", 7, "this index has no view 'sparse'; known: bm25, dense, plain"),
        ("bm25 + dense", 0, "lists side by side need a stage that joins them: ... >> rrf"),
        ("bm25 + dense >> rff", 16, "'rff' does not join lists; did you mean 'rrf'? known: rrf, wsum"),
        ("bm25 + dense >> (rrf + rrf)", 17, "expected one stage here, not a group"),
        ("bm25 >> rrf", 8, f"'rrf' {FOLLOW}"),
        ("bm25 >> dense", 8, f"'dense' {FOLLOW}"),
        ("bm25 >> rm3 >> bm25 >> dense", 23, f"'dense' {FOLLOW}"),
        (
            "bm25 >> cross-encode(m)",
            8,
            "no stage is called 'cross-encode'; did you mean 'cross-encoder'? known: "
            f"{', '.join(sorted({*RERANKERS, *QUERY_EXPANSIONS}))}",
        ),
        ("bm25 >> cross-encoder", 8, "cross-encoder needs 'model', as in cross-encoder(MODEL)"),
        ("rrf", 0, "rrf needs results to work on: put a view before it, as in bm25 >> rrf"),
        (
            "cross-encoder(m)",
            0,
            "cross-encoder needs results to work on: put a view before it, as in bm25 >> cross-encoder",
        ),
        ("bm25 + dense >> rrf(c=-1)", 16, "rrf: c must not be negative"),
        ("bm25 + dense >> rrf(k=5)", 16, "rrf has no argument 'k'; it takes: c"),
        ("bm25 + dense >> wsum([1])", 16, "wsum: 1 weights for 2 lists"),
        ("bm25 + dense >> wsum(norm=l2)", 16, "wsum: norm is one of minmax, zscore, none, not 'l2'"),
        ("dense(k=0)", 0, "dense: k must be a whole number from 1"),
        ("dense(k=true)", 0, "dense: k must be a whole number from 1"),
        ("dense(10)", 0, "dense is a view here: name its options, as in dense(k=100)"),
        (
            "bm25 + dense(index=Flat) >> rrf",
            7,
            "dense: a search cannot set 'index'; it can set: k, nprobe, ef_search, query_width",
        ),
        ("bm25(language=german)", 0, "bm25: a search cannot set 'language'; it can set: k, title_boost, syntax"),
        ("dense(nprobe=many)", 0, "dense: nprobe must be int or none, not many"),
        ("bm25 >> no.such:Stage", 8, "cannot import 'no.such:Stage': No module named 'no'"),
        (
            "bm25 >> toy_encoders:Nothing",
            8,
            "cannot import 'toy_encoders:Nothing': module 'toy_encoders' has no attribute 'Nothing'",
        ),
        ("bm25 >>", 7, "expected a component's name, found the end"),
        ("rm3", 0, f"rm3 {BETWEEN}"),
        ("rm3 >> bm25", 0, f"rm3 {BETWEEN}"),
        ("bm25 >> rm3", 8, f"rm3 {BETWEEN}"),
        ("bm25 >> rm3 >> rm3 >> bm25", 8, f"rm3 {BETWEEN}"),
        ("(rm3 >> bm25) + dense >> rrf", 1, f"rm3 {BETWEEN}"),
        ("bm25 + rm3 >> rrf", 7, f"rm3 {BETWEEN}"),
        ("hyde(m)", 0, f"hyde {BEGINS}"),
        ("bm25 >> hyde(m) >> dense", 8, f"hyde {BEGINS}"),
        ("bm25 >> hyde(m)", 8, f"hyde {BEGINS}"),
        ("bm25 + dense >> rm3 >> bm25", 0, "lists side by side need a stage that joins them: ... >> rrf"),
        ("bm25 >> rm3 >> dense", 15, "rm3 cannot ask 'dense'; it needs a view of terms; here: bm25, plain"),
        ("dense >> vector-prf >> bm25", 23, "vector-prf cannot ask 'bm25'; it needs a view of vectors; here: dense"),
        ("bm25 >> rm3 >> cross-encoder(m)", 15, f"rm3 makes a query for one view, not for 'cross-encoder'; {TERMS}"),
        ("bm25 >> rm3 >> bm52", 15, f"rm3 makes a query for one view, not for 'bm52'; {TERMS}"),
        ("bm25 >> rm3 >> (bm25 + dense)", 16, f"rm3 makes a query for one view, not for a group; {TERMS}"),
        ("bm25 >> rm3 >> bm25(k=0)", 15, "bm25: k must be a whole number from 1"),
        ("bm25 >> rm3(docs=0) >> bm25", 8, "rm3: docs must be at least 1"),
        ("bm25 >> rm3(original=2) >> bm25", 8, "rm3: original must be between 0 and 1"),
        ("bm25 >> rm3(k=2) >> bm25", 8, "rm3 has no argument 'k'; it takes: docs, terms, original, max_df, plain"),
        ("bm25 >> rocchio(beta=-1) >> bm25", 8, "rocchio: alpha, beta, gamma and negative must not be negative"),
        ("dense >> vector-prf(method=mean) >> dense", 9, "vector-prf: method is average or rocchio, not 'mean'"),
        ("bm25 >> bo1 >> plain", 15, f"bo1 cannot ask 'plain': bo1 {COUNTS}"),
        ("bm25 >> kl >> bm25", 14, f"kl cannot ask 'bm25': kl {COUNTS}"),
    ],
)
def test_what_cannot_work_is_shown_with_a_caret(index, pipeline, column, message):
    with pytest.raises(SpecError) as caught:
        index.search("wing", pipeline=pipeline)
    assert str(caught.value) == f"{message}\n  {pipeline}\n  {' ' * column}^"


def test_a_query_without_a_word_or_a_k_below_one_is_refused(index):
    with pytest.raises(InputError, match="the query is empty; give at least one word"):
        index.search("  ")
    with pytest.raises(InputError, match="k must be at least 1, not 0"):
        index.search("wing", k=0)


def test_a_stage_from_outside(index, tmp_path, monkeypatch):
    Path(tmp_path / "my_stages.py").write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n"
        "    depth: int = 3\n"
        "class Longest:\n"
        "    Config = Config\n"
        "    def __init__(self, config):\n"
        "        self.config = config\n"
        "    def score(self, pairs):\n"
        "        return np.array([len(text) for _, text in pairs], dtype=np.float32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = index.search("wing3", k=10, pipeline="bm25")
    after = index.search("wing3", k=10, pipeline="bm25 >> my_stages:Longest(depth=6)")
    assert [len(hit.text) for hit in after[:6]] == sorted((len(hit.text) for hit in before[:6]), reverse=True)
    assert [hit.id for hit in after[6:]] == [hit.id for hit in before[6:]]


class Counted(CrossEncoder):
    """A cross-encoder that writes down, by the folder of its model, the queries and texts that it scored."""

    scored: ClassVar[dict[str, list[tuple[str, str]]]] = defaultdict(list)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        self.scored[Path(self.config.model).name].extend(pairs)
        return super().score(pairs)


def test_a_cascade_scores_as_many_pairs_as_its_stages_say(index, tmp_path):
    Counted.scored.clear()
    small, large = cross_encoder(tmp_path / "small", labels=2), cross_encoder(tmp_path / "large")
    first = f"bm25(k=1000) >> test_pipeline:Counted({small}, depth=200, precision=float32)"
    queries = [Query(text, text) for text in ("wing3 flows", "heat flows")]
    whole = index.run(
        queries, k=300, pipeline=f"{first} >> test_pipeline:Counted({large}, depth=20, precision=float32)"
    )
    for query in ("wing3 flows", "heat flows"):
        pairs = {name: [pair for pair in scored if pair[0] == query] for name, scored in Counted.scored.items()}
        assert {name: (len(own), len(set(own))) for name, own in pairs.items()} == {
            "small": (200, 200),
            "large": (20, 20),
        }
    once = index.run(queries, k=300, pipeline=first)
    for query, found in whole.items():
        lexical, middle, last = ids(index, query, "bm25", k=300), list(once[query]), list(found)
        assert len(lexical) == 300
        assert set(middle[:200]) == set(lexical[:200])
        assert middle[200:] == lexical[200:]
        assert set(last[:20]) == set(middle[:20])
        assert last[20:] == middle[20:]
        assert last[:20] != middle[:20]


INTERPOLATED = (
    "bm25(k=40) + (bm25(k=40) >> cross-encoder({}, precision=float32)) >> wsum(weights=[{}, {}], norm=zscore)"
)


def test_scores_of_the_first_search_and_of_a_reranker_are_mixed(index, tmp_path):
    model = cross_encoder(tmp_path)
    parts = ["bm25(k=40)", f"bm25(k=40) >> cross-encoder({model}, precision=float32)"]
    first, second = (index.run([Query("q", "wing3 heat")], k=40, pipeline=part)["q"] for part in parts)
    mixed = index.run([Query("q", "wing3 heat")], k=40, pipeline=INTERPOLATED.format(model, 0.3, 0.7))["q"]
    assert first.keys() == second.keys() == mixed.keys()
    left, right = (np.array([run[id] for id in mixed]) for run in (first, second))
    expected = 0.3 * (left - left.mean()) / left.std() + 0.7 * (right - right.mean()) / right.std()
    np.testing.assert_allclose(list(mixed.values()), expected, atol=1e-5)
    assert list(mixed) == sorted(mixed, key=lambda id: (mixed[id], id), reverse=True)
    for weights, part in ((1, 0), first), ((0, 1), second):
        pipeline = INTERPOLATED.format(model, *weights)
        assert list(index.run([Query("q", "wing3 heat")], k=40, pipeline=pipeline)["q"].items()) == list(part.items())


def test_mixed_scores_that_tie_go_to_the_larger_id(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add(Document(id, "wing heat") for id in ["b", "c", "a"])
    model = cross_encoder(tmp_path / "model")
    for weights in (0.3, 0.7), (1, 0), (0, 1):
        assert ids(index, "wing", INTERPOLATED.format(model, *weights)) == ["c", "b", "a"]


class CountingEncoder(HashEncoder):
    """Counts the batches of queries that it encodes."""

    asked: ClassVar[list[list[str]]] = []

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        self.asked.append(list(texts))
        return super().encode_queries(texts)


def test_a_view_that_stands_twice_in_a_pipeline_is_searched_once(tmp_path, stages):
    index = Retriever.create(tmp_path / "index", views=["dense(test_pipeline:CountingEncoder)"])
    index.add(Document(str(i), f"wing {i}") for i in range(9))
    stage = "(dense{} >> my_expansions:Spy(depth=3)) >> wsum(weights=[0.3, 0.7])"
    for views, times in {("dense", ""): 1, ("dense(k=5)", "(k = 5)"): 1, ("dense(k=5)", "(k=6)"): 2}.items():
        CountingEncoder.asked.clear()
        found = index.search("wing", pipeline=f"{views[0]} + {stage.format(views[1])}")
        assert CountingEncoder.asked == [["wing"]] * times
        assert index.search("wing 3", pipeline="dense")[0].text == "wing 3"
        assert found != index.search("wing", pipeline="dense")


STAGES = """
from dataclasses import dataclass
import numpy as np
from retriever.indexers.base import TermView, VectorView

READ, ASKED = [], []

@dataclass(frozen=True)
class Config:
    docs: int = 3
    negative: int = 0
    words: str = "heat"

class Words:
    Config, asks, feedback = Config, (TermView, VectorView), True

    def __init__(self, config):
        self.config = config

    def expand(self, view, queries, feedback):
        READ.extend(feedback)
        if isinstance(view, TermView):
            return view.query_terms([self.config.words] * len(queries))
        return view.query_vectors([self.config.words] * len(queries))

class Spy:
    Config = dataclass(frozen=True)(type("Depth", (), {"__annotations__": {"depth": int}, "depth": 5}))

    def __init__(self, config):
        self.config = config

    def score(self, pairs):
        ASKED.extend(pairs)
        return np.arange(len(pairs), 0, -1, dtype=np.float32)
"""


@pytest.fixture
def stages(tmp_path, monkeypatch):
    Path(tmp_path / "my_expansions.py").write_text(STAGES)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("my_expansions")
    del sys.modules["my_expansions"]


def test_an_expansion_from_outside_asks_the_view_with_its_query(index, stages):
    expand = "my_expansions:Words(words='flows number')"
    for view in "bm25", "dense":
        expanded = index.run([Query("q", "wing3")], k=5, pipeline=f"bm25 >> {expand} >> {view}")
        assert expanded["q"] == index.run([Query("q", "flows number")], k=5, pipeline=view)["q"]


def test_the_feedback_is_the_first_and_the_last_of_what_was_found(index, stages):
    whole = ids(index, "wing3 heat", "bm25", k=100)

    def read(pipeline: str) -> list[str]:
        stages.READ.clear()
        index.search("wing3 heat", k=2, pipeline=pipeline)
        (feedback,) = stages.READ
        assert [document.id for document in feedback.documents] == index._snapshot.documents.ids(feedback.rows)
        assert feedback.scores.tolist() == sorted(feedback.scores.tolist(), reverse=True)
        return [document.id for document in feedback.documents]

    assert read("bm25 >> my_expansions:Words >> bm25") == whole[:3]
    assert read("bm25 >> my_expansions:Words(docs=150) >> bm25") == ids(index, "wing3 heat", "bm25", k=150)
    assert read("bm25(k=2) >> my_expansions:Words >> bm25") == whole[:2]
    assert read("bm25 >> my_expansions:Words(docs=2, negative=3) >> bm25") == whole[:2] + whole[-3:]
    assert read("bm25(k=4) >> my_expansions:Words(docs=2, negative=3) >> bm25") == whole[:4]
    joined = ids(index, "wing3 heat", "bm25 + dense >> rrf", k=100)
    assert read("bm25 + dense >> rrf >> my_expansions:Words >> bm25") == joined[:3]
    assert read("bm25 >> my_expansions:Spy(depth=9) >> my_expansions:Words(docs=150) >> bm25")[:9] == whole[:9]


def test_the_expanded_search_goes_as_deep_as_what_follows_needs(index, stages):
    expand = "my_expansions:Words"
    assert ids(index, "wing3", f"bm25 >> {expand} >> bm25", k=7) == ids(index, "heat", "bm25", k=7)
    assert ids(index, "wing3", f"bm25 >> {expand} >> bm25(k=4)", k=7) == ids(index, "heat", "bm25", k=4)
    parts = [ids(index, "heat", "bm25", k=100), ids(index, "wing3", "dense", k=100)]
    assert ids(index, "wing3", f"(bm25 >> {expand} >> bm25) + dense >> rrf") == rrf(*parts)[:10]


def test_a_reranker_behind_an_expansion_reads_the_query_as_it_was_asked(index, stages):
    index.search("wing3 lift", pipeline="bm25 >> my_expansions:Words >> bm25 >> my_expansions:Spy")
    assert {query for query, _ in stages.ASKED} == {"wing3 lift"}
    assert all("heat" in text for _, text in stages.ASKED)


def test_expansions_follow_each_other_each_from_the_query_as_it_was_asked(index, stages):
    pipeline = "bm25 >> my_expansions:Words >> bm25 >> rm3(max_df=1, original=1) >> bm25"
    assert ids(index, "wing3", pipeline) == ids(index, "wing3", "bm25")


def test_a_view_has_its_name_before_an_expansion_has(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["rm3 = bm25"])
    index.add([Document("a", "wing")])
    assert ids(index, "wing", "rm3") == ["a"]


def test_queries_that_find_nothing_are_asked_again_as_they_are(index):
    queries = [Query("none", "unheard of"), Query("some", "wing3")]
    made = index.run(queries, k=5, pipeline="bm25 >> vector-prf(docs=4) >> dense")
    assert list(made["none"]) == ids(index, "unheard of", "dense", k=5)
    assert list(made["some"]) == ids(index, "wing3", "bm25 >> vector-prf(docs=4) >> dense", k=5)
    assert "none" not in index.run(queries, k=5, pipeline="bm25 >> rm3(max_df=1) >> bm25")
