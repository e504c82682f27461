"""The cross-encoder stage against sentence-transformers' own CrossEncoder."""

import random
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import bi_encoder, cross_encoder, tokenizer

from retriever import Document, InputError, Retriever
from retriever.encoders.runtime import has_bfloat16
from retriever.rerankers.classifier import Classifier, classifier
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.first_token import first_token_only
from retriever.rerankers.pairs import tokenize_pairs
from retriever.tallies import tallies

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="module")
def corpus() -> list[Document]:
    pick = random.Random(1)
    return [Document(f"d{i:02d}", " ".join(pick.choices(WORDS, k=3 + i)), title="the body") for i in range(30)]


@pytest.fixture
def index(tmp_path: Path, corpus: list[Document]) -> Retriever:
    made = Retriever.create(tmp_path / "index", views=["bm25"])
    made.add(corpus)
    return made


def stage(folder: Path, precision: str = "float32") -> CrossEncoder:
    return CrossEncoder(CrossEncoderConfig(str(folder), precision=precision))


def predicted(model: Path, query: str, texts: list[str]) -> list[float]:
    from sentence_transformers import CrossEncoder as Reference

    scores: list[float] = Reference(str(model), device="cpu").predict([(query, text) for text in texts]).tolist()
    return scores


def test_scores_are_those_of_sentence_transformers_in_the_order_of_the_pairs(model, corpus):
    texts = [document.text for document in corpus] + ["", "heat " * 200]
    random.Random(2).shuffle(texts)
    scores = CrossEncoder(CrossEncoderConfig(str(model), precision="float32")).score(
        [("shock wing", text) for text in texts]
    )
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, predicted(model, "shock wing", texts), atol=1e-5)
    assert np.ptp(scores) > 0.01
    assert CrossEncoder(CrossEncoderConfig(str(model), precision="float32")).score([]).shape == (0,)


def test_the_first_are_reordered_and_the_rest_follows(index, model, corpus):
    before = index.search("wing", k=20, pipeline="bm25")
    after = index.search("wing", k=20, pipeline=f"bm25 >> cross-encoder({model}, precision=float32, depth=5)")
    texts = {document.id: document.contents for document in corpus}
    head = [hit.id for hit in before[:5]]
    scores = dict(zip(head, predicted(model, "wing", [texts[id] for id in head]), strict=True))
    assert [hit.id for hit in after[:5]] == sorted(head, key=lambda id: -scores[id]) != head
    assert [hit.score for hit in after[:5]] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-5)
    assert [hit.id for hit in after[5:]] == [hit.id for hit in before[5:]]
    assert all(a.score > b.score for a, b in pairwise(after[4:]))


def test_depth_is_how_many_are_read_whatever_k_is(index, model, monkeypatch):
    read: list[int] = []
    score = CrossEncoder.score

    def counted(self: CrossEncoder, pairs: list[tuple[str, str]]) -> object:
        read.append(len(pairs))
        return score(self, pairs)

    monkeypatch.setattr(CrossEncoder, "score", counted)
    stage = f"cross-encoder({model}, precision=float32, depth=7)"
    assert len(index.search("wing", k=3, pipeline=f"bm25 >> {stage}")) == 3
    assert len(index.search("wing", k=9, pipeline=f"bm25 >> {stage}")) == 9
    assert len(index.search("wing", k=9, pipeline=f"bm25(k=4) >> {stage}")) == 4
    assert index.search("unheard of", pipeline=f"bm25 >> {stage}") == []
    assert read == [7, 7, 4, 0]


def test_a_second_reranker_follows_the_first(index, model):
    stage = f"cross-encoder({model}, precision=float32, depth=10)"
    once = index.search("wing", k=20, pipeline=f"bm25 >> {stage}")
    assert index.search("wing", k=20, pipeline=f"bm25 >> {stage} >> {stage}") == once


def test_a_bi_encoder_is_no_reranker(index, tmp_path):
    folder = bi_encoder(tmp_path)
    with pytest.raises(InputError) as caught:
        index.search("wing", pipeline=f"bm25 >> cross-encoder({folder}, precision=float32)")
    assert str(caught.value) == (
        f"{folder}: is no cross-encoder: its files hold no head that scores pairs. Give a model with one or two "
        "outputs, such as cross-encoder/ms-marco-MiniLM-L6-v2; a bi-encoder belongs in a dense view"
    )
    with pytest.raises(InputError, match="is no cross-encoder"):
        CrossEncoder(CrossEncoderConfig(str(tmp_path / "base")))  # the transformer alone


