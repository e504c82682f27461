"""Runs and judgements: their order, their files, and what is said of bad ones."""

import gzip
import math
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.errors import InputError
from retriever.runs import Qrels, Run, tie_order

TREC = """\
q1 Q0 d1 1 12.5 bm25
q2 Q0 d9 1 0.25 bm25
q1 Q0 d2 2 -1e-05 bm25
"""


def float32(value: float) -> float:
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


# -- order -------------------------------------------------------------------------------------------------------------


def test_ties_are_broken_by_id_descending_as_trec_eval_breaks_them():
    assert list(tie_order({"a": 1.0, "c": 1.0, "b": 2.0})) == ["b", "c", "a"]


def test_ids_are_compared_by_code_point_which_is_the_order_of_utf_8_bytes():
    ids = ["10", "9", "Z", "z", "é", "\uffff", "\U00010000"]
    assert list(tie_order(dict.fromkeys(ids, 0.0))) == sorted(ids, key=str.encode, reverse=True)


def test_scores_equal_in_float32_are_tied_because_trec_eval_holds_scores_as_c_floats():
    assert tie_order({"a": 1.0 + 1e-12, "b": 1.0}) == {"b": 1.0, "a": 1.0 + 1e-12}
    assert list(tie_order({"a": 1.0 + 1e-12, "b": 1.0})) == ["b", "a"]
    assert list(tie_order({"a": 1e300, "b": 1e299, "c": 0.0, "d": -0.0})) == ["b", "a", "d", "c"]


@given(st.dictionaries(st.text(), st.floats(allow_nan=False)))
def test_order_is_by_rounded_score_then_id(scores):
    ranked = list(tie_order(scores).items())
    assert dict(ranked) == scores
    assert all((float32(s), i) > (float32(t), j) for (i, s), (j, t) in pairwise(ranked))


# -- Run ---------------------------------------------------------------------------------------------------------------


def test_a_run_is_a_mapping_of_rankings_best_first():
    run = Run({"q1": {"d1": 1.0, "d2": 2.0}, "q2": {"d3": 0.5}}, tag="bm25")
    assert list(run) == ["q1", "q2"]
    assert len(run) == 2
    assert list(run["q1"].items()) == [("d2", 2.0), ("d1", 1.0)]
    assert run == {"q1": {"d2": 2.0, "d1": 1.0}, "q2": {"d3": 0.5}}
    assert {query: next(iter(ranking)) for query, ranking in run.items()} == {"q1": "d2", "q2": "d3"}
    assert repr(run) == "<Run: 2 queries, 3 documents>"


def test_a_run_cannot_be_changed():
    scores = {"d1": 1.0}
    run = Run({"q1": scores})
    scores["d2"] = 2.0
    assert run == {"q1": {"d1": 1.0}}
    with pytest.raises(TypeError, match="does not support item assignment"):
        run["q1"]["d1"] = 2.0
    with pytest.raises(AttributeError):
        run.tag = "other"


def test_runs_are_equal_when_their_rankings_are():
    assert Run({"q": {"a": 1.0, "b": 2.0}}, tag="x") == Run({"q": {"b": 2.0, "a": 1.0}}, tag="y")
    assert Run({"q": {"a": 1.0}}) != Run({"q": {"a": 2.0}})


def test_a_query_that_found_nothing_is_left_out():
    run = Run({"q1": {"d1": 1.0}, "q2": {}})
    assert "q2" not in run
    assert run.get("q2", {}) == {}


def test_scores_become_python_floats():
    numpy = pytest.importorskip("numpy")
    score = Run({"q": {"d": numpy.float32(0.5)}})["q"]["d"]
    assert (type(score), score) == (float, 0.5)


def test_top_cuts_in_the_tie_order():
    run = Run({"q": {"a": 1.0, "b": 1.0, "c": 1.0}}, tag="x")
    assert run.top(2) == {"q": {"c": 1.0, "b": 1.0}}
    assert run.top(2).tag == "x"
    assert run.top(9) == run


