"""Reranking by passages against their scores one by one, and what the papers' aggregations owe each other."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder, seq2seq

from retriever import Document, InputError, Query, Retriever
from retriever.passages import Splitter, Splitting
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.keyb import Keyb, KeybConfig
from retriever.rerankers.long import Long, LongConfig, selected
from retriever.rerankers.nested import pointwise
from retriever.tallies import tallies
from retriever.types import Floats

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertForSequenceClassification

    folder = cross_encoder(tmp_path_factory.mktemp("models") / "small")
    other = BertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        other.classifier.weight *= -1
    other.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def corpus() -> dict[str, Document]:
    pick = random.Random(1)
    made = [
        Document(f"d{i:02d}", " ".join(pick.choices(WORDS, k=1 + 3 * i)) + ".", title="the body" * (i % 2))
        for i in range(20)
    ]
    return {document.id: document for document in made}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Document]) -> Retriever:
    made = Retriever.create(tmp_path_factory.mktemp("long") / "index", views=["bm25"])
    made.add(corpus.values())
    return made


def run(index: Retriever, pipeline: str, query: str = "wing lift") -> dict[str, float]:
    return index.run([Query("q", query)], k=20, pipeline=pipeline).get("q", {})


def each(model: Path, corpus: dict[str, Document], query: str = "wing lift") -> dict[str, Floats]:
    """The scores of every document's passages of ten words, half of them shared."""
    texts = passages(corpus)
    scores = CrossEncoder(CrossEncoderConfig(str(model), precision="float32")).score(
        [(query, passage) for found in texts.values() for passage in found]
    )
    ends = np.cumsum([len(found) for found in texts.values()])
    return dict(zip(texts, np.split(scores, ends[:-1]), strict=True))


def passages(corpus: dict[str, Document]) -> dict[str, list[str]]:
    splitter = Splitter(Splitting(window=10, stride=5))
    return {id: splitter.split_document(document, title=True).texts for id, document in corpus.items()}


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("pool=first", lambda s: s[0]),
        ("pool=max", max),
        ("pool=sum", sum),
        ("pool=mean", np.mean),
        ("pool=top, top=2", lambda s: np.mean(sorted(s)[-2:])),
        (
            "pool=weighted, weights=[1, 0.5]",
            lambda s: sum(a * b for a, b in zip(sorted(s)[::-1], [1, 0.5], strict=False)),
        ),
    ],
)
def test_a_document_is_worth_what_its_passages_are(index, model, corpus, pool, expected):
    found = run(index, f"bm25 >> long('cross-encoder({model}, precision=float32)', window=10, stride=5, {pool})")
    scores = each(model, corpus)
    assert found == pytest.approx({id: float(expected(scores[id])) for id in found}, abs=1e-4)
    assert list(found) == sorted(found, key=lambda id: -found[id])
    assert list(found) != list(run(index, "bm25"))


def test_short_documents_are_worth_the_same_by_any_pool(index, model):
    pools = [
        run(index, f"bm25 >> long('cross-encoder({model}, precision=float32)', depth=20, pool={pool})")
        for pool in ("first", "max", "sum", "mean", "top", "weighted")
    ]
    plain = run(index, f"bm25 >> cross-encoder({model}, depth=20)")
    for made in pools:
        assert made == pytest.approx(plain, abs=1e-5)


def test_the_first_are_reordered_and_the_rest_follows(index, model):
    before = list(run(index, "bm25"))
    after = list(run(index, f"bm25 >> long('cross-encoder({model}, precision=float32)', window=10, depth=5)"))
    assert sorted(after[:5]) == sorted(before[:5])
    assert after[5:] == before[5:]


def test_birch_is_the_search_before_and_the_best_sentences(index, model, corpus):
    before = run(index, "bm25")
    scorer = f"'cross-encoder({model}, precision=float32)'"
    stage = f"bm25 >> long({scorer}, unit=sentences, window=1, pool=weighted, weights=[{{}}], alpha={{}})"
    assert run(index, stage.format("1, 0.3, 0.1", 1)) == before
    best = run(index, f"bm25 >> long({scorer}, unit=sentences, pool=max)")
    mixed = run(index, stage.format("1, 0, 0", 0.25))
    assert mixed == pytest.approx({id: 0.25 * before[id] + 0.75 * best[id] for id in before}, abs=1e-4)


