"""`retriever compare`, called as a user calls it."""

import json

import pytest
import typer
from collections_on_disk import write
from typer.testing import CliRunner

from retriever.cli.compare import compare_command
from retriever.errors import InputError

app = typer.Typer()
app.command()(compare_command)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Four judged queries, whose relevant document is `good`: b finds it earlier for q1, later for q2, not for q3."""
    monkeypatch.chdir(tmp_path)
    documents = {"good": "a wing in <b>air</b>", "x": "flow [red]over[/red] a plate", "y": "heat"}
    queries = {f"q{n}": f"what is {n}?" for n in range(5)}
    write(tmp_path / "folder", documents, queries, test=[f"q{n} good 1" for n in range(4)] + ["q1 x 0"])
    (tmp_path / "a.trec").write_text(lines("q0", "good x") + lines("q1", "x y good") + lines("q2", "good x y")
                                     + lines("q3", "x good") + lines("q9", "x"))  # fmt: skip
    (tmp_path / "b.trec").write_text(lines("q0", "good y") + lines("q1", "good x y") + lines("q2", "y good x"))


def lines(query: str, documents: str) -> str:
    ranked = enumerate(documents.split(), 1)
    return "".join(f"{query} Q0 {document} {rank} {1 / rank} t\n" for rank, document in ranked)


def run(*arguments: str):
    result = CliRunner().invoke(
        app, ["a.trec", "b.trec", "--qrels", "folder/qrels/test.tsv", "-m", "RR@10", *arguments]
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.usefixtures("files")
def test_the_queries_that_differ_are_shown_with_the_documents_that_moved():
    result = run("--corpus", "folder")
    assert result.stdout.splitlines() == [
        "RR@10\t0.7083\ta.trec",
        "\t0.6250\tb.trec",
        "\t-0.0833\tdifference, p = 0.7827 (paired t-test)",
        "queries\t1 better, 2 worse, 1 equal",
        "",
        "The 1 largest of 1 gains",
        "",
        "+0.6667  0.3333 -> 1.0000  q1  what is 1?",
        "      A     B  grade  document",
        "      3     1      1  good  a wing in <b>air</b>",
        "      1     2      0  x     flow [red]over[/red] a plate",
        "      2     3      -  y     heat",
        "",
        "The 2 largest of 2 losses",
        "",
        "-0.5000  1.0000 -> 0.5000  q2  what is 2?",
        "      A     B  grade  document",
        "      1     2      1  good  a wing in <b>air</b>",
        "      3     1      -  y     heat",
        "      2     3      -  x     flow [red]over[/red] a plate",
        "",
        "-0.5000  0.5000 -> 0.0000  q3  what is 3?",
        "      A     B  grade  document",
        "      2     -      1  good  a wing in <b>air</b>",
        "      1     -      -  x     flow [red]over[/red] a plate",
    ]
    assert result.stderr.splitlines() == [
        "a.trec: queries without judgements, ignored: 1",
        "b.trec: judged queries without results, each counted as zero: 1 of 4",
    ]


@pytest.mark.usefixtures("files")
def test_without_a_corpus_the_ids_stand_alone():
    shown = run("-n", "1").stdout
    assert "\n+0.6667  0.3333 -> 1.0000  q1\n" in shown
    assert "\n      3     1      1  good\n" in shown
    assert "The 1 largest of 2 losses" in shown


@pytest.mark.usefixtures("files")
def test_json_has_everything_with_all_digits():
    found = json.loads(run("--corpus", "folder", "--json").stdout)
    assert found["measure"] == "RR@10"
    assert found["runs"][0] == {"name": "a.trec", "mean": pytest.approx((1 + 1 / 3 + 1 + 1 / 2) / 4)}
    assert found["queries"] == {"better": 1, "worse": 2, "equal": 1}
    (gain,) = found["gains"]
    assert gain["difference"] == pytest.approx(2 / 3)
    assert gain["text"] == "what is 1?"
    assert gain["moves"][0] == {
        "document": "good", "before": 3, "after": 1, "grade": 1, "text": "a wing in <b>air</b>",
    }  # fmt: skip
    assert [each["query"] for each in found["losses"]] == ["q2", "q3"]


@pytest.mark.usefixtures("files")
def test_documents_that_the_corpus_lacks_are_counted(tmp_path):
    write(tmp_path / "other", {"x": "only this"}, {"q1": "?"})
    assert run("--corpus", "other").stderr.splitlines()[-1] == (
        "other: 2 of the 3 documents to show are not in it, such as 'good'"
    )


@pytest.mark.usefixtures("files")
def test_a_wrong_measure_is_told_before_any_file_is_read():
    with pytest.raises(InputError, match=r"^unknown measure 'ndgc@5'; did you mean nDCG@5"):
        run("--qrels", "nowhere", "-m", "ndgc@5")


@pytest.mark.usefixtures("files")
def test_equal_runs_show_no_query(tmp_path):
    (tmp_path / "b.trec").write_text((tmp_path / "a.trec").read_text())
    assert run().stdout.splitlines()[2:] == [
        "\t+0.0000\tdifference, p = 1 (paired t-test)",
        "queries\t0 better, 0 worse, 4 equal",
    ]
