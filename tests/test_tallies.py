"""What a search says besides its results."""

import pytest

from retriever.tallies import tallies, tally, told


def test_what_happened_is_counted_by_its_words_while_somebody_listens():
    tally("documents were cut", 5)  # nobody listens
    with tallies() as outer:
        tally("documents were cut", 2)
        tally("documents were cut", 1)
        tally("answers were none", 0)  # nothing to say
        with tallies() as inner:
            tally("documents were cut", 4)
        tally("answers were none", 1)
    assert outer == {"documents were cut": 3, "answers were none": 1}
    assert inner == {"documents were cut": 4}


@pytest.mark.parametrize(
    ("what", "one"),
    [
        ("pairs were longer than M reads, and cut", "1 of the pairs was longer than M reads, and cut"),
        ("answers of M were no order; the old one stays", "1 of the answers of M was no order; the old one stays"),
        ("documents have more passages than 4", "1 of the documents has more passages than 4"),
        ("queries ran out of time", "1 of the queries ran out of time"),
    ],
)
def test_a_count_is_told_in_a_sentence(what, one):
    assert told(what, 1234) == f"1,234 {what}"
    assert told(what, 1) == one