def test_top_needs_a_depth():
    with pytest.raises(InputError, match=r"^a run is cut at a depth of at least 1, not 0$"):
        Run({"q": {"a": 1.0}}).top(0)


def test_nan_is_refused():
    with pytest.raises(InputError, match=r"^query 'q', document 'd': the score is NaN, expected a number$"):
        Run({"q": {"d": math.nan}})


@pytest.mark.parametrize(("bad", "what"), [("a\0", "a NUL character"), ("\ud800", "a lone surrogate")])
def test_an_id_that_is_no_text_is_refused_before_it_meets_c_code(bad, what):
    with pytest.raises(InputError, match=f"^query 'q': its id or that of a document has {what}, which is no text$"):
        Run({"q": {"d": 1.0, bad: 2.0}})
    with pytest.raises(InputError, match=f"its id or that of a document has {what}, which is no text$"):
        Qrels({bad: {"d": 1}})


# -- run files ---------------------------------------------------------------------------------------------------------


def test_a_trec_file_is_read_by_score_whatever_the_order_of_its_lines_and_its_ranks(tmp_path):
    path = tmp_path / "run.trec"
    path.write_text("q1 Q0 d2 1 -1e-05 bm25\n\nq2 Q0 d9 7 0.25 bm25\r\nq1\tQ0\td1\t9\t12.5\tbm25")
    run = Run.read(path)
    assert list(run["q1"].items()) == [("d1", 12.5), ("d2", -1e-05)]
    assert run["q2"] == {"d9": 0.25}
    assert run.tag == "bm25"


def test_a_run_is_written_as_trec_lines_with_all_digits(tmp_path):
    Run({"q1": {"d2": 0.1 + 0.2, "d1": 1}}, tag="bm25(k=10) >> rrf").write(tmp_path / "run.trec")
    assert (tmp_path / "run.trec").read_text() == (
        "q1 Q0 d1 1 1.0 bm25(k=10)>>rrf\nq1 Q0 d2 2 0.30000000000000004 bm25(k=10)>>rrf\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.trec"]


def test_a_run_gives_its_lines():
    assert list(Run({"q": {"d": 2.0}}, tag="t").lines()) == ["q Q0 d 1 2.0 t"]


@pytest.mark.parametrize("name", ["run.trec.gz", "run.trec.zst"])
def test_compressed_runs_are_written_and_read_and_depend_on_nothing_but_the_run(tmp_path, name):
    (tmp_path / "run.trec").write_text(TREC)
    run = Run.read(tmp_path / "run.trec")
    run.write(tmp_path / name)
    first = (tmp_path / name).read_bytes()
    run.write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == first != TREC.encode()
    assert Run.read(tmp_path / name) == run


def test_compressed_files_of_several_parts_are_read_whole(tmp_path):
    first, second = b"q Q0 d1 1 2.0 t\nq Q0 ", b"d2 2 1.0 t\n"
    (tmp_path / "run.zst").write_bytes(zstandard.compress(first) + zstandard.compress(second))
    (tmp_path / "run.gz").write_bytes(gzip.compress(first) + gzip.compress(second))
    assert Run.read(tmp_path / "run.zst") == Run.read(tmp_path / "run.gz") == {"q": {"d1": 2.0, "d2": 1.0}}


def test_an_ms_marco_run_has_ranks_which_become_reciprocal_scores(tmp_path):
    path = tmp_path / "marco.dev.tsv"
    path.write_text("1\tp7\t2\n1\tp9\t1\n2\tp7\t1\n1\tp8\t3\n")
    run = Run.read(path)
    assert list(run["1"].items()) == [("p9", 1.0), ("p7", 1 / 2), ("p8", 1 / 3)]
    assert run["2"] == {"p7": 1.0}
    assert run.tag == "marco.dev"


