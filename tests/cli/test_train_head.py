"""`retriever train head` as a user types it."""

import collections_on_disk
import pytest
import tiny_models

from retriever import cli


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["retriever", "train", "head", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


def test_a_head_from_the_command_line(call, tmp_path):
    base = tiny_models.cross_encoder(tmp_path / "base")
    data = collections_on_disk.things(tmp_path / "things")
    out = tmp_path / "heads" / "parade"
    code, output, errors = call(
        *("parade", "--base", base, "--data", data, "--out", out, "--aggregator", "max", "--limit", 8),
        *("--epochs", 1, "--negatives", 1),
    )
    assert (code, output) == (0, "")
    assert errors.splitlines() == [
        "things: 8 of 32 examples; negatives: 0 judged irrelevant, 8 by bm25, 0 at random; left out: 0 queries "
        "without a relevant document",
        f"{out}: a cross-encoder with a head for parade",
    ]
    assert (out / "head.safetensors").exists()


def test_an_unknown_head(call, tmp_path):
    code, _, errors = call("parades", "--base", "any", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert errors.startswith("error: no head is called 'parades'; ")
