"""BM25's formulas against worked numbers and against bm25s (0.3.16, `bm25s.scoring`), whose values stand here."""

import numpy as np
import pytest

from retriever.indexers.bm25_formula import CLASS_LENGTHS, VARIANTS, idf, length_class, saturation


def score(variant: str, tf: int, length: int, df: int, documents: int, avgdl: float, k1: float, b: float) -> float:
    row = length_class(np.array([length]))[0]
    return float(idf(variant, np.array([df]), documents)[0] * saturation(variant, k1, b, avgdl, tf + 1)[row, tf])


def test_the_worked_example_of_lucenes_form():
    assert idf("lucene", np.array([10]), 1000)[0] == pytest.approx(4.557380, abs=1e-6)
    assert score("lucene", 3, 120, 10, 1000, 100, 0.9, 0.4) == pytest.approx(3.442130, abs=1e-6)
    assert 1.9 * score("lucene", 3, 120, 10, 1000, 100, 0.9, 0.4) == pytest.approx(6.540046, abs=1e-6)


def test_a_document_without_the_term_scores_nothing_in_any_variant():
    for variant in VARIANTS:
        assert not saturation(variant, 0.9, 0.4, 100.0, 5)[:, 0].any()
        assert (saturation(variant, 0.9, 0.4, 100.0, 5)[:, 1:] > 0).all()


def test_lengths_fall_into_lucenes_classes():
    assert np.array_equal(CLASS_LENGTHS[:41], np.arange(41))
    assert (np.diff(CLASS_LENGTHS) > 0).all()
    lengths = np.arange(1, 3_000_000, 97)
    rounded = CLASS_LENGTHS[length_class(lengths)]
    assert (rounded <= lengths).all()
    assert (lengths - rounded <= lengths / 8).all()
    assert CLASS_LENGTHS[length_class(np.array([0, 1, 40, 41, 42, 120]))].tolist() == [0, 1, 40, 40, 42, 120]


CASES = [  # tf, length, df, documents, avgdl, k1, b
    (1, 8, 1, 50, 20.0, 1.2, 0.75),
    (3, 120, 10, 1000, 100.0, 0.9, 0.4),
    (7, 96, 400, 1000, 60.0, 2.0, 0.5),
    (2, 20, 30, 50, 20.0, 1.5, 0.0),
]
BM25S = {  # idf and saturation of each case
    "lucene": [(3.526361, 0.60241), (4.55738, 0.755287), (0.916041, 0.729167), (0.514099, 0.571429)],
    "robertson": [(3.496508, 0.60241), (4.546835, 0.755287), (0.405049, 0.729167), (0.0, 0.571429)],
    "atire": [(3.912023, 1.325301), (4.60517, 1.435045), (0.916291, 2.1875), (0.510826, 1.428571)],
    "bm25l": [(3.526361, 1.449612), (4.55738, 1.490691), (0.916041, 2.239024), (0.514099, 1.5625)],
    "bm25+": [(3.931826, 2.325301), (4.60617, 2.435045), (0.91729, 3.1875), (0.530628, 2.428571)],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variants_are_those_of_bm25s(variant):
    for case, (weight, worth) in zip(CASES, BM25S[variant], strict=True):
        assert score(variant, *case) == pytest.approx(weight * worth, rel=2e-6, abs=1e-6)
