"""Encoders that are anybody's Python objects, or servers."""

import json

import numpy as np
import pytest
from toy_server import serving

from retriever import Document, InputError, Retriever, RetrieverError
from retriever.encoders.foreign import EmbeddingsEndpoint, as_encoder
from retriever.encoders.stated import Stated

TEXTS = [f"text number {number}" for number in range(150)]


class Counter:
    """Vectors of letters' counts, as nested lists."""

    def encode(self, texts):
        return [[float(text.count(letter)) for letter in "aeiou"] for text in texts]


class TwoSided:
    def encode_queries(self, texts):
        return np.ones((len(texts), 3))

    def encode_documents(self, texts):
        return np.zeros((len(texts), 3))


counter = Counter()


def test_an_object_with_encode_is_an_encoder():
    made = as_encoder(counter, "here:counter", Stated(query_prefix="aaa "))
    assert made.dimension == 5
    np.testing.assert_array_equal(made.encode_documents(["a e"], lambda _: None).vectors, [[1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(made.encode_queries(["a e"]).vectors, [[4, 1, 0, 0, 0]])
    assert made.encode_queries([]).vectors.shape == (0, 5)


def test_a_class_with_two_methods_is_one_too():
    made = as_encoder(TwoSided, "here:TwoSided", Stated())
    assert made.encode_queries(["x"]).vectors.sum() == 3
    assert made.encode_documents(["x"], lambda _: None).vectors.sum() == 0


def test_an_index_holds_what_an_object_encoded(tmp_path):
    index = Retriever.create(tmp_path, ["dense(encoders.test_foreign:counter, normalize=true)"])
    index.add([Document("many", "aaaa e"), Document("one", "o u")])
    assert [hit.id for hit in index.search("a", k=2)] == ["many", "one"]
    assert Retriever(tmp_path).search("ou", k=1)[0].score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (object(), "here:it: encodes nothing: it has neither encode, nor encode_queries and encode_documents"),
        (type("Flat", (), {"encode": lambda self, texts: [1.0] * len(texts)}), r"gave \[2\] for 2 texts; expected"),
        (type("Words", (), {"encode": lambda self, texts: texts}), "gave no matrix of numbers for 2 texts"),
    ],
)
def test_an_object_that_is_none_is_refused(found, message):
    with pytest.raises(InputError, match=message):
        as_encoder(found, "here:it", Stated()).encode_queries(["a", "b"])


def test_what_an_object_decides_itself_cannot_be_stated():
    with pytest.raises(InputError, match="a Python object pools and cuts by itself, so a view cannot state its pool"):
        as_encoder(counter, "here:counter", Stated(pooling="cls"))


# -- servers -----------------------------------------------------------------------------------------------------------


def answer(body):
    """Embeddings in the order that a server chose: `index` counts."""
    rows = [{"index": place, "embedding": [len(text), 1.0]} for place, text in enumerate(body["input"])]
    return json.dumps({"data": rows[::-1]})


@pytest.fixture
def server():
    with serving() as made:
        made.embed = answer
        yield made


def test_an_endpoint_is_asked_in_batches(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    seen = []
    made = EmbeddingsEndpoint(f"{server.url}#tiny", Stated())
    encoded = made.encode_documents(TEXTS, seen.append)
    np.testing.assert_array_equal(encoded.vectors, [[len(text), 1] for text in TEXTS])
    assert sorted(len(body["input"]) for body in server.asked) == [22, 64, 64]
    assert sum(seen) == 150
    assert {body["model"] for body in server.asked} == {"tiny"}
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert server.paths[0] == "/v1/embeddings"


def test_what_passes_is_tried_again_and_what_stays_is_told(server):
    made = EmbeddingsEndpoint(f"{server.url}#tiny", Stated(), pause=0.01)
    server.script = [(429, "busy"), "hang up"]
    assert made.encode_queries(["abc"]).vectors.tolist() == [[3, 1]]
    server.script = [(401, "no key")]
    with pytest.raises(RetrieverError, match="model 'tiny' embedded nothing: status 401 Unauthorized: no key"):
        made.encode_queries(["abc"])
    server.script = [(200, "{}")]
    with pytest.raises(RetrieverError, match="its answer holds no embeddings"):
        made.encode_queries(["abc"])


def test_a_dense_view_can_be_an_endpoints(server, tmp_path):
    index = Retriever.create(tmp_path, [f"dense({server.url}#tiny)"])
    index.add([Document("long", "a long text"), Document("short", "brief")])
    assert [hit.id for hit in index.search("what", k=2)] == ["long", "short"]
    assert index.info()["views"]["dense"]["encoder"]["endpoint"] == f"{server.url}#tiny"
