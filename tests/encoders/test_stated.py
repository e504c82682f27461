"""What a view states of its model, against sentence-transformers with the same settings."""

import numpy as np
import pytest
from tiny_models import bi_encoder, tokenizer

from retriever import Document, InputError, Retriever
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.encoders.stated import Stated

TEXTS = ["the wing", "lift over the plate in a flow", "drag " * 20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bi_encoder(tmp_path_factory.mktemp("model"), normalize=False, similarity="dot")


def encoder(folder, **stated):
    return SentenceTransformerEncoder(str(folder), "float32", Stated(**stated))


def documents(made):
    return made.encode_documents(TEXTS, lambda _: None).vectors


def hidden(made, text, prefix=""):
    """The model's own token embeddings: float32 [tokens, d]."""
    import torch

    ids = made.model.tokenizer(prefix + text, return_tensors="pt", truncation=True, max_length=32)
    with torch.inference_mode():
        states = made.model[0].auto_model(ids["input_ids"], attention_mask=ids["attention_mask"])[0][0]
    return states.numpy()


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", lambda states: states.mean(0)), ("cls", lambda states: states[0]), ("last", lambda states: states[-1])],
)
def test_pooling_is_what_is_stated(folder, pooling, expected):
    made = encoder(folder, pooling=pooling)
    wanted = [expected(hidden(made, text)) for text in TEXTS]
    np.testing.assert_allclose(documents(made), wanted, atol=1e-4)


def test_eos_pooling_puts_the_token_behind_the_text_where_the_tokenizer_does_not(tmp_path):
    import torch

    model = bi_encoder(tmp_path, normalize=False, similarity="dot")
    changed = tokenizer(32)
    changed.eos_token = "[MASK]"
    changed.save_pretrained(model)
    made = encoder(model, pooling="eos")
    assert made.identity()["eos"] is True
    for vector, text in zip(documents(made), TEXTS, strict=True):
        ids = changed(text, truncation=True, max_length=31)["input_ids"] + [changed.mask_token_id]
        with torch.inference_mode():
            states = made.model[0].auto_model(torch.tensor([ids]))[0][0]
        np.testing.assert_allclose(vector, states[-1].numpy(), atol=1e-4)


def test_prefixes_stand_before_queries_and_documents(folder):
    made, plain = encoder(folder, query_prefix="query : ", document_prefix="passage : "), encoder(folder)
    np.testing.assert_allclose(
        made.encode_queries(["the wing"]).vectors, plain.encode_queries(["query : the wing"]).vectors, atol=1e-5
    )
    np.testing.assert_allclose(
        documents(made), plain.encode_queries([f"passage : {text}" for text in TEXTS]).vectors, atol=1e-5
    )
    assert made.identity() != plain.identity()


def test_vectors_can_be_normalised_and_shortened(folder):
    plain, made = documents(encoder(folder)), encoder(folder, normalize=True, dimensions=8)
    short = plain[:, :8]
    np.testing.assert_allclose(documents(made), short / np.linalg.norm(short, axis=1, keepdims=True), atol=1e-5)
    assert (made.dimension, made.identity()["similarity"]) == (8, "cosine")


def test_vectors_of_a_cosine_model_can_be_left_as_they_are(tmp_path):
    model = bi_encoder(tmp_path)
    made = encoder(model, normalize=False)
    assert made.identity()["similarity"] == "dot"
    np.testing.assert_allclose(documents(made)[0], hidden(made, TEXTS[0]).mean(0), atol=1e-4)


def test_a_shorter_length_cuts_more_texts(folder):
    made = encoder(folder, max_length=8)
    assert made.encode_documents(TEXTS, lambda _: None).truncated == 2
    assert encoder(folder).encode_documents(TEXTS, lambda _: None).truncated == 0


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"dimensions": 33}, r"has 32 dimensions, not 33"),
        ({"max_length": 65}, r"has positions for 64 tokens, not for max_length=65"),
        ({"pooling": "eos"}, r"its tokenizer has no end-of-sequence token; state pooling=last or cls"),
    ],
)
def test_what_a_model_cannot_do_is_refused(folder, stated, message):
    with pytest.raises(InputError, match=message):
        _ = encoder(folder, **stated).model


def test_a_view_states_it_in_its_text_and_keeps_it(folder, tmp_path):
    text = f"dense('{folder}', precision=float32, pooling=cls, dimensions=16)"
    index = Retriever.create(tmp_path / "index", [text])
    index.add([Document(str(number), text) for number, text in enumerate(TEXTS)])
    assert index.info()["views"]["dense"]["encoder"]["dimension"] == 16
    assert index.info()["views"]["dense"]["encoder"]["pooling"] == "cls"
    assert Retriever(tmp_path / "index").search("the wing", k=1)[0].id == "0"
    with pytest.raises(InputError, match="pooling is mean, cls, last, eos, not 'maximum'"):
        Retriever.create(tmp_path / "other", [text.replace("cls", "maximum")])


def test_a_model_without_a_tokenizer_is_told(tmp_path):
    from tiny_models import config
    from transformers import BertModel

    BertModel(config()).save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match=r"bare: has no tokenizer \(looked for .*copy the tokenizer's files"):
        _ = encoder(tmp_path / "bare").model
