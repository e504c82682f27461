"""RM3, Rocchio, Bo1 and KL: worked examples, Anserini's own expanded queries, and runs on a real index."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever import Document, InputError, Query, Retriever
from retriever.indexers.base import Frequencies, Terms, TermView
from retriever.query_expansion.base import Feedback
from retriever.query_expansion.terms import (
    BagConfig,
    Bo1,
    Kl,
    Rm3,
    Rm3Config,
    Rocchio,
    RocchioConfig,
    centroid,
    interpolate,
    relevance_model,
)
from retriever.types import Floats, Hits, Mask, Rows


class Counted:
    """Words between spaces, in a collection of which only the statistics are known."""

    def __init__(self, documents: int, tokens: float, df: Mapping[str, int], cf: Mapping[str, float]) -> None:
        self.documents, self.tokens, self.df, self.cf = documents, tokens, df, cf

    def query_terms(self, texts: Sequence[str]) -> list[Terms]:
        return [Counter(text.split()) for text in texts]

    def document_terms(self, rows: Rows, documents: Sequence[Document]) -> list[Terms]:
        return self.query_terms([document.contents for document in documents])

    def frequencies(self, terms: Sequence[str]) -> Frequencies:
        df = np.array([self.df.get(term, 1) for term in terms], dtype=np.int64)
        cf = np.array([self.cf.get(term, 1.0) for term in terms])
        return Frequencies(df, cf, self.documents, self.tokens)

    def search_terms(self, queries: Sequence[Terms], k: int, allowed: Mask | None, config: Any) -> Hits:
        raise NotImplementedError


def fed(*found: tuple[float, str]) -> Feedback:
    rows = np.array([hash(text) % 10**9 for _, text in found], dtype=np.int64)
    scores = np.array([score for score, _ in found], dtype=np.float32)
    return Feedback(rows, scores, [Document(text, text) for _, text in found])


NOTHING = fed()

# What follows is from Anserini 1.7.1 (Pyserini 1.6.0, get_feedback_terms, k1=0.9, b=0.4), on 80 made-up documents: its
# hits, how often the commoner words occur, and its expanded queries.
COMMON = {"w65": 28, "w135": 27, "w91": 26, "w119": 18, "w147": 17, "w28": 16, "w40": 16, "w97": 15, "w7": 14}
COMMON |= {"w46": 12, "w71": 12, "w3": 12, "w95": 11, "w26": 10, "w141": 9, "w126": 9, "w13": 9}
COMMON |= {"w99": 8, "w120": 8, "w63": 8, "w139": 8}  # a tenth of the documents: not too common
MADE_UP = Counted(80, 700.0, COMMON, {})
W40 = fed(
    (2.2547, "w26 w136 w147 w95 w71 w40 w42 w129 w7 w13 w23 w110 w69 w3 w11"),
    (2.0049, "w116 w30 w120 w119 w106 w71 w39 w95 w40 w28 w145 w23 w147 w40 w120"),
    (1.8618, "w42 w40 w91 w91"),
    (1.8618, "w40 w111 w135 w26"),
    (1.8618, "w119 w147 w15 w40"),
    (1.8618, "w40 w116 w91 w76"),
    (1.6942, "w91 w63 w102 w40 w11 w32 w59 w104"),
    (1.6942, "w38 w121 w117 w147 w132 w40 w46 w140"),
    (1.6942, "w97 w91 w139 w76 w40 w62 w84 w76"),
    (1.6942, "w40 w65 w39 w21 w59 w54 w141 w12"),
)
NAIF = fed(
    (2.1237, "w132 w147 w104 w119 naïf w28 w18 w43"),
    (1.1774, "w21 w37 w7 w43 w3 w3 w120 w55 w63 w27 w7 w65 w121 w7 w71"),
    (1.0934, "w120 w3 w91 w26"),
)
RM3 = {"w40": 0.33333, "w7": 0.16667, "w42": 0.09424, "w15": 0.08034, "w111": 0.08034, "w76": 0.06941, "w116": 0.05099}
RM3 |= {"w59": 0.02681, "w11": 0.02608, "w39": 0.02544, "w23": 0.02471, "w120": 0.02163}
RM3_SMALL = {"w42": 0.30905, "w40": 0.2, "w23": 0.13032, "w120": 0.11093, "w7": 0.1, "w11": 0.07485, "w110": 0.07485}
RM3_ANY = {"w120": 0.30722, "naïf": 0.2482, "w3": 0.15, "w104": 0.0982, "w132": 0.0982, "w18": 0.0982}
ROCCHIO = {"w40": 0.89443, "w7": 0.44721, "w76": 0.34872, "w42": 0.32844, "w116": 0.24391, "w15": 0.23835}
ROCCHIO |= {"w111": 0.23835, "w59": 0.2039, "w11": 0.1874, "w39": 0.18197, "w23": 0.16546, "w120": 0.15075}
AWAY = {"w40": 0.89443, "w42": 0.48212, "w7": 0.44721, "w111": 0.34988, "w23": 0.24288, "w120": 0.22128}
AWAY |= {"w11": 0.13224, "w129": 0.13224, "w136": 0.13224, "w69": 0.13224, "w110": 0.13224, "w106": 0.11064}


def first(given: Feedback, count: int) -> Feedback:
    return Feedback(given.rows[:count], given.scores[:count], given.documents[:count])


@pytest.mark.parametrize(
    ("expansion", "query", "feedback", "expected"),
    [
        (Rm3(Rm3Config()), "w40 w40 w7", W40, RM3),
        (Rm3(Rm3Config(docs=3, terms=5, original=0.3)), "w40 w40 w7", first(W40, 3), RM3_SMALL),
        (Rm3(Rm3Config(docs=3, terms=5, original=0.3, plain=False)), "naïf w3", NAIF, RM3_ANY),
        (Rocchio(RocchioConfig()), "w40 w40 w7", W40, ROCCHIO),
        (Rocchio(RocchioConfig(docs=4, negative=4)), "w40 w40 w7", W40, AWAY),
    ],
)
def test_expanded_queries_are_anserinis(expansion, query, feedback, expected):
    (expanded,) = expansion.expand(MADE_UP, [query], [feedback])
    assert expanded == pytest.approx(expected, abs=1.1e-5)


def test_the_worked_example_of_rm3_without_pruning():
    documents = [{"a": 2.0, "c": 2.0}, {"c": 3.0, "d": 1.0}]
    model = relevance_model(documents, np.array([2, 1], np.float32), terms=10)
    assert model == pytest.approx({"a": 0.33333, "c": 0.58333, "d": 0.08333}, abs=1e-5)
    mixed = interpolate({"a": 1, "b": 1}, model, 0.5)
    assert mixed == pytest.approx({"a": 0.41667, "c": 0.29167, "b": 0.25, "d": 0.04167}, abs=1e-5)


def test_terms_that_weigh_alike_are_cut_in_alphabetical_order():
    documents = [{"d": 1.0, "b": 1.0, "c": 1.0, "a": 1.0}, {"e": 1.0}]
    assert relevance_model(documents, np.array([3, 1], np.float32), terms=2) == pytest.approx(
        {"a": 0.5, "b": 0.5}  # a and b weigh 3/2 each; e, in the other document, 1
    )
    assert centroid([{"b": 3.0, "a": 3.0, "z": 4.0}], 2) == pytest.approx({"z": 0.8, "a": 0.6})


def test_what_is_too_long_too_short_too_common_or_not_plain_is_not_taken():
    text = "x wing " + "long" * 5 + " " + "longer" * 4 + " naïve common lift-drag 42"
    kept = {"wing", "long" * 5, "42"}
    view = Counted(100, 1000.0, {"common": 11, "wing": 10}, {})

    def added(expansion: Any) -> set[str]:
        (expanded,) = expansion.expand(view, ["q"], [fed((1.0, text))])
        return set(expanded) - {"q"}

    assert added(Rm3(Rm3Config())) == kept
    assert added(Rm3(Rm3Config(plain=False))) == added(Rocchio(RocchioConfig())) == kept | {"naïve", "lift-drag"}
    assert added(Rm3(Rm3Config(max_df=0.2))) == kept | {"common"}


def test_a_query_without_feedback_keeps_its_terms():
    for expansion in Rm3(Rm3Config()), Rocchio(RocchioConfig()), Bo1(BagConfig()), Kl(BagConfig()):
        found = fed((1.0, "wing heat"), (0.5, "wing"))
        empty, full = expansion.expand(MADE_UP, ["lift lift drag", "lift"], [NOTHING, found])
        assert empty == {"lift": 2, "drag": 1}
        assert "wing" in full


def test_documents_without_a_term_that_counts_leave_the_query_as_it_is():
    assert Rm3(Rm3Config()).expand(MADE_UP, ["lift lift"], [fed((1.0, "x é"))]) == [{"lift": 2}]
    assert Bo1(BagConfig()).expand(MADE_UP, ["lift lift"], [fed((1.0, ""))]) == [{"lift": 2}]


def test_rm3_refuses_negative_scores_and_rocchio_does_not_look_at_them():
    found = fed((0.2, "wing heat"), (-3.5, "wing"))
    with pytest.raises(InputError, match=r"one is -3.5; feed back a search whose scores are not negative, or use rocc"):
        Rm3(Rm3Config()).expand(MADE_UP, ["lift"], [found])
    assert "wing" in Rocchio(RocchioConfig()).expand(MADE_UP, ["lift"], [found])[0]


BAG = fed((5.0, "lift lift lift drag rare"), (4.0, "lift drag drag"))
LARGE = Counted(100, 1000.0, {}, {"lift": 10.0, "drag": 50.0})


def test_bo1_by_hand():
    # lift: tf 4, P = .1: 4 log2(11) + log2(1.1) = 13.975231; drag: tf 3, P = .5: 3 log2(3) + log2(1.5) = 5.339850
    # normaliser: tf 4, P = 4 / 100: 4 log2(26) + log2(1.04) = 18.858342; `rare` is in one document only
    (expanded,) = Bo1(BagConfig()).expand(LARGE, ["lift"], [BAG])
    assert expanded == pytest.approx({"lift": 1 + 13.975231 / 18.858342, "drag": 5.339850 / 18.858342}, abs=1e-6)


def test_kl_by_hand():
    # 8 tokens; lift: p = 4/8, P = .01: .5 log2(50) = 2.821928; drag: p = 3/8, P = .05: .375 log2(7.5) = 1.090084
    # normaliser: 4/8 log2(1000 / 8) = 3.482892
    (expanded,) = Kl(BagConfig()).expand(LARGE, ["lift"], [BAG])
    assert expanded == pytest.approx({"lift": 1 + 2.821928 / 3.482892, "drag": 1.090084 / 3.482892}, abs=1e-6)


def test_kl_gives_nothing_to_terms_that_the_feedback_has_less_of_than_the_collection():
    view = Counted(100, 1000.0, {}, {"lift": 10.0, "drag": 900.0})
    assert Kl(BagConfig()).expand(view, ["lift"], [BAG])[0].keys() == {"lift"}


def test_a_single_feedback_document_gives_all_its_terms_and_a_query_term_needs_no_second():
    (single,) = Bo1(BagConfig()).expand(LARGE, ["heat"], [first(BAG, 1)])
    assert single.keys() == {"heat", "lift", "drag", "rare"}
    (asked,) = Bo1(BagConfig()).expand(LARGE, ["rare rare heat"], [BAG])
    assert asked.keys() == {"heat", "lift", "drag", "rare"}
    assert asked["heat"] == 0.5
    assert asked["rare"] > 1


def test_as_many_terms_as_the_query_has_are_reweighted_if_that_is_more():
    (expanded,) = Bo1(BagConfig(terms=1)).expand(LARGE, ["lift"], [BAG])
    assert expanded.keys() == {"lift"}
    (longer,) = Bo1(BagConfig(terms=1)).expand(LARGE, ["lift heat"], [BAG])
    assert longer.keys() == {"lift", "heat", "drag"}


@given(
    st.lists(
        st.tuples(st.floats(0.125, 50), st.lists(st.sampled_from(["lift", "drag", "wing", "w3", "é"]), max_size=9)),
        max_size=6,
    ),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.25, 1.0]),
)
def test_rm3_is_a_distribution_over_few_terms_of_the_query_and_the_documents(found, terms, original):
    feedback = fed(*[(score, " ".join(words)) for score, words in found])
    query = {"lift": 2, "body": 1}
    (expanded,) = Rm3(Rm3Config(terms=terms, original=original)).expand(MADE_UP, ["lift body lift"], [feedback])
    seen = {word for _, words in found for word in words} - {"é", "w3"}
    if not seen:
        assert expanded == query
        return
    assert sum(expanded.values()) == pytest.approx(1, abs=1e-5)
    assert expanded.keys() <= query.keys() | seen
    assert len(expanded.keys() - query.keys()) <= terms
    assert all(weight > 0 for weight in expanded.values())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    made = Retriever.create(tmp_path_factory.mktemp("terms") / "index", views=["bm25(title_boost=0.5)"])
    pick = np.random.default_rng(1)
    words = [f"term{i}" for i in range(60)]
    made.add(Document(f"d{i:03d}", " ".join(pick.choice(words, 12)), title=str(pick.choice(words))) for i in range(200))
    return made


def view_of(index: Retriever) -> Any:
    return index._snapshot.view("bm25")


def test_tantivys_bm25_is_a_term_view(index):
    view = view_of(index)
    assert isinstance(view, TermView)
    assert view.query_terms(["The wings of wing7", ""]) == [{"wing": 1, "wing7": 1}, {}]
    (document,) = index.documents(["d003"]).values()
    assert view.document_terms(np.array([3]), [document]) == view.query_terms([document.contents])
    counts = view.frequencies(["term1", "nowhere"])
    stored = index.documents([f"d{i:03d}" for i in range(200)]).values()
    assert counts.df.tolist() == [sum("term1" in document.contents.split() for document in stored), 0]
    assert counts.documents == 200
    assert np.isnan(counts.cf).all()


def test_a_search_by_a_querys_terms_is_the_search_for_the_query(index):
    view = view_of(index)
    queries = ["term1 term2 term2", "term3", "nowhere", "???"]
    allowed = np.arange(200) % 3 > 0
    for mask in None, allowed, np.arange(200) == 7:
        by_text = view.search(queries, 20, mask, view.config)
        by_terms = view.search_terms(view.query_terms(queries), 20, mask, view.config)
        assert np.array_equal(by_text.rows, by_terms.rows)
        assert np.array_equal(by_text.scores, by_terms.scores)


def run(index: Retriever, query: str, pipeline: str, k: int = 200) -> dict[str, float]:
    return index.run([Query("q", query)], k=k, pipeline=pipeline).get("q", {})


@pytest.mark.parametrize("expansion", ["rm3(max_df=1)", "rocchio(max_df=1, docs=5)", "rocchio(max_df=1, negative=3)"])
def test_the_expanded_search_is_the_weighted_sum_of_searches_for_its_terms(index, expansion):
    query = "term1 term2"
    found = run(index, query, "bm25", k=100)
    documents = index.documents(found)
    kind: Any = (
        Rm3(Rm3Config(max_df=1))
        if "rm3" in expansion
        else Rocchio(
            RocchioConfig(max_df=1, docs=5 if "docs" in expansion else 10, negative=3 if "negative" in expansion else 0)
        )
    )
    picked = list(found)[: kind.config.docs] + (list(found)[-3:] if "negative" in expansion else [])
    feedback = fed(*[(found[id], documents[id].contents) for id in picked])
    (weights,) = kind.expand(view_of(index), [query], [feedback])
    expected: Counter[str] = Counter()
    for term, weight in weights.items():
        expected.update({id: weight * score for id, score in run(index, term, "bm25").items()})
    assert len(weights) > 2
    expanded = run(index, query, f"bm25 >> {expansion} >> bm25")
    assert expanded == pytest.approx(dict(expected), rel=1e-4)
    assert list(expanded)[:5] != list(found)[:5]


@pytest.mark.parametrize("kind", [Bo1, Kl])
def test_a_view_that_counts_occurrences_serves_bo1_and_kl(kind, tmp_path):
    index = Retriever.create(tmp_path / "index", views=["free = bm25(k1=0.9, b=0.4, language=none)"])
    texts = {
        "a": "lift lift lift drag rare",
        "b": "lift drag drag",
        "c": "drag plate",
        "d": "plate lift " + 5 * "body ",
        "e": 9 * "heat ",
    }
    index.add(Document(id, text) for id, text in texts.items())
    found = run(index, "lift", "free(k=3)")
    cf = Counter(" ".join(texts.values()).split())
    known = Counted(5, cf.total(), Counter(word for text in texts.values() for word in set(text.split())), cf)
    (weights,) = kind(BagConfig()).expand(known, ["lift"], [fed(*[(found[id], texts[id]) for id in found])])
    expected: Counter[str] = Counter()
    for term, weight in weights.items():
        expected.update({id: weight * score for id, score in run(index, term, "free").items()})
    assert weights.keys() > {"lift"}
    name = kind.__name__.lower()
    assert run(index, "lift", f"free >> {name} >> free") == pytest.approx(dict(expected), rel=1e-4)


def test_an_expanded_query_has_no_place_for_tantivys_query_language(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25(syntax=true)"])
    index.add([Document("a", "wing flow"), Document("b", "wing heat")])
    with pytest.raises(
        InputError, match=r"whose operators weighted terms have no place for; search it with bm25\(synt"
    ):
        index.search("wing", pipeline="bm25 >> rm3(max_df=1) >> bm25")
    assert len(index.search("wing", pipeline="bm25 >> rm3(max_df=1) >> bm25(syntax=false)")) == 2


def test_what_was_deleted_or_filtered_out_feeds_nothing_back(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add([Document(f"d{i}", f"wing only{i}", metadata={"n": i}) for i in range(6)])
    index.add([Document(f"o{i}", f"only{i}", metadata={"n": i}) for i in range(6)])
    pipeline = "bm25 >> rm3(max_df=0.2) >> bm25"
    assert {hit.id for hit in index.search("wing", k=12, pipeline=pipeline)} >= {"o0", "o1", "o5"}
    index.delete(["d0"])
    found = {hit.id for hit in index.search("wing", k=12, where="n != 1", pipeline=pipeline)}
    assert found >= {"o5", "d5"}
    assert not found & {"o0", "o1"}


def test_floats_and_masks_of_the_protocol_are_what_views_take(index):
    view = view_of(index)
    hits = view.search_terms([{"term1": 0.25, "term2": 1.5}, {}], 5, None, view.config)
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32
    assert set(hits.rows[1].tolist()) <= {-1}
    quarter: Floats = view.search_terms([{"term1": 0.25}], 5, None, view.config).scores
    assert quarter == pytest.approx(view.search(["term1"], 5, None, view.config).scores * 0.25)
