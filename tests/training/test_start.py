"""The closed-form start: what a headless model knows before its first step of training."""

import numpy as np
import pytest
import tiny_models
from collections_on_disk import PLACES, THINGS

from retriever import InputError
from retriever.training import start
from retriever.training.start import sparse_encoder

TEXTS = [f"the {one} is {place} a {other}" for one in THINGS for other in THINGS for place in PLACES]


@pytest.fixture(scope="module")
def headless(tmp_path_factory):
    """A BERT without a head, as bi-encoders are stored."""
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("headless")
    BertModel(tiny_models.config(initializer_range=0.1)).save_pretrained(folder)
    tiny_models.tokenizer(32).save_pretrained(folder)
    return folder


def test_a_fitted_head_gives_texts_their_own_rare_words(headless, monkeypatch):
    monkeypatch.setattr(start, "TERMS", 6)
    model = sparse_encoder(str(headless), TEXTS, max_length=32)
    words = model.tokenizer.convert_tokens_to_ids(THINGS)
    special = model.tokenizer.all_special_ids
    for thing in THINGS:
        weights = model.encode_document(f"the {thing} is in a body").to_dense().numpy()
        assert weights[model.tokenizer.convert_tokens_to_ids(thing)] > 0
        assert np.argmax(weights[words]) in {THINGS.index(thing), THINGS.index("body")}
        assert not weights[special].any()


def test_the_number_of_active_terms_is_set(headless, monkeypatch):
    for wanted in (5, 20):
        monkeypatch.setattr(start, "TERMS", wanted)
        model = sparse_encoder(str(headless), TEXTS, max_length=32)
        weights = model.encode_document(TEXTS[: start.CALIBRATION]).to_dense()
        assert (weights > 0).sum(dim=1).float().mean() == pytest.approx(wanted, rel=0.05)


def test_the_decoder_is_tied_to_the_word_embeddings_also_after_loading(headless, tmp_path):
    from sentence_transformers import SparseEncoder

    model = sparse_encoder(str(headless), TEXTS, max_length=32)
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    for each in (model, SparseEncoder(str(tmp_path / "saved"), device="cpu")):
        inner = each[0].auto_model
        assert inner.get_output_embeddings().weight is inner.get_input_embeddings().weight


def test_a_head_that_is_there_is_kept(tmp_path):
    from transformers import BertForMaskedLM

    tiny_models.masked_lm(tmp_path)
    model = sparse_encoder(str(tmp_path), TEXTS, max_length=32)
    expected = BertForMaskedLM.from_pretrained(tmp_path).state_dict()
    for name, value in model[0].auto_model.state_dict().items():
        assert (value == expected[name]).all(), name


def test_no_head_and_no_bert(tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    settings = DistilBertConfig(vocab_size=128, dim=32, hidden_dim=64, n_layers=1, n_heads=2)
    DistilBertModel(settings).save_pretrained(tmp_path)
    tiny_models.tokenizer(32).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a head can be fitted to BERT only; give a base that has one"):
        sparse_encoder(str(tmp_path), TEXTS, max_length=32)


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(InputError, match="transformers cannot load it as a masked language model"):
        sparse_encoder(str(tmp_path), TEXTS, max_length=32)
