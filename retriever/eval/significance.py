"""Whether two runs differ by more than chance: paired tests over queries, corrected for how many are made.

M. Smucker et al., "A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007,
find that the t-test and the randomisation test agree, and that others do not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from retriever.errors import InputError
from retriever.eval.corrections import CORRECTIONS, Correction
from retriever.eval.intervals import LEVEL, POWER, Interval, bootstrap, detectable, effect_size

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Test = Literal["t", "randomisation"]

FEW = 25
"""Fewer queries than this are told: C. Buckley and E. Voorhees, "Evaluating evaluation measure stability", SIGIR 2000,
find the order of two systems unstable below 25 and good experiments to have 50."""
_EXACT = 16
_SAMPLES = 9_999
_TOGETHER = 1 << 21


@dataclass(frozen=True)
class Statistics:
    """How runs are compared.

    test: `t`, Student's, or `randomisation`, Fisher's. correction: `holm`, or `bh` (Benjamini and Hochberg).
    seed: of whatever is drawn by chance.

    Raises: InputError for an unknown test or correction.
    """

    test: Test = "t"
    correction: Correction = "holm"
    seed: int = 0

    def __post_init__(self) -> None:
        for what, value, known in (("test", self.test, [*_TESTS]), ("correction", self.correction, [*CORRECTIONS])):
            if value not in known:
                raise InputError(f"unknown {what} {value!r}; known: {', '.join(known)}")


@dataclass(frozen=True)
class Comparison:
    """One run against the baseline in one measure.

    difference: of the means, positive where the run is better.
    p: of the paired two-sided test.
    p_corrected: p corrected for all comparisons that were made together; never below p.
    interval: the bootstrap's 95% interval of the difference; none for fewer than two queries.
    effect: Cohen's d of the paired differences; none where they are all the same.
    detectable: the smallest difference that so many queries show four times in five; none for fewer than two.
    """

    difference: float
    p: float
    p_corrected: float
    interval: Interval | None
    effect: float | None
    detectable: float | None


def compare(
    baseline: Mapping[str, Mapping[str, float]],
    others: Sequence[Mapping[str, Mapping[str, float]]],
    statistics: Statistics | None = None,
) -> list[dict[str, Comparison]]:
    """Compare runs with a baseline, each given as measure -> query id -> value (`Results.per_query`).

    All others x measures are one family for the correction; for a single measure give a single measure.

    Raises: InputError when the measures or the queries are not the same in all of them.
    """
    statistics = statistics or Statistics()
    pairs = [
        {measure: _paired(values, _same(other, measure)) for measure, values in baseline.items()} for other in others
    ]
    p_values = [_p(pair, statistics) for pair in chain.from_iterable(each.values() for each in pairs)]
    corrected = CORRECTIONS[statistics.correction][1](p_values)
    both = zip(p_values, corrected, strict=True)
    return [
        {measure: _comparison(pair, *next(both), statistics.seed) for measure, pair in each.items()} for each in pairs
    ]


def paired(
    baseline: Mapping[str, float], other: Mapping[str, float], statistics: Statistics | None = None
) -> tuple[float, float]:
    """Difference of means, other - baseline, and p of a paired two-sided test.

    p is 1 where the values are the same for every query, and for fewer than two queries, which show nothing.

    Raises: InputError when the queries are not the same in both.
    """
    pair = _paired(baseline, other)
    return pair.difference, _p(pair, statistics or Statistics())


def t_test(before: Sequence[float], after: Sequence[float], seed: int = 0) -> float:
    """The paired two-sided t-test (Student 1908), by SciPy; nothing in it is drawn by chance."""
    from scipy.stats import ttest_rel

    with warnings.catch_warnings():  # a difference equal for all queries has no variance: p = 0, as it should be
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttest_rel(after, before).pvalue)


def randomisation_test(before: Sequence[float], after: Sequence[float], seed: int = 0) -> float:
    """How often the mean difference is as large with signs set by chance: Fisher's paired two-sided randomisation test.

    R. Fisher, "The Design of Experiments" (1935), section 21. Over all signs, exact, where up to 16 queries differ;
    else over 9,999 draws, (1 + those as large) / (1 + draws), which is never 0 and a valid test (B. Phipson and
    G. Smyth, "Permutation p-values should never be zero", Statistical Applications in Genetics and Molecular Biology 9
    (2010)).
    """
    import numpy as np

    differences = np.subtract(after, before)
    differences = differences[differences != 0]
    bound = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()  # sums in another order are rounded otherwise
    exact = len(differences) <= _EXACT
    count = 1 << len(differences) if exact else _SAMPLES
    as_large = sum(
        int((np.abs(differences.sum() - 2 * (flipped @ differences)) >= bound).sum())
        for flipped in _flips(len(differences), count, None if exact else np.random.default_rng(seed))
    )
    return as_large / count if exact else (1 + as_large) / (1 + count)


_TESTS: dict[Test, Callable[[Sequence[float], Sequence[float], int], float]] = {
    "t": t_test,
    "randomisation": randomisation_test,
}


@dataclass(frozen=True)
class _Pair:
    before: list[float]
    after: list[float]

    @property
    def difference(self) -> float:
        return fmean(self.after) - fmean(self.before)


def _paired(baseline: Mapping[str, float], other: Mapping[str, float]) -> _Pair:
    if baseline.keys() != other.keys():
        only = sorted(baseline.keys() ^ other.keys())[0]
        raise InputError(f"a paired test needs the same queries in both runs; only one has {only!r}")
    if not baseline:
        raise InputError("a paired test needs queries; there are none")
    return _Pair([*baseline.values()], [other[query] for query in baseline])


def _p(pair: _Pair, statistics: Statistics) -> float:
    if pair.before == pair.after or len(pair.before) < 2:
        return 1.0
    return _TESTS[statistics.test](pair.before, pair.after, statistics.seed)


def _comparison(pair: _Pair, p: float, p_corrected: float, seed: int) -> Comparison:
    differences = [after - before for before, after in zip(pair.before, pair.after, strict=True)]
    return Comparison(
        pair.difference, p, p_corrected, bootstrap(differences, seed), effect_size(differences), detectable(differences)
    )


def _flips(width: int, count: int, rng: np.random.Generator | None) -> Iterator[npt.NDArray[np.float64]]:
    """float64 [some, width] of 0 and 1, `count` rows in all: drawn, or without `rng` each of the 2 ** width once."""
    import numpy as np

    step = max(1, _TOGETHER // max(1, width))
    for first in range(0, count, step):
        rows = np.arange(first, min(first + step, count))
        if rng is None:
            yield (rows[:, None] >> np.arange(width) & 1).astype(np.float64)
        else:
            yield rng.integers(0, 2, (len(rows), width), dtype=np.int8).astype(np.float64)


def _same(other: Mapping[str, Mapping[str, float]], measure: str) -> Mapping[str, float]:
    if measure not in other:
        raise InputError(f"runs are compared in the same measures; one lacks {measure!r} and has {', '.join(other)}")
    return other[measure]


def cautions(queries: int, versus: Mapping[str, Comparison]) -> Iterator[str]:
    """What must be said of a comparison for which there are too few queries; nothing where nothing was compared."""
    if versus and queries < FEW:
        yield f"{queries} queries are too few to tell runs apart; at least {FEW} are wanted, better 50"
    uncertain = [
        f"{measure} {each.detectable:.4f}"
        for measure, each in versus.items()
        if each.detectable and each.p_corrected >= LEVEL and 0 < abs(each.difference) < each.detectable
    ]
    if uncertain:
        yield (
            f"differences too small to be shown by {queries} queries; "
            f"at p < {LEVEL} and power {POWER} they show those from {', '.join(uncertain)} on"
        )
