"""What every kind of index owes its users, held against a brute-force reference written without its library.

A kind that joins `INDEXERS` joins this test: give it a view and a reference in `KINDS`.
"""

import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytest
from toy_encoders import HashEncoder, TermEncoder

from retriever import Document, InputError, Query, Retriever
from retriever.analyzers import analyzer, words
from retriever.indexers import INDEXERS, term_weights

Scores = Mapping[str, float]
"""A reference's answer: document id -> score, of every document that the query matches."""


def small_float(code: int) -> int:
    """The length that one byte stands for in Lucene and tantivy: exact to 40, then with three bits of mantissa."""
    if code < 24:
        return code
    bits, shift = (code - 24) & 7, ((code - 24) >> 3) - 1
    return 24 + (bits if shift < 0 else (bits | 8) << shift)


LENGTHS = [small_float(code) for code in range(256)]


ENGLISH = analyzer("english").analyze


def bm25(
    rows: Sequence[Document],
    query: str,
    text: Callable[[Document], str] = lambda d: d.contents,
    k1: float = 1.2,
    b: float = 0.75,
    boost: float = 2.2,
    analyze: Callable[[str], list[str]] = ENGLISH,
) -> Scores:
    """BM25 over all rows, deleted ones too, as their postings stay until `compact`. boost: k1 + 1 in tantivy's form."""
    terms = [Counter(analyze(text(document))) for document in rows]
    average = sum(sum(counts.values()) for counts in terms) / len(rows)
    scores: dict[str, float] = {}
    for document, counts in zip(rows, terms, strict=True):
        length = LENGTHS[bisect_right(LENGTHS, sum(counts.values())) - 1]
        for term in analyze(query):
            if tf := counts[term]:
                df = sum(term in other for other in terms)
                idf = math.log(1 + (len(rows) - df + 0.5) / (df + 0.5))
                part = idf * tf * boost / (tf + k1 * (1 - b + b * length / average))
                scores[document.id] = scores.get(document.id, 0.0) + part
    return scores


def inner_products(rows: Sequence[Document], query: str) -> Scores:
    encoder = HashEncoder()
    vector = encoder.vector(query)
    return {document.id: float((encoder.vector(document.contents) * vector).sum()) for document in rows}


def best_passages(rows: Sequence[Document], query: str, size: int = 20, stride: int = 15) -> Scores:
    """The largest inner product of each document's passages, cut by a loop."""
    encoder = HashEncoder()
    vector = encoder.vector(query)
    scores = {}
    for document in rows:
        split, first, found = document.text.split(), 0, []
        while not found or first + size - stride < len(split):
            text = " ".join(split[first : first + size])
            found.append(float((encoder.vector(f"{document.title} {text}".strip()) * vector).sum()))
            first += stride
        scores[document.id] = max(found)
    return scores


def products(rows: Sequence[Document], query: str) -> Scores:
    """Sums of products of term weights."""
    weights = TermEncoder().weights
    asked = weights(query)
    found = {document.id: overlap(asked, weights(document.contents)) for document in rows}
    return {id: score for id, score in found.items() if score}


def quantised_products(rows: Sequence[Document], query: str, reach: float | None, *, queries: bool) -> Scores:
    """Sums of products of 8-bit impacts; reach: the weight that becomes 256, by default the largest of all rows."""
    texts = [TermEncoder().weights(document.contents) for document in rows]
    reach = reach or max(weight for text in texts for weight in text.values())
    impacts = [{term: math.ceil(weight / reach * 256) for term, weight in text.items()} for text in texts]
    asked = TermEncoder().weights(query)
    if queries:
        asked = {term: math.ceil(weight / reach * 256) for term, weight in asked.items()}
    scores = {document.id: overlap(asked, text) for document, text in zip(rows, impacts, strict=True)}
    return {id: score for id, score in scores.items() if score}


def overlap(query: Mapping[str, float], document: Mapping[str, float]) -> float:
    return sum(weight * document[term] for term, weight in query.items() if term in document)


class Kind(NamedTuple):
    view: str
    scores: Callable[[Sequence[Document], str], Scores]


