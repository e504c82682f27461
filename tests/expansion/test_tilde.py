"""TILDE's expansion against the logits of BertLMHeadModel, on random weights."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_models import LETTERS, WORDS, bi_encoder, masked_lm

from retriever import InputError
from retriever.expansion.tilde import STOP_WORDS, Tilde, TildeConfig

TEXTS = ["the wing over the body", "heat shock plate " * 5, "", "lift and drag", "b c d e f g", "wing flow " * 40]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked_lm(tmp_path_factory.mktemp("models") / "bert")


def words(model: Path, texts: list[str], **options: int) -> list[list[str]]:
    return Tilde(TildeConfig(str(model), **options)).expand(texts, lambda _: None).expansions


def reference(model: Path, text: str, n: int, max_length: int) -> list[str]:
    """One passage at a time: the top n of all logits at the first position, less the passage and what is no word."""
    import torch
    from transformers import AutoTokenizer, BertLMHeadModel

    bert, tokenizer = BertLMHeadModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    ids = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt").input_ids
    ids[0, 0] = 1
    with torch.no_grad():
        top = bert(ids).logits[0, 0].topk(n).indices.tolist()
    passage = tokenizer(text, add_special_tokens=False).input_ids
    kept = [tokenizer.convert_ids_to_tokens(id) for id in sorted(top) if id not in passage and id < len(tokenizer)]
    return [token for token in kept if re.fullmatch("[A-Za-z0-9_-]+", token) and token not in STOP_WORDS]


@pytest.mark.parametrize(("n", "max_length"), [(20, 64), (60, 7), (200, 128)])
def test_words_are_those_of_the_language_model_head(model, n, max_length):
    made = words(model, TEXTS, n=n, max_length=max_length)
    assert made == [reference(model, text, min(n, 128), min(max_length, 64)) for text in TEXTS]
    assert len({tuple(each) for each in made}) == len(TEXTS)


def test_of_all_tokens_only_words_remain(model):
    """With n as large as the vocabulary, every word but stop words and the passage's own."""
    (made,) = words(model, ["wing lift"], n=127)
    possible = {token for token in [*WORDS, *LETTERS] if token.isalnum()} - STOP_WORDS - {"wing", "lift"}
    assert set(made) <= possible
    assert len(made) >= len(possible) - 1
    assert not any(token.startswith("##") or token.startswith("[") for token in made)


def test_a_passage_is_compared_as_a_whole_though_only_its_beginning_is_read(model):
    (made,) = words(model, ["wing " * 5 + "heat shock plate lift flow drag"], n=127, max_length=7)
    assert not {"wing", "heat", "shock", "plate", "lift", "flow", "drag"} & set(made)
    assert "body" in made


def test_a_batch_does_not_decide_which_words_are_the_likeliest(model, tmp_path):
    """Where the letters are all but equally likely, the rounding of padded batches would."""
    import torch
    from transformers import BertForMaskedLM

    near = tmp_path / "near"
    shutil.copytree(model, near)
    bert = BertForMaskedLM.from_pretrained(model)
    with torch.no_grad():
        letters = bert.bert.embeddings.word_embeddings.weight[25:]  # [103, d], the head's too
        letters.copy_(letters[0] + 1e-6 * torch.randn(letters.shape, generator=torch.Generator().manual_seed(1)))
    bert.save_pretrained(near)
    texts = [" ".join(np.random.default_rng(i).choice(WORDS[:8], 3 + 2 * i)) for i in range(20)]
    alone = [words(near, [text], n=60)[0] for text in texts]
    assert words(near, texts, n=60) == alone
    assert words(near, texts[::-1], n=60) == alone[::-1]
    assert len({tuple(each) for each in alone}) > 10


def test_cut_passages_are_counted_and_progress_is_told(model):
    seen: list[float] = []
    made = Tilde(TildeConfig(str(model))).expand(TEXTS, seen.append)
    assert made.truncated == 1  # the model has 64 places
    assert sum(seen) == len(TEXTS)
    assert Tilde(TildeConfig(str(model), n=0)).expand(TEXTS, seen.append).expansions == [[]] * len(TEXTS)
    assert Tilde(TildeConfig(str(model))).expand([], seen.append).expansions == []


def test_a_model_without_a_language_model_head_is_refused(tmp_path):
    bi_encoder(tmp_path)
    with pytest.raises(InputError) as caught:
        words(tmp_path / "base", TEXTS)
    assert str(caught.value) == (
        f"{tmp_path / 'base'}: is no BERT with a language-model head, as TILDE is: it has no weights for "
        "cls.predictions.bias"
    )


def test_a_missing_tokenizer_is_told(model, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(InputError, match=r"bare: holds no tokenizer: none of vocab.txt, tokenizer.json; put the files"):
        words(bare, TEXTS)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    from transformers import BertTokenizerFast

    folder = masked_lm(tmp_path / "bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(195))]
    BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    with pytest.raises(InputError, match=f"^{folder}: its tokenizer has 200 tokens, its model knows 128$"):
        words(folder, ["the wing"])
