"""`retriever train` as a user types it."""

import sys

import collections_on_disk
import pytest
import tiny_models

from retriever import cli


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["retriever", "train", "sparse", *map(str, arguments)])
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
    code, output, errors = call("--base", base, "--data", data, "--out", tmp_path / "out", *sizes)
    assert (code, output) == (0, "")
    assert errors.splitlines() == [
        "things: 32 examples; negatives: 0 judged irrelevant, 32 by bm25, 0 at random; left out: 0 queries without a "
        "relevant document; 0 of 32 documents are longer than 16 tokens and are cut",
        f"{tmp_path / 'out'}: a model that sentence-transformers' SparseEncoder loads",
    ]
    assert SparseEncoder(str(tmp_path / "out"), device="cpu").max_seq_length == 32


def test_bad_data_ends_with_file_and_line(call, tmp_path):
    data = collections_on_disk.things(tmp_path / "things", train=["q-wing-in nothing 1"])
    code, _, errors = call("--base", "any", "--data", data, "--out", tmp_path / "out")
    assert code == 2
    assert errors == (
        f"error: {data / 'qrels' / 'train.tsv'}:2: document 'nothing' is judged, "
        "but it is not in the document file of this folder\n"
    )
    assert not (tmp_path / "out").exists()
