"""Differences between runs: the t-test against SciPy and a worked example, Holm's correction by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_rel

from retriever.errors import InputError
from retriever.eval.significance import compare, holm, paired


def test_a_paired_test_computed_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 2 sqrt(3) with 2 degrees of freedom."""
    difference, p = paired({"a": 0, "b": 0, "c": 0}, {"c": 3, "a": 1, "b": 2})
    assert difference == 2
    assert p == pytest.approx(2 * t.sf(2 * math.sqrt(3), df=2)) == pytest.approx(0.0741799)


def test_queries_are_paired_by_id_not_by_place():
    assert paired({"a": 0.0, "b": 1.0, "c": 0.5}, {"c": 0.5, "b": 1.0, "a": 0.0}) == (0.0, 1.0)


def test_identical_runs_do_not_differ():
    assert paired({"a": 0.25, "b": 0.5}, {"a": 0.25, "b": 0.5}) == (0.0, 1.0)


def test_one_query_shows_nothing():
    assert paired({"a": 0.0}, {"a": 1.0}) == (1.0, 1.0)


def test_a_difference_without_variance_is_certain():
    assert paired({"a": 0.0, "b": 0.5}, {"a": 0.5, "b": 1.0}) == (0.5, 0.0)


@settings(deadline=None)  # the first call imports
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=9))
def test_p_is_scipys(pairs):
    if len({after - before for before, after in pairs}) == 1:
        return  # no variance: the cases above
    before, after = ({str(i): pair[side] / 9 for i, pair in enumerate(pairs)} for side in (0, 1))
    assert paired(before, after)[1] == ttest_rel([*after.values()], [*before.values()]).pvalue


def test_holm_computed_by_hand():
    """Sorted .01 .03 .04 times 3, 2, 1 is .03 .06 .04; each at least the one before."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1))
def test_holm_lies_between_no_correction_and_bonferronis_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    assert all(p <= c <= min(1, len(p_values) * p) for p, c in zip(p_values, corrected, strict=True))
    assert [c for _, c in sorted(zip(p_values, corrected, strict=True))] == sorted(corrected)


def test_all_runs_and_measures_are_one_family():
    first = {"AP": {"a": 0.0, "b": 0.0, "c": 0.0}, "RR": {"a": 0.0, "b": 0.0, "c": 0.0}}
    better = {"AP": {"a": 0.1, "b": 0.2, "c": 0.3}, "RR": {"a": 0.0, "b": 0.0, "c": 0.0}}
    worse = {"AP": {"a": -0.3, "b": -0.2, "c": -0.1}, "RR": {"a": 0.5, "b": 0.6, "c": 0.7}}
    one, two = compare(first, [better, worse])
    p_values = [one["AP"].p, one["RR"].p, two["AP"].p, two["RR"].p]
    assert [one["AP"].p_holm, one["RR"].p_holm, two["AP"].p_holm, two["RR"].p_holm] == holm(p_values)
    assert one["AP"].difference == pytest.approx(0.2)
    assert two["AP"].difference == pytest.approx(-0.2)
    assert (one["RR"].difference, one["RR"].p, one["RR"].p_holm) == (0.0, 1.0, 1.0)


def test_without_others_there_is_nothing_to_compare():
    assert compare({"AP": {"a": 0.0}}, []) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired({"a": 0.0, "b": 0.0}, {"a": 0.0}), r"^a paired test needs the same .*; only one has 'b'$"),
        (lambda: paired({}, {}), r"^a paired test needs queries; there are none$"),
        (lambda: holm([0.5, 1.5]), r"^a p-value lies between 0 and 1, not at 1.5$"),
        (lambda: holm([math.nan]), r"^a p-value lies between 0 and 1, not at nan$"),
        (
            lambda: compare({"AP": {"a": 0.0}}, [{"RR": {"a": 0.0}}]),
            r"^runs are compared in the same measures; one lacks 'AP' and has RR$",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
