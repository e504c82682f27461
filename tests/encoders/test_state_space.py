"""Mamba, Mamba-2 and FalconMamba as encoders, against transformers' own layers."""

import copy
import shutil

import numpy as np
import pytest
from tiny_models import state_space

from retriever import Document, Retriever
from retriever.encoders import state_space as layers
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.encoders.state_space import InSegments, end_with_eos, prepare, scan_quickly
from retriever.encoders.stated import Stated

KINDS = ["mamba", "mamba2", "falcon_mamba"]
TEXTS = ["the wing", "", "lift over the plate in a flow", "drag " * 30, "heat [SEP] of the body", "shock " * 150]


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return state_space(tmp_path_factory.mktemp("model") / request.param, request.param)


def encoder(folder, **stated):
    return SentenceTransformerEncoder(str(folder), "auto", Stated(**{"pooling": "eos", **stated}))


def documents(made, texts=TEXTS):
    return made.encode_documents(texts, lambda _: None).vectors


def models(folder):
    """The same model twice: as transformers computes it, and as here."""
    from transformers import AutoModel

    theirs = AutoModel.from_pretrained(folder).eval()
    ours = copy.deepcopy(theirs)
    scan_quickly(ours)
    return theirs, ours


def tokens(length, n=1, seed=0):
    import torch

    return torch.randint(128, (n, length), generator=torch.Generator().manual_seed(seed))


def by_transformers(folder, ids):
    """Unit vector of the last token's state of one text: float32 [d]."""

    import torch

    theirs, _ = models(folder)
    with torch.inference_mode():
        state = theirs(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]
    return (state / state.norm()).numpy()


# -- the layers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 70])
def test_hidden_states_are_those_of_transformers(folder, length):
    import torch

    theirs, ours = models(folder)
    ids = tokens(length, n=2)
    with torch.inference_mode():
        wanted = theirs(ids, output_hidden_states=True).hidden_states
        given = ours(ids, output_hidden_states=True).hidden_states
    for layer, expected in zip(given, wanted, strict=True):
        torch.testing.assert_close(layer, expected, rtol=1e-5, atol=1e-5)


def test_padding_on_either_side_is_masked_as_transformers_masks_it(folder):
    import torch

    theirs, ours = models(folder)
    ids, mask = tokens(20, n=3), torch.ones(3, 20, dtype=torch.int64)
    mask[0, 12:] = mask[1, :7] = 0
    with torch.inference_mode():
        both = [model(ids, attention_mask=mask).last_hidden_state * mask[:, :, None] for model in (ours, theirs)]
    torch.testing.assert_close(*both, rtol=0, atol=1e-5)


def test_gradients_are_those_of_transformers(folder):
    import torch

    theirs, ours = (model.train() for model in models(folder))
    ids = tokens(12, n=2)
    for model in (theirs, ours):
        model(ids).last_hidden_state[:, -1].square().sum().backward()
    gradients, wanted = ({name: each.grad for name, each in model.named_parameters()} for model in (ours, theirs))
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-6 * largest)


# -- long texts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "segment"), [(50, 7), (50, 2), (50, 1), (51, 10), (5000, 2048)])
def test_read_in_segments_a_text_is_the_same(folder, length, segment):
    import torch

    _, model = models(folder)
    with torch.inference_mode():
        (whole,), (parts,) = (InSegments(model, most)(tokens(length)) for most in (length, segment))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_a_segment_needs_the_state_of_those_before_it(folder):
    import torch

    _, model = models(folder)
    ids = tokens(50)
    with torch.inference_mode():
        whole, last = (model(each).last_hidden_state[0, -1] for each in (ids, ids[:, -10:]))
    assert (whole - last).abs().max() > 1e-2


def test_an_encoder_reads_in_segments_what_is_longer_than_one(folder, monkeypatch):
    made, read = encoder(folder, max_length=200), []
    made.model[0].auto_model.embeddings.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    whole = documents(made)
    assert max(read) > 150
    read.clear()
    monkeypatch.setattr(layers, "SEGMENT", 16)
    np.testing.assert_allclose(documents(made), whole, atol=1e-5)
    assert max(read) == 16


def test_a_tokenizer_without_a_limit_means_texts_of_any_length(folder):
    import torch

    made = encoder(folder)
    assert made.identity()["max_length"] is None
    text = "wing " * 3000
    assert made.encode_documents([text], lambda _: None).truncated == 0
    ids = [*made.model.tokenizer(text)["input_ids"], made.model.tokenizer.eos_token_id]
    with torch.inference_mode():
        state = models(folder)[1](torch.tensor([ids])).last_hidden_state[0, -1]
    np.testing.assert_allclose(documents(made, [text])[0], (state / state.norm()).numpy(), atol=1e-5)


