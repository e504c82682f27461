"""PARADE's aggregators by what they owe each other, and its scores against BERT's own pooled vectors."""

import random
from pathlib import Path

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder, tokenizer

from retriever import Document, InputError, Query, Retriever
from retriever.passages import Splitter, Splitting
from retriever.rerankers import parade
from retriever.rerankers.aggregation import aggregation, padded, shares
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.heads import SETTINGS, WEIGHTS, load_weights, save_head
from retriever.rerankers.parade import AGGREGATORS, Parade, ParadeConfig, ParadeHead
from retriever.tallies import tallies

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model) -> dict[str, Path]:
    """A head folder for each aggregator, with other weights than those that heads begin with."""
    import torch

    made = {}
    for name in AGGREGATORS:
        made[name] = cross_encoder(tmp_path_factory.mktemp("heads") / name)
        torch.manual_seed(3)
        head = ParadeHead(made[name], name)
        with torch.no_grad():
            for parameter in head.module.parameters():
                parameter += 0.3 * torch.randn(parameter.shape)
        save_head(made[name], head)
    return made


@pytest.fixture(scope="module")
def corpus() -> dict[str, Document]:
    pick = random.Random(1)
    made = [
        Document(f"d{i:02d}", " ".join(pick.choices(WORDS, k=1 + 3 * i)), title="the body" * (i % 2)) for i in range(20)
    ]
    return {document.id: document for document in made}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Document]) -> Retriever:
    made = Retriever.create(tmp_path_factory.mktemp("parade") / "index", views=["bm25"])
    made.add(corpus.values())
    return made


def module(name, d=8):
    """An aggregation with random weights."""
    import torch
    from transformers import BertConfig

    torch.manual_seed(5)
    sizes = BertConfig(hidden_size=d, num_attention_heads=2, intermediate_size=16, initializer_range=0.5)
    made = aggregation(name, sizes, torch.nn.Linear(d, 1), torch.randn(d))
    if name == "attention":
        torch.nn.init.normal_(made.query)
    return made.eval()


def documents(d=8):
    """The vectors of documents of 1, 4 and 2 passages."""
    chosen = np.random.default_rng(2)
    return [chosen.normal(size=(count, d)).astype(np.float32) for count in (1, 4, 2)]


def scores(made, given):
    import torch

    with torch.inference_mode():
        return made(given).numpy()


@pytest.mark.parametrize("name", AGGREGATORS)
def test_what_pads_a_document_counts_nowhere(name):
    import torch

    made = module(name)
    states, real = padded(documents())
    with torch.inference_mode():
        expected = made.aggregate(states, real)
        rubbish = torch.cat([states, torch.full((3, 5, 8), 1e4)], dim=1)
        rubbish[:, :4][~real] = -1e4
        longer = torch.cat([real, torch.zeros(3, 5, dtype=torch.bool)], dim=1)
        torch.testing.assert_close(made.aggregate(rubbish, longer), expected, atol=1e-5, rtol=1e-5)
    alone = [scores(made, [each])[0] for each in documents()]
    np.testing.assert_allclose(scores(made, documents()), alone, atol=1e-5)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_the_order_of_passages_changes_nothing_but_their_vectors_do(name):
    made, given = module(name), documents()[1]
    plain = scores(made, [given])
    np.testing.assert_allclose(scores(made, [given[[2, 0, 3, 1]]]), plain, atol=1e-5)
    other = given.copy()
    other[2] += 5 * np.sign(np.arange(8) - 3.5).astype(np.float32)  # above and below the others
    assert abs(scores(made, [other]) - plain) > 1e-3


def test_one_passage_is_its_own_maximum_mean_and_attention():
    import torch

    states, real = padded(documents())
    for name in ("max", "avg", "attention"):
        with torch.inference_mode():
            torch.testing.assert_close(module(name).aggregate(states, real)[0], states[0, 0], atol=0, rtol=0)


def test_attention_is_a_mean_by_shares_that_sum_to_one():
    import torch

    states, real = padded(documents())
    made = module("attention")
    with torch.inference_mode():
        weights = shares(states @ made.query, real)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
        assert (weights[~real] == 0).all()
        assert (weights[real] > 0).all()
        expected = weights[1] @ states[1]
        torch.testing.assert_close(made.aggregate(states, real)[1], expected)


def test_attention_begins_as_the_mean():
    import torch

    made, given = module("attention"), padded(documents())
    with torch.inference_mode():
        made.query.zero_()
        torch.testing.assert_close(made.aggregate(*given), module("avg").aggregate(*given))


def test_two_passages_by_hand():
    """(1, -2) and (3, 0): maximum (3, 0), mean (2, -1); attention (0, 1) has shares e**-2 : 1."""
    import torch

    given = padded([np.array([[1, -2], [3, 0]], dtype=np.float32)])
    expected = {"max": [3.0, 0.0], "avg": [2.0, -1.0], "attention": [2.761594, -0.238406]}
    for name, vector in expected.items():
        made = module(name, d=2)
        with torch.inference_mode():
            if name == "attention":
                made.query.copy_(torch.tensor([0.0, 1.0]))
            assert made.aggregate(*given)[0].tolist() == pytest.approx(vector, abs=1e-6)


