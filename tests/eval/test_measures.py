"""Effectiveness, against values computed by hand and against pytrec_eval called directly."""

import math
import random
import shutil

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.errors import InputError
from retriever.eval.measures import evaluate, parse_measures
from retriever.runs import Qrels, Run

QRELS = Qrels({"q1": {"d1": 2, "d2": 1, "d3": 0}, "q2": {"d5": 1}, "q3": {"d7": 1}, "q4": {"d8": 0}})
RUN = Run(
    {
        "q1": {"d2": 3.0, "d4": 2.0, "d1": 1.0},
        "q2": {"d5": 1.0, "d6": 1.0},  # tied: d6 comes first
        "q4": {"d8": 1.0},  # nothing relevant to find
        "q9": {"d1": 1.0},  # never judged
    }
)  # and nothing at all for q3


def test_values_are_those_computed_by_hand():
    results = evaluate(RUN, QRELS, ["nDCG@10", "RR@10", "AP", "R@100", "P@2"])
    ideal = 2 + 1 / math.log2(3)
    assert results.per_query == {
        "nDCG@10": pytest.approx({"q1": (1 + 2 / math.log2(4)) / ideal, "q2": 1 / math.log2(3), "q3": 0, "q4": 0}),
        "RR@10": {"q1": 1, "q2": 1 / 2, "q3": 0, "q4": 0},
        "AP": pytest.approx({"q1": (1 / 1 + 2 / 3) / 2, "q2": 1 / 2, "q3": 0, "q4": 0}),
        "R@100": {"q1": 1, "q2": 1, "q3": 0, "q4": 0},
        "P@2": {"q1": 1 / 2, "q2": 1 / 2, "q3": 0, "q4": 0},
    }
    assert results.means == pytest.approx(
        {
            "nDCG@10": (2 / ideal + 1 / math.log2(3)) / 4,
            "RR@10": 1.5 / 4,
            "AP": (5 / 6 + 1 / 2) / 4,
            "R@100": 2 / 4,
            "P@2": 1 / 4,
        }
    )


def test_what_does_not_show_in_the_numbers_is_counted():
    results = evaluate(RUN, QRELS)
    assert (results.judged, results.missing, results.ignored, results.dropped) == (4, 1, 1, 0)


def test_the_default_measures():
    assert list(evaluate(RUN, QRELS).means) == ["nDCG@10", "R@100", "RR@10"]


@pytest.mark.parametrize(
    "measure",
    ["ERR@20", "RBP(rel=1)", "nDCG(dcg='exp-log2')@10",
     "nDCG@10", "nDCG", "RR@10", "RR", "AP", "AP@5", "AP(rel=2)", "R@100", "R(rel=2)@10", "P@10", "Success@5", "Rprec",
     "Bpref", "infAP", "IPrec@0.5", "Judged@10", "SetP", "SetR", "SetF", "SetAP", "NumRet", "NumRel", "Compat"],
)  # fmt: skip
def test_a_query_without_results_counts_as_zero_in_every_measure_offered(measure):
    qrels = Qrels({"found": {"d": 2}, "missing": {"d": 2}})
    results = evaluate(Run({"found": {"d": 1.0}}), qrels, [measure])
    assert results.per_query[measure]["missing"] == 0
    assert results.per_query[measure]["found"] > 0


def test_a_query_with_negative_grades_only_is_worth_zero_though_pytrec_eval_would_crash_on_it():
    qrels = Qrels({"p": {"d": 3}, "q": {"d": -1, "e": -2}})
    results = evaluate(Run({"p": {"d": 1.0}, "q": {"d": 1.0}}), qrels, ["nDCG@10", "AP", "RR@10", "Bpref", "Judged@1"])
    assert [values["p"] for values in results.per_query.values()] == [1, 1, 1, 1, 1]
    assert [values["q"] for values in results.per_query.values()] == [0, 0, 0, 0, 1]


def test_reciprocal_rank_is_cut_in_the_same_order_as_it_is_measured_uncut():
    run, qrels = Run({"q": {"a": 1.0, "b": 1.0, "c": 1.0}}), Qrels({"q": {"a": 1}})
    assert evaluate(run, qrels, ["RR", "RR@10", "RR@2"]).means == {"RR": 1 / 3, "RR@10": 1 / 3, "RR@2": 0}


