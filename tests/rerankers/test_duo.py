"""duoBERT and duoT5: the sums by hand, and probabilities from transformers' own forward pass."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_mono_t5 import ANSWERS, forward
from tiny_models import WORDS, bi_encoder, cross_encoder, seq2seq

from retriever import Document, InputError, Query, Retriever
from retriever.rerankers.duo import Duo, DuoConfig, aggregate
from retriever.tallies import tallies

TEXTS = ["the wing is over the body", "drag of flow", "", "heat shock plate body lift"]


def test_the_worked_example():
    # p[i, j]: 0 beats 1 with .9 and 2 with .6, 1 beats 0 with .2 and 2 with .3, 2 beats 0 with .5 and 1 with .8
    p = np.array([0.9, 0.6, 0.2, 0.3, 0.5, 0.8])
    assert list(permutations(range(3), 2)) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert aggregate(p, 3, "sum") == pytest.approx([1.5, 0.5, 1.3])
    # and what the others lose: 1 - .2 + 1 - .5, 1 - .9 + 1 - .8, 1 - .6 + 1 - .3
    assert aggregate(p, 3, "sym-sum") == pytest.approx([1.5 + 1.3, 0.5 + 0.3, 1.3 + 1.1])
    assert aggregate(p, 3, "binary") == pytest.approx([2, 0, 1])  # .5 is no win
    assert aggregate(np.zeros(0), 1, "sym-sum").tolist() == [0.0]
    assert aggregate(p, 3, "sum").dtype == np.float32


def test_a_model_that_agrees_with_itself_gives_both_sums_one_order():
    strength = np.array([0.3, 2.0, -1.0, 0.9])
    p = np.array([1 / (1 + np.exp(strength[j] - strength[i])) for i, j in permutations(range(4), 2)])
    assert aggregate(p, 4, "sym-sum") == pytest.approx(2 * aggregate(p, 4, "sum"))
    assert np.argsort(aggregate(p, 4, "sum")).tolist() == np.argsort(strength).tolist()


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seq2seq(tmp_path_factory.mktemp("models") / "t5", more=[*ANSWERS, "Document0", "Document1"])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "bert", labels=2, type_vocab_size=3)


def stage(model: Path, **settings: Any) -> Duo:
    return Duo(DuoConfig(str(model), precision="float32", **settings))


def triples(query: str = "shock wing") -> list[tuple[str, str, str]]:
    return [(query, left, right) for left, right in permutations(TEXTS, 2)]


def test_duot5_says_how_likely_true_is(t5):
    prompts = [f"Query: {query} Document0: {i} Document1: {j} Relevant:" for query, i, j in triples()]
    expected = np.exp([forward(t5, prompt) for prompt in prompts])
    assert stage(t5).probabilities(triples()) == pytest.approx(expected, abs=1e-4)


def by_hand(model: Path, query: str, left: str, right: str, types: int) -> float:
    """duoBERT's probability, with transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    words: Any = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    parts = [words(text, add_special_tokens=False)["input_ids"] + [words.sep_token_id] for text in (left, right)]
    start = [words.cls_token_id, *words(query, add_special_tokens=False)["input_ids"], words.sep_token_id]
    ids = torch.tensor([[*start, *parts[0], *parts[1]]])
    kinds = torch.tensor([[0] * len(start) + [1] * len(parts[0]) + [types - 1] * len(parts[1])])
    with torch.inference_mode():
        logits = network(input_ids=ids, token_type_ids=kinds).logits[0]
    return float(torch.softmax(logits, dim=0)[1] if len(logits) == 2 else torch.sigmoid(logits)[0])


@pytest.mark.parametrize(("labels", "types"), [(2, 3), (2, 2), (1, 3)])
def test_duobert_reads_three_parts(labels, types, tmp_path):
    model = cross_encoder(tmp_path, labels=labels, type_vocab_size=types)
    expected = [by_hand(model, *triple, types) for triple in triples()]
    assert stage(model).probabilities(triples()) == pytest.approx(expected, abs=1e-4)
    assert np.ptp(expected) > 0.01


def test_each_document_has_half_of_the_room(bert):
    long, short = " ".join(WORDS[12:] * 50_000), "drag of flow"
    with tallies() as found:
        given = stage(bert).probabilities([("wing", long, short), ("wing", short, long), ("wing", short, "lift")])
    assert found == {f"comparisons were longer than {bert} reads, and cut": 2}
    kept = " ".join((WORDS[12:] * 5)[: (64 - 3) // 2 - 1])
    assert given[0] == pytest.approx(by_hand(bert, "wing", kept, short, 3), abs=1e-4)
    assert given[1] == pytest.approx(by_hand(bert, "wing", short, kept, 3), abs=1e-4)


def test_a_long_comparison_of_duot5_keeps_its_question(t5):
    words = WORDS[12:] * 300
    with tallies() as found:
        (given,) = stage(t5).probabilities([("wing", " ".join(words), "flow " * 900)])
    assert list(found.values()) == [1]
    from transformers import AutoTokenizer

    fixed = len(AutoTokenizer.from_pretrained(t5)("Query: wing Document0: Document1: Relevant:")["input_ids"])
    half = (512 - fixed) // 2
    prompt = f"Query: wing Document0: {' '.join(words[:half])} Document1: {'flow ' * half}Relevant:"
    assert given == pytest.approx(np.exp(forward(t5, prompt)), abs=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_in_a_pipeline(kind, tmp_path, request):
    model = request.getfixturevalue(kind)
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add(Document(f"d{i}", " ".join(["wing", *WORDS[12 + i :]])) for i in range(8))
    before = index.search("wing", k=8, pipeline="bm25")
    pipeline = f"bm25 >> duo({model}, depth=4, precision=float32)"
    after = index.search("wing", k=8, pipeline=pipeline)
    chances = stage(model).probabilities([("wing", a.text, b.text) for a, b in permutations(before[:4], 2)])
    expected = dict(zip([hit.id for hit in before[:4]], aggregate(chances, 4, "sym-sum").tolist(), strict=True))
    assert {hit.id: hit.score for hit in after[:4]} == pytest.approx(expected, abs=1e-5)
    assert [hit.id for hit in after[4:]] == [hit.id for hit in before[4:]]
    many = index.run([Query("a", "wing"), Query("none", "???"), Query("b", "heat")], k=8, pipeline=pipeline)
    assert many["a"] == pytest.approx({hit.id: hit.score for hit in after}, abs=1e-5)
    assert many.keys() == {"a", "b"}


def test_what_cannot_be_compared(tmp_path):
    with pytest.raises(InputError, match="has 3 outputs; duoBERT has two, or one"):
        stage(cross_encoder(tmp_path / "three", labels=3)).probabilities(triples())
    with pytest.raises(InputError, match="knows no token types; duoBERT tells query and documents apart by them"):
        stage(cross_encoder(tmp_path / "one", type_vocab_size=1)).probabilities(triples())
    with pytest.raises(InputError, match=r"is no cross-encoder: .* a bi-encoder belongs in a dense view"):
        stage(bi_encoder(tmp_path / "bi"))
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        stage(Path("no/such"))
    with pytest.raises(ValueError, match="depth must be at least 2: documents are compared with each other"):
        DuoConfig("m", depth=0)
    with pytest.raises(ValueError, match="aggregation must be one of sym-sum, sum, binary"):
        DuoConfig("m", aggregation="max")
    with pytest.raises(ValueError, match="precision must be one of auto, float32"):
        DuoConfig("m", precision="half")
