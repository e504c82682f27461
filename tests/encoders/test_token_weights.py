"""Learned weights of single tokens and words, against the straightforward computation on random weights."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import bert_with_head, config, tokenizer

from retriever import Document, InputError, Retriever
from retriever.analyzers import words
from retriever.encoders.base import TermWeights
from retriever.encoders.runtime import COMPILE
from retriever.encoders.stop_words import NLTK_ENGLISH, QUESTIONS
from retriever.encoders.token_weights import (
    DeepCt,
    DeepImpact,
    TildeV2,
    UniCoil,
    document_words,
    frequency,
    passages_of,
    position_decay,
    query_words,
)

TEXTS = [
    "the flow over a wing",
    "",
    "heat HEAT heat",
    "shock of the plate, under heat: a wing is not a body; it's a wi-fi 3.14 Zürich [SEP] obliterated drag",
    "U.S. lift / drag 7",
    "drag lift " * 150,
]
HEADS = {UniCoil: "tok_proj", TildeV2: "tok_proj", DeepImpact: "impact_score_encoder", DeepCt: "classifier"}
METHODS = list(HEADS)


def head_of(method: type[Any]) -> Any:
    import torch
    from torch.nn import Dropout, Linear, ModuleDict, ReLU, Sequential

    torch.manual_seed(11)
    deep = Sequential(Linear(32, 32), ReLU(), Dropout(0.1), Linear(32, 1), ReLU())
    head = deep if method is DeepImpact else Linear(32, 1)
    with torch.no_grad():
        list(head.parameters())[-1].fill_(0.25)  # the last bias
    return ModuleDict({HEADS[method]: head})


def made(method: type[Any], folder: Path, **settings: Any) -> Any:
    return method(str(bert_with_head(folder, head_of(method))), "float32", **settings)


def documents(encoder: Any, texts: list[str]) -> TermWeights:
    return encoder.encode_documents(texts, lambda _: None)


def bags(weights: TermWeights) -> list[dict[str, float]]:
    rows = (weights.weights[[i]] for i in range(weights.weights.shape[0]))
    return [{weights.terms[j]: float(w) for j, w in zip(row.indices, row.data, strict=True)} for row in rows]


def close(given: TermWeights, expected: list[dict[str, float]]) -> None:
    assert given.weights.dtype == np.float32
    assert (given.weights.data > 0).all()
    assert len(set(given.terms)) == len(given.terms) == given.weights.shape[1]
    assert len(expected) == given.weights.shape[0]
    for bag, wanted in zip(bags(given), expected, strict=True):
        assert bag == pytest.approx({term: weight for term, weight in wanted.items() if weight > 0}, abs=1e-5)


class Reference:
    """A text at a time: BERT as transformers has it, and the head."""

    def __init__(self, method: type[Any], limit: int) -> None:
        import torch
        from transformers import BertModel

        torch.manual_seed(7)
        self.bert = BertModel(config(initializer_range=0.5)).eval()
        self.head = head_of(method)[HEADS[method]].eval()
        self.tokenizer, self.limit = tokenizer(64), limit

    def __call__(self, text: str) -> Iterator[tuple[str, float]]:
        """Tokens, [CLS] and [SEP] included, and the head's outputs."""
        import torch

        with torch.no_grad():
            read = self.tokenizer([text], truncation=True, max_length=self.limit, return_tensors="pt")
            outputs = self.head(self.bert(**read).last_hidden_state)[0, :, 0].tolist()
        yield from zip(self.tokenizer.convert_ids_to_tokens(read["input_ids"][0]), outputs, strict=True)


def merged(tokens: Iterator[tuple[str, float]]) -> list[tuple[str, float]]:
    """Pieces put together to words, with the output of the first."""
    whole: list[tuple[str, float]] = []
    for token, output in tokens:
        if token.startswith("##"):
            whole[-1] = whole[-1][0] + token[2:], whole[-1][1]
        else:
            whole.append((token, output))
    return whole


# -- uniCOIL and TILDEv2: tokens ---------------------------------------------------------------------------------------


def test_unicoil_takes_the_largest_of_a_documents_tokens_and_adds_up_a_querys(tmp_path):
    encoder, reference = made(UniCoil, tmp_path), Reference(UniCoil, 64)
    largest: list[dict[str, float]] = [{} for _ in TEXTS]
    sums: list[dict[str, float]] = [{} for _ in TEXTS]
    for text, most, total in zip(TEXTS, largest, sums, strict=True):
        for token, output in reference(text):
            if token not in ("[CLS]", "[SEP]"):
                most[token] = max(output, most.get(token, 0.0))
                total[token] = max(output, 0.0) + total.get(token, 0.0)
    close(documents(encoder, TEXTS), largest)
    close(encoder.encode_queries(TEXTS), sums)
    assert encoder.encode_queries(TEXTS).terms is documents(encoder, TEXTS).terms
    assert max(sums[2].values()) > max(largest[2].values()) > 0  # "heat HEAT heat"


