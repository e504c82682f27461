"""KeyB's blocks against all ways to cut, its choice by hand, and the budget."""

import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import cross_encoder, tokenizer

from retriever import Document, InputError, Query, Retriever
from retriever.passages import word_spans
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.keyb import Blocks, Keyb, KeybConfig, cut, local_bm25
from retriever.tallies import tallies

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


def tokens(text: str) -> Any:
    """Words and marks."""
    return np.array([found.span() for found in re.finditer(r"\w+|[^\w\s]", text)], dtype=np.int64).reshape(-1, 2)


def pieces(text: str, limit: int) -> list[str]:
    spans = tokens(text)
    return [text[spans[start, 0] : spans[stop - 1, 1]] for start, stop in cut(text, spans, limit).tolist()]


def test_blocks_end_where_it_is_cheap():
    assert pieces("a b c d. e f g h", 6) == ["a b c d.", "e f g h"]  # behind a sentence, not a comma or anywhere
    assert pieces("a b, c d. e f g h", 6) == ["a b, c d.", "e f g h"]
    assert pieces("a b c, d e f g h", 6) == ["a b c,", "d e f g h"]
    assert pieces("a b. c\nd e f g", 5) == ["a b. c", "d e f g"]  # a new line costs nothing
    assert pieces("a b c d e f g h", 5) == ["a b c d e", "f g h"]
    assert pieces("a. b. c.", 6) == ["a. b. c."]  # fewer blocks before cheaper ends
    assert pieces("a b 3.14 15", 4) == ["a b", "3.14 15"]  # no end inside a word, and its point ends no sentence


def cost_of_end(text: str, spans: Any, i: int) -> int:
    """What the end behind token i costs, written out."""
    gap = text[spans[i, 1] : spans[i + 1, 0]]
    if "\n" in gap:
        return 0
    mark = text[spans[i, 1] - 1]
    if gap and mark in ".,":
        return {".": 1, ",": 2}[mark]
    return 8 if gap else 16


@given(st.text(alphabet="ab., \n", max_size=60), st.integers(1, 6))
def test_no_way_to_cut_costs_less(text, limit):
    spans = tokens(text)
    count = len(spans)
    ends = [cost_of_end(text, spans, i) for i in range(count - 1)] + [0]

    @cache
    def least(stop: int) -> int:
        if not stop:
            return 0
        return min(least(start) + 4 + ends[stop - 1] for start in range(max(0, stop - limit), stop))

    blocks = cut(text, spans, limit).tolist()
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks)][: len(blocks)]
    assert blocks == [] if not count else blocks[-1][1] == count
    assert all(0 < stop - start <= limit for start, stop in blocks)
    assert sum(4 + ends[stop - 1] for _, stop in blocks) == least(count)


def test_blocks_have_at_most_63_tokens_and_words_stay_whole():
    pick = random.Random(3)
    text = " ".join(pick.choices([*WORDS, "wing.", "lift,"], k=5000))
    blocks = cut(text, tokens(text))
    assert np.diff(blocks).max() <= 63
    assert np.diff(blocks).mean() > 40
    assert cut("x" * 200, np.stack([np.arange(200), np.arange(1, 201)], axis=1)).tolist()[0] == [0, 63]


def test_local_bm25_by_hand():
    blocks = [Counter(wing=2, lift=1), Counter(lift=1), Counter(drag=2)]  # lengths 3, 1, 2; two on average
    rare, common = np.log(1 + 2.5 / 1.5), np.log(1 + 1.5 / 2.5)
    norm = [0.9 * (0.6 + 0.4 * length / 2) for length in (3, 1, 2)]
    wanted = [rare * 2 / (2 + norm[0]) + common / (1 + norm[0]), common / (1 + norm[1]), 0.0]
    assert local_bm25(["wing", "lift", "unseen"], blocks).tolist() == pytest.approx(wanted)
    assert local_bm25(["wing", "wing"], blocks)[0] == pytest.approx(2 * rare * 2 / (2 + norm[0]))
    assert local_bm25([], blocks).tolist() == [0.0, 0.0, 0.0]


LONG = " ".join(
    [
        *["plate body over under flow." for _ in range(20)],
        "the wing has lift.",
        *["shock heat over plate body." for _ in range(20)],
        "drag of a wing.",
        *["flow under a body plate." for _ in range(20)],
    ]
)


