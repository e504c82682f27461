"""What a system's text means."""

import pytest
import toy_encoders
from tiny_models import bi_encoder, cross_encoder

from retriever import InputError
from retriever.bench.systems import parse_system
from retriever.errors import SpecError

TOY = "dense(toy_encoders:HashEncoder)"


def views(text: str) -> list[str]:
    return [str(view.spec.component) for view in parse_system(text).views]


def test_views_are_taken_out_and_named_by_what_they_hold():
    system = parse_system(f"bm25(k=50) + {TOY} >> rrf(c=10)")
    lexical, dense = (view.spec.name for view in system.views)
    assert system.pipeline == f"{lexical}(k=50) + {dense} >> rrf(c=10)"
    assert lexical.startswith("bm25-")
    assert dense.startswith("dense-")
    assert system.name == system.text == f"bm25(k=50) + {TOY} >> rrf(c=10)"


def test_what_a_search_may_set_stays_in_the_pipeline():
    low, high = parse_system("bm25(k1=0.9, b=0.4)"), parse_system("bm25(k1=1.2, b=0.4)")
    assert low.views == high.views
    assert high.pipeline == f"{low.pipeline}(k1=1.2)"
    assert low.key != high.key
    (hnsw,) = parse_system("dense(toy_encoders:HashEncoder, index=HNSW8, ef_search=64)").views
    assert str(hnsw.spec.component) == "dense(model=toy_encoders:HashEncoder, index=HNSW8)"


def test_indexes_of_the_same_vectors_are_one_view_and_not_one_system():
    flat, hnsw = parse_system(TOY), parse_system("dense(toy_encoders:HashEncoder, index=HNSW8)")
    assert flat.views[0].spec.name == hnsw.views[0].spec.name
    assert flat.views[0].spec == hnsw.views[0].base
    assert flat.key != hnsw.key
    with pytest.raises(SpecError, match=r"one system cannot have both .*: they share their vectors"):
        parse_system(f"{TOY} + dense(toy_encoders:HashEncoder, index=HNSW8) >> rrf")


def test_the_views_of_each_language_are_taken_out():
    system = parse_system(f"by-language(de='bm25(language=german, k=50)', else='{TOY}')")
    german, dense = (view.spec.name for view in system.views)
    assert system.pipeline == f"by-language(de='{german}(k=50)', else={dense})"


def test_a_name_stands_before_a_text():
    system = parse_system("BM25 of Anserini = bm25(k1=0.9, b=0.4)")
    assert (system.name, system.text) == ("BM25 of Anserini", "bm25(k1=0.9, b=0.4)")
    assert parse_system("bm25(k1=0.9)").name == "bm25(k1=0.9)"


@pytest.mark.parametrize("path", ["runs/a.trec", "a.trec.gz", "/x/{collection}.run.zst"])
def test_a_run_file(path):
    assert parse_system(f"theirs = {path}").run == path
    assert parse_system(path).run == path


def test_an_object_and_an_endpoint_are_dense_views():
    assert views("toy_encoders:HashEncoder") == ["dense(model=toy_encoders:HashEncoder)"]
    assert views("http://localhost:8000/v1#m") == ["dense(model=http://localhost:8000/v1#m)"]


def test_a_view_is_another_when_its_model_is(tmp_path, monkeypatch):
    folder = bi_encoder(tmp_path)
    before = parse_system(f"dense({folder})")
    assert parse_system(f"dense({folder})") == before
    config = folder / "config_sentence_transformers.json"
    config.write_text(config.read_text().replace('"prompts": {', '"prompts": {"query": "query : ", ', 1))
    after = parse_system(f"dense({folder})")
    assert after.views[0].spec.name != before.views[0].spec.name
    hashed = parse_system(TOY)
    monkeypatch.setattr(toy_encoders.HashEncoder, "name", "changed")
    assert parse_system(TOY).views != hashed.views


def test_the_models_of_stages_decide_too(tmp_path):
    model = cross_encoder(tmp_path)
    plain, nested = (
        parse_system(text)
        for text in (f"bm25 >> cross-encoder({model})", f"bm25 >> budget('cross-encoder({model})', seconds=9)")
    )
    assert plain.models == nested.models == (str(model),)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + "\n")
    for old in (plain, nested):
        assert parse_system(old.text).key != old.key


def test_a_view_inside_a_reranker_is_one_too(tmp_path):
    model = cross_encoder(tmp_path)
    system = parse_system(f"bm25 >> gar('cross-encoder({model})', 'dense(toy_encoders:HashEncoder)')")
    assert [view.spec.component.name for view in system.views] == ["bm25", "dense"]
    assert system.views[1].spec.name in system.pipeline


def test_query_expansion_names_its_view_twice_and_has_it_once():
    assert len(parse_system("bm25 >> rm3 >> bm25").views) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bm52", "no view or stage is called 'bm52'; did you mean 'bm25'"),
        ("bm25 >> rff", "no view or stage is called 'rff'; did you mean 'rrf'"),
        ("dense(nowhere/to-be-found)", "model 'nowhere/to-be-found' was not found"),
        ("dense(toy_encoders:Missing)", "cannot import 'toy_encoders:Missing'"),
        ("bm25(", "expected"),
    ],
)
def test_what_is_no_system_is_told(text, message):
    with pytest.raises(InputError, match=message):
        parse_system(text)
