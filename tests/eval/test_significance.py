"""Differences between runs: both tests against SciPy, by hand, and on runs that do not differ."""

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, t, ttest_rel

from retriever.errors import InputError
from retriever.eval.corrections import CORRECTIONS, benjamini_hochberg, holm
from retriever.eval.intervals import bootstrap, detectable, effect_size
from retriever.eval.significance import Statistics, cautions, compare, paired, randomisation_test, t_test


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


def test_all_runs_and_measures_are_one_family():
    first = {"AP": {"a": 0.0, "b": 0.0, "c": 0.0}, "RR": {"a": 0.0, "b": 0.0, "c": 0.0}}
    better = {"AP": {"a": 0.1, "b": 0.2, "c": 0.3}, "RR": {"a": 0.0, "b": 0.0, "c": 0.0}}
    worse = {"AP": {"a": -0.3, "b": -0.2, "c": -0.1}, "RR": {"a": 0.5, "b": 0.6, "c": 0.7}}
    one, two = compare(first, [better, worse])
    p_values = [one["AP"].p, one["RR"].p, two["AP"].p, two["RR"].p]
    assert [one["AP"].p_corrected, one["RR"].p_corrected, two["AP"].p_corrected, two["RR"].p_corrected] == holm(
        p_values
    )
    assert one["AP"].difference == pytest.approx(0.2)
    assert two["AP"].difference == pytest.approx(-0.2)
    assert (one["RR"].difference, one["RR"].p, one["RR"].p_corrected) == (0.0, 1.0, 1.0)


def test_without_others_there_is_nothing_to_compare():
    assert compare({"AP": {"a": 0.0}}, []) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired({"a": 0.0, "b": 0.0}, {"a": 0.0}), r"^a paired test needs the same .*; only one has 'b'$"),
        (lambda: paired({}, {}), r"^a paired test needs queries; there are none$"),
        (
            lambda: compare({"AP": {"a": 0.0}}, [{"RR": {"a": 0.0}}]),
            r"^runs are compared in the same measures; one lacks 'AP' and has RR$",
        ),
        (lambda: Statistics(test="u"), r"^unknown test 'u'; known: t, randomisation$"),
        (lambda: Statistics(correction="b"), r"^unknown correction 'b'; known: holm, bh$"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# -- the randomisation test --------------------------------------------------------------------------------------------


def test_randomisation_computed_by_hand():
    """Differences 1, 2, 3: of the 8 ways to sign them, +++ and --- are as far from 0 as what was seen."""
    assert randomisation_test([0, 0, 0], [1, 2, 3]) == 2 / 8
    assert randomisation_test([0, 0, 0], [1, 2, -3]) == 8 / 8
    assert randomisation_test([0, 0, 0, 0.5], [1, 2, 3, 0.5]) == 2 / 8  # a tied query says nothing


@settings(deadline=None)  # the first call imports
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=8))
@example([(0, 9), (2, 0), (7, 0), *[(0, 0)] * 5])  # sums to 0, and in sevenths not to the last digit
def test_an_exact_randomisation_test_is_scipys(pairs):
    before, after = ([pair[side] / 7 for pair in pairs] for side in (0, 1))
    differences = (np.array([second - first for first, second in pairs]),)  # whole: SciPy minds the rounding of sums
    theirs = permutation_test(differences, np.mean, permutation_type="samples", n_resamples=math.inf, vectorized=True)
    assert randomisation_test(before, after) == pytest.approx(min(1, theirs.pvalue))


def test_a_sampled_randomisation_test_is_near_scipys_and_depends_on_its_seed_alone():
    rng = np.random.default_rng(7)
    before, after = rng.random(60), rng.random(60) + 0.1
    ours = randomisation_test(before, after, seed=3)
    assert ours == randomisation_test(before, after, seed=3) != randomisation_test(before, after, seed=4)
    theirs = permutation_test(
        (after - before,), np.mean, permutation_type="samples", n_resamples=9999, vectorized=True, rng=rng
    )
    assert ours == pytest.approx(theirs.pvalue, abs=4 * math.sqrt(2 * ours * (1 - ours) / 9999))
    assert randomisation_test(np.zeros(60), np.ones(60)) == 1 / 10_000  # the smallest there is, not 0


def test_the_tests_agree_where_there_are_many_queries():
    rng = np.random.default_rng(1)
    before, after = rng.random(200), rng.random(200) + 0.05
    assert randomisation_test(before, after) == pytest.approx(t_test(before, after), abs=0.02)


def test_a_comparison_is_made_as_asked():
    first, second = ({"AP": dict(zip("abcdef", values, strict=True))} for values in ([0] * 6, [1, 2, 3, 4, 5, 6]))
    (one,) = compare(first, [second], Statistics(test="randomisation", correction="bh"))
    assert one["AP"].p == one["AP"].p_corrected == 2 / 64


# -- how large, how sure -----------------------------------------------------------------------------------------------