# -- the vectors -------------------------------------------------------------------------------------------------------


def test_the_vector_is_the_state_of_eos_behind_what_fits(folder):
    made = encoder(folder, max_length=8)
    tokenizer = made.model.tokenizer
    assert made.identity()["eos"] is True
    given = made.encode_documents(TEXTS, lambda _: None)
    assert given.truncated == sum(len(tokenizer(text)["input_ids"]) > 7 for text in TEXTS) > 0
    for vector, text in zip(given.vectors, TEXTS, strict=True):
        ids = [*tokenizer(text)["input_ids"][:7], tokenizer.eos_token_id]
        np.testing.assert_allclose(vector, by_transformers(folder, ids), atol=1e-5)


def test_neither_the_batch_nor_padding_changes_a_vector(folder):
    made = encoder(folder)
    together = documents(made)
    for vector, text in zip(together, TEXTS, strict=True):
        np.testing.assert_allclose(documents(made, [text])[0], vector, atol=1e-5)
    np.testing.assert_allclose(documents(made, TEXTS[::-1])[::-1], together, atol=1e-5)


def test_the_last_token_is_found_by_length_where_padding_and_end_are_one_token(folder):
    made = encoder(folder, pooling="last")
    assert made.model.tokenizer.pad_token_id == made.model.tokenizer.eos_token_id
    texts = ["the wing [SEP] [SEP]", "lift over the plate in a flow"]
    ids = made.model.tokenizer(texts[0])["input_ids"]
    assert ids[-2:] == [made.model.tokenizer.eos_token_id] * 2
    np.testing.assert_allclose(documents(made, texts)[0], by_transformers(folder, ids), atol=1e-5)


def test_padding_is_put_on_the_right_whatever_the_tokenizer_says(folder, tmp_path):
    from transformers import AutoTokenizer

    other = shutil.copytree(folder, tmp_path / "left")
    AutoTokenizer.from_pretrained(folder, padding_side="left").save_pretrained(other)
    assert AutoTokenizer.from_pretrained(other).padding_side == "left"
    np.testing.assert_allclose(documents(encoder(other)), documents(encoder(folder)), atol=1e-6)


def test_an_empty_text_of_a_tokenizer_that_adds_nothing_is_the_zero_vector(folder):
    made = encoder(folder, pooling="mean")
    np.testing.assert_array_equal(documents(made, [""]), np.zeros((1, 32)))
    np.testing.assert_array_equal(documents(made)[1], np.zeros(32))


def test_a_language_model_s_checkpoint_is_read_without_its_head(tmp_path):
    from transformers import AutoModel, MambaForCausalLM

    plain = state_space(tmp_path / "plain")
    headed = state_space(tmp_path / "headed")
    model = MambaForCausalLM(AutoModel.from_pretrained(plain).config)
    model.backbone.load_state_dict(AutoModel.from_pretrained(plain).state_dict())
    model.save_pretrained(headed)
    np.testing.assert_array_equal(documents(encoder(headed)), documents(encoder(plain)))


def test_an_index_ranks_by_cosine(folder, tmp_path):
    index = Retriever.create(tmp_path / "index", [f"dense('{folder}', pooling=eos)"])
    index.add([Document(str(number), text) for number, text in enumerate(TEXTS)])
    made = encoder(folder)
    cosines = documents(made) @ made.encode_queries(["lift over a wing"]).vectors[0]
    found = Retriever(tmp_path / "index").search("lift over a wing", k=len(TEXTS))
    np.testing.assert_allclose([hit.score for hit in found], np.sort(cosines)[::-1], atol=1e-6)


# -- a model of sentence-transformers ----------------------------------------------------------------------------------


def test_a_saved_model_ends_its_texts_by_itself_and_loads_in_sentence_transformers(folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    model = SentenceTransformer(modules=[Transformer(str(folder)), Pooling(32, "lasttoken")], device="cpu")
    prepare(model)
    end_with_eos(model.tokenizer)
    model.max_seq_length = 16
    model.save(str(tmp_path / "model"), create_model_card=False)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    ours = SentenceTransformerEncoder(str(tmp_path / "model"))
    np.testing.assert_allclose(theirs.encode(TEXTS, normalize_embeddings=True), documents(ours), atol=1e-5)
    np.testing.assert_allclose(documents(ours), documents(encoder(folder, max_length=16)), atol=1e-5)
    assert ours.encode_documents(TEXTS, lambda _: None).truncated == 2