def test_a_tevatron_run_has_scores(tmp_path):
    path = tmp_path / "rank.tsv.gz"
    path.write_bytes(gzip.compress(b"1\tp7\t2.0\n1\tp9\t1.0\n"))
    assert list(Run.read(path)["1"].items()) == [("p7", 2.0), ("p9", 1.0)]
    assert Run.read(path).tag == "rank"


def test_ids_with_spaces_are_read_from_tab_separated_columns(tmp_path):
    path = tmp_path / "run.tsv"
    path.write_text("query 0\tGeneva Durben\t0.5\n")
    assert Run.read(path) == {"query 0": {"Geneva Durben": 0.5}}


def test_an_empty_file_is_an_empty_run(tmp_path):
    (tmp_path / "run.trec").write_text("\n")
    assert Run.read(tmp_path / "run.trec") == {}


ids = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
scores = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 0.5, 1.0])
rankings = st.dictionaries(ids, st.dictionaries(ids, scores, max_size=8), max_size=8)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@settings(deadline=None)  # the first call imports, files are synced
@given(rankings=rankings, tag=ids)
def test_what_is_written_is_read(tmp_path_factory, suffix, rankings, tag):
    path = tmp_path_factory.getbasetemp() / f"round-trip.trec{suffix}"
    run = Run(rankings, tag)
    run.write(path)
    again = Run.read(path)
    assert [(query, list(ranking.items())) for query, ranking in again.items()] == [
        (query, list(ranking.items())) for query, ranking in run.items()
    ]
    assert not run or again.tag == run.tag


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 0 d1 1\n", r":1: expected 6 columns \(qid Q0 docid rank score tag\) or 3 columns \(.*\), found 4$"),
        (TREC + "\nq3 Q0 d1\n", r":5: expected 6 columns \(qid Q0 docid rank score tag\), found 3$"),
        (TREC + "q3 Q0 Geneva Durben 1 0.5 t\n", r":4: expected 6 columns \(qid Q0 docid rank score tag\), found 7$"),
        (TREC + "q1 Q0 d1 3 1.5 bm25\n", r":4: document 'd1' stands twice in the ranking of query 'q1'$"),
        (TREC + "q3 Q0 d1 1 high bm25\n", r":4: expected a number as the score, found 'high'$"),
        (TREC + "q3 Q0 d1 1 nan bm25\n", r":4: expected a number as the score, found 'nan'$"),
        ("q1\t\t1\n", r":1: expected 3 columns \(qid docid rank, or qid docid score\), found an empty one$"),
        (
            "q1\td1\t1\nq1\td2\t3\n",
            r": whole numbers in the third column, but for query 'q1' they are not the ranks 1 to 2; "
            r"write scores with a decimal point, or the 6 columns of TREC$",
        ),
    ],
)
def test_a_bad_run_file_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "run.trec"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{path}{message}"):
        Run.read(path)


def test_a_run_file_must_be_utf_8(tmp_path):
    path = tmp_path / "run.trec"
    path.write_bytes(b"q1 Q0 d1 1 1.0 t\nq1 Q0 d\xff 1 1.0 t\n")
    with pytest.raises(InputError, match=f"^{path}:2: expected text in UTF-8$"):
        Run.read(path)


