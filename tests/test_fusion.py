"""Fusion against numbers worked out by hand, and against what must hold of any lists."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.fusion import ReciprocalRank, WeightedSum
from retriever.ranking import from_scores
from retriever.types import Hits

Lists = list[dict[int, float]]
"""For one query, what each of several searches found: row -> score."""


def hits(*queries: dict[int, float]) -> Hits:
    """One search's answer to several queries."""
    return from_scores(
        [np.array(list(found), np.int64) for found in queries],
        [np.array(list(found.values()), np.float32) for found in queries],
    )


def scores(fused: Hits, query: int = 0) -> dict[int, float]:
    rows = fused.rows[query]
    return {int(row): float(score) for row, score in zip(rows, fused.scores[query], strict=True) if row >= 0}


# -- reciprocal rank fusion --------------------------------------------------------------------------------------------


def test_rrf_by_hand():
    first, second = hits({1: 9.0, 2: 8.0, 3: 7.0}), hits({3: 0.9, 4: 0.8})
    fused = ReciprocalRank().fuse([first, second])
    assert fused.rows[0, :2].tolist() == [3, 1]  # 2 and 4 are tied, which the engine settles by id
    assert scores(fused) == pytest.approx({3: 1 / 63 + 1 / 61, 1: 1 / 61, 2: 1 / 62, 4: 1 / 62})
    assert scores(ReciprocalRank(c=0).fuse([first, second])) == pytest.approx({3: 1 / 3 + 1, 1: 1, 2: 1 / 2, 4: 1 / 2})


def test_rrf_of_queries_with_lists_of_different_lengths():
    fused = ReciprocalRank().fuse([hits({1: 1.0}, {}, {}), hits({2: 1.0, 1: 0.5}, {5: 1.0}, {})])
    assert scores(fused, 0) == pytest.approx({1: 1 / 61 + 1 / 62, 2: 1 / 61})
    assert scores(fused, 1) == pytest.approx({5: 1 / 61})
    assert scores(fused, 2) == {}
    assert np.isneginf(fused.scores[fused.rows < 0]).all()


# -- weighted sums -----------------------------------------------------------------------------------------------------

LEFT, RIGHT = {1: 10.0, 2: 6.0, 3: 2.0}, {3: 1.0, 4: 0.0}


def test_min_max_by_hand():
    fused = WeightedSum(weights=(0.75, 0.25)).fuse([hits(LEFT), hits(RIGHT)])
    assert scores(fused) == pytest.approx({1: 0.75, 2: 0.375, 3: 0.25, 4: 0.0})


def test_z_scores_by_hand():
    deviation = math.sqrt(32 / 3)
    left, right = {1: 4 / deviation, 2: 0.0, 3: -4 / deviation}, {3: 1.0, 4: -1.0}
    fused = WeightedSum(norm="zscore").fuse([hits(LEFT), hits(RIGHT)])
    expected = {row: (left.get(row, left[3]) + right.get(row, right[4])) / 2 for row in (1, 2, 3, 4)}
    assert scores(fused) == pytest.approx(expected)


def test_raw_scores_by_hand():
    fused = WeightedSum(weights=(2.0, 3.0), norm="none").fuse([hits(LEFT), hits(RIGHT)])
    assert scores(fused) == pytest.approx({1: 20.0, 2: 12.0, 3: 7.0, 4: 0.0})


@pytest.mark.parametrize(("norm", "alone"), [("minmax", 1.0), ("zscore", 0.0), ("none", 0.1)])
def test_a_list_whose_scores_are_all_equal(norm, alone):
    fused = WeightedSum(weights=(1.0, 1.0), norm=norm).fuse([hits({1: 0.1, 2: 0.1, 3: 0.1}), hits({})])
    assert scores(fused) == pytest.approx({1: alone, 2: alone, 3: alone})


