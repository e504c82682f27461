"""`retriever eval`, called as a user calls it."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from retriever.cli.eval import evaluate_command
from retriever.errors import InputError

app = typer.Typer()
app.command()(evaluate_command)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Ten judged queries; `bad` finds the document third, `good` first or second; `partial` lacks nine queries."""
    monkeypatch.chdir(tmp_path)
    queries = [f"q{n}" for n in range(10)]
    (tmp_path / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{query}\trel\t1\n" for query in queries)
    )
    (tmp_path / "bad").write_text("".join(lines(query, "x y rel") for query in queries))
    (tmp_path / "good").write_text("".join(lines(query, "rel x" if query < "q7" else "x rel") for query in queries))
    (tmp_path / "partial").write_text(lines("q0", "q0 rel") + lines("q99", "rel"))
    return tmp_path


def lines(query: str, documents: str) -> str:
    ranked = enumerate(documents.split(), 1)
    return "".join(f"{query} Q0 {document} {rank} {1 / rank} t\n" for rank, document in ranked)


def run(*arguments: str, **environment: str):
    result = CliRunner().invoke(app, arguments, env=environment)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.usefixtures("files")
def test_one_run_in_a_pipe_is_a_tab_separated_table():
    result = run("good", "--qrels", "test.tsv")
    assert result.stdout == "run\tnDCG@10\tR@100\tRR@10\ngood\t0.8893\t1.0000\t0.8500\n"
    assert result.stderr == ""


@pytest.mark.usefixtures("files")
def test_two_runs_are_compared_with_the_first():
    result = run("bad", "good", "--qrels", "test.tsv", "-m", "MRR@10", "--measure", "R@100")
    table, differences = result.stdout.split("\n\n")
    assert table == "run\tRR@10\tR@100\nbad\t0.3333\t1.0000\ngood\t0.8500*\t1.0000"
    heading, reciprocal, recall = differences.splitlines()
    assert heading == "run\tmeasure\tdifference\t95% interval\tp\tp (Holm)"
    name, measure, difference, interval, p, p_holm = reciprocal.split("\t")
    assert (name, measure, difference) == ("good", "RR@10", "+0.5167")
    low, high = map(float, interval.split())
    assert low < 0.5167 < high
    assert float(p_holm) == pytest.approx(2 * float(p), rel=1e-3)
    assert recall == "good\tR@100\t+0.0000\t+0.0000 +0.0000\t1\t1"
    assert result.stderr == "good: 10 queries are too few to tell runs apart; at least 25 are wanted, better 50\n"


@pytest.mark.usefixtures("files")
def test_the_test_and_the_correction_can_be_chosen():
    result = run("bad", "good", "--qrels", "test.tsv", "-m", "RR@10", "--test", "randomisation", "--correction", "bh")
    heading, line = result.stdout.split("\n\n")[1].splitlines()
    assert heading.endswith("\tp\tp (BH)")
    assert line.split("\t")[-2:] == [f"{2 / 2**10:.4g}"] * 2


@pytest.mark.usefixtures("files")
def test_a_run_that_found_no_judged_document_is_told_with_ids_of_both_sides():
    Path("other").write_text(lines("q0", "17 18 19 20"))
    assert (
        "other: no judged document was found for any query: for 'q0' the run has '17', '18', '19', ...; the judgements "
        "have 'rel'; do they belong to the same collection?"
    ) in run("other", "--qrels", "test.tsv").stderr


@pytest.mark.usefixtures("files")
def test_what_the_numbers_hide_is_said_on_stderr():
    result = run("partial", "--qrels", "test.tsv", "-m", "RR@10", "--drop-identical")
    assert result.stdout == "run\tRR@10\npartial\t0.1000\n"
    assert result.stderr.splitlines() == [
        "partial: judged queries without results, each counted as zero: 9 of 10",
        "partial: queries without judgements, ignored: 1",
        "partial: results with their query's own id, dropped: 1",
    ]


@pytest.mark.usefixtures("files")
def test_json_is_one_object_with_all_digits():
    result = run("bad", "good", "--qrels", "test.tsv", "-m", "RR@10", "--json")
    found = json.loads(result.stdout)
    assert found["statistics"] == {"test": "t", "correction": "holm", "seed": 0}
    first, second = found["runs"]
    assert first == {
        "name": "bad", "means": {"RR@10": pytest.approx(1 / 3)}, "judged": 10, "missing": 0, "ignored": 0, "dropped": 0,
        "strangers": "", "intervals": {"RR@10": [pytest.approx(1 / 3)] * 2},
    }  # fmt: skip
    assert set(second["versus_first"]["RR@10"]) == {
        "difference", "p", "p_corrected", "interval", "effect", "detectable"
    }  # fmt: skip
    assert second["versus_first"]["RR@10"]["difference"] == pytest.approx(0.85 - 1 / 3)
    assert second["versus_first"]["RR@10"]["p"] == second["versus_first"]["RR@10"]["p_corrected"] < 0.001


@pytest.mark.usefixtures("files")
def test_json_holds_values_per_query_if_asked():
    result = run("good", "--qrels", "test.tsv", "-m", "RR@10", "--json", "--per-query")
    (only,) = json.loads(result.stdout)["runs"]
    assert only["per_query"]["RR@10"] == {f"q{n}": 1.0 if n < 7 else 0.5 for n in range(10)}


@pytest.mark.usefixtures("files")
def test_values_per_query_are_lines_like_trec_evals():
    printed = run("good", "--qrels", "test.tsv", "-m", "RR@10", "--per-query").stdout.splitlines()
    assert printed[0] == "RR@10\tq0\t1.0000"
    assert printed[9:] == ["RR@10\tq9\t0.5000", "RR@10\tall\t0.8500"]


@pytest.mark.usefixtures("files")
def test_values_per_query_of_several_runs_name_the_run():
    printed = run("bad", "good", "--qrels", "test.tsv", "-m", "RR@10", "--per-query").stdout.splitlines()
    assert printed[0] == "bad\tRR@10\tq0\t0.3333"
    assert printed[-1] == "good\tRR@10\tall\t0.8500"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("columns", ["200", "20"])
def test_on_a_terminal_no_number_is_cut_however_narrow_it_is(columns):
    terminal = {"FORCE_COLOR": "1", "COLUMNS": columns, "TERM": "dumb"}
    shown = run("bad", "good", "--qrels", "test.tsv", "-m", "RR@10", "-m", "R@100", **terminal).stdout
    for text in ("RR@10", "R@100", "0.3333", "0.8500*", "1.0000", "+0.5167", "p (Holm)"):
        assert text in shown
    assert "\t" not in shown


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["good", "--qrels", "nowhere.tsv"], r"^nowhere.tsv: cannot be read: No such file or directory$"),
        (["nowhere", "--qrels", "test.tsv"], r"^nowhere: cannot be read: No such file or directory$"),
        (["nowhere", "--qrels", "test.tsv", "-m", "ndgc@5"], r"^unknown measure 'ndgc@5'; did you mean nDCG@5"),
        (["test.tsv", "--qrels", "test.tsv"], r"^test.tsv:1: expected a number as the score, found 'score'$"),
    ],
)
def test_bad_input_is_raised_for_the_command_line_to_tell(arguments, message):
    with pytest.raises(InputError, match=message):
        run(*arguments)
