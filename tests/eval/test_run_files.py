"""Run files measured as they are read: the values of `evaluate(Run.read(...))`, whatever the file."""

import gzip
import tracemalloc
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.errors import InputError
from retriever.eval import columns, run_files
from retriever.eval.measures import evaluate
from retriever.eval.run_files import evaluate_file
from retriever.runs import Qrels, Run

EVERY = ["nDCG@3", "nDCG", "nDCG(dcg='exp-log2')@2", "RR@2", "RR", "AP", "AP(rel=2)@3", "R@2", "P@3", "Success@1",
         "Rprec", "Bpref", "infAP", "IPrec@0.5", "Judged@2", "Judged", "SetP", "SetR", "SetF", "SetAP", "NumRet",
         "NumRel", "Compat"]  # fmt: skip
CUT = ["nDCG@2", "RR@2", "AP@1", "R@3", "P@3", "Success@1", "Judged@2", "ERR@2", "nDCG(dcg='exp-log2')@3"]
TO_THE_LAST_JUDGED = ["AP", "nDCG", "RR", "Bpref", "infAP", "IPrec@0.1", "Rprec", "P@4", "Judged@3", "RBP(rel=2)",
                      "nDCG(dcg='exp-log2')"]  # fmt: skip
JUDGED_ONLY = ["P(judged_only=True)@2", "AP(judged_only=True)@1"]


@pytest.fixture
def streamed(monkeypatch):
    """Fails where a file is read whole."""

    def refuse(path):
        raise AssertionError(f"{path} was read whole")

    monkeypatch.setattr(Run, "read", refuse)


def lines(rankings) -> str:
    return "".join(f"{query} Q0 {document} 1 {score!r} t\n" for query, row in rankings for document, score in row)


ids = st.sampled_from(["a", "b", "ab", "abc", "c", "p", "q", "10", "9"])
scores = st.sampled_from([0.0, -0.0, 0.5, 0.5 + 1e-12, -3.25, 1e300, 2.0]) | st.floats(allow_nan=False)
rows = st.lists(st.tuples(ids, scores), min_size=1, max_size=8, unique_by=lambda pair: pair[0])
runs = st.lists(st.tuples(st.sampled_from("pqrst"), rows), min_size=1, max_size=5, unique_by=lambda pair: pair[0])
grades = st.dictionaries(ids, st.integers(-1, 3), min_size=1)
tables = st.dictionaries(st.sampled_from("pqru"), grades, min_size=1)


@pytest.mark.parametrize("measures", [EVERY, CUT, TO_THE_LAST_JUDGED, JUDGED_ONLY])
@settings(deadline=None, max_examples=60)  # the first call compiles
@given(rankings=runs, qrels=tables, drop=st.booleans(), piece=st.sampled_from([1, 40, 1000]))
def test_values_are_those_of_the_run_read_whole(tmp_path_factory, measures, rankings, qrels, drop, piece):
    path = tmp_path_factory.getbasetemp() / "run.trec"
    path.write_text(lines(rankings))
    if {query for query, _ in rankings}.isdisjoint(qrels):
        return  # refused: below
    expected = evaluate(Run.read(path), Qrels(qrels), measures, drop_identical=drop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_files, "_PIECE", piece)
        if not expected.strangers:
            patch.setattr(Run, "read", None)  # not needed
        assert evaluate_file(path, Qrels(qrels), measures, drop_identical=drop, large=0) == expected


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n \n"])
@pytest.mark.parametrize("blank", [" ", "\t", "  "])
def test_what_parts_columns_and_lines_does_not_matter(tmp_path, ending, blank):
    text = ending.join(blank.join(line.split()) for line in ["q Q0 a 1 2 t", "q Q0 b 2 1e0 t", "r Q0 a 1 +.5 t"])
    (tmp_path / "run").write_bytes(text.encode())
    results = evaluate_file(tmp_path / "run", Qrels({"q": {"b": 1}, "r": {"a": 1}}), ["RR"], large=0)
    assert results.per_query == {"RR": {"q": 1 / 2, "r": 1.0}}


@pytest.mark.usefixtures("streamed")
def test_a_compressed_file_is_read_in_pieces_too(tmp_path):
    (tmp_path / "run.gz").write_bytes(gzip.compress(b"q Q0 a 1 2.5 t\nq Q0 b 2 1.5 t\n"))
    assert evaluate_file(tmp_path / "run.gz", Qrels({"q": {"b": 1}}), ["RR"], large=0).means == {"RR": 1 / 2}


