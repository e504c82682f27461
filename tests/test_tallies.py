"""What a search says besides its results."""

from retriever.tallies import tallies, tally


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
