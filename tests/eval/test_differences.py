"""Where two runs differ, by hand."""

from retriever.eval.differences import Move, differences, moves
from retriever.runs import Qrels, Run


def ranked(*documents: str) -> dict[str, float]:
    return {document: 1 / rank for rank, document in enumerate(documents, 1)}


def test_documents_that_stand_where_they_stood_did_not_move():
    assert moves("ab", "ac", {"a": 1, "c": 0}) == [Move("b", 2, None, None), Move("c", None, 2, 0)]


def test_relevant_documents_come_first_by_grade_and_then_by_their_better_rank():
    found = moves("abcd", "badc", {"c": 1, "d": 2, "a": 0})
    assert [move.document for move in found] == ["d", "c", "a", "b"]


def test_below_the_first_ten_only_relevant_documents_count():
    before = [f"x{n}" for n in range(10)]
    found = moves([*before, "far", "relevant"], [*before, "relevant", "far"], {"relevant": 1})
    assert found == [Move("relevant", 12, 11, 1)]


def test_gains_and_losses_come_from_the_largest_down_and_equal_queries_are_counted():
    judged = Qrels({query: {"a": 1} for query in ("same", "up", "more", "down")})
    before = {"same": ranked("x", "a"), "up": ranked("x", "a"), "more": ranked("x"), "down": ranked("a")}
    after = {"same": ranked("y", "a"), "up": ranked("a"), "more": ranked("a"), "down": ranked("x", "a")}
    found = differences(Run(before), Run(after), judged, "MRR@10", n=1)
    assert (found.measure, found.better, found.worse, found.equal) == ("RR@10", 2, 1, 1)
    assert [(each.query, each.difference) for each in found.gains] == [("more", 1.0)]
    assert [(each.query, each.before, each.after) for each in found.losses] == [("down", 1.0, 0.5)]
