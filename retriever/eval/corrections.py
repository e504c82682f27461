"""What many p-values together are worth: corrections for how many tests were made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from retriever.errors import InputError

Correction = Literal["holm", "bh"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, in their order, by Holm's step-down method.

    With p_(1) <= ... <= p_(m): corrected p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). S. Holm, "A simple
    sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979); the adjusted p-value
    as in Wright, Biometrics 48 (1992). Below .05 they hold the chance of even one false finding under .05, whatever the
    dependence between the tests.

    Raises: InputError for a value outside [0, 1].
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(_ascending(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Correct p-values, in their order, by the step-up method of Benjamini and Hochberg.

    With p_(1) <= ... <= p_(m): corrected p_(i) = min over j >= i of min(1, m p_(j) / j). Y. Benjamini and Y. Hochberg,
    "Controlling the false discovery rate", Journal of the Royal Statistical Society B 57 (1995). Below .05 they hold
    the expected share of false ones among the findings under .05, for tests that are independent or positively
    dependent (Benjamini and Yekutieli 2001): a weaker promise than Holm's, and more findings.

    Raises: InputError for a value outside [0, 1].
    """
    corrected, smallest = [0.0] * len(p_values), 1.0
    for position, index in reversed([*enumerate(_ascending(p_values), 1)]):
        smallest = min(smallest, len(p_values) * p_values[index] / position)
        corrected[index] = smallest
    return corrected


CORRECTIONS: dict[Correction, tuple[str, Callable[[Sequence[float]], list[float]]]] = {
    "holm": ("Holm", holm),
    "bh": ("BH", benjamini_hochberg),
}
"""Name -> how it is called in a heading, and what does it."""


def _ascending(p_values: Sequence[float]) -> list[int]:
    for p in p_values:
        if not 0 <= p <= 1:
            raise InputError(f"a p-value lies between 0 and 1, not at {p}")
    return sorted(range(len(p_values)), key=p_values.__getitem__)