def test_tildev2_leaves_out_stop_words_a_plurals_s_and_what_is_no_word(tmp_path):
    encoder, reference = made(TildeV2, tmp_path), Reference(TildeV2, 64)
    stops = {*"the a of in over under is not : i s t d m o y".split(), "##s", "[UNK]", "[CLS]", "[SEP]"}
    expected: list[dict[str, float]] = [{} for _ in TEXTS]
    for text, most in zip(TEXTS, expected, strict=True):
        for token, output in reference(text):
            if token not in stops:
                most[token] = max(output, most.get(token, 0.0))
    close(documents(encoder, TEXTS), expected)
    assert "7" in expected[4]


def test_a_query_of_tildev2_is_its_tokens_without_the_model(tmp_path):
    encoder = made(TildeV2, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    queries = encoder.encode_queries(["the heat of heat", "which wings?", "of the"])
    close(queries, [{"heat": 2}, {"w": 1, "##h": 2, "##i": 1, "##c": 1, "wing": 1}, {}])


def test_question_words_count_for_tildev2():
    assert not {"what", "which", "who", "how"} & (NLTK_ENGLISH - QUESTIONS)


# -- DeepImpact: words -------------------------------------------------------------------------------------------------


def test_words_of_documents_and_queries_of_deepimpact():
    assert document_words("U.S. e-mail, by Wi-Fi (3.14)!") == ("us email ( e mail ) , by wifi ( wi fi ) 3 . 14".split())
    assert query_words("The U.S. e-mail, by Wi-Fi (3.14)! Is it ill?") == "us email wi fi 3 14".split()
    assert document_words("Z\u00fcrich \u212aelvin --- ...") == "z rich elvin ( )".split()
    assert document_words("") == query_words("of the") == []


def test_deepimpact_weighs_a_word_by_its_first_piece_where_it_first_stands(tmp_path):
    encoder, reference = made(DeepImpact, tmp_path), Reference(DeepImpact, 64)
    expected: list[dict[str, float]] = [{} for _ in TEXTS]
    for text, first in zip(TEXTS, expected, strict=True):
        for token, output in merged(reference(" ".join(document_words(text)))):
            if token.isalnum():  # neither punctuation, which the tokenizer does not know, nor [CLS] and [SEP]
                first.setdefault(token, output)
    close(documents(encoder, TEXTS), expected)
    assert {"wifi", "wi", "fi", "obliterated", "rich"} <= expected[3].keys()


def test_a_query_of_deepimpact_is_its_distinct_words_without_the_model(tmp_path):
    encoder = made(DeepImpact, tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    queries = encoder.encode_queries(["The wings of wings, and lift", "is it"])
    close(queries, [{"wings": 1, "lift": 1}, {}])


# -- DeepCT and HDCT: frequencies of words -----------------------------------------------------------------------------


def test_the_worked_examples_of_deepct():
    assert frequency([0.01534, 0.25, 0.0002, -0.1], sqrt=False).tolist() == [2, 25, 0, 0]
    assert frequency([0.01534, 0.25, 0.0002, -0.1], sqrt=True).tolist() == [12, 50, 1, 0]


def test_the_worked_example_of_hdct():
    assert position_decay([{"wing": 10}, {}, {"wing": 4, "heat": 1}]) == {"wing": 6}  # 6.1818, and 0.1818 of heat
    assert position_decay([{"wing": 10}] * 3) == {"wing": 10}
    assert position_decay([]) == {}


def test_passages():
    assert passages_of("a b  c\nd e", 2) == ["a b", "c d", "e"]
    assert passages_of("a b  c", None) == ["a b  c"]
    assert passages_of("", 2) == [""]


def analysed(frequencies: Mapping[str, int]) -> dict[str, float]:
    """What an index holds of each word, repeated so many times."""
    return Counter(words("lucene")(" ".join(" ".join([word] * times) for word, times in frequencies.items())))


@pytest.mark.parametrize("sqrt", [False, True])
def test_deepct_weighs_a_word_by_its_first_piece_and_analyses_it(tmp_path, sqrt):
    encoder, reference = made(DeepCt, tmp_path, sqrt=sqrt), Reference(DeepCt, 64)
    texts = [*TEXTS, "wings and a wing: winged"]
    expected = []
    for text in texts:
        most: dict[str, int] = {}
        for word, output in merged(reference(text)):
            if word not in ("[CLS]", "[SEP]", "[UNK]"):
                whole = "z\u00fcrich" if word == "zurich" else word
                most[whole] = max(int(frequency(output, sqrt)), most.get(whole, 0))
        expected.append(analysed(most))
    close(documents(encoder, texts), expected)
    assert "obliter" in expected[3]
    assert "the" not in expected[0]
    assert list(expected[6]) == ["wing"]  # one term of three words


def test_hdct_averages_passages_by_their_place(tmp_path):
    encoder, reference = made(DeepCt, tmp_path, sqrt=True, passage=5), Reference(DeepCt, 64)
    texts = ["wing lift drag heat flow heat shock wing body body wing plate", "heat", ""]
    expected = []
    for text in texts:
        parts = text.split()
        passages = [" ".join(parts[i : i + 5]) for i in range(0, len(parts), 5)]
        own: list[dict[str, int]] = [{} for _ in passages]
        for passage, most in zip(passages, own, strict=True):
            for word, output in merged(reference(passage)):
                if word.isalpha():
                    most[word] = max(int(frequency(output, True)), most.get(word, 0))
        norm = sum(1 / i for i in range(1, len(own) + 1))
        decayed = {word: int(sum(most.get(word, 0) / i for i, most in enumerate(own, 1)) / norm) for word in set(parts)}
        expected.append(analysed(decayed))
    seen: list[float] = []
    given = encoder.encode_documents(texts, seen.append)
    close(given, expected)
    assert sum(seen) == pytest.approx(3)
    assert len(expected[0]) > 4


def test_a_query_of_deepct_is_its_analysed_words_without_the_model(tmp_path):
    encoder = made(DeepCt, tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    queries = encoder.encode_queries(["The wings of a wing, and lifting", "is it"])
    close(queries, [{"wing": 2, "lift": 1}, {}])


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_results_do_not_depend_on_the_batch_and_come_in_order(tmp_path, method):
    encoder = made(method, tmp_path)
    alone = [bags(documents(encoder, [text]))[0] for text in TEXTS]
    order = [3, 0, 2, 5, 1, 4, 0]
    seen: list[float] = []
    close(encoder.encode_documents([TEXTS[i] for i in order], seen.append), [alone[i] for i in order])
    assert sum(seen) == len(order)
    assert documents(encoder, []).weights.shape[0] == encoder.encode_queries([]).weights.shape[0] == 0


@pytest.mark.parametrize("method", METHODS)
def test_truncated_texts_are_counted(tmp_path, method):
    encoder = made(method, tmp_path)
    cut = documents(encoder, ["wing " * 62, "wing " * 63, "lift " * 300])  # 64 tokens, [CLS] and [SEP] among them
    assert cut.truncated == 2


def test_hdct_counts_a_document_once_and_reads_all_that_the_model_can(tmp_path):
    encoder = made(DeepCt, tmp_path, passage=100)
    assert documents(encoder, ["wing " * 62, "wing " * 300]).truncated == 1
    assert DeepCt(encoder.bert.name, passage=100).bert.limit is None


def test_the_lengths_that_the_references_read():
    assert (UniCoil.limit, TildeV2.limit) == (None, 192)


@pytest.mark.parametrize("method", METHODS)
def test_in_automatic_precision_weights_are_nearly_the_same(tmp_path, method):
    texts = [f"{text} {number}" for number in range(170) for text in TEXTS]
    exact = made(method, tmp_path)
    auto = method(exact.bert.name)
    assert sum(map(len, exact.bert.tokenize(texts).ids)) > COMPILE
    pairs = zip(bags(documents(exact, texts)), bags(documents(auto, texts)), strict=True)
    apart = [abs(one.get(term, 0) - other.get(term, 0)) for one, other in pairs for term in {*one, *other}]
    outputs = np.array(apart) / (100 if method is DeepCt else 1)
    assert outputs.max() <= 0.15  # of 32 numbers in bfloat16; with 384 it is a fifth of that
    assert outputs.mean() <= 0.015


@pytest.mark.parametrize("view", ["unicoil('{}', bits=none", "tilde('{}'", "deepimpact('{}', bits=none"])
def test_scores_of_an_index_are_inner_products(tmp_path, view):
    method = {"unicoil": UniCoil, "tilde": TildeV2, "deepimpact": DeepImpact}[view.partition("(")[0]]
    encoder = made(method, tmp_path / "model")
    index = Retriever.create(tmp_path / "index", views=[view.format(encoder.bert.name) + ", precision=float32)"])
    index.add(Document(str(i), text) for i, text in enumerate(TEXTS))
    (query,) = bags(encoder.encode_queries(["heat of the wing"]))
    products = [
        sum(query.get(term, 0) * weight for term, weight in bag.items()) for bag in bags(documents(encoder, TEXTS))
    ]
    found = {hit.id: hit.score for hit in index.search("heat of the wing", k=10)}
    assert found == pytest.approx({str(i): score for i, score in enumerate(products) if score}, rel=1e-4)
    assert len(found) >= 2


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", [{"prefix": ""}, {"prefix": "model."}, {"wrapped": True}])
def test_names_and_files_of_published_checkpoints(tmp_path, method, layout):
    expected = bags(documents(made(method, tmp_path / "usual"), TEXTS))
    folder = bert_with_head(tmp_path / "other", head_of(method), **layout)
    close(documents(method(str(folder), "float32"), TEXTS), expected)


def test_safetensors(tmp_path):
    import torch
    from safetensors.torch import save_file

    expected = bags(documents(made(UniCoil, tmp_path), TEXTS))
    save_file(torch.load(tmp_path / "pytorch_model.bin"), tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").unlink()
    close(documents(UniCoil(str(tmp_path), "float32"), TEXTS), expected)


def test_a_checkpoint_without_the_head_is_refused(tmp_path):
    folder = bert_with_head(tmp_path, head_of(DeepCt))
    for method in UniCoil, TildeV2:
        with pytest.raises(InputError, match="of the parameters of tok_proj it lacks bias and 1 more; expected"):
            documents(method(str(folder)), ["wing"])
    with pytest.raises(InputError, match=r"impact_score_encoder it lacks 0\.bias and 3 more"):
        documents(DeepImpact(str(folder)), ["wing"])


def test_a_checkpoint_that_is_not_whole_or_does_not_fit_is_refused(tmp_path):
    import torch

    folder = bert_with_head(tmp_path, head_of(UniCoil))
    whole = torch.load(folder / "pytorch_model.bin")

    def refused(parameters: Mapping[str, Any], message: str) -> None:
        torch.save(parameters, folder / "pytorch_model.bin")
        with pytest.raises(InputError, match=message):
            documents(UniCoil(str(folder)), ["wing"])

    layer = "bert.encoder.layer.1.output.dense.bias"
    refused({name: tensor for name, tensor in whole.items() if name != layer}, "of BERT it lacks encoder.layer.1.outp")
    refused({**whole, "bert.encoder.layer.2.output.dense.bias": torch.zeros(32)}, "has too many: encoder.layer.2.out")
    refused({**whole, "tok_proj.weight": torch.zeros(32, 32)}, "config.json does not fit the weights of tok_proj")
    refused({}, "of BERT it lacks")


def test_folders_that_lack_a_file(tmp_path):
    folder = bert_with_head(tmp_path, head_of(UniCoil))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"has neither model.safetensors nor pytorch_model.bin"):
        documents(UniCoil(str(folder)), ["wing"])
    settings = folder / "config.json"
    settings.write_text(settings.read_text().replace('"bert"', '"roberta"'))
    with pytest.raises(InputError, match="is of type 'roberta'; expected 'bert'"):
        UniCoil(str(folder)).identity()
    settings.unlink()
    with pytest.raises(InputError, match=r"has no config\.json; for the published models that of bert-base-uncased"):
        UniCoil(str(folder)).identity()
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(InputError, match="holds no tokenizer; put the files of the one it was trained with there"):
        UniCoil(str(folder)).encode_queries(["wing"])


def test_the_identity_holds_what_decides_the_weights(tmp_path):
    folder = str(bert_with_head(tmp_path, head_of(DeepCt)))
    encoders = [
        DeepCt(folder),
        DeepCt(folder, sqrt=True),
        DeepCt(folder, passage=300),
        UniCoil(folder),
        TildeV2(folder),
    ]
    identities = [encoder.identity() for encoder in encoders]
    assert all(one != other for i, one in enumerate(identities) for other in identities[:i])
    assert identities[0] == {
        "model": folder,
        "weights": encoders[1].bert.weights,
        "head": "classifier",
        "max_length": 64,
        "method": "deepct",
        "sqrt": False,
        "passage": None,
        "language": "lucene",
    }