KINDS = {
    "bm25": Kind("bm25", bm25),
    "bm25 with k1 and b": Kind("bm25(k1=0.9, b=0.4)", partial(bm25, k1=0.9, b=0.4, boost=1)),
    "dense": Kind("dense(toy_encoders:HashEncoder)", inner_products),
    "dense by passages": Kind("dense(toy_encoders:HashEncoder, passage=20, stride=15)", best_passages),
    "splade": Kind("splade(toy_encoders:TermEncoder)", products),
    "tilde": Kind("tilde(toy_encoders:TermEncoder)", products),
    "unicoil": Kind("unicoil(toy_encoders:TermEncoder)", partial(quantised_products, reach=5.0, queries=True)),
    "deepimpact": Kind("deepimpact(toy_encoders:TermEncoder)", partial(quantised_products, reach=None, queries=False)),
    "deepct": Kind(
        "deepct(toy_encoders:CountEncoder)",
        partial(bm25, k1=10, b=0.9, boost=1, analyze=lambda text: text.lower().split()),
    ),
    "lucene": Kind("lucene", partial(bm25, k1=0.9, b=0.4, boost=1, analyze=words("lucene"))),
}
OPTIONAL = {"lucene": [pytest.mark.lucene, pytest.mark.skipif(not find_spec("pyserini"), reason="absent")]}
"""Kinds that need an extra."""


class Mirror:
    """What an index should hold: every row ever written, and which of them are live."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.rows: list[Document] = []
        self.live: dict[str, int] = {}

    def add(self, documents: Sequence[Document]) -> None:
        for document in documents:
            self.live[document.id] = len(self.rows)
            self.rows.append(document)

    def delete(self, ids: Sequence[str]) -> None:
        for id in ids:
            del self.live[id]

    def compact(self) -> None:
        kept = sorted(self.live.values())
        self.rows = [self.rows[row] for row in kept]
        self.live = {document.id: row for row, document in enumerate(self.rows)}

    def best(self, query: str, allowed: Callable[[Mapping[str, Any]], bool]) -> list[tuple[str, float]]:
        """Every match, best first; ties by id, descending, as trec_eval breaks them."""
        rows = [
            document if self.live.get(document.id) == row else Document(f"deleted {row}", document.text, document.title)
            for row, document in enumerate(self.rows)
        ]
        metadata = {document.id: document.metadata for document in rows if document.id in self.live}
        scores = self.kind.scores(rows, query)
        found = [(id, score) for id, score in scores.items() if id in metadata and allowed(metadata[id])]
        return sorted(sorted(found, reverse=True), key=lambda pair: -pair[1])


def everything(_: Mapping[str, Any]) -> bool:
    return True


def check(
    index: Retriever,
    mirror: Mirror,
    queries: Sequence[str],
    k: int = 10,
    where: str | None = None,
    allowed: Callable[[Mapping[str, Any]], bool] = everything,
) -> None:
    """The ranking and the scores are the reference's; only scores that float32 cannot tell apart may change places."""
    run = index.run([Query(str(i), query) for i, query in enumerate(queries)], k=k, where=where)
    for i, query in enumerate(queries):
        matches = mirror.best(query, allowed)
        reference, expected = dict(matches), matches[:k]
        hits = index.search(query, k=k, where=where)
        for found in [(hit.id, hit.score) for hit in hits], list(run.get(str(i), {}).items()):
            assert len(found) == len(expected)
            for (id, score), (wanted, best) in zip(found, expected, strict=True):
                assert score == pytest.approx(best, abs=1e-6, rel=1e-5), f"{query!r}: {found} for {expected}"
                if id != wanted:
                    assert 0 < abs(reference[id] - best) < 1e-6, f"{query!r}: {found} for {expected}"


ELSEWHERE = {"impacts": "its weights come with the documents: tests/indexers/test_term_weights.py"}


def test_every_kind_has_a_reference():
    assert INDEXERS.keys() <= KINDS.keys() | ELSEWHERE.keys()


@pytest.fixture(params=[pytest.param(kind, marks=OPTIONAL.get(kind, ())) for kind in sorted(KINDS)])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setattr(term_weights, "TILE", 64)  # a small corpus, too, lies in several tiles
    return KINDS[request.param]


@pytest.fixture
def index(kind: Kind, tmp_path: Any) -> Iterator[Retriever]:
    made = Retriever.create(tmp_path / "index", views=[kind.view])
    yield made
    made.close()


@pytest.fixture
def mirror(kind: Kind) -> Mirror:
    return Mirror(kind)