class Counted(CrossEncoder):
    """A cross-encoder that writes down how many pairs each call had."""

    calls: ClassVar[list[list[tuple[str, str]]]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        self.calls.append(list(pairs))
        return super().score(pairs)


@pytest.fixture
def calls() -> list[list[tuple[str, str]]]:
    Counted.calls.clear()
    return Counted.calls


ASKED = {"a": "wing", "b": "drag heat"}


def test_all_passages_of_all_queries_are_scored_in_one_call(index, model, calls, corpus):
    stage = f"long('test_long:Counted({model}, precision=float32)', window=10, stride=5)"
    queries = [Query(id, text) for id, text in ASKED.items()]
    made = index.run([*queries, Query("none", "unheard of")], k=20, pipeline=f"bm25 >> {stage}")
    (pairs,) = calls
    expected = {name: [text for id in made[query] for text in passages(corpus)[id]] for query, name in ASKED.items()}
    assert {name: sorted(texts) for name, texts in expected.items()} == {
        name: sorted(text for query, text in pairs if query == name) for name in expected
    }
    assert "none" not in made


def test_only_the_first_passage_is_read_where_it_alone_counts(index, model, calls):
    found = run(index, f"bm25 >> long('test_long:Counted({model}, precision=float32)', window=10, pool=first)")
    assert list(map(len, calls)) == [len(found)]


def test_a_cascade_that_keeps_all_is_none(index, model, small, calls):
    whole = run(index, f"bm25 >> long('cross-encoder({model}, precision=float32)', window=10, pool=weighted)")
    stage = "bm25 >> long('cross-encoder({})', window=10, pool=weighted, select='test_long:Counted({})', keep={})"
    assert run(index, stage.format(model, small, 30)) == whole
    assert calls == [[]]
    assert run(index, stage.format(model, small, 2)) != whole


def test_a_cascade_reads_the_passages_that_the_selector_finds_best(index, model, small, calls, corpus):
    selector = f"cross-encoder({small}, precision=float32)"
    stage = f"long('test_long:Counted({model}, precision=float32)', window=10, select='{selector}', keep=2)"
    found = run(index, f"bm25 >> {stage}")
    dear, cheap = each(model, corpus), each(small, corpus)
    best = {id: np.argsort(-cheap[id], kind="stable")[:2] for id in found}
    assert found == pytest.approx({id: float(dear[id][best[id]].max()) for id in found}, abs=1e-4)
    assert list(map(len, calls)) == [sum(min(2, len(dear[id])) for id in found)]


def test_selected_passages_keep_their_order_and_none_is_lost_for_scoring_nothing():
    scores = {"a": 0.0, "b": 3.0, "c": 0.0, "d": 5.0, "e": -1.0}
    score = lambda pairs: np.array([scores[text] for _, text in pairs], dtype=np.float32)  # noqa: E731
    lists = [("q", ["a", "b", "c", "d", "e"]), ("q", ["e", "a"]), ("r", ["e", "d", "b"])]
    assert selected(lists, score, 3) == [("q", ["a", "b", "d"]), *lists[1:]]
    assert selected(lists, score, 2) == [("q", ["b", "d"]), lists[1], ("r", ["d", "b"])]


def test_a_title_begins_every_passage_or_the_first(tmp_path, model, calls):
    made = Retriever.create(tmp_path / "index", views=["bm25"])
    made.add([Document("d", "wing lift drag", title="The flow")])
    for title, texts in {
        "true": ["The flow wing lift", "The flow drag"],
        "false": ["The flow", "wing lift", "drag"],
    }.items():
        calls.clear()
        run(made, f"bm25 >> long('test_long:Counted({model}, precision=float32)', window=2, stride=2, title={title})")
        assert calls == [[("wing lift", text) for text in texts]]


def test_pairs_are_scored_too(model):
    reranker = Long(LongConfig(f"cross-encoder({model}, precision=float32)", window=3, stride=3, pool="sum"))
    plain = CrossEncoder(CrossEncoderConfig(str(model), precision="float32")).score(
        [("wing", "a b c"), ("wing", "d"), ("wing", "")]
    )
    scores = reranker.score([("wing", "a b c d"), ("wing", ""), ("wing", "d")])
    np.testing.assert_allclose(scores, [plain[0] + plain[1], plain[2], plain[1]], atol=1e-5)
    assert reranker.score([]).shape == (0,)
    with pytest.raises(InputError, match=r"long mixes in the scores of the search before with alpha=0\.5"):
        Long(LongConfig(f"cross-encoder({model}, precision=float32)", alpha=0.5)).score([("wing", "d")])


def test_passages_of_tokens_are_those_of_the_rerankers_model(model, calls):
    Long(LongConfig(f"test_long:Counted({model}, precision=float32)", unit="tokens", window=2, stride=2)).score(
        [("wing", "body x2 heat")]
    )
    assert calls == [[("wing", "body x"), ("wing", "2 heat")]]


@pytest.mark.parametrize("name", ["mono-t5", "maxsim"])
def test_any_reranker_of_pairs_scores_passages_of_its_own_tokens(tmp_path, name):
    make = {"mono-t5": lambda folder: seq2seq(folder, more=["true", "false"]), "maxsim": bi_encoder}[name]
    inner = f"{name}({make(tmp_path)}, precision=float32)"
    texts = ["heat shock", "wing over the body", "plate"]
    scores = pointwise(inner).score([("wing", text) for text in texts])
    found = Long(LongConfig(inner, unit="tokens", window=4, stride=4)).score([("wing", "wing over the body plate")])
    assert found.tolist() == pytest.approx([max(scores[1:])], abs=1e-5)
    short, long = Keyb(KeybConfig(inner)).shortened([("wing", "plate. " * 40), ("wing", "plate. " * 400 + "wing.")])
    assert short[1] == "plate. " * 40 or name == "maxsim"  # an encoder that reads 32 tokens
    assert long[1].endswith("wing.")
    assert len(long[1].split()) < 400


def test_a_million_words_are_read_up_to_the_cap_and_that_is_said(tmp_path, model, calls):
    made = Retriever.create(tmp_path / "index", views=["bm25"])
    made.add([Document("long", "wing lift " * 500_000), Document("short", "wing"), Document("empty", "", title="lift")])
    with tallies() as told:
        found = run(made, f"bm25 >> long('test_long:Counted({model}, precision=float32)', window=50, cap=4)")
    assert set(found) == {"long", "short", "empty"}
    assert list(map(len, calls)) == [4 + 1 + 1]
    assert told["documents have more than 4 passages, and only 4 of each were read"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'cross-encoder(M)', depth=0", "long: keep and depth must be at least 1"),
        ("'cross-encoder(M)', keep=0", "long: keep and depth must be at least 1"),
        ("'cross-encoder(M)', alpha=2", "long: alpha must be between 0 and 1"),
        ("'cross-encoder(M)', pool=best", "long: pool is one of first, max, sum"),
        ("'cross-encoder(M)', unit=pages", "long: unit is one of words, tokens, sentences"),
        ("'cross-encoder(M)', window=5, stride=6", "long: stride must be from 1 to window"),
        ("'cross-encoder(M)', pool=first, select='cross-encoder(M)'", "long: pool=first reads one passage"),
        ("'cross-encoder(M, depth=5)'", "depth belongs to the stage that cross-encoder stands in"),
        ("'cross-encoder(M) >> cross-encoder(M)'", "this is a pipeline; give one reranker, as in cross-encoder"),
        ("'bm25'", "no reranker is called 'bm25'"),
        ("'bert-qe(M)'", "bert-qe orders lists; give a reranker that scores pairs"),
        ("'cross-encoder(no/such)'", "model 'no/such' was not found"),
        ("'cross-encoder(M)', select='cross-encoder(no/such)'", "model 'no/such' was not found"),
        ("'long(\\'cross-encoder(M)\\')', unit=tokens", "Long names no model whose tokens could be counted"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_searched(index, model, arguments, message):
    with pytest.raises(InputError, match=message):
        index.search("unheard of", pipeline=f"bm25 >> long({arguments.replace('M', str(model))})")


def test_a_bi_encoder_reads_no_passages(index, tmp_path):
    with pytest.raises(InputError, match="is no cross-encoder"):
        index.search("wing", pipeline=f"bm25 >> long('cross-encoder({bi_encoder(tmp_path)})')")