def test_the_loss_is_the_pairwise_hinge(model):
    """Scores 2 | 1.5, -1: margins .5 and 3, losses .5 and 0."""
    import torch

    assert ParadeHead(model, "max").loss(torch.tensor([2.0, 1.5, -1.0]), None) == 0.25


def pooled(model, query, texts):
    """BERT's pooled vectors, by transformers alone: float32 [n, d]."""
    import torch
    from transformers import BertForSequenceClassification

    bert = BertForSequenceClassification.from_pretrained(model).eval()
    rows = [
        tokenizer(64)(query, text, truncation="longest_first", max_length=64, return_tensors="pt") for text in texts
    ]
    with torch.inference_mode():
        vectors = torch.cat([bert.bert(**row).pooler_output for row in rows]).numpy()
    return vectors, bert.classifier.weight.detach().numpy(), bert.classifier.bias.detach().numpy()


def passages(document):
    """Windows of ten words: each of WORDS is one token."""
    return Splitter(Splitting("words", 10, 5, cap=4)).split_document(document, title=True).texts


def run(index, stage, query="wing lift"):
    return index.run([Query("q", query)], k=20, pipeline=f"bm25 >> {stage}").get("q", {})


@pytest.mark.parametrize("name", ["max", "avg"])
def test_without_a_head_berts_last_layer_scores_the_joined_vectors(index, model, corpus, name):
    found = run(index, f"parade({model}, {name}, window=10, stride=5, cap=4, precision=float32)")
    join = {"max": np.max, "avg": np.mean}[name]
    for id, score in found.items():
        vectors, weight, bias = pooled(model, "wing lift", passages(corpus[id]))
        assert score == pytest.approx((weight @ join(vectors, axis=0) + bias).item(), abs=1e-4)
    assert len({len(passages(corpus[id])) for id in found}) == 4
    assert list(found) == sorted(found, key=lambda id: -found[id])


@pytest.mark.parametrize("labels", [1, 2])
def test_a_document_of_one_passage_is_worth_what_the_cross_encoder_says(tmp_path, labels):
    folder = str(cross_encoder(tmp_path, labels=labels))
    pairs = [("wing", "heat shock"), ("wing", ""), ("drag", "plate over body")]
    expected = CrossEncoder(CrossEncoderConfig(folder, precision="float32")).logits(pairs)
    for name in ("max", "avg"):
        found = Parade(ParadeConfig(folder, name, precision="float32")).score(pairs)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert Parade(ParadeConfig(folder)).score([]).shape == (0,)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_trained_head_scores_what_it_was_given(trained, name):
    text = " ".join(random.Random(4).choices(WORDS, k=25))
    reranker = Parade(ParadeConfig(str(trained[name]), name, window=10, stride=5, precision="float32"))
    head = ParadeHead(trained[name], name)
    load_weights(trained[name], head.module)
    vectors, _, _ = pooled(trained[name], "wing", passages(Document("", text)))
    found = reranker.score([("wing", "heat"), ("wing", text)])
    assert found[1] == pytest.approx(scores(head.module, [vectors])[0], abs=1e-4)
    assert found[1] != pytest.approx(scores(ParadeHead(trained[name], name).module.eval(), [vectors])[0], abs=1e-3)


def test_the_head_of_a_folder_is_taken_where_nothing_else_is_asked_for(trained, model):
    pairs = [("wing", " ".join(WORDS * 3))]

    def score(folder, name=None):
        config = ParadeConfig(str(folder), name, window=10, stride=10, precision="float32")
        return Parade(config).score(pairs)[0]

    assert score(trained["transformer"]) == score(trained["transformer"], "transformer")
    assert score(trained["avg"]) == score(trained["avg"], "avg") != pytest.approx(score(model, "avg"), abs=1e-3)
    assert score(model) == score(model, "max") == score(trained["avg"], "max")


def test_a_head_folder_is_still_its_cross_encoder(trained, model):
    pairs = [("wing", "heat shock")]
    for folder in trained.values():
        found = CrossEncoder(CrossEncoderConfig(str(folder), precision="float32")).score(pairs)
        assert found == CrossEncoder(CrossEncoderConfig(str(model), precision="float32")).score(pairs)


def test_features_are_the_pooled_vectors_of_passages(model):
    long = " ".join(random.Random(5).choices(WORDS, k=300))
    short, two = ParadeHead(model, "max").features([("wing", "flow"), ("wing", long)])
    assert (short.shape, two.shape, short.dtype) == ((1, 32), (2, 32), np.float16)  # 225 tokens, a new one every 200
    vectors, _, _ = pooled(model, "wing", ["flow"])
    np.testing.assert_allclose(short, vectors, atol=0.05)  # bfloat16