def test_effect_size_and_what_can_be_detected_computed_by_hand():
    """Differences 1, 2, 3: mean 2, deviation 1; t_.975 = 4.302653 and t_.8 = 1.060660 for 2 degrees of freedom."""
    assert effect_size([1, 2, 3]) == 2
    assert detectable([1, 2, 3]) == pytest.approx((4.302653 + 1.060660) / math.sqrt(3), rel=1e-6)
    assert effect_size([1, 1]) is effect_size([1]) is detectable([1]) is bootstrap([1]) is None


def test_a_bootstrap_interval_holds_the_middle_of_resampled_means():
    values = np.random.default_rng(5).random(40)
    low, high = bootstrap(values, seed=9)
    draws = np.random.default_rng(2).choice(values, (20_000, 40)).mean(axis=1)
    assert (low, high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.01)
    assert bootstrap(values, seed=9) == (low, high) != bootstrap(values, seed=8)
    assert bootstrap([0.5] * 4) == (0.5, 0.5)


def test_a_bootstrap_interval_is_scipys():
    from scipy.stats import bootstrap as scipys

    values = np.random.default_rng(5).random(40)
    theirs = scipys((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    assert bootstrap(values) == pytest.approx(tuple(theirs.confidence_interval))


def test_a_comparison_holds_the_interval_the_effect_and_the_least_detectable_difference():
    first, second = ({"AP": dict(zip("abcd", values, strict=True))} for values in ([0] * 4, [1, 2, 3, 4]))
    (versus,) = compare(first, [second])
    one = versus["AP"]
    assert (one.interval, one.effect, one.detectable) == (
        bootstrap([1, 2, 3, 4]), effect_size([1, 2, 3, 4]), detectable([1, 2, 3, 4]),
    )  # fmt: skip


def test_what_too_few_queries_cannot_show_is_said():
    values = {f"q{n}": n % 7 / 10 for n in range(24)}
    shifted = {query: value + (0.3 if n % 2 else -0.28) for n, (query, value) in enumerate(values.items())}
    (versus,) = compare({"AP": values, "RR": values}, [{"AP": shifted, "RR": values}])
    assert list(cautions(24, versus)) == [
        "24 queries are too few to tell runs apart; at least 25 are wanted, better 50",
        "differences too small to be shown by 24 queries; at p < 0.05 and power 0.8 they show those from "
        f"AP {versus['AP'].detectable:.4f} on",
    ]
    assert list(cautions(24, {})) == []
    better = {query: value + 0.1 + n % 3 / 100 for n, (query, value) in enumerate(values.items())}
    assert list(cautions(50, compare({"AP": values}, [{"AP": better}])[0])) == []


# -- runs that do not differ -------------------------------------------------------------------------------------------


def null_p_values(test, experiments: int, together: int, queries: int) -> list[list[float]]:
    """For each experiment the p of so many independent comparisons of two runs drawn from one distribution."""
    rng = np.random.default_rng(11)
    run = rng.beta(0.6, 1.2, (experiments, together, 2, queries))  # as nDCG is spread: many zeros nearly, few ones
    return [[test(*pair, seed=n) for pair in pairs] for n, pairs in enumerate(run)]


def assert_rate(found: int, tried: int, rate: float) -> None:
    interval = binomtest(found, tried).proportion_ci(0.99)
    assert interval.low <= rate <= interval.high, f"{found} of {tried}, expected {rate}"


@pytest.mark.parametrize(
    ("test", "experiments"), [(t_test, 400), pytest.param(randomisation_test, 1000, marks=pytest.mark.slow)]
)
def test_runs_that_do_not_differ_are_found_different_at_the_stated_rate(test, experiments):
    p_values = null_p_values(test, experiments, together=5, queries=50)
    assert_rate(sum(p < 0.05 for row in p_values for p in row), 5 * experiments, 0.05)
    uncorrected = sum(min(row) < 0.05 for row in p_values)
    assert_rate(uncorrected, experiments, 1 - 0.95**5)
    assert_rate(sum(min(holm(row)) < 0.05 for row in p_values), experiments, 1 - 0.99**5)
    assert_rate(sum(min(benjamini_hochberg(row)) < 0.05 for row in p_values), experiments, 0.05)


def test_the_false_share_of_the_findings_is_kept_under_the_stated_one_where_some_differ():
    """Of 20 comparisons 10 differ; Benjamini and Hochberg hold the expected false share at .05 x 10 / 20."""
    rng = np.random.default_rng(3)
    shares = {name: [] for name in CORRECTIONS}
    for _ in range(500):
        z = np.concatenate([rng.normal(0, 1, 10), rng.normal(3, 1, 10)])
        p_values = [math.erfc(abs(value) / math.sqrt(2)) for value in z]
        for name, (_, correct) in CORRECTIONS.items():
            found = [place for place, p in enumerate(correct(p_values)) if p < 0.05]
            shares[name].append(sum(place < 10 for place in found) / max(1, len(found)))
    assert 0.015 < fmean(shares["bh"]) < 0.035
    assert fmean(shares["holm"]) < fmean(shares["bh"])
