"""Corrections for the number of tests: by hand, and against SciPy."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from retriever.errors import InputError
from retriever.eval.corrections import benjamini_hochberg, holm

p_values = st.lists(st.floats(0, 1), min_size=1)


def test_holm_computed_by_hand():
    """Sorted .01 .03 .04 times 3, 2, 1 is .03 .06 .04; each at least the one before."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_benjamini_and_hochberg_computed_by_hand():
    """Sorted .01 .03 .04 times 3/1, 3/2, 3/3 is .03 .045 .04; each at most the one after."""
    assert benjamini_hochberg([0.04, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert benjamini_hochberg([0.02]) == [0.02]
    assert benjamini_hochberg([]) == []


@settings(deadline=None)  # the first call imports
@given(p_values)
def test_benjamini_and_hochbergs_is_scipys(values):
    assert benjamini_hochberg(values) == pytest.approx(false_discovery_control(values).tolist())


@given(p_values)
def test_holm_lies_between_no_correction_and_bonferronis_and_keeps_the_order(values):
    corrected = holm(values)
    assert all(p <= c <= min(1, len(values) * p) for p, c in zip(values, corrected, strict=True))
    assert [c for _, c in sorted(zip(values, corrected, strict=True))] == sorted(corrected)


@given(p_values)
def test_holms_is_never_below_benjamini_and_hochbergs(values):
    assert all(h >= b - 1e-12 for h, b in zip(holm(values), benjamini_hochberg(values), strict=True))


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
@pytest.mark.parametrize("bad", [1.5, -0.1, math.nan])
def test_what_is_no_p_value_is_refused(correct, bad):
    with pytest.raises(InputError, match=f"^a p-value lies between 0 and 1, not at {bad}$"):
        correct([0.5, bad])