def test_two_outputs_are_monoberts(corpus, tmp_path):
    from sentence_transformers import CrossEncoder as Reference
    from torch.nn import LogSoftmax

    folder = cross_encoder(tmp_path / "two", labels=2)
    pairs = [("shock wing", document.text) for document in corpus]
    expected = Reference(str(folder), device="cpu").predict(pairs, activation_fn=LogSoftmax(dim=-1))[:, 1]
    scores = stage(folder).score(pairs)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert scores.max() <= 0


def test_the_last_layer_for_the_first_token_gives_its_output(model):
    import torch
    from transformers import BertModel

    whole = BertModel.from_pretrained(model).eval()
    ids = torch.arange(5, 45).reshape(2, 20)
    for padding in (0, 6):
        mask = torch.ones_like(ids)
        mask[1, 20 - padding :] = 0
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": (ids > 30).long()}
        with torch.inference_mode():
            expected, short = whole(**given)[0][:, :1], first_token_only(whole)(**given)[0]
        torch.testing.assert_close(short, expected, atol=1e-5, rtol=1e-5)
    assert whole.encoder.layer[-1].attention is not None  # the model itself is as it was


def test_more_outputs_are_no_reranker(index, tmp_path):
    folder = cross_encoder(tmp_path / "three", labels=3)
    with pytest.raises(InputError, match=f"{folder}: has 3 outputs; a reranker has one, or two classes"):
        index.search("wing", pipeline=f"bm25 >> cross-encoder({folder})")


def test_a_model_saved_by_sentence_transformers_is_one(index, model, tmp_path):
    from sentence_transformers import CrossEncoder as Reference

    Reference(str(model), device="cpu").save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    stage = CrossEncoder(CrossEncoderConfig(str(tmp_path / "saved")))
    assert stage.score([("wing", "flow")]).tolist() == pytest.approx(predicted(model, "wing", ["flow"]), abs=1e-5)


def test_what_is_wrong_is_said_before_anything_is_searched(index):
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        index.search("unheard of", pipeline="bm25 >> cross-encoder(no/such)")
    with pytest.raises(
        InputError, match=r"cross-encoder: depth must be at least 1\n  bm25 >> cross-encoder\(x, depth=0\)"
    ):
        index.search("wing", pipeline="bm25 >> cross-encoder(x, depth=0)")
    with pytest.raises(InputError, match=r"cross-encoder: precision must be one of auto, float32\n"):
        index.search("wing", pipeline="bm25 >> cross-encoder(x, precision=float16)")


def test_a_pair_that_is_cut_is_counted_and_scored_as_its_beginning(model):
    long = "heat shock plate body " * 250_000  # a million words
    with tallies() as found:
        scores = stage(model).score([("wing", "flow"), ("wing", long), ("wing", "heat shock plate body " * 20)])
    assert found == {f"pairs were longer than the 64 tokens that {model} reads, and cut": 2}
    assert scores[1] == pytest.approx(scores[2], abs=1e-6)
    assert scores.tolist() == pytest.approx(predicted(model, "wing", ["flow", long[:2000], long[:2000]]), abs=1e-4)


def test_the_command_says_what_was_cut(index, model, capsys, monkeypatch):
    from retriever.cli import main

    index.add([Document("long", "wing " * 300)])
    monkeypatch.setattr("sys.argv", ["retriever", "search", str(index.path), "wing", "--pipeline"])
    sys.argv.append(f"bm25 >> cross-encoder({model}, precision=float32)")
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().err
    assert said == f"1 of the pairs was longer than the 64 tokens that {model} reads, and cut\n"


def test_a_model_with_a_prompt_is_run_by_sentence_transformers_itself(model, tmp_path):
    from sentence_transformers import CrossEncoder as Reference

    prompted = Reference(str(model), device="cpu", prompts={"query": "not heat : "}, default_prompt_name="query")
    prompted.save_pretrained(str(tmp_path / "prompted"), create_model_card=False)
    pairs = [("wing", "flow"), ("shock wing", "the body of the plate")]
    scores = stage(tmp_path / "prompted").score(pairs)
    np.testing.assert_allclose(scores, prompted.predict(pairs), atol=1e-5)
    assert not np.allclose(scores, stage(model).score(pairs), atol=1e-3)


