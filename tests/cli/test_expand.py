"""From a corpus to hits by words that only its expansions have, on the command line."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny_models import cross_encoder, seq2seq

from retriever import Document, Query, Retriever, cli, read_corpus

TEXTS = ["the wing of a plane", "shock and heat", "flow over a plate", "the lift of a wing", "a body under drag"]
TOY = "toy_expansions:Synonyms(n=5)"


class Answer(NamedTuple):
    code: int
    output: str
    errors: str


@pytest.fixture
def call(monkeypatch, capsys, tmp_path) -> Any:
    """The command line as it is, in this process and in the folder of the files."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["retriever", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def corpus(tmp_path) -> Path:
    return write(tmp_path / "corpus.jsonl", TEXTS)


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


def run(index: Path, *queries: str, pipeline: str = "bm25") -> dict[str, dict[str, float]]:
    return dict(Retriever(index).run([Query(text, text) for text in queries], pipeline=pipeline).items())


def test_a_word_of_the_expansion_finds_the_document_and_is_never_shown(call, corpus, tmp_path):
    assert call("expand", corpus, "exp.jsonl", "--with", TOY) == Answer(
        0, "", "exp.jsonl: 5 documents expanded, 0 were there\n"
    )
    answer = call("index", corpus, "index", "--view", "bm25(expansion=exp.jsonl)")
    assert answer.code == 0, answer.errors
    found = call("search", "index", "likeshock", "--json")
    (hit,) = map(json.loads, found.output.splitlines())
    assert (hit["id"], hit["text"], hit["snippet"]) == ("d1", "shock and heat", "shock and heat")
    assert "like" not in call("search", "index", "wing likewing likeplane").output
    assert Retriever(tmp_path / "index").info()["views"]["bm25"]["spec"] == "bm25(expansion=exp.jsonl)"


def test_zero_queries_a_document_are_plain_bm25(call, corpus, tmp_path):
    model = seq2seq(tmp_path / "t5")
    assert call("expand", corpus, "none.jsonl", "--with", f"doc2query({model}, n=0)").code == 0
    for name, view in {"plain": "bm25", "none": "bm25(expansion=none.jsonl)"}.items():
        assert call("index", corpus, name, "--view", view).code == 0
    assert run(tmp_path / "none", *TEXTS) == run(tmp_path / "plain", *TEXTS)


def test_the_index_is_that_of_texts_that_hold_their_expansions(call, corpus, tmp_path):
    """Document lengths and frequencies grow by the generated queries and by nothing else."""
    model = seq2seq(tmp_path / "t5")
    assert call("expand", corpus, "exp.jsonl", "--with", f"doc2query({model}, n=3, max_length=8)").code == 0
    made = [json.loads(line)["expansion"] for line in (tmp_path / "exp.jsonl").read_text().splitlines()[1:]]
    assert all(len(queries) == 3 for queries in made)
    write(tmp_path / "long.jsonl", [" ".join([text, *more]) for text, more in zip(TEXTS, made, strict=True)])
    assert call("index", "long.jsonl", "long", "--view", "bm25").code == 0
    assert call("index", corpus, "index", "--view", "bm25(expansion=exp.jsonl)").code == 0
    assert run(tmp_path / "index", *TEXTS) == run(tmp_path / "long", *TEXTS)
    assert run(tmp_path / "index", *TEXTS) != {}


def test_documents_come_and_go_and_compact_indexes_their_expansions_again(call, corpus, tmp_path):
    call("expand", corpus, "exp.jsonl", "--with", TOY)
    call("index", corpus, "index", "--view", "bm25(expansion=exp.jsonl)")
    more = write(tmp_path / "more.jsonl", [*TEXTS[:4], "a changed body", "rudder"])
    refused = call("add", "index", more)
    assert refused.code == 2
    assert refused.errors == (
        "error: exp.jsonl: holds document 'd4' with another text than it has here; bring it in by `retriever expand "
        f'CORPUS exp.jsonl --with "{TOY}"`, with the corpus that is indexed: what is done already is kept\n'
    )
    assert call("expand", more, "exp.jsonl", "--with", TOY).errors == (
        "exp.jsonl: 2 documents expanded, 4 were there\n"
    )
    assert call("add", "index", more).code == 0
    assert call("delete", "index", "d0").code == 0
    assert call("compact", "index").code == 0
    assert Retriever(tmp_path / "index").verify() == []
    found = run(tmp_path / "index", "likeplane", "likewing", "likechanged", "likeunder", "likerudder")
    assert {query: set(ranking) for query, ranking in found.items()} == {
        "likewing": {"d3"},
        "likechanged": {"d4"},
        "likerudder": {"d5"},
    }


def test_an_index_refuses_the_expansions_of_another_model(call, corpus, tmp_path):
    call("expand", corpus, "exp.jsonl", "--with", TOY)
    call("index", corpus, "index", "--view", "bm25(expansion=exp.jsonl)")
    (tmp_path / "exp.jsonl").rename(tmp_path / "moved.jsonl")
    more = write(tmp_path / "more.jsonl", [*TEXTS, "rudder"])
    answer = call("add", "index", more)
    assert answer.code == 2
    assert answer.errors.startswith("error: exp.jsonl: cannot be opened: No such file or directory; `retriever expand")
    call("expand", more, "exp.jsonl", "--with", "toy_expansions:Synonyms(n=5, model=second)")
    for command in (["add", "index", more], ["compact", "index"]):
        answer = call(*command)
        assert answer.code == 2
        assert "view 'bm25' holds the expansions of toy_expansions:Synonyms(n=5) (" in answer.errors
        assert "and exp.jsonl has those of toy_expansions:Synonyms(n=5, model=second) (" in answer.errors
    assert len(Retriever(tmp_path / "index")) == 5
    assert call("index", corpus, "index", "--view", "bm25").code == 2  # without its expansions it is another view
    assert set(run(tmp_path / "index", "likeshock")["likeshock"]) == {"d1"}  # searching needs no file


