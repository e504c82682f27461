"""Stacks of adapters: their text, what they do together, whose they are, and what an index knows of them."""

import json
import re

import numpy as np
import pytest
import tiny_adapters
import tiny_models
from hypothesis import given
from hypothesis import strategies as st

from retriever import Document, InputError, Retriever
from retriever.encoders.adapters.bottleneck import attach
from retriever.encoders.adapters.files import body_digest, body_parameters, find_adapter
from retriever.encoders.adapters.languages import AdapterSet
from retriever.encoders.adapters.mask import from_tensors
from retriever.encoders.adapters.stack import Adapters, Term, parse_stack
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.encoders.stated import Stated
from retriever.errors import IndexMismatchError
from retriever.rerankers.by_language import score_by_language
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig

TEXTS = ["the wing is in a body", "heat", "drag over the plate"]
PAIRS = [("query : in wing", text) for text in TEXTS]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A bi-encoder's folder, and two adapters of each kind for it."""
    folder = tmp_path_factory.mktemp("encoder")
    model = tiny_models.bi_encoder(folder)
    loaded = SentenceTransformerEncoder(str(model)).model[0].auto_model
    made = {
        kind: [getattr(tiny_adapters, kind)(folder / f"{kind}{seed}", loaded, seed) for seed in range(2)]
        for kind in ("bottleneck", "mask")
    }
    return str(model), made


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    """The same for a cross-encoder; the second ones have a head."""
    folder = tmp_path_factory.mktemp("reranker")
    model = tiny_models.cross_encoder(folder / "model")
    loaded = CrossEncoder(CrossEncoderConfig(str(model)))._classifier.model.model
    made = {
        kind: [
            getattr(tiny_adapters, kind)(folder / f"{kind}{seed}", loaded, seed, headed=seed == 1) for seed in range(2)
        ]
        for kind in ("bottleneck", "mask")
    }
    return str(model), made


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A mask for another base."""
    folder = tmp_path_factory.mktemp("foreign")
    model = tiny_models.cross_encoder(folder / "model", num_hidden_layers=1)
    loaded = CrossEncoder(CrossEncoderConfig(str(model)))._classifier.model.model
    return tiny_adapters.mask(folder / "foreign", loaded)


def vectors(model, adapters=None):
    encoder = SentenceTransformerEncoder(model, "float32", Stated(adapters=adapters))
    return encoder.encode_documents(TEXTS, lambda _: None).vectors


def scores(model, adapters=None):
    return CrossEncoder(CrossEncoderConfig(model, precision="float32", adapters=adapters)).score(PAIRS)


# -- the text form -----------------------------------------------------------------------------------------------------


def test_a_stack_is_a_sum_of_weighted_adapters():
    assert parse_stack("A") == [Term(1.0, ("A",))]
    assert parse_stack("0.5*tr + -1e-1 * /some/rank") == [Term(0.5, ("tr",)), Term(-0.1, ("/some/rank",))]
    assert parse_stack("de | tr + c++/rank") == [Term(1.0, ("de", "tr")), Term(1.0, ("c++/rank",))]


@pytest.mark.parametrize("text", ["", "A + ", "half*A", "A | B | C", "| A", "2*", "1.2.3*A", "A * B"])
def test_a_stack_that_is_none(text):
    with pytest.raises(InputError, match=rf"adapters {re.escape(repr(text))} are not understood at .*; give 'A \+ 0"):
        parse_stack(text)


@given(
    st.lists(
        st.tuples(st.floats(-9, 9), st.lists(st.from_regex(r"[a-z/.]+", fullmatch=True), min_size=1, max_size=2)),
        min_size=1,
    )
)
def test_whatever_is_written_is_read(terms):
    text = " + ".join(f"{weight!r} * {' | '.join(names)}" for weight, names in terms)
    assert parse_stack(text) == [Term(weight, tuple(names)) for weight, names in terms]


# -- on an encoder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bottleneck", "mask"])
def test_an_encoder_through_a_view_and_by_hand_is_the_same(encoder, kind):
    model, adapters = encoder
    one, two = adapters[kind]
    plain, stacked = vectors(model), vectors(model, f"{one} + 0.5*{two}")
    assert np.abs(stacked - plain).max() > 0.01
    by_hand = SentenceTransformerEncoder(model, "float32")
    transformer = by_hand.model[0].auto_model
    for name, weight in ((one, 1.0), (two, 0.5)):
        found = find_adapter(name)
        if kind == "mask":
            for key, change in from_tensors(found.tensors()).items():
                flat = dict(transformer.named_parameters())[key].data.view(-1)
                flat[change.positions] += weight * change.values
        else:
            from retriever.encoders.adapters.bottleneck import new_adapter

            module = new_adapter(32, 2, 4, invertible=False)
            module.load_state_dict(found.tensors())
            attach(transformer, [module], weight)
    np.testing.assert_allclose(by_hand.encode_queries(TEXTS).vectors, stacked, atol=1e-6)


def test_masks_commute_and_bottlenecks_do_not(encoder):
    model, adapters = encoder
    for kind, alike in (("mask", True), ("bottleneck", False)):
        one, two = adapters[kind]
        assert np.allclose(vectors(model, f"{one} + {two}"), vectors(model, f"{two} + {one}"), atol=1e-5) == alike


def test_switched_and_switched_off_the_encoder_is_the_base_bit_for_bit(encoder):
    model, adapters = encoder
    encoder = SentenceTransformerEncoder(model, "float32")
    before = encoder.encode_queries(TEXTS).vectors
    weights = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    switch = Adapters(encoder.model[0].auto_model, model)
    (bottleneck, other), (mask, _) = adapters["bottleneck"], adapters["mask"]
    seen = []
    for stack in (bottleneck, f"{mask} + {bottleneck}", f"0.5*{mask} + {other}", bottleneck):
        switch.use(stack)
        seen.append(encoder.encode_queries(TEXTS).vectors)
    assert (seen[0] == seen[3]).all()
    assert len({vector.tobytes() for vector in seen}) == 3
    switch.use(None)
    assert (encoder.encode_queries(TEXTS).vectors == before).all()
    after = encoder.model.state_dict()
    assert list(after) == list(weights)
    assert all((after[name] == value).all() for name, value in weights.items())


def test_a_switch_touches_what_the_masks_name_and_no_more(encoder):
    """Its cost is that of the entries, not of the model: nothing else is read or written."""
    model, adapters = encoder
    transformer = SentenceTransformerEncoder(model, "float32").model[0].auto_model
    before = {name: value.detach().clone() for name, value in body_parameters(transformer).items()}
    Adapters(transformer, model).use(adapters["mask"][0])
    changed = {name: (value != before[name]).sum() for name, value in body_parameters(transformer).items()}
    assert 0 < sum(changed.values()) < 0.11 * sum(value.numel() for value in before.values())


# -- whose they are ----------------------------------------------------------------------------------------------------


def test_an_adapter_of_another_base_is_refused_with_both_named(encoder, foreign):
    model, _ = encoder
    told = find_adapter(foreign).settings
    with pytest.raises(InputError) as caught:
        vectors(model, foreign)
    digest = body_digest(SentenceTransformerEncoder(model, "float32").model[0].auto_model)
    assert str(caught.value) == (
        f"adapter {foreign} was trained on the base of foreign (weights {told.weights[:12]}), which has other weights "
        f"than {model} ({digest[:12]}); give an adapter of this model"
    )


def test_one_body_has_one_digest_in_whatever_model_it_is():
    import torch
    from transformers import BertForMaskedLM, BertForSequenceClassification, BertModel

    torch.manual_seed(0)
    whole = BertForMaskedLM(tiny_models.config())
    others = [BertModel(tiny_models.config()), BertForSequenceClassification(tiny_models.config())]
    assert len({body_digest(model) for model in (whole, *others)}) == 3
    for model in others:
        body_of_it = model if isinstance(model, BertModel) else model.bert
        body_of_it.load_state_dict(whole.bert.state_dict(), strict=False)
    assert len({body_digest(model) for model in (whole, *others)}) == 1


def test_a_refused_stack_leaves_the_base(encoder, foreign):
    model, adapters = encoder
    transformer = SentenceTransformerEncoder(model, "float32").model[0].auto_model
    before = body_digest(transformer)
    switch = Adapters(transformer, model)
    switch.use(adapters["mask"][1])
    for stack in (
        f"{adapters['mask'][0]} + {foreign}",
        f"{adapters['mask'][0]} | {adapters['mask'][1]}",
    ):
        with pytest.raises(InputError):
            switch.use(stack)
        assert body_digest(transformer) == before


def test_folders_that_are_no_adapters(tmp_path, encoder):
    model, adapters = encoder
    with pytest.raises(InputError, match=r"holds no adapter: neither adapter\.json nor PEFT's adapter_config\.json"):
        vectors(model, model)
    with pytest.raises(InputError, match="model 'no/such-adapter' was not found"):
        vectors(model, "no/such-adapter")
    settings = json.loads((find_adapter(adapters["mask"][0]).folder / "adapter.json").read_text())
    for changed, message in (
        ({"kind": "prefix"}, "an adapter is lora, bottleneck, mask, not 'prefix'"),
        ({"x": 1}, "does not describe"),
    ):
        (tmp_path / "adapter.json").write_text(json.dumps({**settings, **changed}))
        with pytest.raises(InputError, match=message):
            vectors(model, str(tmp_path))
    (tmp_path / "adapter.json").write_text(json.dumps(settings))
    (tmp_path / "adapter.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"adapter\.safetensors: cannot be read as an adapter's weights"):
        vectors(model, str(tmp_path))


# -- in an index -------------------------------------------------------------------------------------------------------


def test_an_index_knows_the_stack_that_encoded_it_and_refuses_another(tmp_path, encoder):
    from safetensors.torch import load_file, save_file

    model, _ = encoder
    loaded = SentenceTransformerEncoder(model).model[0].auto_model
    adapter = tiny_adapters.mask(tmp_path / "mask", loaded, 5)
    view = f"dense('{model}', adapters='0.5*{adapter}', precision=float32)"
    index = Retriever.create(tmp_path / "index", [view])
    index.add([Document("a", "wing"), Document("b", "heat")])
    assert [hit.id for hit in Retriever(tmp_path / "index").search("heat", k=1)] == ["b"]
    kept = json.loads((tmp_path / "index" / "manifest.json").read_text())["views"]
    told = (kept if isinstance(kept, list) else [*kept.values()])[0]["encoder"]["adapters"]
    assert told == [[0.5, [adapter, find_adapter(adapter).digest()]]]
    weights = load_file(tmp_path / "mask" / "adapter.safetensors")
    name = next(name for name in weights if name.endswith(".values"))
    save_file({**weights, name: weights[name] + 0.1}, tmp_path / "mask" / "adapter.safetensors")
    for use in (lambda index: index.search("heat"), lambda index: index.add([Document("c", "drag")])):
        with pytest.raises(IndexMismatchError, match=r"was encoded by another encoder .*\(adapters: \[\[0\.5, .*, now"):
            use(Retriever(tmp_path / "index"))


def test_a_view_without_adapters_is_known_as_before(encoder):
    model, _ = encoder
    assert "adapters" not in SentenceTransformerEncoder(model).identity()


def test_an_encoder_that_has_no_transformer_of_ours(tmp_path, encoder):
    _, adapters = encoder
    with pytest.raises(InputError, match="so a view cannot state its adapters"):
        Retriever.create(
            tmp_path / "index", [f"dense('toy_encoders:HashEncoder', adapters='{adapters['mask'][0]}')"]
        ).add([Document("a", "wing")])


# -- on a cross-encoder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bottleneck", "mask"])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_cross_encoder_gives_what_sentence_transformers_gives_of_the_adapted_model(reranker, kind, precision):
    import torch
    from sentence_transformers import CrossEncoder as Peer

    model, adapters = reranker
    one, two = adapters[kind]
    peer = Peer(model, device="cpu")
    plain = scores(model)
    np.testing.assert_allclose(plain, peer.predict(PAIRS), atol=1e-5)
    Adapters(peer.model, model).use(f"{one} + 0.5*{two}")
    ours = CrossEncoder(CrossEncoderConfig(model, precision=precision, adapters=f"{one} + 0.5*{two}"))
    expected = peer.predict(PAIRS, activation_fn=torch.nn.Identity())  # as where an adapter brings the head
    np.testing.assert_allclose(ours.score(PAIRS), expected, atol=1e-4 if precision == "float32" else 0.2)
    assert scores(model).tolist() == plain.tolist()


def test_a_head_that_comes_with_an_adapter_makes_an_encoder_a_cross_encoder(tmp_path, reranker):
    from transformers import BertForSequenceClassification

    model, adapters = reranker
    whole = BertForSequenceClassification.from_pretrained(model)
    whole.bert.save_pretrained(tmp_path)
    tiny_models.tokenizer(64).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is no cross-encoder"):
        scores(str(tmp_path), adapters["mask"][0])
    expected = scores(model, adapters["mask"][1])
    np.testing.assert_allclose(scores(str(tmp_path), adapters["mask"][1]), expected, atol=1e-5)


def test_pairs_in_several_languages_are_each_scored_with_their_own_stack(reranker):
    model, adapters = reranker
    (tr, de), (rank, _) = adapters["bottleneck"], adapters["mask"]
    config = CrossEncoderConfig(model, precision="float32")
    languages = [("de", "tr"), ("tr", "de"), ("tr", "tr")]
    for choice, stacks in {
        "dlang": [f"{tr} + {rank}", f"{de} + {rank}", f"{tr} + {rank}"],
        "qlang": [f"{de} + {rank}", f"{tr} + {rank}", f"{tr} + {rank}"],
        "split": [f"{de} | {tr} + {rank}", f"{tr} | {de} + {rank}", f"{tr} + {rank}"],
        "both": [f"{de} + {tr} + {rank}", f"{tr} + {de} + {rank}", f"{tr} + {rank}"],
    }.items():
        given = AdapterSet({"tr": tr, "de": de}, rank, choice)
        assert [given.stack(*each) for each in languages] == stacks
        expected = [scores(model, stack)[row] for row, stack in enumerate(stacks)]
        np.testing.assert_allclose(score_by_language(config, given, PAIRS, languages), expected, atol=1e-5)
    assert len({scores(model, stack).tobytes() for stack in (f"{de} | {tr} + {rank}", f"{tr} + {rank}")}) == 2


def test_languages_without_an_adapter():
    given = AdapterSet({"tr": "TR"}, choice="split")
    assert given.stack("fi", "tr") == "TR"
    assert given.stack("tr", "fi") is None
    assert AdapterSet({"tr": "TR"}, "R", "both").stack("fi", "tr") == "TR + R"
    with pytest.raises(InputError, match="choice is one of dlang, qlang, both, split, not 'slang'"):
        AdapterSet({}, choice="slang")


def test_a_single_text_cannot_be_split(encoder):
    model, adapters = encoder
    with pytest.raises(InputError, match="a split needs pairs of texts, which a cross-encoder reads"):
        vectors(model, " | ".join(adapters["bottleneck"]))


def test_a_split_through_the_compiled_transformer_is_the_same(reranker):
    model, adapters = reranker
    stack = " | ".join(adapters["bottleneck"])
    many = [("query : in wing " + "heat " * 20, "the wing is in a body " * 4)] * 500
    auto = CrossEncoder(CrossEncoderConfig(model, adapters=stack)).logits(many)
    plain = CrossEncoder(CrossEncoderConfig(model, precision="float32", adapters=stack)).logits(many[:1])
    np.testing.assert_allclose(auto, np.repeat(plain, 500), atol=0.2)
