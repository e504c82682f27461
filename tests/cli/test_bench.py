"""`retriever bench` and `retriever reproduce`, called as a user calls them."""

import gzip
import json

import pytest
from collections_on_disk import PLACES, THINGS, things
from typer.testing import CliRunner

from retriever.bench import reproduction
from retriever.bench.reproduction import Expected, Named, experiments
from retriever.cli.app import app
from retriever.errors import InputError

TOY = "dense(toy_encoders:HashEncoder)"


@pytest.fixture
def folder(tmp_path):
    judged = [f"q-{thing}-{place} d-{thing}-{place} 1" for thing in THINGS for place in PLACES]
    return things(tmp_path / "things", test=judged)


def call(*arguments, fails=0):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == fails, result.output
    return result


def test_a_comparison_writes_its_report_and_every_run(folder, tmp_path):
    out = tmp_path / "report"
    systems = ["--system", "bm25", "-s", f"bm25 + {TOY} >> rrf", "-s", "toy_encoders:HashEncoder"]
    result = call("bench", folder, *systems, "--out", out, "--cache", tmp_path / "cache", "-k", 10, "-m", "MRR@10")
    assert "things: bm25: RR@10 " in result.stderr
    experiment = json.loads((out / "report.json").read_text())
    assert experiment["systems"] == ["bm25", f"bm25 + {TOY} >> rrf", "toy_encoders:HashEncoder"]
    assert experiment["measures"] == ["RR@10"]
    assert {path.name for path in out.iterdir()} == {"report.html", "report.json", "report.md", "report.tex", "runs"}
    first, second, _ = sorted((out / "runs" / "things").iterdir())
    assert (first.name, second.name) == (
        "bm25.trec.gz", "bm25_+_dense_toy_encoders_HashEncoder_rrf.trec.gz",
    )  # fmt: skip
    assert gzip.decompress(first.read_bytes()).split()[5] == b"bm25"
    assert "bm25" in (out / "report.html").read_text()


def test_a_part_of_the_queries_gives_a_quick_look(folder, tmp_path):
    shared = ["bench", folder, "-s", "bm25", "--cache", tmp_path / "cache"]
    call(*shared, "--out", tmp_path / "part", "--queries", 3)
    call(*shared, "--out", tmp_path / "all")
    asked = [json.loads((tmp_path / out / "report.json").read_text())["collections"][0] for out in ("part", "all")]
    assert [len(collection["queries"]) for collection in asked] == [3, len(THINGS) * len(PLACES)]


def test_what_cannot_be_is_told_before_anything_is_built(folder, tmp_path):
    rest = ("--out", tmp_path / "report", "--cache", tmp_path / "cache")
    for arguments, message in (
        ([folder, "-s", "bm52", *rest], "no view or stage is called 'bm52'"),
        ([folder, "-s", "bm25", "-m", "ndgc@5", *rest], "unknown measure 'ndgc@5'"),
        ([tmp_path / "nowhere", "-s", "bm25", *rest], "there is no such folder; a collection is"),
    ):
        with pytest.raises(InputError, match=message):
            call("bench", *arguments)
    assert not (tmp_path / "cache").exists()


def test_experiments_are_listed():
    lines = call("reproduce").stdout.splitlines()
    assert len(lines) == len(experiments()) == 16
    assert lines[0] == "scifact\tscifact, test, 4 systems, docs/results.md"


def test_the_experiments_are_what_the_docs_print():
    from pathlib import Path

    page = Path(reproduction.__file__).parents[2] / "docs" / "results.md"
    for experiment in experiments().values():
        _, _, heading = experiment.source.partition(", ")
        section = page.read_text().partition(f"\n## {heading or experiment.collection}\n")[2].partition("\n## ")[0]
        table = section.partition(f"\n### {experiment.collection}\n")[2].partition("\n### ")[0] or section
        for expected in experiment.systems:
            printed = [f"{value:.4f}" for value in expected.means.values()]
            row = next(line for line in table.splitlines() if line.startswith(f"| {as_printed(expected.system)} |"))
            assert row.replace("*", "").split(" | ")[1:] == [*printed[:-1], f"{printed[-1]} |"]


def as_printed(system):
    """The name alone where it has one; views of the trained model as they are called there."""
    name, _, _ = system.partition(" = ")
    short = name.replace("('{model}')", "").replace("'{model}', ", "")
    return short.replace("(bits=8)", ", bits=8")


@pytest.mark.parametrize(("ndcg", "passes"), [(None, True), (0.1, False)])
def test_an_experiment_passes_or_fails_number_by_number(folder, tmp_path, monkeypatch, ndcg, passes):
    out = tmp_path / "report"
    call("bench", folder, "-s", "bm25", "--out", out, "--cache", tmp_path / "cache", "-m", "nDCG@10", "-m", "R@100")
    means = json.loads((out / "report.json").read_text())["outcomes"][0]["results"]["means"]
    expected = Expected("bm25", {**means, "nDCG@10": ndcg or means["nDCG@10"]}, 0.0001)
    toy = Named("toy", "things", "test", 1000, True, "here", (expected,))
    monkeypatch.setattr(reproduction, "experiments", lambda: {"toy": toy})
    result = call("reproduce", "toy", "--data", tmp_path, fails=0 if passes else 1)
    heading, first, second = result.stdout.splitlines()
    assert heading == "system\tmeasure\tours\texpected\ttolerance\t"
    assert first.endswith("pass" if passes else "\t0.1000\t0.0001\tFAIL")
    assert second.endswith("pass")
    assert result.stderr.splitlines()[-1] == ("toy: pass" if passes else "toy: fail: 1 of 2 numbers")


def test_an_experiment_that_is_none_or_has_no_data_is_told():
    with pytest.raises(InputError, match="no experiment is called 'sifact'; did you mean 'scifact'"):
        call("reproduce", "sifact")
    with pytest.raises(InputError, match="cranfield cannot be downloaded; give the folder that it lies in: --data DIR"):
        call("reproduce", "cranfield")


def test_an_experiment_of_a_trained_model_is_given_the_model(folder, tmp_path, monkeypatch):
    expected = Expected("dense('{model}')", {"Success@1": 1.0}, 0.0)
    toy = Named("toy", "things", "test", 1000, True, "here", (expected,))
    monkeypatch.setattr(reproduction, "experiments", lambda: {"toy": toy, **experiments()})
    result = call("reproduce", "toy", "--data", tmp_path, "--model", "toy_encoders:HashEncoder", fails=1)
    assert result.stdout.splitlines()[1].startswith("dense('{model}')\tSuccess@1\t0.")
    with pytest.raises(InputError, match="toy is of a model that was trained as here says; give it: --model MODEL"):
        call("reproduce", "toy", "--data", tmp_path)
    with pytest.raises(InputError, match="scifact is of no model that was trained here; leave --model out"):
        call("reproduce", "scifact", "--model", "m")