WORDS = [f"{a}{b}" for a in ["wing", "lift", "drag", "shock", "flow", "heat"] for b in ["", "ul", "oid", "ix", "um"]]
QUERIES = ["wing", "liftoid drag", "shock shock flow heatix", "unheard of words", "wingum dragul flowoid shockix lift"]


def documents(start: int, stop: int, seed: int) -> list[Document]:
    """Texts from one word to long ones, whose lengths BM25 rounds; every fifth is one of three that come often."""
    pick = random.Random(seed)
    often = ["wing flow", "drag of the shock wing", "lift"]
    return [
        Document(
            f"d{i}",
            pick.choice(often) if i % 5 == 0 else " ".join(pick.choices(WORDS, k=pick.choice([1, 5, 30, 90, 200]))),
            title=pick.choice(["", "", "on heat", "flow"]),
            metadata={"n": i, "lang": pick.choice(["en", "de"])},
        )
        for i in range(start, stop)
    ]


def test_a_history_of_changes_gives_at_each_step_what_brute_force_gives(index, mirror):
    def then(change: Callable[[], Any], mirrored: Callable[[], Any]) -> None:
        change(), mirrored()
        check(index, mirror, QUERIES)
        assert len(index) == len(mirror.live)

    first, second, third = documents(0, 150, 1), documents(150, 160, 2), documents(160, 260, 3)
    for part in first, second, third:
        then(lambda part=part: index.add(part), lambda part=part: mirror.add(part))
    rewritten = documents(100, 170, 4)
    then(lambda: index.add(rewritten), lambda: mirror.add(rewritten))
    gone = [f"d{i}" for i in range(0, 260, 7)]
    then(lambda: index.delete(gone), lambda: mirror.delete(gone))
    then(index.compact, mirror.compact)
    again = documents(0, 20, 5)
    then(lambda: index.add(again), lambda: mirror.add(again))
    check(Retriever(index.path), mirror, QUERIES)


def test_the_same_document_again_changes_nothing(index, mirror):
    corpus = documents(0, 60, 6)
    index.add(corpus)
    mirror.add(corpus)
    report = index.add(corpus)
    assert (report.added, report.updated, report.unchanged) == (0, 0, 60)
    check(index, mirror, QUERIES)


def test_filters_leave_the_scores_as_they_are(index, mirror):
    corpus = documents(0, 300, 7)
    index.add(corpus)
    mirror.add(corpus)
    check(index, mirror, QUERIES, where="n >= 50", allowed=lambda m: m["n"] >= 50)
    check(index, mirror, QUERIES, where="lang = 'de' and n != 5", allowed=lambda m: m["lang"] == "de" and m["n"] != 5)
    check(index, mirror, QUERIES, where="n in [3, 30, 300, 290]", allowed=lambda m: m["n"] in (3, 30, 300, 290))
    check(index, mirror, QUERIES, where="n < 0", allowed=lambda m: False)
    index.delete([f"d{i}" for i in range(280, 300)])
    mirror.delete([f"d{i}" for i in range(280, 300)])
    check(index, mirror, QUERIES, k=50, where="n > 270", allowed=lambda m: m["n"] > 270)


def test_k_beyond_the_corpus_gives_every_match_once(index, mirror):
    corpus = documents(0, 40, 8)
    index.add(corpus)
    mirror.add(corpus)
    check(index, mirror, QUERIES, k=1000)
    check(index, mirror, QUERIES, k=1)


def test_a_query_without_words_is_no_error(index, mirror):
    corpus = documents(0, 40, 9)
    index.add(corpus)
    mirror.add(corpus)
    check(index, mirror, ["the of and", "???", "wing"])


def test_an_empty_index_finds_nothing(index):
    assert index.search("wing") == []
    assert len(index.run([Query("q", "wing")])) == 0
    index.add([Document("a", "wing")])
    index.delete(["a"])
    assert index.search("wing") == []
    index.compact()
    assert index.search("wing") == []
    index.add([Document("b", "wing")])
    assert [hit.id for hit in index.search("wing")] == ["b"]


