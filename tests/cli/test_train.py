"""`retriever train` as a user types it."""

import sys
from dataclasses import fields

import collections_on_disk
import pytest
import tiny_models

from retriever import cli
from retriever.cli.train import COMMANDS, HELP
from retriever.training import course


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["retriever", "train", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


def test_a_sparse_encoder_from_the_command_line(call, tmp_path):
    from sentence_transformers import SparseEncoder

    base = tiny_models.masked_lm(tmp_path / "base")
    data = collections_on_disk.things(tmp_path / "things")
    sizes = ["--steps", 2, "--batch-size", 4, "--train-length", 16, "--max-length", 32]
    code, output, errors = call("sparse", "--base", base, "--data", data, "--out", tmp_path / "out", *sizes)
    assert (code, output) == (0, "")
    assert errors.splitlines() == [
        "things: 32 examples; negatives: 0 judged irrelevant, 32 by bm25, 0 at random; left out: 0 queries without a "
        "relevant document; 0 of 32 documents are longer than 16 tokens and are cut",
        f"{tmp_path / 'out'}: a model that sentence-transformers' SparseEncoder loads",
    ]
    assert SparseEncoder(str(tmp_path / "out"), device="cpu").max_seq_length == 32


def test_an_encoder_that_was_interrupted_goes_on_with_the_same_command(call, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    base = tiny_models.bi_encoder(tmp_path / "base")
    data = collections_on_disk.things(tmp_path / "things")
    sizes = ["--steps", 4, "--batch-size", 4, "--train-length", 16, "--max-length", 32, "--evaluate-every", 2]
    given = ("encoder", "--base", base, "--data", data, "--out", tmp_path / "out", *sizes, "--dimensions", "32,8")
    steps = iter(range(3))

    def interrupt(_):
        if next(steps, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(course, "advance", interrupt)
        code, _, errors = call(*given)
    assert code == 130
    assert errors == "error: interrupted; what was committed is kept, and the same command goes on from there\n"
    assert course.newest_checkpoint(tmp_path / "out").name == "checkpoint-2"
    code, output, errors = call(*given)
    assert (code, output) == (0, "")
    assert (
        errors.splitlines()[-1]
        == f"{tmp_path / 'out'}: a model that sentence-transformers loads, for a view: dense(FOLDER)"
    )
    assert SentenceTransformer(str(tmp_path / "out"), device="cpu").max_seq_length == 32


def test_dimensions_that_are_no_numbers(call, tmp_path):
    code, _, errors = call("encoder", "--base", "x", "--data", "y", "--out", tmp_path / "out", "--dimensions", "32;8")
    assert code == 2
    assert errors == "error: expected whole numbers with commas between them, as in 384,256; found '32;8'\n"


def test_bad_data_ends_with_file_and_line(call, tmp_path):
    data = collections_on_disk.things(tmp_path / "things", train=["q-wing-in nothing 1"])
    code, _, errors = call("sparse", "--base", "any", "--data", data, "--out", tmp_path / "out")
    assert code == 2
    assert errors == (
        f"error: {data / 'qrels' / 'train.tsv'}:2: document 'nothing' is judged, "
        "but it is not in the document file of this folder\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_head_from_the_command_line(call, tmp_path):
    base = tiny_models.cross_encoder(tmp_path / "base")
    data = collections_on_disk.things(tmp_path / "things")
    out = tmp_path / "heads" / "parade"
    code, output, errors = call(
        *("head", "parade", "--base", base, "--data", data, "--out", out, "--aggregator", "max", "--limit", 8),
        *("--epochs", 1, "--negatives", 1),
    )
    assert (code, output) == (0, "")
    assert errors.splitlines() == [
        "things: 8 of 32 examples; negatives: 0 judged irrelevant, 8 by bm25, 0 at random; left out: 0 queries "
        "without a relevant document",
        f"{out}: a cross-encoder with a head",
    ]
    assert (out / "head.safetensors").exists()


def test_an_unknown_head(call, tmp_path):
    code, _, errors = call("head", "parades", "--base", "any", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert errors.startswith("error: no head is called 'parades'; ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_of_the_settings_is_an_explained_option(call, command):
    code, output, _ = call(command, "--help")
    assert code == 0
    for field in fields(COMMANDS[command].settings):
        assert HELP[field.name].split()[0] in output


def test_texts_alone_are_read_as_a_collection(call, tmp_path):
    texts = collections_on_disk.write(tmp_path / "texts", {"1": "the wing", "2": "heat of a body"}, {})
    base, out = tiny_models.masked_lm(tmp_path / "base"), tmp_path / "out"
    code, output, errors = call(
        *("mlm", "--base", base, "--texts", texts, "--out", out, "--steps", 1, "--batch-size", 2, "--train-length", 16)
    )
    assert (code, output) == (0, "")
    assert errors.splitlines()[-1] == f"{out}: a masked language model, for the --base of other trainings"


def test_a_bad_dictionary_ends_with_file_and_line(call, tmp_path):
    words = tmp_path / "words.tsv"
    words.write_text("dog\thound\ncat\n")
    code, _, errors = call("lexical", "--base", "any", "--words", words, "--out", tmp_path / "out")
    assert code == 2
    assert errors == f"error: {words}:2: 1 columns between tabs, expected 2, as above\n"
