"""Collections from wherever they are."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from collections_on_disk import things, write

from retriever import InputError
from retriever.bench.sources import parse_source

JUDGED = ["q-wing-in d-wing-in 1", "q-heat-of d-heat-of 2"]


def test_a_beir_folder_with_the_judged_queries_of_a_split(tmp_path):
    folder = things(tmp_path / "things", test=JUDGED, dev=["q-wing-in d-wing-in 1"])
    source = parse_source(str(folder), "test", tmp_path)
    assert source.name == "things"
    assert [query.id for query in source.asked] == ["q-wing-in", "q-heat-of"]
    assert source.judgements["q-heat-of"] == {"d-heat-of": 2}
    assert len(list(source.documents(None))) == 32
    assert [query.id for query in parse_source(f"small={folder}", "dev", tmp_path).asked] == ["q-wing-in"]
    assert parse_source(f"small={folder}", "dev", tmp_path).name == "small"


def test_a_part_of_the_judged_queries_is_always_the_same(tmp_path):
    source = parse_source(str(things(tmp_path / "things")), "train", tmp_path)
    some, again = (replace(source, limit=3) for _ in range(2))
    assert len(some.asked) == len(some.judgements) == 3 < len(source.judgements)
    assert {*some.judgements} == {*again.judgements} == {query.id for query in some.asked}
    assert replace(source, limit=1000).judgements == source.judgements


def test_queries_of_one_folder_ask_the_documents_of_another(tmp_path):
    english = write(tmp_path / "en", {"d1": "lift"}, {"q1": "what is lift"}, test=["q1 d1 1"])
    german = write(tmp_path / "de", {"d1": "Auftrieb"}, {"q1": "was ist Auftrieb"}, test=["q1 d1 1"])
    source = parse_source(f"{german}->{english}", "test", tmp_path)
    assert source.name == "de->en"
    assert source.asked[0].text == "was ist Auftrieb"
    assert [document.text for document in source.documents(None)] == ["lift"]


def test_three_files_as_ms_marco_and_trec_have_them(tmp_path):
    (tmp_path / "collection.tsv").write_text("0\tthe wing\n1\tthe plate\n")
    (tmp_path / "topics.dl19.txt").write_text("5\twing\n6\tplate\n7\tunjudged\n")
    (tmp_path / "qrels.dl19.txt").write_text("5 Q0 0 3\n6 Q0 1 2\n")
    files = ",".join(str(tmp_path / name) for name in ("collection.tsv", "topics.dl19.txt", "qrels.dl19.txt"))
    source = parse_source(f"dl19={files}", "test", tmp_path)
    assert (source.name, [query.text for query in source.asked]) == ("dl19", ["wing", "plate"])
    assert source.judgements["5"] == {"0": 3}
    assert [document.id for document in source.documents(None)] == ["0", "1"]


def test_an_id_of_ir_datasets(tmp_path, monkeypatch):
    dataset = SimpleNamespace(
        has_docs=lambda: True,
        has_queries=lambda: True,
        has_qrels=lambda: True,
        queries_iter=lambda: [SimpleNamespace(query_id="q", text="wing")],
        qrels_iter=lambda: [SimpleNamespace(query_id="q", doc_id="d", relevance=1)],
    )
    monkeypatch.setitem(sys.modules, "ir_datasets", SimpleNamespace(load=lambda name: dataset))
    source = parse_source("ir:toy/test", "ignored", tmp_path)
    assert (source.name, source.asked[0].text, source.judgements["q"]) == ("ir:toy/test", "wing", {"d": 1})


def test_the_digest_is_of_the_corpus_alone(tmp_path):
    folder = things(tmp_path / "things", test=JUDGED, dev=JUDGED[:1])
    digest = parse_source(str(folder), "test", tmp_path).digest
    assert parse_source(str(folder), "dev", tmp_path).digest == digest
    (folder / "queries.jsonl").write_text('{"_id": "q-wing-in", "text": "another"}\n')
    assert parse_source(str(folder), "test", tmp_path).digest == digest
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "new", "text": "new"}\n')
    assert parse_source(str(folder), "test", tmp_path).digest != digest


def test_judgements_of_other_queries_are_told_with_examples(tmp_path):
    folder = things(tmp_path / "things", test=["x1 d-wing-in 1", "x2 d-wing-in 1"])
    with pytest.raises(InputError, match=r"things: no query is judged: .* has 'q-wing-in', .*test\.tsv has 'x1', 'x2'"):
        _ = parse_source(str(folder), "test", tmp_path).asked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "nowhere: there is no such folder; a collection is a BEIR folder, beir:NAME, ir:ID"),
        ("beir:sifact", "BEIR has no public collection 'sifact'; did you mean 'scifact'"),
    ],
)
def test_what_is_no_collection_is_told(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        parse_source(text, "test", tmp_path)


def test_a_task_of_mteb_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    message = r"the task mteb:SciFact needs mteb: pip install 'retriever-engine\[mteb\]'"
    with pytest.raises(InputError, match=message):
        parse_source("mteb:SciFact", "test", tmp_path)


def test_a_split_that_is_not_there_is_told(tmp_path):
    folder = things(tmp_path / "things", test=JUDGED, dev=JUDGED)
    with pytest.raises(InputError, match=r"has no judgements of the split 'train'; there: dev, test"):
        parse_source(str(folder), "train", tmp_path)
