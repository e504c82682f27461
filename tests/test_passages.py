"""Splitting into passages, by worked examples and properties, and their scores as one."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import masked_lm

from retriever import Document, InputError
from retriever.encoders.token_spans import TokenSpans
from retriever.passages import POOLS, Pooling, Splitter, Splitting, kept, sentence_spans, windows


def numbers(count: int) -> str:
    return " ".join(map(str, range(count)))


def test_windows_end_with_the_first_that_reaches_the_end():
    assert windows(300, 150, 75).tolist() == [[0, 150], [75, 225], [150, 300]]  # Dai and Callan's loop: also (225, 300)
    assert windows(100, 150, 75).tolist() == [[0, 100]]  # ... and (75, 100)
    assert windows(301, 150, 75).tolist()[-1] == [225, 301]
    assert windows(5, 1, 1).tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 60))
def test_windows_leave_nothing_out_and_none_lies_in_another(count, size, stride):
    step = min(size, stride)
    found = windows(count, size, step).tolist()
    assert set().union(*(range(*window) for window in found)) == set(range(count))
    assert all(stop - start == size for start, stop in found[:-1])
    assert [start for start, _ in found] == list(range(0, len(found) * step, step))
    stops = [stop for _, stop in found]
    assert stops == sorted(set(stops))


def test_passages_are_pieces_of_the_text_as_it_stands():
    text = "  a b\n\nc  d\te f g "
    assert Splitter(Splitting(window=4, stride=2)).split(text).texts == ["a b\n\nc  d", "c  d\te f", "e f g"]
    assert Splitter(Splitting(window=3)).split("a b c d e").texts == ["a b c", "c d e"]  # a stride of half, rounded up
    assert Splitter(Splitting()).split(" \n ") == ([""], 1)


def test_a_title_stands_before_every_passage_or_once():
    splitter, document = Splitter(Splitting(window=2, stride=2)), Document("d", "a b c", title="T")
    assert splitter.split_document(document, title=True).texts == ["T a b", "T c"]
    assert splitter.split_document(document, title=False).texts == ["T a", "b c"]
    assert splitter.split_document(Document("d", "", title="T"), title=True).texts == ["T"]
    assert splitter.split_document(Document("d", "a b c"), title=True).texts == ["a b", "c"]


def test_the_cap_keeps_first_and_last_and_some_between():
    text = numbers(100)
    even, total = Splitter(Splitting(window=1, cap=5)).split(text)
    assert (even, total) == (["0", "25", "50", "74", "99"], 100)
    drawn = Splitter(Splitting(window=1, cap=30, middle="random", seed=3)).split(text).texts
    assert drawn == Splitter(Splitting(window=1, cap=30, middle="random", seed=3)).split(text).texts
    assert drawn != Splitter(Splitting(window=1, cap=30, middle="random", seed=4)).split(text).texts
    assert len(set(drawn)) == 30
    assert sorted(map(int, drawn)) == list(map(int, drawn))
    assert (drawn[0], drawn[-1]) == ("0", "99")
    assert Splitter(Splitting(window=1, cap=1)).split(text).texts == ["0"]
    assert Splitter(Splitting(window=1, cap=2, middle="random")).split(text).texts == ["0", "99"]


@given(st.integers(1, 400), st.integers(1, 50), st.sampled_from(["even", "random"]))
def test_so_many_are_kept_as_the_cap_says(count, cap, middle):
    chosen = kept(count, Splitting(cap=cap, middle=middle)).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, cap)
    assert chosen[0] == 0
    assert chosen[-1] == (count - 1 if cap > 1 else 0)


SENTENCES = [
    "Dr. Smith met J. Doe of the U.S. Navy in 1999.",
    'He said: "No!"',
    "Then, e.g. in Fig. 3, it was 3.5 m … and no more.",
    "(Was it?)",
    "yes it was!",
    "你好。",
    "再见。",
    "A line of its own",
    "The end",
]


def test_sentences_by_rule():
    text = " ".join(SENTENCES[:4]) + "\n\n" + SENTENCES[4] + " " + "".join(SENTENCES[5:7]) + "\n\n"
    text += SENTENCES[7] + "\n \n" + SENTENCES[8]
    assert [text[start:stop] for start, stop in sentence_spans(text)] == SENTENCES
    assert Splitter(Splitting("sentences", window=2)).split("One. Two. Three.").texts == ["One. Two.", "Two. Three."]


def test_what_has_no_end_is_cut_at_a_hundred_words():
    assert [len(part.split()) for part in Splitter(Splitting("sentences")).split(numbers(250)).texts] == [100, 100, 50]


@given(st.text(alphabet="aB. !?\n。\")'", max_size=80))
def test_sentences_hold_all_that_is_no_white_space(text):
    spans = sentence_spans(text).tolist()
    assert "".join("".join(text[start:stop].split()) for start, stop in spans) == "".join(text.split())
    assert all(start < stop for start, stop in spans)
    assert [place for span in spans for place in span] == sorted(place for span in spans for place in span)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenSpans:
    return TokenSpans(str(masked_lm(tmp_path_factory.mktemp("models") / "bert")))


def test_tokens_are_those_of_the_tokenizer_however_long_the_text(tokens):
    once = "The wing, lifted!  "
    pieces = ["The", "wing", ",", "lift", "e", "d", "!"]
    assert [once[start:stop] for start, stop in tokens(once).tolist()] == pieces
    spans = tokens(once * 12_000)  # in more than one piece, and longer than the model reads
    again = tokens(once) + len(once) * np.arange(12_000)[:, None, None]
    np.testing.assert_array_equal(spans, again.reshape(-1, 2))
    assert tokens("").shape == (0, 2)
    assert tokens.limit == 64


def test_passages_of_tokens(tokens):
    splitter = Splitter(Splitting("tokens", window=4, stride=3), tokens)
    assert splitter.split("The wing, lifted the body!").texts == ["The wing, lift", "lifted the", "the body!"]
    with pytest.raises(ValueError, match="passages of tokens need a tokenizer"):
        Splitter(Splitting("tokens"))


def test_a_folder_without_a_tokenizer_has_no_tokens(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: has no tokenizer that can be loaded"):
        TokenSpans(str(tmp_path))("wing")


@pytest.mark.parametrize("unit", ["words", "sentences"])
def test_a_million_words_are_as_many_passages_as_the_cap(unit):
    passages = Splitter(Splitting(unit)).split("Wing lift drag. " * 333_334)
    assert len(passages.texts) == 30
    assert passages.total == {"words": 13_333, "sentences": 333_334}[unit]
    assert sum(map(len, passages.texts)) < 30_000


@pytest.mark.parametrize("text", [". " * 200_000, "." * 1_000_000, "\n" * 200_000, ".)" * 200_000, ". (" * 100_000])
def test_no_text_takes_the_sentence_rule_long(text):
    assert Splitter(Splitting("sentences", cap=3)).split(text).total in (1, 100_001, 200_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "pages"}, "unit is one of words, tokens, sentences, not 'pages'"),
        ({"middle": "best"}, "middle is even or random, not 'best'"),
        ({"window": 0}, "window and cap must be at least 1, seed at least 0"),
        ({"cap": 0}, "window and cap must be at least 1, seed at least 0"),
        ({"seed": -1}, "window and cap must be at least 1, seed at least 0"),
        ({"window": 10, "stride": 11}, r"stride must be from 1 to window \(10\), or text would be left out"),
        ({"stride": 0}, r"stride must be from 1 to window \(150\)"),
    ],
)
def test_splittings_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Splitting(**options)


def pooled(pool: str, *documents: list[float], **more: object) -> list[float]:
    scores = np.array([score for document in documents for score in document], dtype=np.float32)
    counts = np.array(list(map(len, documents)), dtype=np.int64)
    result: list[float] = Pooling(pool, **more).scores(scores, counts).tolist()  # type: ignore[arg-type]
    return result


def test_pools_by_hand():
    documents = [1.0, -2.0, 4.0, 0.5], [3.0], [-1.0, -0.5]
    assert pooled("first", *documents) == [1.0, 3.0, -1.0]
    assert pooled("max", *documents) == [4.0, 3.0, -0.5]
    assert pooled("sum", *documents) == [3.5, 3.0, -1.5]
    assert pooled("mean", *documents) == [0.875, 3.0, -0.75]
    assert pooled("top", *documents, top=2) == [2.5, 3.0, -0.75]
    assert pooled("weighted", *documents, weights=(1.0, 0.5, 0.25)) == [4.625, 3.0, -1.0]
    assert pooled("max") == []


SCORES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12)


@given(SCORES, st.integers(1, 5), st.randoms(use_true_random=False))
def test_what_holds_of_all_scores(scores, top, rng):
    shuffled = random.Random(rng.random()).sample(scores, len(scores))
    assert pooled("max", scores)[0] >= pooled("first", scores)[0]
    assert pooled("sum", scores)[0] == pytest.approx(sum(scores), abs=1e-3)
    assert pooled("weighted", scores, weights=(1.0, 0.0, 0.0)) == pooled("max", scores) == pooled("top", scores, top=1)
    for pool in set(POOLS) - {"first"}:
        assert pooled(pool, shuffled, top=top) == pooled(pool, scores, top=top)
        assert pooled(pool, [1.0], scores, [2.0, 3.0], top=top)[1] == pooled(pool, scores, top=top)[0]
    assert {pooled(pool, scores[:1], top=top)[0] for pool in POOLS} == {float(np.float32(scores[0]))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "best"}, "pool is one of first, max, sum, mean, top, weighted, not 'best'"),
        ({"top": 0}, "top must be at least 1"),
        ({"weights": ()}, "weights at least one number"),
    ],
)
def test_poolings_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Pooling(**options)