def test_a_score_too_close_for_trec_eval_is_a_tie():
    run, qrels = Run({"q": {"a": 1.0 + 1e-12, "b": 1.0}}), Qrels({"q": {"a": 1}})
    assert evaluate(run, qrels, ["RR", "RR@10"]).means == {"RR": 1 / 2, "RR@10": 1 / 2}


def test_the_query_itself_can_be_dropped_from_its_results():
    run = Run({"d1": {"d1": 9.0, "d2": 1.0}, "d3": {"d3": 9.0}, "x": {"x": 1.0}})
    qrels = Qrels({"d1": {"d2": 1}, "d3": {"d2": 1}})
    assert evaluate(run, qrels, ["RR"]).means == {"RR": 1 / 4}
    results = evaluate(run, qrels, ["RR"], drop_identical=True)
    assert results.means == {"RR": 1 / 2}
    assert (results.judged, results.missing, results.ignored, results.dropped) == (2, 1, 1, 2)


# -- what trec_eval lacks ----------------------------------------------------------------------------------------------


def test_both_gains_of_ndcg_computed_by_hand():
    """Grades 1 0 2 were found; the best order is 2 1. Linear gains are 1 0 2, exponential ones 1 0 3."""
    results = evaluate(RUN, QRELS, ["nDCG@10", "nDCG(dcg='exp-log2')@10", "nDCG(dcg='exp-log2')@1"])
    linear, exponential, first = (values["q1"] for values in results.per_query.values())
    assert linear == pytest.approx((1 + 2 / 2) / (2 + 1 / math.log2(3)))
    assert exponential == pytest.approx((1 + 3 / 2) / (3 + 1 / math.log2(3)))
    assert first == pytest.approx(1 / 3)
    assert list(results.per_query) == ["nDCG@10", "nDCG(dcg='exp-log2')@10", "nDCG(dcg='exp-log2')@1"]


def test_both_gains_are_the_same_for_grades_of_0_and_1():
    values = evaluate(RUN, QRELS, ["nDCG", "nDCG(dcg='exp-log2')"]).per_query.values()
    assert [one["q2"] for one in values] == [pytest.approx(1 / math.log2(3))] * 2


def test_expected_reciprocal_rank_computed_by_hand():
    """Grades 1 0 2 satisfy with 1/16, 0 and 3/16: 1/16 + 15/16 x 3/16 / 3."""
    results = evaluate(RUN, QRELS, ["ERR@10", "ERR@2"])
    assert results.per_query["ERR@10"]["q1"] == pytest.approx(1 / 16 + 15 / 16 * 3 / 16 / 3)
    assert results.per_query["ERR@2"]["q1"] == 1 / 16


def test_rank_biased_precision_computed_by_hand():
    """Relevant at the ranks 1 and 3: .2 x (1 + .8 ** 2); of grade 2, at 3 only; at the most one rank, the first."""
    results = evaluate(RUN, QRELS, ["RBP(rel=1)", "RBP(rel=2,p=0.5)", "RBP(rel=1)@1"])
    values = [one["q1"] for one in results.per_query.values()]
    assert values == pytest.approx([0.2 * (1 + 0.64), 0.5 * 0.25, 0.2])


@pytest.mark.skipif(not shutil.which("perl"), reason="gdeval.pl, which these are compared with, needs perl")
def test_exponential_gain_and_expected_reciprocal_rank_are_gdevals():
    import ir_measures

    rng = random.Random(5)
    documents = [f"d{n}" for n in range(40)]
    qrels = {str(q): {d: rng.choice([-1, 0, 0, 1, 2, 3, 4]) for d in rng.sample(documents, 25)} for q in range(1, 30)}
    run = {query: {d: float(rng.randrange(30)) for d in rng.sample(documents, 30)} for query in qrels}
    names = ["nDCG(dcg='exp-log2')@5", "nDCG(dcg='exp-log2')@20", "ERR@5", "ERR@20"]
    ours = evaluate(Run(run), Qrels(qrels), names).per_query
    for metric in ir_measures.gdeval.iter_calc(parse_measures(names), qrels, run):
        assert ours[str(metric.measure)][metric.query_id] == pytest.approx(metric.value, abs=6e-6)