digits = st.text("0123456789", min_size=1, max_size=25)
exponents = st.sampled_from(["", "e5", "E-7", "e+12", "e-300", "e"])
written = st.builds("{}{}.{}{}".format, st.sampled_from(["", "-", "+"]), digits, st.just("") | digits, exponents)
decimals = st.floats(allow_nan=False, allow_infinity=False).map(repr) | written


@settings(max_examples=300, deadline=None)
@given(text=decimals)
def test_a_score_is_the_float32_of_the_float64_or_left_to_be_read_with_care(text):
    spans = columns.split(np.frombuffer(f"q Q0 d 1 {text} t\n".encode(), np.uint8))
    assert np.isnan(spans.scores[0]) or spans.scores[0] == array("f", [float(text)])[0]
    assert np.isnan(spans.scores[0]) or not text.endswith("e")


@given(value=st.floats(1e-4, 1e4), digits=st.integers(1, 17))
def test_the_scores_of_ordinary_runs_need_no_care_but_for_one_in_millions(value, digits):
    spans = columns.split(np.frombuffer(f"q Q0 d 1 {value:.{digits}f} t\n".encode(), np.uint8))
    nearest = np.float32(value)
    halfway = min(abs(value - (float(nearest) + float(np.nextafter(nearest, np.float32(end)))) / 2) for end in (0, 1e9))
    assert not np.isnan(spans.scores[0]) or halfway < 1e-9 * value


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("q Q0 a 1 2 t\nr Q0 a 1 1 t\nq Q0 b 1 3 t\n", 1 / 2),  # a query's lines apart
        ("q\ta\t1\nq\tb\t2\n", 1 / 1),  # MS MARCO
        ("q\té\t2.5\nq\ta\t1.5\n", 1 / 2),  # Tevatron
        ("\ufeffq Q0 a 1 2 t\n", 1),
        ("q Q0 é 1 1_0 t\nq Q0 a 1 inf t\n", 1),
    ],
)
def test_a_file_that_is_not_plain_is_read_whole(tmp_path, text, means):
    (tmp_path / "run").write_text(text, encoding="utf-8")
    assert evaluate_file(tmp_path / "run", Qrels({"q": {"a": 1}}), ["RR"], large=0).means == {"RR": means}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 2 t\nq Q0 a 2 1 t\n", r":2: document 'a' stands twice in the ranking of query 'q'$"),
        ("q Q0 a 1 2 t\nq Q0 b 2 nan t\n", r":2: expected a number as the score, found 'nan'$"),
        ("q Q0 a 1 2 t\nq Q0 b 2 1e5x t\n", r":2: expected a number as the score, found '1e5x'$"),
        ("q Q0 a 1 2 t\nq Q0 b 2 1\n", r":2: expected 6 columns \(qid Q0 docid rank score tag\), found 5$"),
        ("q Q0 a 1 2 t t\n", r":1: expected 6 columns .* found 7$"),
        ("q Q0 a\0 1 2 t\n", r"query 'q': its id or that of a document has a NUL character"),
        ("x Q0 a 1 2 t\n", r"the run and the judgements share no query: the run has 'x'; the judgements have 'q'"),
        ("\n\n", r"the run is empty"),
    ],
)
def test_a_bad_file_is_answered_as_ever(tmp_path, text, message):
    (tmp_path / "run").write_text(text)
    with pytest.raises(InputError, match=message):
        evaluate_file(tmp_path / "run", Qrels({"q": {"a": 1}}), large=0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: cannot be read: No such file or directory$"):
        evaluate_file(tmp_path / "nowhere", Qrels({"q": {"a": 1}}))


@pytest.mark.usefixtures("streamed")
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "_PIECE", 1 << 16)
    peak(tmp_path, 10)  # the first call imports
    assert peak(tmp_path, 400) - peak(tmp_path, 100) < 400_000  # of 3.3 million bytes more


def peak(folder, queries: int) -> int:
    """Most memory that measuring so many queries' 500 lines each takes, in bytes."""
    names = [f"q{number}" for number in range(queries)]
    (folder / "run").write_text("".join(lines([(name, [(f"d{n}", 500.0 - n) for n in range(500)])]) for name in names))
    qrels = Qrels({name: {"d7": 1} for name in names})
    tracemalloc.start()
    results = evaluate_file(folder / "run", qrels, ["AP"], large=0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert results.means == {"AP": 1 / 8}
    return most