@pytest.mark.parametrize("norm", ["minmax", "zscore", "none"])
def test_empty_lists(norm):
    fusion = WeightedSum(norm=norm)
    assert scores(fusion.fuse([hits({}), hits({})])) == {}
    assert list(scores(fusion.fuse([hits({}), hits({7: 3.0, 8: 2.0})]))) == [7, 8]
    both = fusion.fuse([hits({}, {1: 1.0}), hits({7: 3.0, 8: 2.0}, {})])
    assert [list(scores(both, query)) for query in (0, 1)] == [[7, 8], [1]]


@pytest.mark.parametrize("norm", ["minmax", "zscore", "none"])
def test_weights_one_and_zero_give_back_each_list(norm):
    left, right = hits(LEFT, {5: 1.0}), hits(RIGHT, {})
    for weights, expected in ((1.0, 0.0), left), ((0.0, 1.0), right):
        fused = WeightedSum(weights=weights, norm=norm).fuse([left, right])
        assert fused.rows.tolist() == expected.rows.tolist()
        assert fused.scores.tolist() == expected.scores.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (-1.0, 2.0)}, "weights must not be negative, nor all zero"),
        ({"weights": (0.0, 0.0)}, "weights must not be negative, nor all zero"),
        ({"weights": ()}, "weights must not be negative, nor all zero"),
        ({"norm": "l2"}, "norm is one of minmax, zscore, none, not 'l2'"),
    ],
)
def test_what_a_weighted_sum_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightedSum(**arguments)


# -- what holds of any lists -------------------------------------------------------------------------------------------

lists: st.SearchStrategy[Lists] = st.lists(
    st.dictionaries(st.integers(0, 30), st.floats(-100, 100, width=32), max_size=12), min_size=2, max_size=4
)
fusions = st.one_of(
    st.builds(ReciprocalRank, st.integers(0, 100)),
    st.builds(WeightedSum, st.none(), st.sampled_from(["minmax", "zscore", "none"])),
)


@given(lists, fusions)
@settings(deadline=None)
def test_the_result_holds_exactly_what_the_lists_hold_best_first(found, fusion):
    fused = fusion.fuse([hits(each) for each in found])
    assert scores(fused).keys() == set().union(*found)
    assert (np.diff(fused.scores[fused.rows >= 0]) <= 0).all()
    assert len(scores(fused)) == np.count_nonzero(fused.rows >= 0)


@given(lists, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_lists_does_not_matter_to_rrf(found, dice):
    shuffled = dice.sample(found, len(found))
    fused, again = (scores(ReciprocalRank().fuse([hits(each) for each in lists])) for lists in (found, shuffled))
    assert fused == pytest.approx(again, rel=1e-6)


@given(lists, fusions, st.permutations(range(31)))
@settings(deadline=None)
def test_row_numbers_do_not_matter(found, fusion, renumbered):
    # ties inside a list are settled by id before fusion, so they are not part of this
    found = [{row: score for row, score in each.items() if list(each.values()).count(score) == 1} for each in found]
    fused = scores(fusion.fuse([hits(each) for each in found]))
    other = fusion.fuse([hits({renumbered[row]: score for row, score in each.items()}) for each in found])
    assert scores(other) == pytest.approx({renumbered[row]: score for row, score in fused.items()}, rel=1e-5, abs=1e-5)


@given(lists)
@settings(deadline=None)
def test_many_queries_at_once_are_as_each_alone(found):
    other: Lists = [{row + 1: -score for row, score in each.items()} for each in found]
    for fusion in ReciprocalRank(), WeightedSum(), WeightedSum(norm="zscore"):
        both = fusion.fuse([hits(a, b, {}) for a, b in zip(found, other, strict=True)])
        assert scores(both, 0) == scores(fusion.fuse([hits(each) for each in found]))
        assert scores(both, 1) == scores(fusion.fuse([hits(each) for each in other]))
        assert scores(both, 2) == {}