@pytest.mark.parametrize("k", [1, 3, 12, 29, 30, 31])
def test_where_many_tie_with_the_last_place_ids_decide(index, k):
    same = [f"{i:02d}" for i in range(30)]
    random.Random(0).shuffle(same)
    for part in same[:10], same[10:]:
        index.add([Document(id, "wing flow over a plate") for id in part] + [Document("x" + part[0], "heat shield")])
    index.delete(["13"])
    expected = sorted({*same} - {"13"}, reverse=True)[:k]
    found = [hit for hit in index.search("wing flow over a plate", k=k) if not hit.id.startswith("x")]
    assert [hit.id for hit in found] == expected
    assert len({hit.score for hit in found}) == 1


def test_what_was_deleted_or_replaced_never_comes_back(index):
    index.add([Document("gone", "wing flow"), Document("changed", "wing flow"), Document("kept", "wing flow")])
    assert index.delete(["gone", "gone", "never there"]) == 1
    index.add([Document("changed", "heat shield")])

    def look() -> None:
        found = {hit.id: hit.text for hit in index.search("wing flow", k=10)}
        assert "gone" not in found
        assert found["kept"] == "wing flow"
        assert found.get("changed", "heat shield") == "heat shield"
        assert index.documents(["gone", "changed"]) == {"changed": Document("changed", "heat shield")}

    look()
    index.compact()
    look()
    index.add([Document("new", "lift")])
    index.refresh()
    look()
    index.add([Document("gone", "back again")])
    assert index.documents(["gone"])["gone"].text == "back again"


def test_after_compact_it_is_as_if_the_deleted_had_never_been_there(index, kind, tmp_path):
    index.add(documents(0, 200, 10))
    index.add(documents(90, 150, 11))
    index.delete([f"d{i}" for i in range(30, 60)])
    index.compact()
    live = index.documents([f"d{i}" for i in range(200)]).values()
    fresh = Retriever.create(tmp_path / "fresh", views=[kind.view])
    fresh.add(live)
    asked = [Query(query, query) for query in QUERIES]
    assert index.run(asked) == fresh.run(asked)
    assert index.verify() == fresh.verify() == []


def test_rows_outside_are_minus_one_with_scores_minus_infinity(index, kind):
    index.add([Document("a", "wing"), Document("b", "wing flow")])
    view = index._snapshot.view(kind.view.partition("(")[0])
    hits = view.search(["wing", "???"], 5, np.array([False, True]), view.config)
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32
    assert hits.rows[0, 0] == 1
    assert set(hits.rows[:, 1:].ravel().tolist()) <= {-1}
    assert np.isneginf(hits.scores[hits.rows < 0]).all()


def test_bm25_adds_a_boosted_title(tmp_path):
    corpus = documents(0, 80, 12)
    index = Retriever.create(tmp_path / "index", views=["bm25(title_boost=1.5)"])
    index.add(corpus)
    for query in "heat", "flow wing":
        both, titles = bm25(corpus, query), bm25(corpus, query, lambda document: document.title)
        expected = {document.id: both.get(document.id, 0) + 1.5 * titles.get(document.id, 0) for document in corpus}
        found = {hit.id: hit.score for hit in index.search(query, k=80)}
        assert found == pytest.approx({id: score for id, score in expected.items() if score}, rel=1e-5)
        plain = {hit.id: hit.score for hit in index.search(query, k=80, pipeline="bm25(title_boost=0)")}
        assert plain == pytest.approx(dict(both), rel=1e-5)


def test_bm25_reads_tantivys_query_language_where_syntax_is_on(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25(syntax=true)"])
    index.add([Document("a", "lift drag"), Document("b", "drag flow lift"), Document("c", "lift", title="drag")])

    def found(query: str, pipeline: str | None = None) -> set[str]:
        return {hit.id for hit in index.search(query, pipeline=pipeline)}

    assert found('"drag lift"') == {"c"}
    assert found("+lift -flow") == {"a", "c"}
    assert found("drag AND flow") == {"b"}
    assert found("title:drag") == {"c"}
    assert found("+lift -flow", pipeline="bm25(syntax=false)") == {"a", "b", "c"}
    with pytest.raises(InputError, match="the query '\"drag' does not parse"):
        found('"drag')


def test_a_query_that_only_another_view_understands_still_gets_snippets(tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25(syntax=true)", "dense(toy_encoders:HashEncoder)"])
    index.add([Document("a", 'the so-called "flow over a wing')])
    assert index.search('what is "flow', pipeline="dense")[0].snippet
