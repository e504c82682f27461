"""Reranking within a time for each query. Times are never asserted: a sleep is never shorter than asked for, so what
fits into a budget is bounded on any machine.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder

from retriever import Document, InputError, Query, Retriever
from retriever.rerankers.budget import LEAST, part
from retriever.tallies import tallies
from retriever.types import Floats

TEXTS = {f"d{i:02d}": "wing " + "flow " * (1 + (i * 7) % 60) for i in range(60)}


@dataclass(frozen=True)
class SlowConfig:
    depth: int = 100
    each: float = 0.0
    first: float = 0.0


class Slow:
    """Scores a document by its length, in so many seconds each; the first call takes longer, as loading does."""

    Config = SlowConfig
    calls: ClassVar[list[list[tuple[str, str]]]] = []

    def __init__(self, config: SlowConfig) -> None:
        self.config = config

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        time.sleep(self.config.each * len(pairs) + (0 if self.calls else self.config.first))
        self.calls.append(list(pairs))
        return np.array([len(text) for _, text in pairs], dtype=np.float32)


@pytest.fixture
def calls() -> list[list[tuple[str, str]]]:
    Slow.calls.clear()
    return Slow.calls


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    made = Retriever.create(tmp_path_factory.mktemp("budget") / "index", views=["bm25"])
    made.add(Document(id, text) for id, text in TEXTS.items())
    made.add([Document("alone", "lift")])
    return made


def run(index: Retriever, pipeline: str, *queries: str) -> dict[str, dict[str, float]]:
    return dict(index.run([Query(text, text) for text in queries], k=100, pipeline=pipeline))


def scored(calls: list[list[tuple[str, str]]]) -> Counter[str]:
    """How many documents of each query were scored; the call that loads the model has an empty one."""
    assert [len(call) for call in calls if call[0][1] == ""] == [1]
    return Counter(query for call in calls for query, text in call if text)


def test_with_time_enough_it_is_the_reranker_itself(index, tmp_path):
    model = cross_encoder(tmp_path)
    inner = f"cross-encoder({model}, precision=float32)"
    plain = run(index, f"bm25 >> cross-encoder({model}, precision=float32, depth=40)", "wing flow", "lift", "unheard")
    with tallies() as told:
        timed = run(index, f"bm25 >> budget('{inner}', seconds=1000, depth=40)", "wing flow", "lift", "unheard")
    assert not any("ran out" in what for what in told)
    assert timed.keys() == plain.keys() == {"wing flow", "lift"}
    for query, expected in plain.items():
        assert timed[query] == pytest.approx(expected, abs=1e-4)
    assert list(timed["wing flow"])[40:] == list(run(index, "bm25", "wing flow")["wing flow"])[40:]


def test_a_short_time_reads_less_of_the_list_and_that_is_told(index, calls):
    before = list(run(index, "bm25", "wing")["wing"])
    with tallies() as told:
        after = list(run(index, "bm25 >> budget('test_budget:Slow(each=0.004)', seconds=0.12)", "wing")["wing"])
    read = scored(calls)["wing"]
    assert LEAST <= read <= 0.12 / 0.004
    assert after[:read] == sorted(before[:read], key=lambda id: (len(TEXTS[id]), id), reverse=True)
    assert after[read:] == before[read:]
    assert told == {
        "queries ran out of their 0.12 seconds before all of their documents were reranked": 1,
        "documents of queries that ran out of their 0.12 seconds were reranked": read,
        "documents of queries that ran out of their 0.12 seconds were not, and follow in their old order": 60 - read,
    }


def test_ten_documents_are_read_whatever_the_time_or_all_where_there_are_less(index, calls):
    found = run(index, "bm25 >> budget('test_budget:Slow(each=0.001)', seconds=1e-6)", "wing", "flow", "lift", "shock")
    assert scored(calls) == {"wing": LEAST, "flow": LEAST, "lift": 1}
    assert {query: len(ranked) for query, ranked in found.items()} == {"wing": 60, "flow": 60, "lift": 1}
    calls.clear()
    run(index, "bm25 >> budget('test_budget:Slow', seconds=1e-6, depth=3)", "wing")
    assert scored(calls) == {"wing": 3}


def test_each_query_has_its_own_time(index, calls):
    with tallies() as told:
        run(index, "bm25 >> budget('test_budget:Slow(each=0.003)', seconds=0.09)", "wing", "flow")
    read = scored(calls)
    assert LEAST <= read["wing"] <= 30
    assert LEAST <= read["flow"] <= 30
    assert told["queries ran out of their 0.09 seconds before all of their documents were reranked"] == 2


def test_loading_the_model_is_not_part_of_a_querys_time(index, calls):
    run(index, "bm25 >> budget('test_budget:Slow(first=1.5)', seconds=1)", "wing")
    assert scored(calls) == {"wing": 60}


def test_nothing_is_loaded_where_nothing_was_found(index, calls):
    assert run(index, "bm25 >> budget('test_budget:Slow')", "unheard") == {}
    assert calls == []


@pytest.mark.parametrize(
    ("fits", "left", "size"),
    [
        (100, 90, 50),  # half of what fits
        (100.9, 40, 40),
        (30, 90, 15),
        (19.5, 90, 10),  # but ten at least
        (10, 90, 10),
        (9.9, 90, 0),  # or none
        (5, 5, 5),
        (4.9, 5, 0),
        (-3, 90, 0),
        (1e300, 90, 90),
        (1e300, 0, 0),
    ],
)
def test_how_many_are_read_at_once(fits, left, size):
    assert part(fits, left) == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'cross-encoder(M)', seconds=0", "budget: seconds must be above 0"),
        ("'cross-encoder(M)', seconds=-1", "budget: seconds must be above 0"),
        ("'cross-encoder(M)', depth=0", "budget: depth must be at least 1"),
        ("'cross-encoder(M, depth=5)'", "depth belongs to the stage that cross-encoder stands in"),
        ("'bert-qe(M)'", "bert-qe orders lists; give a reranker that scores pairs"),
        ("'budget(\\'cross-encoder(M)\\')'", "budget orders lists; give a reranker that scores pairs"),
        ("'cross-encoder(no/such)'", "model 'no/such' was not found"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_searched(index, tmp_path, arguments, message):
    model: Path = cross_encoder(tmp_path)
    with pytest.raises(InputError, match=message):
        index.search("unheard", pipeline=f"bm25 >> budget({arguments.replace('M', str(model))})")


def test_a_bi_encoder_is_no_reranker_here_either(index, tmp_path):
    with pytest.raises(InputError, match="is no cross-encoder"):
        index.search("wing", pipeline=f"bm25 >> budget('cross-encoder({bi_encoder(tmp_path)})')")
