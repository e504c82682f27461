"""doc2query--: scores once, one threshold for all queries."""

import json
import math
import random
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_expansions
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import cross_encoder

from retriever import Document, InputError
from retriever.expansion.documents import expand
from retriever.expansion.files import expanded
from retriever.expansion.filtering import FilterReport, filter_expansion, kth_largest

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]
TOY, LENGTH = "toy_expansions:Synonyms(n=5)", "toy_expansions:Length"
CORPUS = [Document(f"d{i}", " ".join(random.Random(i).choices(WORDS, k=5))) for i in range(40)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    expand(CORPUS, tmp_path / "all.jsonl", TOY)
    return tmp_path / "all.jsonl"


@pytest.fixture
def log(tmp_path: Path, source, monkeypatch) -> Path:
    monkeypatch.setenv(toy_expansions.LOG, str(tmp_path / "log"))
    (tmp_path / "log").touch()
    return tmp_path / "log"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def distinct(tmp_path: Path) -> tuple[list[Document], Path]:
    """A hundred queries, all of another length: no scores tie."""
    path = tmp_path / "distinct.jsonl"
    queries = ["x" * length for length in random.Random(1).sample(range(1, 200), 100)]
    records = [{"id": document.id, "expansion": queries[i::10]} for i, document in enumerate(CORPUS[:10])]
    path.write_text("".join(json.dumps(record) + "\n" for record in [{"expansion": "distinct"}, *records]))
    return CORPUS[:10], path


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.integers(0))
def test_the_kth_largest_is_the_kth_of_the_sorted_values(values, count):
    count %= len(values) + 1
    expected = sorted(values)[-count] if count else math.inf
    assert kth_largest(array("f", values), count) == expected


def test_minus_infinity_keeps_all_queries_and_infinity_none(source, tmp_path):
    everything = filter_expansion(CORPUS, source, tmp_path / "out", LENGTH, threshold=-math.inf)
    assert (everything.kept, everything.queries) == (200, 200)
    assert expanded(CORPUS, str(tmp_path / "out")) == expanded(CORPUS, str(source))
    nothing = filter_expansion(CORPUS, source, tmp_path / "out", LENGTH, threshold=math.inf)
    assert (nothing.kept, nothing.queries) == (0, 200)
    assert expanded(CORPUS, str(tmp_path / "out")) == expanded(CORPUS, None)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.5, 1.0])
def test_exactly_that_share_of_all_queries_survives_where_no_scores_tie(tmp_path, keep):
    documents, source = distinct(tmp_path)
    report = filter_expansion(documents, source, tmp_path / "out", LENGTH, keep=keep)
    kept = [query for line in lines(tmp_path / "out")[1:] for query in line["expansion"]]
    everything = sorted((query for line in lines(source)[1:] for query in line["expansion"]), key=len)
    assert (report.kept, report.queries) == (round(100 * keep), 100)
    assert sorted(kept, key=len) == everything[100 - report.kept :]


def test_the_share_is_of_the_whole_collection_and_queries_keep_their_order(tmp_path):
    documents, source = distinct(tmp_path)
    filter_expansion(documents, source, tmp_path / "out", LENGTH, keep=0.3)
    counts = [len(line["expansion"]) for line in lines(tmp_path / "out")[1:]]
    assert len(set(counts)) > 2, "a share of each document's would be three everywhere"
    for before, after in zip(lines(source)[1:], lines(tmp_path / "out")[1:], strict=True):
        assert after["expansion"] == [query for query in before["expansion"] if query in after["expansion"]]


def test_what_ties_with_the_last_survives_too(source, tmp_path):
    """Scores are 8 and 9: the lengths of like + wing, lift, ... and like + shock, plate, under."""
    long = sum(len(word) == 5 for document in CORPUS for word in document.text.split())
    assert 0 < long < 200
    report = filter_expansion(CORPUS, source, tmp_path / "out", LENGTH, keep=0.01)
    assert (report.kept, report.threshold) == (long, 9.0)


def test_another_threshold_scores_nothing_again(source, log, tmp_path):
    first = filter_expansion(CORPUS, source, tmp_path / "out", LENGTH, keep=0.3)
    assert (first.scored, first.known) == (40, 0)
    assert len(log.read_text().splitlines()) == 200
    second = filter_expansion(CORPUS, source, tmp_path / "other", LENGTH, threshold=8)
    assert (second.scored, second.known, second.kept) == (0, 40, 200)
    assert len(log.read_text().splitlines()) == 200


