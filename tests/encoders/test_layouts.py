"""Encoders of the literature, by layout: tiny random checkpoints against plain transformers, one text at a time."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from tiny_models import LETTERS, WORDS

from retriever import Document, InputError, Retriever
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.encoders.stated import Stated
from retriever.indexers.dense import DenseConfig
from retriever.spec import configure, parse_pipeline

TEXTS = ["the flow over a wing", "heat", "lift 7 of the plate", "drag in a body under the shock " * 4, ""]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
MOST = 24
"""Tokens that every one of them reads."""


def save(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.model_max_length = MOST
    tokenizer.save_pretrained(folder)
    return folder


def bert(folder):
    from transformers import BertModel

    return save(folder, BertModel(tiny_models.config(initializer_range=0.5)), tiny_models.tokenizer(MOST))


def distilbert(folder):
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=128, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64, initializer_range=0.5
    )
    return save(folder, DistilBertModel(config), tiny_models.tokenizer(MOST))


def roberta(folder, positions=64):
    """Also the layout of BERTweet and CrisisTransformers."""
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    config = RobertaConfig(
        **SIZES, vocab_size=len(pieces), max_position_embeddings=positions, initializer_range=0.5, type_vocab_size=1
    )
    words = RobertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    return save(folder, RobertaModel(config), words)


def pieces():
    """XLM-R's kind of tokenizer, and how many tokens it has."""
    from transformers import XLMRobertaTokenizer

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS if word.isalpha()]
    pieces += [*((letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789"), ("<mask>", 0.0)]
    pieces = list(dict(pieces).items())
    return XLMRobertaTokenizer(vocab=pieces), len(pieces)


def xlm_roberta(folder):
    """Also the layout of multilingual E5 and BGE-M3."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    words, count = pieces()
    config = XLMRobertaConfig(
        **SIZES, vocab_size=count, max_position_embeddings=64, initializer_range=0.5, type_vocab_size=1
    )
    return save(folder, XLMRobertaModel(config), words)


def bert_of_pieces(folder):
    """Multilingual E5's small model and MiniLM: a BERT whose padding token is not the tokenizer's."""
    from transformers import BertModel

    words, count = pieces()
    return save(folder, BertModel(tiny_models.config(vocab_size=count, initializer_range=0.5)), words)


def mpnet(folder):
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizer

    words = dict.fromkeys(["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *WORDS, *LETTERS])
    vocabulary = {word: i for i, word in enumerate(words)}
    config = MPNetConfig(**SIZES, vocab_size=len(vocabulary), max_position_embeddings=64, initializer_range=0.5)
    return save(folder, MPNetModel(config), MPNetTokenizer(vocab=vocabulary))


def modernbert(folder):
    """Alternating local and global attention: the window is shorter than the longest text."""
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        **SIZES,
        vocab_size=128,
        max_position_embeddings=64,
        local_attention=8,
        global_attn_every_n_layers=2,
        initializer_range=0.5,
        initializer_cutoff_factor=4.0,
        **{f"{name}_token_id": number for name, number in (("pad", 0), ("cls", 2), ("bos", 2), ("sep", 3), ("eos", 3))},
    )
    return save(folder, ModernBertModel(config), tiny_models.tokenizer(MOST))


def nomic_bert(folder):
    from transformers import NomicBertConfig, NomicBertModel

    config = NomicBertConfig(**SIZES, vocab_size=128, max_position_embeddings=64, initializer_range=0.5)
    return save(folder, NomicBertModel(config), tiny_models.tokenizer(MOST))


def gte(folder):
    from transformers import GteConfig, GteModel

    config = GteConfig(**SIZES, vocab_size=128, max_position_embeddings=64, initializer_range=0.5)
    return save(folder, GteModel(config), tiny_models.tokenizer(MOST))


def t5(folder):
    """The whole model, of which the encoder is taken: GTR, Sentence-T5."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tiny_models.seq2seq(folder))
    words.model_max_length = MOST
    words.save_pretrained(folder)
    return folder


LAYOUTS = [bert, bert_of_pieces, distilbert, roberta, xlm_roberta, mpnet, modernbert, nomic_bert, gte, t5]


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda make: make.__name__)
def folder(request, tmp_path_factory):
    import torch

    torch.manual_seed(7)
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


def plain(folder, text):
    """float32 [tokens, d]: what transformers itself makes of one text."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel

    kind = T5EncoderModel if AutoConfig.from_pretrained(folder).model_type == "t5" else AutoModel
    model = kind.from_pretrained(folder).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=MOST, return_tensors="pt")
    with torch.inference_mode():
        return model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])[0][0].numpy()


def unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def documents(encoder, texts=TEXTS):
    return encoder.encode_documents(texts, lambda _: None).vectors


POOLED = {"mean": lambda states: states.mean(0), "cls": lambda states: states[0], "last": lambda states: states[-1]}


def test_vectors_are_those_of_plain_transformers_and_of_sentence_transformers(folder):
    states = [plain(folder, text) for text in TEXTS]
    assert len({len(each) for each in states}) > 2, "texts of several lengths, so that a batch is padded"
    for pooling, pool in POOLED.items():
        encoder = SentenceTransformerEncoder(str(folder), "float32", Stated(pooling=pooling))
        vectors = documents(encoder)
        np.testing.assert_allclose(vectors, [unit(pool(each)) for each in states], atol=2e-5)
        np.testing.assert_allclose(vectors, unit(encoder.model.encode_document(TEXTS)), atol=2e-5)
    assert encoder.identity()["max_length"] == MOST
    assert encoder.encode_documents(TEXTS, lambda _: None).truncated == sum(len(each) == MOST for each in states) == 1


def test_a_model_is_not_asked_for_more_positions_than_it_has(tmp_path):
    """A RoBERTa's table of 20 positions is for 18 tokens; a tokenizer without a length would have it read 20."""
    roberta(tmp_path, positions=20)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in settings.items() if name != "model_max_length"}))
    encoder = SentenceTransformerEncoder(str(tmp_path), "float32")
    assert encoder.encode_documents(TEXTS, lambda _: None).truncated == 3
    assert encoder.identity()["max_length"] == 18
    with pytest.raises(InputError, match="has positions for 18 tokens, not for max_length=19"):
        documents(SentenceTransformerEncoder(str(tmp_path), "float32", Stated(max_length=19)))


