"""How sure a mean is: bootstrap intervals, effect sizes, and the smallest difference that a set of queries can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

LEVEL = 0.05
"""Differences count below this p; intervals hold 1 - LEVEL."""
POWER = 0.8
RESAMPLES = 2_000
_TOGETHER = 1 << 21
"""So many values are drawn at once: 16 MiB."""

Interval = tuple[float, float]


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval | None:
    """The 95% interval of a mean: percentiles of the means of 2,000 samples drawn from the values, with replacement.

    B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, by SciPy. Of paired differences
    it is the interval of the difference of two runs. With few values it is too narrow. None for fewer than two.
    """
    import numpy as np
    from scipy.stats import bootstrap as resampled

    if len(values) < 2:
        return None
    interval = resampled(
        (np.array(values),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _TOGETHER // len(values)),
        confidence_level=1 - LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def effect_size(differences: Sequence[float]) -> float | None:
    """Cohen's d of paired differences, d_z: their mean over their standard deviation (n - 1 below).

    J. Cohen, "Statistical Power Analysis for the Behavioral Sciences" (1988), section 2.3.5; equation 6 of D. Lakens,
    Frontiers in Psychology 4 (2013). None where there is no deviation, and for fewer than two.
    """
    deviation = stdev(differences) if len(differences) > 1 else 0.0
    return fmean(differences) / deviation if deviation else None


def detectable(differences: Sequence[float]) -> float | None:
    """The smallest true difference of means that a paired t-test at p < .05 finds four times in five (power .8).

    (t_{1 - .05/2} + t_{.8}) s / sqrt(n), quantiles of Student's t with n - 1 degrees of freedom, s the standard
    deviation of the n differences: the power analysis of Cohen (1988), chapter 2, with t for the normal quantiles.
    Before any correction, so of many comparisons it is too small. None for fewer than two.
    """
    from scipy.stats import t

    if len(differences) < 2:
        return None
    freedom = len(differences) - 1
    quantiles = float(t.ppf(1 - LEVEL / 2, freedom) + t.ppf(POWER, freedom))
    return quantiles * stdev(differences) / math.sqrt(len(differences))
