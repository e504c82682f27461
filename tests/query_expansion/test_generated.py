"""HyDE and query2doc: what is asked of the generator, and what of the view."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from tiny_models import causal
from toy_encoders import TopicEncoder
from toy_server import Server, serving

from retriever import Document, Query, Retriever
from retriever.errors import RetrieverError, SpecError
from retriever.spec import parse_pipeline

VIEWS = ["bm25", "dense(toy_encoders:TopicEncoder)"]


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    made = Retriever.create(tmp_path_factory.mktemp("generated") / "index", views=VIEWS)
    made.add(Document(f"d{i:02d}", f"wing{i % 7} flows number {i}" + " heat" * (i % 3)) for i in range(60))
    return made


def run(index: Retriever, query: str, pipeline: str, k: int = 60) -> dict[str, float]:
    return index.run([Query("q", query)], k=k, pipeline=pipeline).get("q", {})


def test_hyde_asks_with_the_mean_of_the_passages_and_the_query(index, server):
    server.answers = {3: "wing3 flows in heat", 4: "wing5 flows", 5: "a plate of heat"}
    found = run(index, "heat what", f"hyde({server.url}#m, n=3, seed=3) >> dense")
    encoder = TopicEncoder()
    parts = [encoder.vector(text) for text in (*server.answers.values(), "heat what")]
    stored = {id: document.contents for id, document in index.documents([f"d{i:02d}" for i in range(60)]).items()}
    expected = {id: float(encoder.vector(text) @ np.mean(parts, axis=0)) for id, text in stored.items()}
    assert found == pytest.approx(expected, abs=1e-5)
    assert {body["messages"][0]["content"] for body in server.asked} == {
        "Please write a passage to answer the question.\nQuestion: heat what\nPassage:"
    }
    assert {(body["max_tokens"], body["temperature"]) for body in server.asked} == {(512, 0.7)}


def test_query2doc_repeats_the_query_five_times_for_terms(index, server):
    server.answers = {0: "wing3 flows in heat"}
    found = run(index, "wing5", f"query2doc({server.url}#m) >> bm25")
    assert found == run(index, "wing5 " * 5 + "wing3 flows in heat", "bm25")
    assert server.asked[0]["messages"][0]["content"] == (
        "Write a passage that answers the given query:\n\nQuery: wing5\nPassage:"
    )
    assert (server.asked[0]["max_tokens"], server.asked[0]["temperature"]) == (128, 1.0)
    twice = run(index, "wing5", f"query2doc({server.url}#m, repeat=2) >> bm25")
    assert twice == run(index, "wing5 wing5 wing3 flows in heat", "bm25") != found


def test_query2doc_puts_a_separator_between_them_for_vectors(index, server):
    server.answers = {0: "wing3 flows"}
    found = run(index, "wing5", f"query2doc({server.url}#m) >> dense")
    assert found == run(index, "wing5 [SEP] wing3 flows", "dense")
    other = run(index, "wing5", f"query2doc({server.url}#m, separator='</s>') >> dense")
    assert other == run(index, "wing5 </s> wing3 flows", "dense") != found


def test_a_prompt_of_ones_own(index, server):
    run(index, "wing {5}", f"query2doc({server.url}#m, prompt='Explain {{query}} briefly.') >> bm25")
    assert server.asked[0]["messages"][0]["content"] == "Explain wing {5} briefly."


def test_each_of_many_queries_has_its_own_passage(index, server):
    queries = [Query(str(i), f"wing{i}") for i in range(7)]
    made = index.run(queries, k=10, pipeline=f"query2doc({server.url}#m, prompt='heat {{query}}') >> bm25")
    for query in queries:  # the server answers with the prompt and the seed
        text = f"{query.text} " * 5 + f"heat {query.text} 0"
        assert made[query.id] == pytest.approx(run(index, text, "bm25", k=10), rel=1e-5)


def test_in_a_group_beside_other_searches_and_before_feedback(index, server):
    hyde = f"hyde({server.url}#m, n=1)"
    pipeline = f"({hyde} >> dense) + bm25 >> rrf"
    assert parse_pipeline(str(parse_pipeline(pipeline))) == parse_pipeline(pipeline)
    both = run(index, "wing3 heat", pipeline)
    ranks = count(1)
    dense = {id: 1 / (60 + next(ranks)) for id in run(index, "wing3 heat", f"{hyde} >> dense")}
    ranks = count(1)
    lexical = {id: 1 / (60 + next(ranks)) for id in run(index, "wing3 heat", "bm25")}
    assert both == pytest.approx({id: dense.get(id, 0) + lexical.get(id, 0) for id in dense | lexical})
    again = run(index, "wing3 heat", f"{hyde} >> dense >> rm3(max_df=1) >> bm25")
    assert again.keys() > run(index, "wing3 heat", "bm25").keys()


def test_a_generator_that_fails_is_no_unexpanded_search(index, server):
    server.script = [(404, "no model m")] * 20
    for pipeline in f"query2doc({server.url}#m) >> bm25", f"hyde({server.url}#m) >> dense":
        with pytest.raises(RetrieverError, match="model 'm' generated nothing: status 404 Not Found: no model m"):
            index.search("wing", pipeline=pipeline)


def test_a_local_model_is_loaded_once_and_says_the_same_again(index, tmp_path: Path, monkeypatch):
    folder = causal(tmp_path / "model")
    pipeline = f"query2doc({folder}, max_tokens=8) >> bm25"
    first = run(index, "heat", pipeline)
    (folder / "model.safetensors").unlink()
    assert run(index, "heat", pipeline) == first


@pytest.mark.parametrize(
    ("pipeline", "column", "message"),
    [
        ("hyde(no/such) >> dense", 0, "hyde: model 'no/such' was not found; tried: the path no/such, the Hugging Face"),
        ("hyde(http://here/v1) >> dense", 0, "hyde: http://here/v1: names no model; write it behind a #"),
        ("hyde >> dense", 0, "hyde needs 'model', as in hyde(MODEL)"),
        ("hyde(m, prompt=no) >> dense", 0, "hyde: prompt must hold {query}, where the query is put"),
        ("hyde(m, n=0) >> dense", 0, "hyde: n must be at least 1"),
        ("hyde(m, temperature=0) >> dense", 0, "hyde: at temperature 0 all 8 passages are the same; set n=1"),
        ("query2doc(m, temperature=-1) >> bm25", 0, "query2doc: temperature must not be negative"),
        ("query2doc(m, max_tokens=0) >> bm25", 0, "query2doc: max_tokens must be at least 1"),
        ("query2doc(m, repeat=0) >> bm25", 0, "query2doc: repeat must be at least 1"),
        ("hyde(http://h/v1#m) >> bm25", 23, "hyde cannot ask 'bm25'; it needs a view of vectors; here: dense"),
    ],
)
def test_what_cannot_work_is_shown_with_a_caret(index, pipeline, column, message):
    with pytest.raises(SpecError) as caught:
        index.search("wing", pipeline=pipeline)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(f"\n  {pipeline}\n  {' ' * column}^")