# -- modules behind the pooling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pooling", "activation", "bias"), [("cls", "Tanh", True), ("mean", "Identity", False)])
def test_a_layer_behind_the_pooling(tmp_path, pooling, activation, bias):
    """LaBSE: the first token, a layer with tanh, unit length. Sentence-T5 and GTR: the mean, a plain layer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(3)
    base = bert(tmp_path / "base")
    layer = Dense(32, 16, bias=bias, activation_function=getattr(torch.nn, activation)())
    modules = [Transformer(str(base)), Pooling(32, pooling), layer, Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"), create_model_card=False)
    encoder = SentenceTransformerEncoder(str(tmp_path / "model"), "float32")
    weight = layer.linear.weight.detach().numpy()  # [16, 32]
    shift = layer.linear.bias.detach().numpy() if bias else 0.0
    pooled = np.array([POOLED[pooling](plain(base, text)) for text in TEXTS]) @ weight.T + shift
    expected = unit(np.tanh(pooled) if activation == "Tanh" else pooled)
    np.testing.assert_allclose(documents(encoder), expected, atol=1e-5)
    assert encoder.dimension == 16
    assert [name for name, _ in encoder.identity()["modules"]] == ["Pooling", "Dense", "Normalize"]


# -- code that comes with a model --------------------------------------------------------------------------------------

CODE = """
from transformers import BertConfig, BertModel

class OwnConfig(BertConfig):
    model_type = "own-kind"

class OwnModel(BertModel):
    config_class = OwnConfig

    def forward(self, *given, **more):
        return (-super().forward(*given, **more)[0],)
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A BERT of a kind that transformers does not know, whose code turns its states around."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    made = bert(tmp_path / "own")
    config = json.loads((made / "config.json").read_text())
    owned = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    (made / "config.json").write_text(json.dumps({**config, "model_type": "own-kind", "auto_map": owned}))
    (made / "modeling_own.py").write_text(CODE)
    return made


def test_code_of_a_model_runs_only_where_a_view_says_so(own_code, tmp_path):
    index = Retriever.create(tmp_path / "refused", [f"dense('{own_code}')"])
    with pytest.raises(InputError, match=r"own: brings Python code of its own.*state remote_code=true in the view"):
        index.add([Document("a", "wing")])
    view = f"dense('{own_code}', precision=float32, remote_code=true)"
    made = Retriever.create(tmp_path / "index", [view])
    made.add([Document("a", "wing")])
    assert made.info()["views"]["dense"]["config"]["remote_code"] is True
    turned = documents(SentenceTransformerEncoder(str(own_code), "float32", Stated(remote_code=True)))
    straight = documents(SentenceTransformerEncoder(str(bert(tmp_path / "plain")), "float32"))
    assert turned.shape == straight.shape
    assert not np.allclose(turned, straight, atol=0.1)


def test_other_code_is_another_encoder(own_code):
    identities = []
    for text in (CODE, CODE + "\n# changed\n"):
        (own_code / "modeling_own.py").write_text(text)
        identities.append(SentenceTransformerEncoder(str(own_code), stated=Stated(remote_code=True)).identity())
    assert identities[0].keys() == identities[1].keys()
    assert [name for name, value in identities[0].items() if value != identities[1][name]] == ["remote_code"]


def test_modules_with_code_of_their_own_are_refused_too(tmp_path):
    folder = tiny_models.bi_encoder(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"brings Python code of its own"):
        documents(SentenceTransformerEncoder(str(folder)))


# -- docs/encoders.md --------------------------------------------------------------------------------------------------

TABLE = Path(__file__).parents[2] / "docs" / "encoders.md"
VIEWS = re.findall(r"`(dense\(.+?\))`", TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("view", VIEWS)
def test_the_views_of_the_table_are_views(view):
    assert configure(DenseConfig, parse_pipeline(view)).model


def test_the_table_has_views():
    assert len(VIEWS) > 20
