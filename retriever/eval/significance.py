"""Whether two runs differ by more than chance: paired t-tests over queries, corrected for how many are made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from retriever.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """One run against the baseline in one measure.

    difference: of the means, positive where the run is better.
    p: of the paired two-sided t-test.
    p_holm: p corrected for all comparisons that were made together; never below p.
    """

    difference: float
    p: float
    p_holm: float


def compare(
    baseline: Mapping[str, Mapping[str, float]], others: Sequence[Mapping[str, Mapping[str, float]]]
) -> list[dict[str, Comparison]]:
    """Compare runs with a baseline, each given as measure -> query id -> value (`Results.per_query`).

    All others x measures are one family for Holm's correction; for a single measure give a single measure.

    Raises: InputError when the measures or the queries are not the same in all of them.
    """
    tests = [
        {measure: paired(values, _same(other, measure)) for measure, values in baseline.items()} for other in others
    ]
    corrected = iter(holm([p for _, p in chain.from_iterable(test.values() for test in tests)]))
    return [
        {measure: Comparison(difference, p, next(corrected)) for measure, (difference, p) in test.items()}
        for test in tests
    ]


def paired(baseline: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, float]:
    """Difference of means, other - baseline, and p of the paired two-sided t-test (Student 1908), by SciPy.

    p is 1 where the values are the same for every query, and for fewer than two queries, which show nothing.

    Raises: InputError when the queries are not the same in both.
    """
    if baseline.keys() != other.keys():
        only = sorted(baseline.keys() ^ other.keys())[0]
        raise InputError(f"a paired test needs the same queries in both runs; only one has {only!r}")
    if not baseline:
        raise InputError("a paired test needs queries; there are none")
    before, after = [*baseline.values()], [other[query] for query in baseline]
    difference = fmean(after) - fmean(before)
    return difference, 1.0 if before == after or len(before) < 2 else _t_test(before, after)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, in their order, by Holm's step-down method.

    With p_(1) <= ... <= p_(m): corrected p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). S. Holm, "A simple
    sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979); the adjusted p-value
    as in Wright, Biometrics 48 (1992). Holds whatever the dependence between the tests.

    Raises: InputError for a value outside [0, 1].
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if not 0 <= p_values[index] <= 1:
            raise InputError(f"a p-value lies between 0 and 1, not at {p_values[index]}")
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def _same(other: Mapping[str, Mapping[str, float]], measure: str) -> Mapping[str, float]:
    if measure not in other:
        raise InputError(f"runs are compared in the same measures; one lacks {measure!r} and has {', '.join(other)}")
    return other[measure]


def _t_test(before: Sequence[float], after: Sequence[float]) -> float:
    from scipy.stats import ttest_rel

    with warnings.catch_warnings():  # a difference equal for all queries has no variance: p = 0, as it should be
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttest_rel(after, before).pvalue)
