"""PreTTR against the ordinary cross-encoder, and against the whole model with its attention masked."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import bi_encoder, cross_encoder, tokenizer

from retriever import Document, InputError, Retriever
from retriever.errors import IndexMismatchError
from retriever.rerankers import prettr
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.prettr import PreTtr, PreTtrConfig
from retriever.rerankers.state_store import INDEX, STATES
from retriever.tallies import tallies

WORDS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body", "over", "under"]
LAYERS, READS = 4, 64
QUERIES = ["shock wing", "lift over the plate", "", "drag"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder", num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    pick = random.Random(1)
    return [" ".join(pick.choices(WORDS, k=3 * i)) for i in range(12)] + ["heat " * 200]


def stage(model: Path, join: int = 2, query_length: int = 12, **more: Any) -> PreTtr:
    return PreTtr(PreTtrConfig(str(model), join, query_length=query_length, **{"precision": "float32", **more}))


def all_pairs(texts: list[str]) -> list[tuple[str, str]]:
    return [(query, text) for query in QUERIES for text in texts]


def masked(model: Path, query: str, text: str, join: int, query_length: int) -> float:
    """The logit of transformers' own layers, of which the first `join` see query and document apart."""
    import torch
    from transformers import BertForSequenceClassification

    network, words = BertForSequenceClassification.from_pretrained(model).eval(), tokenizer(READS)
    split = [words(each, add_special_tokens=False, verbose=False)["input_ids"] for each in (query, text)]
    first = [words.cls_token_id, *split[0][: query_length - 2], words.sep_token_id]
    second = [*split[1][: READS - query_length - 1], words.sep_token_id]
    types = torch.tensor([[0] * len(first) + [1] * len(second)])
    places = torch.tensor([[*range(len(first)), *range(query_length, query_length + len(second))]])
    apart = (types[0, :, None] == types[0])[None, None]  # [1, 1, tokens, tokens]
    with torch.inference_mode():
        hidden = network.bert.embeddings(torch.tensor([first + second]), types, places)
        for number, layer in enumerate(network.bert.encoder.layer):
            hidden = layer(hidden, apart if number < join else None)
        return float(network.classifier(network.bert.pooler(hidden)))


def test_without_a_split_it_is_the_cross_encoder_for_queries_of_the_fixed_length(model, texts):
    pairs = [("shock wing", text) for text in texts]  # [CLS] shock wing [SEP]: four tokens
    given = stage(model, join=0, query_length=4)
    ordinary = CrossEncoder(CrossEncoderConfig(str(model), precision="float32"))
    np.testing.assert_allclose(given.logits(pairs), ordinary.logits(pairs), atol=1e-5)
    np.testing.assert_allclose(given.score(pairs), ordinary.score(pairs), atol=1e-5)
    assert np.ptp(given.score(pairs)) > 0.01


def test_two_outputs_are_scored_as_the_cross_encoder_does(texts, tmp_path):
    folder = cross_encoder(tmp_path / "two", labels=2)
    pairs = [("shock wing", text) for text in texts]
    expected = CrossEncoder(CrossEncoderConfig(str(folder), precision="float32")).score(pairs)
    np.testing.assert_allclose(stage(folder, join=0, query_length=4).score(pairs), expected, atol=1e-5)


def test_a_shorter_query_leaves_a_gap_in_the_positions_and_nothing_else(model):
    import torch
    from transformers import BertForSequenceClassification

    encoded = tokenizer(READS)([("shock wing", "the body of the plate")], return_tensors="pt")
    places = torch.tensor([[0, 1, 2, 3, *range(12, 18)]])
    with torch.inference_mode():
        network = BertForSequenceClassification.from_pretrained(model).eval()
        expected = network(**encoded, position_ids=places).logits[0, 0].item()
        without = network(**encoded).logits[0, 0].item()
    given = stage(model, join=0).logits([("shock wing", "the body of the plate")])
    assert given.tolist() == pytest.approx([expected], abs=1e-5)
    assert abs(expected - without) > 1e-3


@pytest.mark.parametrize("join", [0, 1, 2, 3])
def test_scores_are_those_of_the_model_with_its_attention_masked(model, texts, join):
    pairs = all_pairs(texts)
    expected = [masked(model, *pair, join, 12) for pair in pairs]
    np.testing.assert_allclose(stage(model, join).logits(pairs), expected, atol=1e-4)  # random weights magnify
    assert np.ptp(expected) > 0.1


def test_stored_states_give_the_scores_of_the_model_to_the_precision_of_float16(model, texts, tmp_path):
    pairs = all_pairs(texts)
    first = stage(model, states=str(tmp_path / "states")).logits(pairs)
    again = stage(model, states=str(tmp_path / "states")).logits(pairs)
    np.testing.assert_array_equal(first, again)  # what is kept is what the first call used
    np.testing.assert_allclose(first, stage(model).logits(pairs), atol=0.02)
    assert not np.array_equal(first, stage(model).logits(pairs))


def test_states_do_not_depend_on_the_query(model, texts, tmp_path):
    folder = tmp_path / "states"
    stage(model, states=str(folder)).score([("shock wing", text) for text in texts])
    kept = (folder / STATES).read_bytes(), (folder / INDEX).read_bytes()
    stage(model, states=str(folder)).score([("lift over the plate", text) for text in texts])
    assert ((folder / STATES).read_bytes(), (folder / INDEX).read_bytes()) == kept
    tokens = sum(min(len(text.split()), READS - 12 - 1) + 1 for text in set(texts))
    assert len(kept[0]) == tokens * 32 * 2  # float16, 32 numbers a token
    store = stage(model, states=str(folder)).store
    assert store is not None
    assert store.size == len(kept[0]) + len(kept[1])


