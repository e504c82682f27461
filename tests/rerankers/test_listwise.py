"""RankGPT's windows: which documents a prompt holds, what becomes of its answer, and what of a bad one."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import causal
from toy_server import Server, serving

from retriever import Document, InputError, Query, Retriever
from retriever.errors import RetrieverError
from retriever.generators import Endpoint, Sampling
from retriever.rerankers.listwise import Listwise, ListwiseConfig, permutation, windows
from retriever.tallies import tallies


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    """bm25 finds d09, d08, ... d00 in this order: the same word, in longer and longer documents."""
    made = Retriever.create(tmp_path_factory.mktemp("listwise") / "index", views=["bm25"])
    made.add(Document(f"d{i:02d}", f"wing number{i}" + " heat" * (9 - i)) for i in range(10))
    return made


def ids(index: Retriever, pipeline: str, k: int = 10) -> list[str]:
    return [hit.id for hit in index.search("wing", k=k, pipeline=pipeline)]


def passages(prompt: str) -> list[str]:
    return re.findall(r"^\[\d+\] (.*)$", prompt, re.MULTILINE)


def test_windows_go_from_the_bottom_to_the_top():
    def bounds(n: int, window: int, stride: int) -> list[tuple[int, int]]:
        return [(part.start, part.stop) for part in windows(n, window, stride)]

    assert bounds(100, 20, 10)[:2] == [(80, 100), (70, 90)]
    assert bounds(100, 20, 10)[-1] == (0, 20)
    assert len(windows(100, 20, 10)) == 9
    assert bounds(20, 20, 10) == [(0, 20)]
    assert bounds(7, 3, 2) == [(4, 7), (2, 5), (0, 3)]
    assert bounds(6, 3, 2) == [(3, 6), (1, 4), (0, 2)]
    assert bounds(1, 20, 10) == bounds(0, 20, 10) == []


@given(st.integers(2, 60), st.integers(2, 25), st.integers(1, 25))
def test_every_document_is_in_a_window_and_the_best_can_rise_to_the_top(n, window, stride):
    parts = windows(n, window, min(stride, window - 1))
    assert {i for part in parts for i in range(part.start, part.stop)} == set(range(n))
    assert parts[-1].start == 0
    assert all(lower.start < upper.stop for lower, upper in pairwise(parts))


def test_an_answer_names_each_passage_once():
    assert permutation("[2] > [1] > [3]", 3) == [1, 0, 2]
    assert permutation("The ranking is:\n[3] > [1] > [2]. I hope this helps!", 3) == [2, 0, 1]
    for answer in ("[1] > [2]", "[1] > [1] > [2]", "[1] > [2] > [4]", "2 > 1 > 3", "", "[0] > [1] > [2]", "[x]"):
        assert permutation(answer, 3) is None, answer


def test_the_answer_is_the_order_and_the_scores_are_its_ranks(index, server):
    assert ids(index, "bm25") == [f"d{i:02d}" for i in range(9, -1, -1)]
    server.script = ["[3] > [1] > [4] > [2]"]
    found = index.search("wing", pipeline=f"bm25 >> listwise({server.url}#m, depth=4)")
    assert [hit.id for hit in found] == ["d07", "d09", "d06", "d08", "d05", "d04", "d03", "d02", "d01", "d00"]
    assert [hit.score for hit in found] == [4, 3, 2, 1, 0, -1, -2, -3, -4, -5]
    (body,) = server.asked
    assert (body["temperature"], body["max_tokens"]) == (0, 160)
    prompt = body["messages"][0]["content"]
    assert prompt.startswith("I will provide you with 4 passages, each indicated by a numerical identifier []. Rank")
    assert "Search query: wing." in prompt
    assert passages(prompt) == [
        "wing number9",
        "wing number8 heat",
        "wing number7 heat heat",
        "wing number6" + 3 * " heat",
    ]


def test_the_last_document_can_rise_through_the_windows(index, server):
    server.script = ["[4] > [1] > [2] > [3]", *["[3] > [1] > [2] > [4]"] * 3]
    found = ids(index, f"bm25 >> listwise({server.url}#m, depth=10, window=4, stride=2)")
    assert len(server.asked) == 4
    assert found[0] == "d00"
    assert sorted(found) == [f"d{i:02d}" for i in range(10)]
    second = passages(server.asked[1]["messages"][0]["content"])
    assert [text.split()[1] for text in second] == ["number5", "number4", "number0", "number3"]


def test_a_malformed_answer_is_counted_and_the_order_stays(index, server):
    server.script = ["I cannot rank passages.", "[1] > [1] > [2] > [3]", "[2] > [1] > [3] > [4]", "[2] > [3]"]
    with tallies() as found:
        order = ids(index, f"bm25 >> listwise({server.url}#m, depth=10, window=4, stride=2)")
    assert found == {f"answers of {server.url}#m were no order of their passages; the old order stays": 3}
    assert order == ["d09", "d08", "d06", "d07", "d05", "d04", "d03", "d02", "d01", "d00"]


def test_queries_are_asked_together_and_answered_apart(index, server):
    queries = [Query(f"q{i}", f"number{i} wing") for i in range(4)] + [Query("none", "???"), Query("one", "number7")]
    pipeline = f"bm25 >> listwise({server.url}#m, depth=3)"
    server.answers = {0: "[2] > [3] > [1]"}
    before, after = (index.run(queries, k=3, pipeline=text) for text in ("bm25", pipeline))
    assert len(server.asked) == 4  # one document needs no order
    for query in queries[:4]:
        first, second, third = before[query.id]
        assert after[query.id] == {second: 3.0, third: 2.0, first: 1.0}
    assert after["one"] == {"d07": 1.0}
    assert "none" not in after


def test_long_passages_are_cut_and_counted(index, server):
    server.answers = {0: "[1] > [2]"}
    with tallies() as found:
        ids(index, f"bm25 >> listwise({server.url}#m, depth=2, words=2)")
    assert found == {f"passages had more than the 2 words that {server.url}#m was given": 1}
    assert passages(server.asked[0]["messages"][0]["content"]) == ["wing number9", "wing number8"]


def test_a_failing_server_is_no_ranking(index, server):
    server.script = [(404, "no model m")]
    with pytest.raises(RetrieverError, match="model 'm' generated nothing: status 404 Not Found: no model m"):
        ids(index, f"bm25 >> listwise({server.url}#m)")


def test_a_server_that_times_out_is_no_ranking(index, server):
    import numpy as np

    from retriever.types import Hits

    stage = Listwise(ListwiseConfig(f"{server.url}#m"))
    stage._generator = Endpoint(f"{server.url}#m", Sampling(8, 0.0, 0), timeout=0.1, pause=0.01)
    server.script = ["silence"] * 4
    hits = Hits(np.array([[0, 1]]), np.array([[2.0, 1.0]], dtype=np.float32))
    with pytest.raises(RetrieverError, match=r"timed out \(4 attempts\)"):
        stage.rerank(hits, ["wing"], lambda rows: [Document(str(row), "wing") for row in rows])


def test_a_local_model_that_reads_too_little(tmp_path: Path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add(Document(f"d{i}", "wing" + " heat" * i) for i in range(3))
    folder = causal(tmp_path / "model")
    with pytest.raises(InputError, match="reads 64 tokens and the prompt"):  # a prompt is longer than that
        ids(index, f"bm25 >> listwise({folder})")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("depth=0", "depth must be at least 2"),
        ("window=1", "window must be at least 2"),
        ("stride=0", "stride must be at least 1"),
        ("words=0", "words must be at least 1"),
        ("window=5", "stride must not be larger than window: documents between two windows would not be read"),
    ],
)
def test_settings_that_cannot_be(index, options, message):
    with pytest.raises(InputError, match=rf"listwise: {message}\n  bm25 >> listwise\(m, {options}\)"):
        ids(index, f"bm25 >> listwise(m, {options})")


def test_a_model_that_is_nowhere(index):
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        ids(index, "bm25 >> listwise(no/such)")
