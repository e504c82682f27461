"""Queries in several languages: each goes to the search of its own."""

import sys

import pytest

from retriever import Document, InputError, Query, Retriever, cli

DOCUMENTS = {
    "wings": "The wings of birds",
    "flügel": "Die Flügel der Vögel",
    "die": "To die is to end",
    "der": "der der der",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    views = ["german = bm25(language=german)", "english = bm25", "dense(toy_encoders:HashEncoder)"]
    made = Retriever.create(tmp_path_factory.mktemp("languages") / "index", views)
    made.add(Document(name, text) for name, text in DOCUMENTS.items())
    return made


GERMAN, ENGLISH = Query("1", "der Flügel", "de"), Query("2", "to end a wing", "en")
ROUTED = "by-language(de=german, en=english)"


def test_each_query_is_searched_as_its_language_is(index):
    """The stop words of one language are words of the other."""
    run = index.run([GERMAN, ENGLISH, Query("3", "die", "de")], pipeline=ROUTED)
    assert {query: set(found) for query, found in run.items() if found} == {"1": {"flügel"}, "2": {"die", "wings"}}
    german = index.run([GERMAN], pipeline="german")
    assert dict(run["1"]) == dict(german["1"])
    assert "die" in index.run([Query("3", "die", "en")], pipeline=ROUTED)["3"]
    assert run.tag == ROUTED.replace(" ", "")


def test_other_languages_have_a_search_too(index):
    run = index.run(
        [GERMAN, Query("4", "oiseaux", "fr"), Query("5", "wings")], pipeline="by-language(de=german, else=dense)"
    )
    assert list(run["1"]) == ["flügel"]
    dense = index.run([Query("4", "oiseaux"), Query("5", "wings")], pipeline="dense")
    assert {name: dict(run[name]) for name in "45"} == {name: dict(dense[name]) for name in "45"}


def test_a_language_may_have_a_whole_pipeline_and_be_part_of_one(index):
    inner = "by-language(de='german + dense >> rrf', else=english)"
    alone = index.run([GERMAN], pipeline="german + dense >> rrf")
    assert dict(index.run([GERMAN], pipeline=inner)["1"]) == dict(alone["1"])
    around = index.run([GERMAN, ENGLISH], pipeline=f"{ROUTED} + dense >> rrf")
    plain = index.run([GERMAN], pipeline="german + dense >> rrf")
    assert dict(around["1"]) == dict(plain["1"])


def test_one_query_says_its_language(index):
    assert [hit.id for hit in index.search("der Flügel", pipeline=ROUTED, language="de")] == ["flügel"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query("1", "aile", "fr"), "the query 'aile' is in 'fr'; by-language has de, en, and else=VIEW would take all"),
        (Query("1", "aile"), r"the query 'aile' says no language \(field `language`, or --language\)"),
    ],
)
def test_a_query_that_no_search_takes(index, query, message):
    with pytest.raises(InputError, match=message):
        index.run([query], pipeline=ROUTED)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("by-language", "by-language names a view or a quoted pipeline for each language"),
        ("by-language(german)", "by-language names a view or a quoted pipeline for each language"),
        ("by-language(de=3)", "by-language: 3 is no view and no quoted pipeline"),
        ("by-language(de=germann)", "this index has no view 'germann'; did you mean 'german'?"),
        ("english >> by-language(de=german)", "no stage is called 'by-language'"),
    ],
)
def test_pipelines_that_cannot_be(index, pipeline, message):
    with pytest.raises(InputError, match=message):
        index.run([GERMAN], pipeline=pipeline)


def test_languages_come_from_the_file_of_queries(index, tmp_path, monkeypatch, capsys):
    path = tmp_path / "queries.jsonl"
    lines = [
        '{"_id": "1", "text": "der Flügel", "language": "de"}',
        '{"_id": "2", "text": "birds", "metadata": {"language": "en"}}',
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(
        sys, "argv", ["retriever", "search", str(index.path), "--queries", str(path), "--pipeline", ROUTED]
    )
    with pytest.raises(SystemExit):
        cli.main()
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()] == [
        ["1", "Q0", "flügel"],
        ["2", "Q0", "wings"],
    ]
