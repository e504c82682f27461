"""monoT5 against transformers' own forward pass, pair by pair."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import WORDS, cross_encoder, seq2seq

from retriever import Document, InputError, Retriever
from retriever.rerankers.mono_t5 import MonoT5, MonoT5Config
from retriever.rerankers.true_false import answers
from retriever.tallies import tallies

ANSWERS = ["true", "false", "Query", "Document", "Relevant"]
PAIRS = [
    ("shock wing", "the wing is over the body"),
    ("lift", "drag of flow in heat over the plate"),
    ("", "the wing"),
    ("wing", ""),
    ("wing zz9", "lift qx drag"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seq2seq(tmp_path_factory.mktemp("models") / "t5", more=ANSWERS)


def stage(model: Path, precision: str = "float32") -> MonoT5:
    return MonoT5(MonoT5Config(str(model), precision=precision))


def forward(model: Path, prompt: str) -> float:
    """The logarithm of the probability of "true" against "false" as the first word behind a prompt."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    words: Any = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSeq2SeqLM.from_pretrained(model).eval()
    with torch.inference_mode():
        logits = network(**words(prompt, return_tensors="pt"), decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
    two = logits[[words.get_vocab()["▁false"], words.get_vocab()["▁true"]]]
    return float(torch.log_softmax(two, dim=0)[1])


def test_scores_are_the_log_probability_of_true_against_false(model):
    scores = stage(model).score(PAIRS)
    expected = [forward(model, f"Query: {query} Document: {document} Relevant:") for query, document in PAIRS]
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx(expected, abs=1e-4)
    assert np.ptp(scores) > 1e-3
    assert stage(model).score([]).shape == (0,)


def test_batch_and_padding_change_nothing(model):
    alone = [stage(model).score([pair])[0] for pair in PAIRS]
    assert stage(model).score(PAIRS).tolist() == pytest.approx(alone, abs=1e-5)


def test_bfloat16_leaves_the_decoder_as_it_is(model):
    assert stage(model, "auto").score(PAIRS) == pytest.approx(stage(model).score(PAIRS), abs=0.05)
    assert stage(model).score(PAIRS) == pytest.approx([forward(model, _prompt(*pair)) for pair in PAIRS], abs=1e-4)


def _prompt(query: str, document: str) -> str:
    return f"Query: {query} Document: {document} Relevant:"


def test_a_long_document_is_cut_and_the_question_stays(model):
    words = (WORDS[12:] * 200)[:1500]
    with tallies() as found:
        scores = stage(model).score([("wing", "flow"), ("wing", " ".join(words * 600))])
    assert found == {f"documents were longer than {model} reads (512 tokens), and cut": 1}
    fixed = len(_tokens(model, "Query: wing Document: Relevant:"))
    kept = " ".join(words[: 512 - fixed])
    assert len(_tokens(model, _prompt("wing", kept))) == 512
    assert scores[1] == pytest.approx(forward(model, _prompt("wing", kept)), abs=1e-4)


def _tokens(model: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(model)(text)["input_ids"]
    return ids


def test_in_a_pipeline(model, tmp_path):
    index = Retriever.create(tmp_path / "index", views=["bm25"])
    index.add(Document(f"d{i}", " ".join(["wing", *WORDS[12 + i :]])) for i in range(8))
    before = index.search("wing", k=8, pipeline="bm25")
    after = index.search("wing", k=8, pipeline=f"bm25 >> mono-t5({model}, depth=5, precision=float32)")
    expected = {hit.id: forward(model, _prompt("wing", hit.text)) for hit in before[:5]}
    assert {hit.id: hit.score for hit in after[:5]} == pytest.approx(expected, abs=1e-4)
    assert [hit.id for hit in after[5:]] == [hit.id for hit in before[5:]]


def test_the_words_of_an_answer_by_the_models_name():
    assert answers("castorini/monot5-base-msmarco") == ("▁false", "▁true")
    assert answers("/some/where/anything") == ("▁false", "▁true")
    assert answers("unicamp-dl/mt5-base-mmarco-v2") == ("▁no", "▁yes")
    assert answers("unicamp-dl/ptt5-base-pt-msmarco-100k-v2") == ("▁não", "▁sim")
    assert answers("unicamp-dl/mt5-3B-mmarco-en-pt") == ("▁", "▁true")
    assert answers("unicamp-dl/mt5-13b-mmarco-100k") == ("▁false", "▁true")


def test_what_is_no_monot5(tmp_path):
    with pytest.raises(InputError, match="its tokenizer has no token '▁false' to answer with; give a model that was"):
        stage(seq2seq(tmp_path / "mute")).score(PAIRS)
    with pytest.raises(InputError, match="is no sequence-to-sequence model that can be loaded"):
        stage(cross_encoder(tmp_path / "bert")).score(PAIRS)
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        stage(Path("no/such"))
    with pytest.raises(ValueError, match="depth must be at least 1"):
        MonoT5Config("m", depth=0)