def test_documents_have_their_positions_behind_the_fixed_length(model):
    pair = [("drag", "the body of the plate")]
    scores = {length: stage(model, query_length=length).logits(pair)[0] for length in (8, 12)}
    assert scores[8] == pytest.approx(masked(model, *pair[0], 2, 8), abs=1e-4)
    assert abs(scores[8] - scores[12]) > 1e-3


def test_neither_batch_nor_order_nor_repetition_changes_a_score(model, texts, monkeypatch):
    pairs = all_pairs(texts)
    together = stage(model).logits(pairs)
    alone = np.concatenate([stage(model).logits([pair]) for pair in pairs[:20]])
    np.testing.assert_allclose(together[:20], alone, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(pairs))
    shuffled = stage(model).logits([pairs[i] for i in order] * 2)
    np.testing.assert_allclose(shuffled, np.tile(together[order], 2), atol=1e-5)
    monkeypatch.setattr(prettr, "_TOKENS", 100)  # a few documents at a time
    np.testing.assert_allclose(stage(model).logits(pairs), together, atol=1e-5)
    assert stage(model).score([]).shape == (0,)


def test_what_is_cut_is_counted(model, tmp_path):
    long = "heat shock plate body " * 250_000  # a million words
    pairs = [("wing", "flow"), ("wing", long), ("drag", long), ("heat " * 30, "flow")]
    for _ in range(2):  # made, and then found
        with tallies() as found:
            scores = stage(model, states=str(tmp_path / "states")).logits(pairs)
        assert found == {
            "queries were longer than the 12 tokens that prettr keeps for them, and cut": 1,
            f"documents were longer than the 52 tokens that {model} reads of them, and cut": 1,
        }
        assert scores[1] == pytest.approx(masked(model, "wing", "heat shock plate body " * 20, 2, 12), abs=0.02)
        assert scores[3] == pytest.approx(masked(model, "heat " * 30, "flow", 2, 12), abs=0.02)


def test_an_updated_document_never_has_an_old_score(model, tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add(Document(f"d{i}", " ".join(["wing", *WORDS[i:]])) for i in range(6))
    pipeline = f"bm25 >> prettr({model}, join=2, query_length=12, precision=float32, states={tmp_path / 'states'})"
    before = {hit.id: hit.score for hit in index.search("wing", pipeline=pipeline)}
    index.add([Document("d1", "wing heat heat heat")])
    index.delete(["d2"])
    after = {hit.id: hit.score for hit in index.search("wing", pipeline=pipeline)}
    assert after.keys() == before.keys() - {"d2"}
    fresh = stage(model, states=str(tmp_path / "fresh")).score([("wing", "wing heat heat heat")])
    assert after.pop("d1") == pytest.approx(fresh[0], abs=1e-5)
    assert after == {id: pytest.approx(before[id], abs=1e-5) for id in after}


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"join": 1}, "join 2, now it is 1"), ({"query_length": 8}, "query_length 12, now it is 8")],
)
def test_states_of_other_settings_are_refused(model, tmp_path, changed, named):
    states = str(tmp_path / "states")
    stage(model, states=states).score([("wing", "flow")])
    with pytest.raises(IndexMismatchError, match=f"holds states that were made with {named}; give another folder"):
        stage(model, states=states, **changed).score([("wing", "flow")])


def test_states_of_another_model_are_refused(model, tmp_path):
    import torch
    from transformers import BertForSequenceClassification

    folder, states = cross_encoder(tmp_path / "model", num_hidden_layers=LAYERS), str(tmp_path / "states")
    before = stage(folder, states=states).score([("wing", "flow")])
    other = BertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        other.bert.encoder.layer[0].output.dense.weight *= -1
    other.save_pretrained(folder)  # trained on, in its place
    with pytest.raises(IndexMismatchError, match=r"holds states that were made with model .* give another folder"):
        stage(folder, states=states).score([("wing", "flow")])
    assert stage(model, states=states).score([("wing", "flow")]) == before  # the same weights elsewhere


def test_what_is_wrong_with_a_folder_is_said(model, tmp_path):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "manifest.json").write_text("{}")
    messages = {
        "file": "is a file; states are kept in a folder",
        "no/where": "there is no folder .*no; make it first",
        "full": r"holds other files \(manifest.json\) and no states; give a new folder",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            stage(model, states=str(tmp_path / name)).score([("wing", "flow")])


def test_bad_settings(model, tmp_path):
    with pytest.raises(ValueError, match="depth must be at least 1"):
        PreTtrConfig("m", depth=0)
    with pytest.raises(ValueError, match="join must be at least 0"):
        PreTtrConfig("m", join=-1)
    with pytest.raises(ValueError, match="with join=0 no layer reads documents alone"):
        PreTtrConfig("m", join=0, states="folder")
    with pytest.raises(InputError, match="has 4 layers; with join=4 no layer would read query and document together"):
        stage(model, join=4).score([("wing", "flow")])
    for length in (2, 63):
        with pytest.raises(InputError, match=f"reads 64 tokens; query_length must be from 3 to 62, not {length}"):
            stage(model, query_length=length).score([("wing", "flow")])
    with pytest.raises(InputError, match="is no cross-encoder"):
        stage(bi_encoder(tmp_path / "bi"))
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        stage(Path("no/such"))
