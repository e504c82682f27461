"""Lexical specialization: what a word's vector is, the loss, and that the encoder learns and stays one."""

import math
from dataclasses import replace

import collections_on_disk
import pytest
import tiny_models
from training_runs import logged, same, train_and_kill, weights

from retriever import InputError
from retriever.training import course
from retriever.training.settings import LexicalTraining
from retriever.training.start import quiet
from retriever.training.texts.lexical import Words, nt_xent, train_lexical, word_vectors
from retriever.training.texts.lexicon import WordPair

GROUPS = [
    ["wing", "lift"],
    ["drag", "flow"],
    ["heat", "shock"],
    ["plate", "body"],
    ["over", "under", "of"],
    ["q", "z5"],
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    lines = [f"{number}\ten\t{word}" for number, group in enumerate(GROUPS) for word in group]
    (folder / "words.tsv").write_text("\n".join(lines))
    return LexicalTraining(
        base=str(tiny_models.masked_lm(folder / "base", initializer_range=0.1)),
        words=(str(folder / "words.tsv"),),
        dev=(str(collections_on_disk.things(folder / "things")),),
        steps=40,
        batch_size=4,
        learning_rate=5e-3,
        train_length=8,
        evaluate_every=10,
        precision="float32",
    )


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    return train_lexical(replace(settings, dev=()), tmp_path_factory.mktemp("trained") / "out")


def test_a_word_is_the_mean_of_its_sub_words_without_both_special_tokens(tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_models.bi_encoder(tmp_path)), device="cpu").eval()
    collate = Words([WordPair(0, "wing", "z5"), WordPair(1, "drag", "flow")], model.tokenizer, 8)
    batch = collate([{"pair": 0}, {"pair": 1}])
    assert batch["second_input_ids"].shape == (2, 4)  # z, ##5 between the special ones; flow is padded

    def hidden(word):
        return model[0](model.preprocess([word]))["token_embeddings"][0]

    for place, words in {"first": ["wing", "drag"], "second": ["z5", "flow"]}.items():
        features = {name: batch[f"{place}_{name}"] for name in ("input_ids", "attention_mask")}
        states = model[0](dict(features))["token_embeddings"]
        vectors = word_vectors(states, features["attention_mask"], 1, 1)
        for word, vector in zip(words, vectors, strict=True):
            alone = hidden(word)
            assert len(alone) == (4 if word == "z5" else 3)
            assert (vector - alone[1:-1].mean(dim=0)).abs().max() < 1e-5
            if word != "z5":  # one piece: its own hidden state
                assert (vector - alone[1]).abs().max() < 1e-5


def test_special_tokens_do_not_count():
    import torch

    hidden = torch.tensor([[[100.0], [1.0], [2.0], [100.0], [7.0]], [[100.0], [5.0], [100.0], [7.0], [7.0]]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    assert word_vectors(hidden, mask, 1, 1)[:, 0].tolist() == [1.5, 5.0]
    assert word_vectors(hidden.flip(1), mask.flip(1), 1, 1)[:, 0].tolist() == [1.5, 5.0]  # padded on the left
    assert word_vectors(hidden, mask, 0, 1)[:, 0].tolist() == pytest.approx([103 / 3, 52.5])


def test_nt_xent_of_known_cosines():
    """Two pairs, equal within and at right angles between: ln(1 + 2 e^(-1 / t)) for each of the four words."""
    import torch

    pairs = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    for temperature in (1.0, 0.5):
        expected = math.log(1 + 2 * math.exp(-1 / temperature))
        assert nt_xent(pairs, 5 * pairs, temperature).item() == pytest.approx(expected, abs=1e-6)
    crossed = math.log(math.e + 2)  # partners at right angles, one other word equal
    assert nt_xent(pairs, pairs.flip(0), 1.0).item() == pytest.approx(crossed, abs=1e-6)


def test_one_pair_of_a_group_makes_it_the_supervised_contrastive_loss():
    """SupCon (Khosla et al. 2020): the mean over anchors of the mean over their positives of -log softmax."""
    import torch
    from torch.nn.functional import normalize

    torch.manual_seed(0)
    first, second = torch.randn(5, 7), torch.randn(5, 7)
    both, labels = normalize(torch.cat([first, second]), dim=1), torch.arange(5).repeat(2)
    terms = []
    for i in range(10):
        others = [a for a in range(10) if a != i]
        logits = (both[i] @ both[others].T / 0.07).log_softmax(0)
        positives = [at for at, a in enumerate(others) if labels[a] == labels[i]]
        terms.append(-logits[positives].mean())
    assert nt_xent(first, second, 0.07).item() == pytest.approx(torch.stack(terms).mean().item(), abs=1e-5)


def test_words_that_mean_the_same_come_together(settings, trained):
    from sentence_transformers import SentenceTransformer

    assert trained.notes == [
        "13 words in 6 groups, 0 of those drawn cut to 8 tokens; left out: 0 groups of one word",
    ]
    losses = logged(trained.out, "loss")
    assert losses[-1] < 0.9 * losses[0]
    with quiet():
        model, before = (SentenceTransformer(name, device="cpu") for name in (str(trained.out), settings.base))
    apart = []
    for each in (model, before):
        first, second = (each.encode([group[place] for group in GROUPS]) for place in (0, 1))
        cosines = first @ second.T
        apart.append(cosines.diagonal().mean() - cosines.mean())
    assert apart[0] > apart[1]
    assert [type(module).__name__ for module in model] == [type(module).__name__ for module in before]
    assert model.max_seq_length == before.max_seq_length


def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, trained, tmp_path):
    train_and_kill(train_lexical, replace(settings, dev=()), tmp_path / "out", steps=15)
    out = train_lexical(replace(settings, dev=()), tmp_path / "out").out
    assert same(weights(out), weights(trained.out))


def test_the_checkpoint_that_is_best_on_dev_is_saved(settings, tmp_path):
    out = train_lexical(settings, tmp_path / "out").out
    assert len(logged(out, "eval_nDCG@10")) >= 3
    assert not (out / course.CHECKPOINTS).exists()


def test_the_result_is_a_base(settings, trained, tmp_path):
    again = train_lexical(replace(settings, base=str(trained.out), dev=(), steps=2), tmp_path / "out").out
    assert not same(weights(again), weights(trained.out))


def test_a_word_without_a_token(settings, tmp_path):
    (tmp_path / "words.tsv").write_text("wing\t\N{ZERO WIDTH SPACE}\ndrag\tflow\n", encoding="utf-8")
    short = replace(settings, words=(str(tmp_path / "words.tsv"),), batch_size=2)
    with pytest.raises(InputError, match=r"the word '\\u200b' has no token that the model knows"):
        train_lexical(short, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": ()}, "there is nothing to train on: no two words that mean the same"),
        ({"batch_size": 1}, "batch_size must be at least 2, not 1: the other pairs of a batch are the negatives"),
        ({"batch_size": 7}, "the words are too few for batches of 7 pairs"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"train_length": 2}, "train_length 2 leaves no room for a word"),
        ({"base": "no/such-model"}, "model 'no/such-model' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_lexical(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