def test_parts_of_the_work_change_no_score(model, monkeypatch):
    pick = random.Random(6)
    pairs = [(query, " ".join(pick.choices(WORDS, k=count))) for count in (3, 60, 8, 30) for query in ("wing", "heat")]
    reranker = Parade(ParadeConfig(str(model), window=10, stride=5, precision="float32"))
    whole = reranker.score(pairs)
    monkeypatch.setattr(parade, "_AT_ONCE", 12)
    np.testing.assert_allclose(reranker.score(pairs), whole, atol=1e-5)
    lists = [("q", ["x"] * count) for count in (3, 3, 3, 3, 13, 1, 5, 6)]
    assert [[len(texts) for _, texts in part] for part in parade._parts(lists)] == [[3, 3, 3, 3], [13], [1, 5], [6]]


def test_the_first_are_reordered_and_the_rest_follows(index, model):
    before = list(index.run([Query("q", "wing lift")], k=20, pipeline="bm25")["q"])
    after = list(run(index, f"parade({model}, window=10, stride=5, depth=5)"))
    assert sorted(after[:5]) == sorted(before[:5])
    assert after[5:] == before[5:]
    assert run(index, f"parade({model})", query="unheard of") == {}


def test_a_title_begins_every_passage_or_the_first(tmp_path, model):
    made = Retriever.create(tmp_path / "index", views=["bm25"])
    made.add([Document("d", "wing lift drag", title="the flow")])
    for title, texts in {
        "true": ["the flow wing lift", "the flow drag"],
        "false": ["the flow", "wing lift", "drag"],
    }.items():
        found = run(made, f"parade({model}, avg, window=2, stride=2, title={title}, precision=float32)")
        vectors, weight, bias = pooled(model, "wing lift", texts)
        assert found["d"] == pytest.approx((weight @ vectors.mean(axis=0) + bias).item(), abs=1e-4)


def test_a_million_words_are_read_up_to_the_cap_and_that_is_said(model):
    reranker = Parade(ParadeConfig(str(model), window=50, stride=50, cap=3))
    with tallies() as told:
        found = reranker.score(
            [("wing lift", "wing lift " * 500_000), ("wing lift", "wing"), ("wing " * 30, "lift " * 40)]
        )
    assert np.isfinite(found).all()
    assert told == {
        "documents have more than 3 passages, and only 3 of each were read": 1,
        f"passages were longer, with the query, than the 64 tokens that {model} reads, and cut": 1,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("M, depth=0", "parade: depth must be at least 1"),
        ("M, cap=0", "parade: window and cap must be at least 1"),
        ("M, window=100", "parade: stride must be from 1 to window"),
        ("M, best", "parade: aggregator is one of max, avg, attention, transformer, not 'best'"),
        ("M, precision=half", "parade: precision must be one of"),
        ("M, attention", "holds no trained head for parade; make one with: retriever train head parade"),
        ("no/such", "model 'no/such' was not found"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_searched(index, model, arguments, message):
    with pytest.raises(InputError, match=message):
        index.search("unheard of", pipeline=f"bm25 >> parade({arguments.replace('M', str(model))})")


def test_a_head_for_something_else(index, trained, tmp_path):
    with pytest.raises(InputError, match="holds a parade head for avg, not for transformer; make one with"):
        index.search("wing", pipeline=f"bm25 >> parade({trained['avg']}, transformer)")
    folder = cross_encoder(tmp_path)
    (folder / SETTINGS).write_text('{"method": "cedr"}')
    with pytest.raises(InputError, match="holds a head for cedr, not for parade"):
        index.search("wing", pipeline=f"bm25 >> parade({folder}, transformer)")
    assert index.search("wing", pipeline=f"bm25 >> parade({folder})")
    (folder / SETTINGS).write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        index.search("wing", pipeline=f"bm25 >> parade({folder})")


def test_damaged_weights(index, tmp_path):
    folder = cross_encoder(tmp_path)
    save_head(folder, ParadeHead(folder, "avg"))
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(InputError, match="cannot be read as this head's weights"):
        index.search("wing", pipeline=f"bm25 >> parade({folder})")


def test_models_of_other_kinds(index, tmp_path):
    from transformers import RobertaConfig, RobertaForSequenceClassification

    with pytest.raises(InputError, match="is no cross-encoder"):
        index.search("wing", pipeline=f"bm25 >> parade({bi_encoder(tmp_path / 'bi')})")
    tiny = RobertaConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=1,
        pad_token_id=0,
    )
    RobertaForSequenceClassification(tiny).save_pretrained(tmp_path / "roberta")
    tokenizer(64).save_pretrained(tmp_path / "roberta")
    with pytest.raises(InputError, match="parade needs a BERT-type sequence classifier, such as MiniLM; this is a rob"):
        index.search("wing", pipeline=f"bm25 >> parade({tmp_path / 'roberta'})")
    with pytest.raises(InputError, match="has 3 outputs; a reranker has one, or two classes"):
        index.search("wing", pipeline=f"bm25 >> parade({cross_encoder(tmp_path / 'three', labels=3)})")