def test_the_chosen_blocks_hold_the_querys_words_in_the_texts_order(model, tmp_path):
    counted = tokenizer(512)
    counted.save_pretrained(tmp_path)
    reranker = Keyb(KeybConfig(f"cross-encoder({model}, precision=float32)", budget=150, tokenizer=str(tmp_path)))
    pairs = [(query, LONG) for query in ("drag", "lift", "wing lift")]
    for pair, (query, text) in zip(pairs, reranker.shortened(pairs), strict=True):
        assert query == pair[0]
        assert 150 - 63 < len(counted(query, text)["input_ids"]) <= 150
        assert is_part(text.split(), LONG.split())
        assert all(word in text for word in query.split())
    both = reranker.shortened(pairs)[2][1]
    assert both.index("lift") < both.index("drag")


def test_a_document_that_fits_is_read_as_it_is(model):
    reranker = Keyb(KeybConfig(f"cross-encoder({model}, precision=float32)"))
    pairs = [("wing", "a  wing.\n\nIs   lift, "), ("wing", ""), ("", "wing"), ("lift", "wing " * 60)]
    assert reranker.shortened(pairs) == pairs
    assert reranker.shortened([("lift", "wing " * 61)]) != [("lift", "wing " * 61)]


@given(st.lists(st.sampled_from([*WORDS, "wing.", "lift,", "heat\n"]), max_size=200), st.integers(1, 200))
def test_the_budget_is_kept_and_blocks_stand_in_order(words, room):
    text = " ".join(words)
    spans = word_spans(text)
    if not len(spans):
        return
    blocks = Blocks.of(text, spans, str.split, min(63, room))
    chosen = blocks.chosen(["wing.", "drag"], room)
    read = blocks.read(chosen)
    assert chosen == sorted(set(chosen))
    assert len(read.split()) == blocks.sizes[chosen].sum()
    assert 0 < len(read.split()) <= room
    left = room - blocks.sizes[chosen].sum()
    assert all(blocks.sizes[i] > left for i in set(range(len(blocks.sizes))) - set(chosen))
    assert is_part(read.split(), text.split())
    if room >= len(spans):
        assert read == text.strip()


def is_part(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


def test_blocks_are_as_small_as_the_room(model):
    reranker = Keyb(KeybConfig(f"cross-encoder({model})"))  # it reads 64 tokens: 61 of query and document
    with tallies() as told:
        reranker.score([("drag", LONG), ("lift", LONG), ("wing " * 40, LONG)])
    assert not told
    with tallies() as told:
        CrossEncoder(CrossEncoderConfig(str(model))).score([("drag", LONG)])
    assert told


def test_a_query_longer_than_the_budget_leaves_one_block(model):
    reranker = Keyb(KeybConfig(f"cross-encoder({model}, precision=float32)"))
    ((_, text),) = reranker.shortened([("wing " * 80, LONG)])
    assert 0 < len(text.split()) <= 63


def test_scores_are_those_of_the_chosen_blocks_in_a_pipeline(tmp_path, model):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add([Document("a", LONG), Document("b", "wing drag"), Document("c", LONG[::-1] + " drag")])
    found = index.run(
        [Query("q", "drag")], k=3, pipeline=f"bm25 >> keyb('cross-encoder({model}, precision=float32)', budget=60)"
    )["q"]
    pairs = [("drag", text) for text in (LONG, "wing drag", LONG[::-1] + " drag")]
    plain = CrossEncoder(CrossEncoderConfig(str(model), precision="float32"))
    read = Keyb(KeybConfig(f"cross-encoder({model}, precision=float32)", budget=60)).shortened(pairs)
    assert [found[id] for id in "abc"] == pytest.approx(plain.score(read).tolist(), abs=1e-5)
    assert read[0] != pairs[0]


def test_a_million_words(model):
    reranker = Keyb(KeybConfig(f"cross-encoder({model}, precision=float32)"))
    text = "the body over a plate. " * 100_000 + "the wing. " + "heat of flow under plate, " * 100_000
    ((_, read),) = reranker.shortened([("wing", text)])
    assert "wing" in read
    assert len(read.split()) < 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'cross-encoder(M)', depth=0", "keyb: depth and budget must be at least 1"),
        ("'cross-encoder(M)', budget=0", "keyb: depth and budget must be at least 1"),
        (
            "'cross-encoder(M)', budget=512",
            r"keyb: a budget of 512 tokens, but cross-encoder\(.*\) reads 64; give less",
        ),
        ("'cross-encoder(M)', language=klingon", "keyb: no analyzer for language 'klingon'"),
        ("'cross-encoder(M, depth=5)'", "depth belongs to the stage that cross-encoder stands in"),
        ("'long(\\'cross-encoder(M)\\')'", "Long names no model whose tokens could be counted; give tokenizer=MODEL"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_searched(tmp_path, model, arguments, message):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add([Document("a", "wing")])
    with pytest.raises(InputError, match=message):
        index.search("unheard of", pipeline=f"bm25 >> keyb({arguments.replace('M', str(model))})")
