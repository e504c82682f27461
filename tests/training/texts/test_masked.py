"""Texts as blocks of tokens, and tokens that are masked the same whenever a step is done."""

import collections_on_disk
import pytest
import tiny_models

from retriever import InputError
from retriever.training.texts.masked import Masking, edges, parts, predicted, read_texts, token_blocks


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_models.tokenizer(64)


def test_a_text_is_cut_into_blocks_of_like_length(tokenizer):
    words = "the wing is in a body of the plate over the drag"
    blocks = token_blocks([words, "heat", "", "$"], tokenizer, 8)
    assert (blocks.texts, blocks.empty) == (4, 2)
    assert [len(row) for row in blocks.rows] == [8, 8, 3]  # 12 tokens in two parts, and [CLS] and [SEP] around each
    assert all((row[0], row[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) for row in blocks.rows)
    inner = [token for row in blocks.rows[:2] for token in row[1:-1]]
    assert tokenizer.convert_ids_to_tokens(inner) == words.split()
    assert [len(row) - 2 for row in token_blocks(["the " * 13], tokenizer, 8).rows] == [4, 4, 5]


def test_the_special_tokens_around_a_text(tokenizer):
    assert edges(tokenizer) == ([tokenizer.cls_token_id], [tokenizer.sep_token_id])


def test_a_length_without_room(tokenizer):
    with pytest.raises(InputError, match="train_length 2 leaves no room for a token"):
        token_blocks(["the wing"], tokenizer, 2)


def test_what_is_held_out_is_not_trained_on(tokenizer):
    rows = token_blocks([f"the wing {i}" for i in range(100)], tokenizer, 16)
    given = parts(rows, steps=30, batch_size=8, seed=1)
    assert [row["draw"] for row in given.trained] == list(range(240))
    trained, measured = ({tuple(row["ids"]) for row in part} for part in given)
    assert (len(trained), len(measured)) == (95, 5)
    assert not trained & measured
    assert len({tuple(row["ids"]) for row in given.trained[:95]}) == 95  # each once before any comes again
    assert given == parts(rows, steps=30, batch_size=8, seed=1) != parts(rows, steps=30, batch_size=8, seed=2)


def test_too_little_to_train_on(tokenizer):
    with pytest.raises(InputError, match="the data make 1 blocks of tokens; at least 2 are needed"):
        parts(token_blocks(["the wing"], tokenizer, 16), steps=1, batch_size=1, seed=0)


def test_masks_depend_on_the_place_in_the_training_alone(tokenizer):
    rows = token_blocks(["the wing is in a body of heat"] * 64, tokenizer, 16).rows
    batch = [{"ids": row, "draw": 64 + i} for i, row in enumerate(rows)]
    masking = Masking(tokenizer, seed=3)
    first = masking(batch)
    masking([{**row, "draw": 0} for row in batch])
    again = masking(batch)
    assert all((first[name] == again[name]).all() for name in first)
    other = Masking(tokenizer, seed=4)(batch)
    assert (first["labels"] != other["labels"]).any()


def test_a_seventh_of_the_tokens_is_masked_and_no_special_one(tokenizer):
    rows = token_blocks(["the wing is in a body of heat"] * 500, tokenizer, 16).rows
    batch = Masking(tokenizer, seed=0)([{"ids": row, "draw": 0} for row in rows])
    labels, ids = batch["labels"], batch["input_ids"]
    asked = labels >= 0
    assert asked[:, 1:-1].float().mean().item() == pytest.approx(0.15, abs=0.02)
    assert not asked[:, [0, -1]].any()
    shown = (ids[asked] == tokenizer.mask_token_id).float().mean().item()
    assert shown == pytest.approx(0.8, abs=0.05)


def test_a_batch_always_asks_for_something(tokenizer):
    rows = token_blocks(["wing"], tokenizer, 16).rows
    for draw in range(40):
        assert (Masking(tokenizer, seed=0)([{"ids": rows[0], "draw": draw}])["labels"] >= 0).any()


def test_texts_are_read_once_and_without_judgements(tmp_path):
    folder = collections_on_disk.write(tmp_path / "texts", {"1": "wing", "2": "drag", "3": "wing"}, {"q": "lift"})
    assert read_texts([folder, folder]) == ["wing", "drag"]
    with pytest.raises(InputError, match="there is nothing to train on: give at least one collection"):
        read_texts([])


def test_a_bad_line_is_named(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "wing"}\n{"_id": "2"}\n')
    with pytest.raises(InputError, match=r"corpus.jsonl:2: "):
        read_texts([tmp_path])


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "distilbert", "mpnet", "modernbert"])
def test_the_loss_and_its_gradients_need_the_masked_tokens_alone(kind, tokenizer):
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "distilbert":
        small = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(
        AutoConfig.for_model(kind, vocab_size=len(tokenizer), pad_token_id=0, **small)
    ).eval()
    rows = token_blocks(["the wing is in a body of the plate", "lift and drag"], tokenizer, 16).rows
    batch = Masking(tokenizer, 0)([{"ids": row, "draw": 1} for row in rows])

    def gradients(loss):
        return torch.autograd.grad(
            loss, [value for value in model.parameters() if value.requires_grad], allow_unused=True
        )

    whole, part = model(**batch), predicted(model, batch)
    assert part.logits.shape == ((batch["labels"] >= 0).sum(), len(tokenizer))
    torch.testing.assert_close(part.loss, whole.loss)
    for mine, reference in zip(gradients(part.loss), gradients(whole.loss), strict=True):
        torch.testing.assert_close(mine, reference)
    assert model(**batch).logits.shape == whole.logits.shape  # the model is left as it was