@pytest.mark.parametrize(
    ("measure", "grade", "message"),
    [
        ("ERR@10", 5, r"^query 'q' has the grade 5; ERR takes none above 4$"),
        ("nDCG(dcg='exp-log2')", 31, r"^query 'q' has the grade 31; nDCG with dcg='exp-log2' takes none above 30$"),
    ],
)
def test_a_grade_outside_a_measures_definition_is_refused(measure, grade, message):
    with pytest.raises(InputError, match=message):
        evaluate(Run({"q": {"d": 1.0}}), Qrels({"q": {"d": grade}}), [measure])


def test_judged_at_k_computed_by_hand():
    """q1: d2 d4 d1, of which d4 is not judged; q2: d6 d5, of which d6 is not; a shorter ranking counts what it has."""
    results = evaluate(RUN, QRELS, ["Judged@2", "Judged@10"])
    assert results.per_query == {
        "Judged@2": {"q1": 1 / 2, "q2": 1 / 2, "q3": 0, "q4": 1},
        "Judged@10": {"q1": 2 / 3, "q2": 1 / 2, "q3": 0, "q4": 1},
    }


def test_every_measure_that_ir_measures_names_is_computed_or_has_its_reason():
    import ir_measures

    from retriever.eval.providers import ABSENT

    tried = "{0}", "{0}@5", "{0}@0.5", "{0}(rel=1)"
    for name in {measure.NAME for measure in ir_measures.measures.registry.values()} - set(ABSENT):
        assert any(known(form.format(name)) for form in tried), name


def known(name: str) -> bool:
    try:
        return bool(parse_measures([name]))
    except InputError:
        return False


# -- against pytrec_eval -----------------------------------------------------------------------------------------------


grades = st.integers(-1, 3)
ids = st.sampled_from("abcdefgh")
judgements = st.dictionaries(ids, grades, min_size=1).filter(lambda row: max(row.values()) >= 0)
tables = st.fixed_dictionaries({"p": judgements, "q": judgements})
scores = st.floats(allow_nan=False, width=64) | st.sampled_from([0.0, -0.0, 0.5, 0.5 + 1e-12])
NAMES = {"nDCG@3": "ndcg_cut_3", "nDCG": "ndcg", "AP": "map", "AP@3": "map_cut_3", "R@3": "recall_3", "P@3": "P_3",
         "RR": "recip_rank", "Rprec": "Rprec", "Bpref": "bpref", "Success@3": "success_3"}  # fmt: skip


@settings(deadline=None)  # the first call imports
@given(qrels=tables, rankings=st.fixed_dictionaries({"p": st.dictionaries(ids, scores, min_size=1)}))
def test_values_are_pytrec_evals(qrels, rankings):
    oracle = pytrec_eval.RelevanceEvaluator(qrels, set(NAMES.values())).evaluate(rankings)
    results = evaluate(Run(rankings), Qrels(qrels), list(NAMES))
    for ours, theirs in NAMES.items():
        assert results.per_query[ours] == {"p": oracle["p"][theirs], "q": 0.0}
        assert results.means[ours] == oracle["p"][theirs] / 2


@settings(deadline=None)  # the first call imports
@given(qrels=tables, rankings=st.fixed_dictionaries({"p": st.dictionaries(ids, scores, min_size=1)}))
def test_cut_reciprocal_rank_is_trec_evals_where_it_lies_within_the_cut(qrels, rankings):
    results = evaluate(Run(rankings), Qrels(qrels), ["RR", "RR@3"])
    whole = results.per_query["RR"]["p"]
    assert results.per_query["RR@3"]["p"] == (whole if whole >= 1 / 3 else 0)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("MRR@10", "RR@10"),
        ("MAP", "AP"),
        ("Recall@100", "R@100"),
        ("NDCG@10", "nDCG@10"),
        ("AP( rel = 2 )", "AP(rel=2)"),
    ],
)
def test_the_fields_aliases_are_understood(given, canonical):
    assert list(map(str, parse_measures([given]))) == [canonical]
    assert list(map(str, parse_measures([canonical]))) == [canonical]