def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path):
    (tmp_path / "run.trec").write_bytes(b"\xef\xbb\xbfq1 Q0 d1 1 1.0 t\n")
    assert list(Run.read(tmp_path / "run.trec")) == ["q1"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path / 'run.trec'}: cannot be read: No such file or directory$"):
        Run.read(tmp_path / "run.trec")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_compressed_file_cut_short_is_refused_not_half_read(tmp_path, compress):
    path = tmp_path / ("run.gz" if compress is gzip.compress else "run.zst")
    whole = compress("".join(f"q Q0 d{i} 1 {i}.0 t\n" for i in range(50_000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"^{path}: cannot be read: Compressed file ended before"):
        Run.read(path)


@pytest.mark.parametrize("name", ["run.gz", "run.zst"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name):
    (tmp_path / name).write_text(TREC)
    with pytest.raises(InputError, match=f"^{tmp_path / name}: cannot be read: "):
        Run.read(tmp_path / name)


@pytest.mark.parametrize("bad", ["Geneva Durben", "a\tb", "a\u00a0b", ""])
def test_an_id_that_trec_cannot_hold_is_refused_before_anything_is_written(tmp_path, bad):
    path = tmp_path / "run.trec"
    path.write_text("what was there")
    with pytest.raises(InputError, match=r"^document id .* cannot stand in a TREC run, whose columns are parted"):
        Run({"q1": {"d1": 2.0, bad: 1.0}}).write(path)
    with pytest.raises(InputError, match=r"^query id .* cannot stand in a TREC run, "):
        Run({"q1": {"d1": 2.0}, bad: {"d1": 1.0}}).write(path)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    run = Run({"q": {"d": 1.0}})
    with pytest.raises(InputError, match=f"^{tmp_path / 'no' / 'run'}: cannot be written: No such file or directory$"):
        run.write(tmp_path / "no" / "run")
    with pytest.raises(InputError, match=f"^{tmp_path}: cannot be written: not a regular file$"):
        run.write(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "run.trec"
    path.write_text("what was there")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'$"):
        Run({"q": {"d": 1.0}}).write(path)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


# -- judgements --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n",
        "q1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n",
        "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 -1\n",
        "q1\t0\td1\t2\r\n\r\nq1\t0\td2\t0\r\nq2\t0\td1\t-1",
    ],
    ids=["BEIR", "BEIR without header", "TREC", "MS MARCO"],
)
def test_judgements_are_read_from_every_form(tmp_path, text):
    (tmp_path / "qrels").write_text(text)
    (tmp_path / "qrels.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "qrels.zst").write_bytes(zstandard.compress(text.encode()))
    expected = Qrels({"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}})
    assert all(Qrels.read(tmp_path / name) == expected for name in ("qrels", "qrels.gz", "qrels.zst"))


def test_beir_ids_may_hold_spaces(tmp_path):
    (tmp_path / "test.tsv").write_text("query-id\tcorpus-id\tscore\nquery_0\tGeneva Durben\t1\n")
    assert Qrels.read(tmp_path / "test.tsv") == {"query_0": {"Geneva Durben": 1}}


def test_the_same_judgement_twice_is_accepted(tmp_path):
    (tmp_path / "qrels").write_text("q1 0 d1 2\nq1 0 d1 2\n")
    assert Qrels.read(tmp_path / "qrels") == {"q1": {"d1": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 0 d1 2\nq1 1 d1 0\n", r":2: query 'q1', document 'd1' is graded 0, before it was 2$"),
        ("q1 0 d1 2\nq1 0 d2 1.5\n", r":2: expected a whole number as the grade, found '1.5'$"),
        ("qid\tdocid\trelevance\n", r":1: expected a whole number as the grade, found 'relevance'$"),
        (TREC, r":1: expected 4 columns \(qid iteration docid grade\) or 3 columns \(.*\), found 6$"),
        ("q1\td1\t1\nq1 0 d1 1\n", r":2: expected 3 columns \(query-id corpus-id score\), found 4$"),
    ],
)
def test_a_bad_file_of_judgements_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "qrels"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{path}{message}"):
        Qrels.read(path)


def test_grades_are_whole_numbers():
    with pytest.raises(InputError, match=r"^query 'q': expected whole numbers as grades \('float' object"):
        Qrels({"q": {"d": 1.5}})


# -- house -------------------------------------------------------------------------------------------------------------


def test_runs_are_read_without_loading_numpy_or_the_measures():
    heavy = "{'numpy', 'scipy', 'ir_measures', 'pytrec_eval', 'torch'}"
    code = f"import sys, retriever.runs, retriever.eval; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