def test_neither_batch_nor_padding_changes_a_score(model, corpus):
    pairs = [(query, document.text) for query in ("wing", "shock over body", "") for document in corpus]
    together = stage(model).score(pairs)
    alone = np.concatenate([stage(model).score([pair]) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=1e-6)


FAMILIES = {
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification"),
    "electra": ("ElectraConfig", "ElectraForSequenceClassification"),
    "distilbert": ("DistilBertConfig", "DistilBertForSequenceClassification"),
    "modernbert": ("ModernBertConfig", "ModernBertForSequenceClassification"),
    "gpt2": ("GPT2Config", "GPT2ForSequenceClassification"),  # takes the last token, so it runs whole
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_as_sentence_transformers_does(family, corpus, tmp_path):
    import torch
    import transformers

    config, kind = (getattr(transformers, name) for name in FAMILIES[family])
    common = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    tiny = config(**common, intermediate_size=64, num_labels=1, pad_token_id=0, initializer_range=0.5)
    torch.manual_seed(7)
    kind(tiny).save_pretrained(tmp_path)
    tokenizer(64).save_pretrained(tmp_path)
    texts = [document.text for document in corpus]
    scores = stage(tmp_path).score([("shock wing", text) for text in texts])
    np.testing.assert_allclose(scores, predicted(tmp_path, "shock wing", texts), atol=1e-4)
    assert np.ptp(scores) > 0.001
    split = kind.from_pretrained(tmp_path).eval().base_model
    assert (first_token_only(split) is not None) == (family in ("roberta", "electra"))


def test_a_model_is_loaded_once_and_again_when_it_was_trained_anew(index, tmp_path):
    folder = cross_encoder(tmp_path / "model")
    pipeline = f"bm25 >> cross-encoder({folder}, precision=float32)"
    first = index.search("wing", pipeline=pipeline)
    loaded = classifier(folder, "float32")
    assert index.search("wing", pipeline=pipeline) == first
    assert classifier(folder, "float32") is loaded
    cross_encoder(folder, hidden_act="relu")
    assert classifier(folder, "float32") is not loaded
    assert index.search("wing", pipeline=pipeline) != first


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="needs bfloat16 in hardware")
@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_keeps_the_order(compiled, model, monkeypatch):
    import torch
    from scipy.stats import kendalltau

    if compiled:
        pytest.importorskip("openvino")
        monkeypatch.setattr("retriever.encoders.runtime.COMPILE", 1)
    else:
        monkeypatch.setitem(sys.modules, "openvino", None)
        monkeypatch.setattr("retriever.encoders.runtime.find_spec", lambda _: None)
    pick = random.Random(3)
    pairs = [("shock wing", " ".join(pick.choices(WORDS, k=pick.randint(1, 40)))) for _ in range(200)]
    fast = Classifier(model, "auto")
    logits = fast.logits(pairs).values[:, 0]
    assert ("openvino" if compiled else "torch bfloat16") in fast.runtime(1).name
    expected = stage(model).logits(pairs)
    assert kendalltau(logits, expected).statistic > 0.95  # weights at random differ far more from each other than bits
    assert len(np.unique(logits)) > 190  # in 8 bits many would be alike: the head is in float32
    *lower, last = fast._runtimes.transformer.encoder.layer
    assert next(last.parameters()).dtype == torch.float32
    assert compiled or next(lower[0].parameters()).dtype == torch.bfloat16


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=5), st.integers(4, 40))
def test_pairs_are_tokenised_as_the_tokenizer_would(lengths, most):
    words = tokenizer(64)
    pairs = [(" ".join(WORDS[:10] * 3)[: 5 * a], " ".join(WORDS[::-1] * 3)[: 5 * b]) for a, b in lengths]
    made = tokenize_pairs(words, pairs, most)
    expected = words(pairs, truncation="longest_first", max_length=most)
    assert made.ids == expected["input_ids"]
    assert made.types == expected["token_type_ids"]
    whole = [len(ids) for ids in words(pairs, verbose=False)["input_ids"]]
    assert made.cut.tolist() == [length > most for length in whole]
    assert tokenize_pairs(words, pairs, None).ids == words(pairs, verbose=False)["input_ids"]


def test_a_tokenizer_that_cuts_beginnings_is_left_to_itself():
    words = tokenizer(64)
    words.truncation_side = "left"
    pairs = [("wing", "lift drag flow " * 30), ("wing", "lift")]
    made = tokenize_pairs(words, pairs, 20)
    assert made.ids == words(pairs, truncation="longest_first", max_length=20)["input_ids"]
    assert made.cut.tolist() == [True, False]