def test_a_measure_given_twice_is_measured_once():
    assert list(map(str, parse_measures(["RR@10", "MRR@10"]))) == ["RR@10"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndgc@10", r"^unknown measure 'ndgc@10'; did you mean nDCG@10\? known: nDCG@10, nDCG, RR@10 \(or MRR@10\)"),
        ("ndcg@10", r"^unknown measure 'ndcg@10'; did you mean nDCG@10"),
        ("qwerty", r"^unknown measure 'qwerty'; known: nDCG@10, "),
        ("P", r"^measure 'P' is not well-formed: one name each, written like nDCG@10, "),
        ("nDCG@ten", r"^measure 'nDCG@ten' is not well-formed"),
        ("nDCG@10 R@100", r"^measure 'nDCG@10 R@100' is not well-formed"),
        ("", r"^measure '' is not well-formed"),
        ("AP(depth=3)", r"^measure 'AP\(depth=3\)' is not well-formed"),
        ("nDCG@0", r"^measure 'nDCG@0' is not well-formed"),
        ("P@True", r"^measure 'P@True' is not well-formed"),
        ("AP(rel=0)", r"^measure 'AP\(rel=0\)' is not well-formed"),
        ("nDCG(gains={1:'x'})@10", r"^measure .* is not well-formed"),
        ("RBP(p=1.5, rel=1)", r"^measure .* is not well-formed"),
        ("ERR", r"^measure 'ERR' cannot be computed here: it needs a cutoff, as in ERR@20; known: nDCG@10"),
        (
            "RBP",
            r"^measure 'RBP' cannot be computed here: it needs the grade that counts as relevant, as in RBP\(rel=1",
        ),
        ("alpha_nDCG@20", r"cannot be computed here: it needs judgements by subtopic"),
        ("SDCG(max_rel=3)@5", r"cannot be computed here: only the package cwl-eval has it"),
        ("NumRel(rel=2)", r"cannot be computed here: no provider has it in this form"),
    ],
)
def test_a_wrong_name_is_answered_with_known_ones(name, message):
    with pytest.raises(InputError, match=message):
        parse_measures([name])


def test_no_measure_is_no_evaluation():
    with pytest.raises(InputError, match=r"^no measure given; known: nDCG@10"):
        evaluate(RUN, QRELS, [])


# -- wrong pairs of files ----------------------------------------------------------------------------------------------


def test_a_run_of_another_collection_is_refused_with_examples_of_both():
    run = Run({str(n): {"d": 1.0} for n in range(1, 6)})
    message = (
        r"^the run and the judgements share no query: the run has '1', '2', '3', \.\.\.; "
        r"the judgements have 'q1', 'q2'; do they belong to the same collection\?$"
    )
    with pytest.raises(InputError, match=message):
        evaluate(run, Qrels({"q1": {"d": 1}, "q2": {"d": 1}}))


def test_a_run_of_other_documents_is_told_with_examples_of_both():
    results = evaluate(Run({"q": {"x": 2.0, "y": 1.0}}), Qrels({"p": {"a": 1}, "q": {"1": 1, "2": 0, "3": 0, "4": 1}}))
    assert list(results.notes())[-1] == (
        "no judged document was found for any query: for 'q' the run has 'x', 'y'; "
        "the judgements have '1', '2', '3', ...; do they belong to the same collection?"
    )
    assert evaluate(RUN, QRELS).strangers == ""


def test_an_empty_run_and_empty_judgements_are_refused():
    with pytest.raises(InputError, match=r"^the run is empty: it has no results for any query$"):
        evaluate(Run({}), QRELS)
    with pytest.raises(InputError, match=r"^there are no judgements to measure against$"):
        evaluate(RUN, Qrels({}))


def test_a_grade_that_would_exhaust_trec_evals_memory_is_refused():
    with pytest.raises(
        InputError, match=r"^query 'q1' has the grade 2000000000; trec_eval can hold none above 1000000$"
    ):
        evaluate(RUN, Qrels({"q1": {"d1": 2_000_000_000}}))