def test_an_interrupted_run_scores_the_rest_and_ends_at_the_same_files(source, log, tmp_path):
    whole = tmp_path / "copy.jsonl"
    whole.write_bytes(source.read_bytes())
    filter_expansion(CORPUS, whole, tmp_path / "whole", LENGTH, keep=0.3)
    log.write_text("")

    def interrupted() -> Iterator[Document]:
        yield from CORPUS[:20]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filter_expansion(interrupted(), source, tmp_path / "out", LENGTH, keep=0.3)
    assert not (tmp_path / "out").exists()
    scores = Path(f"{source}.scores")
    scores.write_bytes(scores.read_bytes()[:-20])
    report = filter_expansion(CORPUS, source, tmp_path / "out", LENGTH, keep=0.3)
    assert (report.scored, report.known) == (25, 15)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert scores.read_bytes() == Path(f"{whole}.scores").read_bytes()


def test_the_header_says_what_was_done_and_stays_with_the_threshold(source, tmp_path):
    report = filter_expansion(CORPUS[:39], source, tmp_path / "out", LENGTH, keep=0.3)
    assert report == FilterReport(195, report.kept, 9.0, 39, 0, 1)
    header = lines(tmp_path / "out")[0]
    assert header == {
        **lines(source)[0],
        "filter": LENGTH,
        "filter_model": {"depth": 100, "nan": False},
        "threshold": 9.0,
    }
    assert [line["id"] for line in lines(tmp_path / "out")[1:]] == [document.id for document in CORPUS[:39]]
    assert filter_expansion(CORPUS, source, tmp_path / "out", LENGTH, threshold=9.0).left_out == 0
    assert lines(tmp_path / "out")[0] == header
    with pytest.raises(InputError, match=r"holds document 'd0' with another text .* --threshold 9.0`, with the corpus"):
        expanded([Document("d0", "other")], str(tmp_path / "out"))


def test_scores_are_those_of_the_reranker_for_each_query_with_its_document(tmp_path):
    from sentence_transformers import CrossEncoder

    model = cross_encoder(tmp_path / "model")
    documents, source = [Document(f"d{i}", " ".join(WORDS[i:]), title="the body") for i in range(5)], tmp_path / "all"
    expand(documents, source, "toy_expansions:Synonyms(n=7)")
    filter_expansion(documents, source, tmp_path / "out", f"cross-encoder({model}, precision=float32)", keep=0.3)
    reference = CrossEncoder(str(model), device="cpu")
    for document, made, scored in zip(documents, lines(source)[1:], lines(tmp_path / "all.scores")[1:], strict=True):
        expected = reference.predict([(query, document.contents) for query in made["expansion"]])
        np.testing.assert_allclose(scored["scores"], expected, atol=1e-5)
    header = lines(tmp_path / "all.scores")[0]
    assert header["scores"] == f"cross-encoder({model}, precision=float32)"
    assert len(header["model"]["weights"]) == 64


def test_scores_of_another_reranker_are_not_mixed_in(source, tmp_path):
    filter_expansion(CORPUS, source, tmp_path / "out", LENGTH, keep=0.3)
    with pytest.raises(
        InputError, match=r"all.jsonl.scores: was made by something else: scores 'toy_expansions:Length', now"
    ):
        filter_expansion(CORPUS, source, tmp_path / "out", "toy_expansions:Length(depth=5)", keep=0.3)


@pytest.mark.parametrize(
    "choice", [{}, {"keep": 0.3, "threshold": 1.0}, {"keep": 1.5}, {"keep": -0.1}, {"threshold": math.nan}]
)
def test_one_way_to_choose_must_be_given(source, tmp_path, choice):
    with pytest.raises(InputError, match=r"^give either the share of queries to keep, from 0 to 1, or the least score"):
        filter_expansion(CORPUS, source, tmp_path / "out", LENGTH, **choice)


def test_what_is_wrong_is_said_and_nothing_is_overwritten(source, tmp_path):
    before = source.read_bytes()
    with pytest.raises(InputError, match=r"all.jsonl: holds expansions that no filter made"):
        filter_expansion(CORPUS, source, source, LENGTH, keep=0.3)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "d1", "text": "precious"}\n')
    with pytest.raises(InputError, match=r"corpus.jsonl:1: is no expansion file"):
        filter_expansion(CORPUS, source, corpus, LENGTH, keep=0.3)
    with pytest.raises(InputError, match=r"all.jsonl: holds document 'new' not; bring it in by `retriever expand"):
        filter_expansion([Document("new", "x")], source, tmp_path / "out", LENGTH, keep=0.3)
    with pytest.raises(InputError, match=r"gave a score for document 'd0' that is no finite number"):
        filter_expansion(CORPUS, source, tmp_path / "out", "toy_expansions:Length(nan=true)", keep=0.3)
    with pytest.raises(InputError, match="no reranker is called 'monot5'"):
        filter_expansion(CORPUS, source, tmp_path / "out", "monot5(x)", keep=0.3)
    model = cross_encoder(tmp_path / "model", labels=2)
    with pytest.raises(InputError, match="duo orders lists; give a reranker that scores pairs"):
        filter_expansion(CORPUS, source, tmp_path / "out", f"duo({model})", keep=0.3)
    assert source.read_bytes() == before
    assert not (tmp_path / "out").exists()
