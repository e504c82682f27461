"""The engine as a user of the package meets it, and any order of changes against a dictionary."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retriever import Document, InputError, Query, Retriever, Run
from retriever.errors import SpecError

VIEWS = ["bm25", "dense(toy_encoders:HashEncoder)"]
WINGS = [
    Document("w1", "The lift of a wing grows with its angle until the wing stalls.", "Stall", {"year": 1950}),
    Document("w2", "Drag of a swept wing at the speed of sound.", "Drag", {"year": 1962, "tags": ["sound"]}),
    Document("w3", "Heat that a blunt body meets on its way back.", "Heat", {"year": 1958, "lang": "de"}),
]


@pytest.fixture
def index(tmp_path: Path) -> Retriever:
    made = Retriever.create(tmp_path / "index", views=VIEWS)
    made.add(WINGS)
    return made


def test_hits_carry_their_documents_and_a_snippet(index):
    hit = index.search("stalling wings", k=1, pipeline="bm25")[0]
    assert (hit.rank, hit.id, hit.title, hit.text) == (1, "w1", "Stall", WINGS[0].text)
    assert hit.metadata == {"year": 1950}
    assert "wing" in hit.snippet
    assert [hit.rank for hit in index.search("wing heat")] == [1, 2, 3]


def test_a_snippet_is_the_part_around_the_querys_words(index, tmp_path):
    long = "Nothing of note. " * 100 + "Then the flutter of the tail began. " + "Nothing again. " * 100
    index.add([Document("long", long)])
    snippet = next(hit for hit in index.search("flutter", pipeline="bm25")).snippet
    assert "flutter" in snippet
    assert len(snippet) <= 200
    beginning = next(hit for hit in index.search("flutter unknown", k=9, pipeline="dense") if hit.id == "w3").snippet
    assert beginning == WINGS[2].text
    dense = Retriever.create(tmp_path / "dense", views=VIEWS[1:])
    dense.add([Document("long", "  two\n words " + long)])
    assert dense.search("flutter")[0].snippet.startswith("two words Nothing of note. Nothing")


@pytest.mark.parametrize("pipeline", [None, "bm25", "dense", "bm25 + dense >> wsum"])
def test_where_holds_on_every_view(index, pipeline):
    found = index.search("the wing heat drag", where="year > 1950 and not lang = 'en'", pipeline=pipeline)
    assert {hit.id for hit in found} == {"w2", "w3"}
    run = index.run([Query("q", "the wing heat drag")], where="'sound' in tags", pipeline=pipeline)
    assert list(run["q"]) == ["w2"]
    assert index.search("wing", where="year = 3", pipeline=pipeline) == []
    with pytest.raises(SpecError, match="expected '\\[', found '1950'"):
        index.search("wing", where="year in 1950", pipeline=pipeline)


def test_a_run_survives_its_file(index, tmp_path):
    run = index.run([Query("a", "wing"), Query("b", "heat"), Query("none", "???")], k=2, pipeline="bm25")
    run.write(tmp_path / "run.trec.gz")
    assert Run.read(tmp_path / "run.trec.gz") == run
    assert Run.read(tmp_path / "run.trec.gz").tag == run.tag == "bm25"
    assert "none" not in run


def test_an_update_replaces_text_title_and_metadata(index):
    report = index.add(
        [WINGS[0], Document("w2", "Now of propellers.", "Other", {"year": 2000}), Document("w4", "New.")]
    )
    assert (report.added, report.updated, report.unchanged, len(index)) == (1, 1, 1, 4)
    assert index.documents(["w2", "nowhere"]) == {"w2": Document("w2", "Now of propellers.", "Other", {"year": 2000})}
    assert index.search("swept sound", pipeline="bm25") == []
    assert index.search("propellers", where="year = 2000")[0].id == "w2"
    assert index.search("wing", where="year = 1962") == []
    assert index.add([Document("w4", "New.", metadata={"seen": True})]).updated == 1


def test_delete_counts_what_was_there(index):
    assert index.delete(["w1", "w1", "nowhere"]) == 1
    assert index.delete(["w1"]) == 0
    assert len(index) == 2
    assert index.info()["deleted"] == 1
    index.compact()
    assert (index.info()["documents"], index.info()["deleted"]) == (2, 0)


def test_an_open_index_keeps_its_generation_until_it_is_refreshed(index):
    reader = Retriever(index.path)
    reader.search("wing", pipeline="bm25")
    index.add([Document("w4", "A fourth wing.")])
    index.delete(["w1"])
    assert {hit.id for hit in reader.search("wing", pipeline="bm25")} == {"w1", "w2"}
    reader.refresh()
    assert {hit.id for hit in reader.search("wing", pipeline="bm25")} == {"w2", "w4"}


def test_a_new_view_is_built_from_the_stored_documents(index):
    index.delete(["w3"])
    wider = Retriever.prepare(
        index.path, views=["title = bm25(title_boost=3)", "second = dense(toy_encoders:OtherEncoder)"]
    )
    assert list(wider.info()["views"]) == ["bm25", "dense", "title", "second"]
    assert {hit.id for hit in wider.search("drag", pipeline="title")} == {"w2"}
    assert {hit.id for hit in wider.search("drag", pipeline="second")} == {"w1", "w2"}


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (
            ["bm25", "bm25(german)"],
            r"two views have one name: bm25, bm25\(german\); write NAME = ... before one of them",
        ),
        (["bm52"], "no view is called 'bm52'; did you mean 'bm25'"),
        (["bm25(language=klingon)"], "no analyzer for language 'klingon'"),
        (["dense(m, precision=half)"], "precision is auto or float32, not 'half'"),
        (["bm25(index=Flat)"], "bm25 has no argument 'index'; it takes: language, title_boost, syntax"),
        (["their.module:Index"], "needs a name of letters, digits, _ and -"),
    ],
)
def test_a_view_that_cannot_be_leaves_no_folder(tmp_path, views, message):
    with pytest.raises(InputError, match=message):
        Retriever.create(tmp_path / "index", views=views)
    assert not (tmp_path / "index").exists()


def test_a_view_keeps_what_it_was_made_with(index):
    with pytest.raises(InputError, match=r"view 'bm25' is bm25, not bm25\(language=german\); keep it as it is"):
        Retriever.prepare(index.path, views=["bm25(german)"])
    with pytest.raises(InputError, match="holds an index already; open it with Retriever"):
        Retriever.create(index.path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document(5, "text"), "document 5: the id is 5, expected text"),  # type: ignore[arg-type]
        (Document("a", None), "document 'a': the text is None, expected text"),  # type: ignore[arg-type]
        (Document("a", "x", title=["y"]), r"document 'a': the title is \['y'\], expected text"),  # type: ignore[arg-type]
        (Document("", "text"), "the document id '' is empty or holds a NUL character"),
        (Document("a\0b", "text"), r"the document id 'a\\x00b' is empty or holds a NUL character"),
        (Document("a", "half \ud800"), "document 'a': the text holds a lone surrogate, which is no character"),
        (
            Document("a", "x", metadata={"v": float("nan")}),
            "document 'a': its metadata is not JSON: Out of range float",
        ),
        (Document("a", "x", metadata={"v": {1}}), "document 'a': its metadata is not JSON: Object of type set"),
        (Document("a", "x", metadata={"v": "\udfff"}), "document 'a': its metadata is not JSON: .* surrogates"),
        (Document("new", "once"), "document id 'new' comes a second time in this corpus; ids must be unique"),
    ],
)
def test_a_document_that_cannot_be_stored_is_refused_or_skipped(index, document, message):
    corpus = [Document("new", "fine"), document, Document("last", "also fine")]
    skipped: list[InputError] = []
    report = index.add(corpus, on_bad=skipped.append)
    assert (report.added, report.skipped, len(skipped)) == (2, 1, 1)
    assert index.verify() == []
    index.delete(["new", "last"])
    with pytest.raises(InputError, match=message):
        index.add(corpus)
    assert index.search("wing", where="year > 0")


def test_metadata_comes_back_as_it_was(index):
    metadata = {"größe": 3, "nested": {"a b": [1, 2.5, None, True, "x\n'\"\\"]}, "big": 2**70, "empty": {}, "é": "ü"}
    index.add([Document("m", "metal", metadata=metadata)])
    assert index.documents(["m"])["m"].metadata == metadata
    assert [hit.id for hit in index.search("metal", where="größe = 3 and é = 'ü'")] == ["m"]


# -- any order of changes ----------------------------------------------------------------------------------------------

ids = st.sampled_from([f"d{i}" for i in range(8)] + ["é", "with space", "-1"])
texts = st.lists(st.sampled_from(["wing", "lift", "drag", "the"]), min_size=1, max_size=3).map(" ".join)
years = st.integers(1950, 1953)


class Changes(RuleBasedStateMachine):
    """An index beside a dictionary: after any changes, every view holds what the dictionary holds."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.index = Retriever.create(self.folder / "index", views=VIEWS)
        self.model: dict[str, Document] = {}

    def teardown(self) -> None:
        assert self.index.verify() == []
        self.index.close()
        shutil.rmtree(self.folder, ignore_errors=True)  # tantivy may be making its lock files again

    @rule(batch=st.dictionaries(ids, st.tuples(texts, years), min_size=1, max_size=5))
    def add(self, batch: dict[str, tuple[str, int]]) -> None:
        documents = {id: Document(id, text, metadata={"year": year}) for id, (text, year) in batch.items()}
        report = self.index.add(documents.values())
        new = documents.keys() - self.model.keys()
        same = {id for id in documents.keys() & self.model.keys() if documents[id] == self.model[id]}
        assert (report.added, report.unchanged) == (len(new), len(same))
        assert report.updated == len(documents) - len(new) - len(same)
        self.model |= documents

    @rule(gone=st.lists(ids, max_size=4))
    def delete(self, gone: list[str]) -> None:
        assert self.index.delete(gone) == len(self.model.keys() & set(gone))
        self.model = {id: document for id, document in self.model.items() if id not in gone}

    @rule()
    def compact(self) -> None:
        self.index.compact()
        assert self.index.info()["deleted"] == 0

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Retriever(self.index.path)

    @invariant()
    def every_view_holds_what_the_dictionary_holds(self) -> None:
        assert len(self.index) == len(self.model)
        assert self.index.documents([*self.model, "d0", "nowhere"]) == self.model
        for where, year in (None, 0), ("year >= 1952", 1952):
            expected = {id for id, document in self.model.items() if document.metadata["year"] >= year}
            assert self.found("dense", where) == expected
            for word in "wing", "drag":
                holding = {id for id in expected if word in self.model[id].text}
                assert self.found("bm25", where, word) == holding
        for id, document in self.model.items():
            best = self.index.search(document.text, k=1, pipeline="dense")[0]
            assert best.text == document.text, id

    def found(self, pipeline: str, where: str | None, query: str = "wing") -> set[str]:
        return {hit.id for hit in self.index.search(query, k=20, where=where, pipeline=pipeline)}


TestChanges: Any = Changes.TestCase
TestChanges.settings = settings(
    max_examples=15, stateful_step_count=8, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