def test_the_terms_of_a_document_are_those_that_are_indexed(call, corpus, tmp_path):
    call("expand", corpus, "exp.jsonl", "--with", TOY)
    call("index", corpus, "index", "--view", "bm25(language=none, expansion=exp.jsonl)")
    from retriever.snapshot import Snapshot

    snapshot = Snapshot.newest(tmp_path / "index")
    document = Document("d1", TEXTS[1])
    (terms,) = snapshot.view("bm25").document_terms([1], [document])
    assert set(terms) == {"shock", "and", "heat", "likeshock", "likeand", "likeheat"}
    snapshot.documents.close()


def test_what_was_cut_and_skipped_is_told(call, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"_id": "d0", "text": "word " * 11}) + "\nno JSON\n")
    answer = call("expand", bad, "exp.jsonl", "--with", TOY)
    assert (answer.code, (tmp_path / "exp.jsonl").exists()) == (2, False)
    answer = call("expand", bad, "exp.jsonl", "--with", TOY, "--skip-bad")
    assert answer.errors.splitlines() == [
        f"skipped: {bad}:2: broken JSON at column 1: Expecting value; expected one JSON object per line",
        "exp.jsonl: 1 documents expanded, 0 were there, 1 bad records skipped",
        "exp.jsonl: 1 of them are longer than the model reads and were cut",
    ]


def test_other_columns_are_read(call, tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"number": "n1", "abstract": "shock and heat"}\n')
    columns = ["--column", "id=number", "--column", "text=abstract"]
    assert call("expand", "corpus.jsonl", "exp.jsonl", "--with", TOY, *columns).code == 0
    assert call("index", "corpus.jsonl", "index", "--view", "bm25(expansion=exp.jsonl)", *columns).code == 0
    assert set(run(tmp_path / "index", "likeheat")["likeheat"]) == {"n1"}


def test_filtered_queries_are_a_file_like_any_other(call, corpus, tmp_path):
    model = cross_encoder(tmp_path / "model")
    call("expand", corpus, "exp.jsonl", "--with", TOY)
    answer = call(
        "filter-expansion", corpus, "exp.jsonl", "kept.jsonl", "--with", f"cross-encoder({model})", "--keep", "0.3"
    )
    assert answer.code == 0, answer.errors
    total = sum(len(text.split()) for text in TEXTS)
    threshold = json.loads((tmp_path / "kept.jsonl").read_text().splitlines()[0])["threshold"]
    assert answer.errors.splitlines() == [
        "exp.jsonl: 5 documents scored, 0 were scored",
        f"kept.jsonl: {round(0.3 * total)} of {total} queries kept ({round(0.3 * total) / total:.1%}), those with a "
        f"score of {threshold} and more",
    ]
    assert call("index", corpus, "index", "--view", "bm25(expansion=kept.jsonl)").code == 0
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()[1:]]
    word, owner = next((line["expansion"][0], line["id"]) for line in kept if line["expansion"])
    assert owner in run(tmp_path / "index", word)[word]

    nothing = ["--with", f"cross-encoder({model})", "--threshold", "inf"]
    assert "0 of 21 queries kept" in call("filter-expansion", corpus, "exp.jsonl", "no.jsonl", *nothing).errors
    call("index", corpus, "empty", "--view", "bm25(expansion=no.jsonl)")
    call("index", corpus, "plain", "--view", "bm25")
    assert run(tmp_path / "empty", *TEXTS) == run(tmp_path / "plain", *TEXTS)


def test_documents_that_the_corpus_has_not_are_left_out_and_told(call, corpus, tmp_path):
    call("expand", corpus, "exp.jsonl", "--with", TOY)
    part = write(tmp_path / "part.jsonl", TEXTS[:3])
    options = ["--with", "toy_expansions:Length", "--threshold", "0"]
    answer = call("filter-expansion", part, "exp.jsonl", "kept.jsonl", *options)
    assert answer.errors.splitlines()[2:] == [
        f"kept.jsonl: 2 documents left out, which {part} has not as they are there"
    ]
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 4
    assert [document.id for document in read_corpus(part)] == ["d0", "d1", "d2"]


def test_a_damaged_line_of_the_file_stops_the_index_with_its_place(call, corpus, tmp_path):
    call("expand", corpus, "exp.jsonl", "--with", TOY)
    lines = (tmp_path / "exp.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "exp.jsonl").write_text("".join([*lines[:3], '{"id": "d2", "expan\n', *lines[4:]]))
    answer = call("index", corpus, "index", "--view", "bm25(expansion=exp.jsonl)")
    assert (answer.code, answer.output) == (2, "")
    assert answer.errors.startswith("error: exp.jsonl:4: the line is damaged: Unterminated string starting at")
    assert not (tmp_path / "index").exists()


def test_a_view_of_another_name_shows_its_snippets_without_expansions(call, corpus, tmp_path):
    call("expand", corpus, "exp.jsonl", "--with", TOY)
    call("index", corpus, "index", "--view", "more = bm25(expansion=exp.jsonl)")
    (hit,) = Retriever(tmp_path / "index").search("likedrag")
    assert (hit.id, hit.text, hit.snippet) == ("d4", TEXTS[4], TEXTS[4])
