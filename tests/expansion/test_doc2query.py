"""doc2query's sampling, on a tiny T5 with random weights, against transformers' `generate`."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import cross_encoder, seq2seq

from retriever import Document, InputError
from retriever.expansion.doc2query import Doc2Query, Doc2QueryConfig
from retriever.expansion.documents import expand

TEXTS = ["the wing over the body", "heat shock plate " * 7, "", "lift and drag", "a flow over a plate", "the wing"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its own files ask for other sampling than doc2query's."""
    own = {"do_sample": True, "temperature": 7.0, "num_beams": 3, "top_k": 3, "top_p": 0.5, "max_length": 5}
    return seq2seq(tmp_path_factory.mktemp("models") / "t5", **own)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small are no work to share: on a busy machine threads would wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def queries(model: Path, texts: list[str], **options: int) -> list[list[str]]:
    settings = {"n": 4, "max_length": 12, **options}
    return Doc2Query(Doc2QueryConfig(str(model), **settings)).expand(texts, lambda _: None).expansions


def generated(model: Path, text: str, seed: int) -> list[str]:
    import torch
    from transformers import T5ForConditionalGeneration, T5Tokenizer

    tokenizer, t5 = T5Tokenizer.from_pretrained(model), T5ForConditionalGeneration.from_pretrained(model).eval()
    digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(digest[:8], "little") // 2)
        ids = t5.generate(
            tokenizer(text, return_tensors="pt").input_ids,
            do_sample=True,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            top_k=10,
            max_length=12,
            num_return_sequences=4,
        )
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def test_queries_are_what_generate_samples_whatever_the_models_own_files_say(model):
    made = queries(model, TEXTS, seed=3)
    assert made == [generated(model, text, 3) for text in TEXTS]
    assert len({query for each in made for query in each}) > len(TEXTS)


def test_a_documents_queries_depend_on_its_text_and_the_seed_alone(model):
    made = dict(zip(TEXTS, queries(model, TEXTS), strict=True))
    backwards = queries(model, TEXTS[::-1])
    assert dict(zip(TEXTS[::-1], backwards, strict=True)) == made
    assert queries(model, [TEXTS[3]]) == [made[TEXTS[3]]]
    assert queries(model, TEXTS, seed=1) != list(made.values())


def test_the_callers_random_numbers_are_left_alone(model):
    import torch

    before = torch.get_rng_state()
    queries(model, TEXTS[:1])
    assert torch.equal(torch.get_rng_state(), before)


def test_tokens_are_drawn_from_the_top_k(model):
    """Of one there is no choice: every sample is the greedy one."""
    for text, made in zip(TEXTS, queries(model, TEXTS, top_k=1), strict=True):
        assert len(set(made)) == 1, text
    assert any(len(set(made)) > 1 for made in queries(model, TEXTS, top_k=2))


@pytest.mark.parametrize("n", [0, 1, 45])
def test_n_queries_a_document_more_than_are_drawn_at_once_too(model, n):
    made = queries(model, TEXTS[:2], n=n)
    assert [len(each) for each in made] == [n, n]
    assert n < 2 or len(set(made[0])) > 1


def test_a_long_document_is_cut_and_counted(model):
    short, long = "the wing over the body", "the wing over the body under a shock"
    expansion = Doc2Query(Doc2QueryConfig(str(model), n=1, top_k=1, max_length=12, doc_length=6))
    made = expansion.expand([short, long, short], lambda _: None)
    assert made.truncated == 1
    assert made.expansions[1] == made.expansions[0]
    assert queries(model, [long], n=1, top_k=1) != [made.expansions[1]]


def test_an_interrupted_run_ends_at_the_file_of_one_that_was_not(model, tmp_path):
    documents = [Document(f"d{i}", f"{TEXTS[i % 6]} number {i}") for i in range(18)]
    text = f"doc2query({model}, n=2, max_length=8)"
    expand(documents, tmp_path / "whole", text)

    def interrupted() -> Iterator[Document]:
        yield from documents[:11]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        expand(interrupted(), tmp_path / "out", text)
    part = (tmp_path / "out").read_bytes()
    (tmp_path / "out").write_bytes(part[:-30])  # as if killed while the last batch was written
    assert expand(documents, tmp_path / "out", text).known == 7
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_weights_are_part_of_what_made_a_file(model, tmp_path):
    copy = tmp_path / "t5"
    shutil.copytree(model, copy)
    documents = [Document("d1", "the wing")]
    expand(documents, tmp_path / "out", f"doc2query({copy}, n=1)")
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes() + b" ")
    with pytest.raises(InputError, match=r"out: was made by something else: model .*'weights': .*, now .*; give"):
        expand(documents, tmp_path / "out", f"doc2query({copy}, n=1)")


def test_a_model_that_writes_nothing_is_refused(model, tmp_path):
    folder = cross_encoder(tmp_path / "bert")
    with pytest.raises(InputError, match=f"^{folder}: is no sequence-to-sequence model that can be loaded: Unrecogn"):
        queries(folder, TEXTS)


def test_weights_that_are_missing_are_not_made_up(model, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "t5"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["decoder.final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"^{folder}: is no sequence-to-sequence model: it has no weights for decoder"):
        queries(folder, TEXTS)


def test_a_missing_tokenizer_is_told(model, tmp_path):
    folder = tmp_path / "t5"
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(InputError, match=f"^{folder}: holds no tokenizer: none of spiece.model, tokenizer.json"):
        queries(folder, TEXTS)
