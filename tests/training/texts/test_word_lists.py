"""Files of words that mean the same, and the pairs that batches are made of."""

from collections import Counter

import pytest

from retriever import InputError
from retriever.training.texts.lexicon import Lexicon, WordPair, draw, read_words


@pytest.fixture
def write(tmp_path):
    def write(*lines, name="words.tsv"):
        path = tmp_path / name
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
        return path

    return write


def test_groups_with_languages(write):
    path = write(
        "7\ten\tdog", "7\tde\tHund", "8\ten\tcat", "", "7\ten\thound", "7\tde\tHund", "9\t\tcow\r", "9\t\tox\r"
    )
    assert read_words([path]) == Lexicon(
        [[("dog", "en"), ("Hund", "de"), ("hound", "en")], [("cow", ""), ("ox", "")]], alone=1
    )


def test_pairs_with_the_same_first_word_are_one_group(write):
    path = write("dog\tHund", "cat\tKatze", "dog\tKöter", "one\tone")
    words = [[word for word, _ in group] for group in read_words([path]).words]
    assert words == [["dog", "Hund", "Köter"], ["cat", "Katze"]]


def test_ids_hold_within_their_file(write):
    files = [write("1\ten\tdog", "1\ten\thound", name="a.tsv"), write("1\ten\tcat", "1\ten\tmog", name="b.tsv")]
    assert len(read_words(files).words) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dog\thound", "cat"], "words.tsv:2: 1 columns between tabs, expected 2, as above"),
        (["1\ten\tdog", "cat\tmog"], "words.tsv:2: 2 columns between tabs, expected 3, as above"),
        (["a b c d"], r"words.tsv:1: 1 columns between tabs, expected 3 \(group, language, word\) or 2 \(word, word\)"),
        (["dog\thound", "\tcat"], "words.tsv:2: a column is empty; only the language may be"),
        (["dog\thound", b"caf\xe9\tbar"], "words.tsv:2: not UTF-8: byte 4 of the line is 0xe9"),
        (["1\ten\tdog", "2\ten\tcat"], "there is nothing to train on: no two words that mean the same"),
    ],
)
def test_bad_files(write, lines, message):
    with pytest.raises(InputError, match=message):
        read_words([write(*lines)])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none.tsv: cannot be read: No such file"):
        read_words([tmp_path / "none.tsv"])


def test_a_batch_has_no_group_and_no_word_twice():
    """The two groups with "bank" never meet: one would be the other's negative."""
    words = [["bank", "shore"], ["bank", "lender"], ["dog", "hound", "Hund"], ["cat", "mog"], ["cow", "ox"]]
    lexicon = Lexicon([[(word, "") for word in group] for group in words], 0)
    pairs = draw(lexicon, batches=50, size=3, smoothing=0.5, seed=0)
    for first in range(0, 150, 3):
        batch = pairs[first : first + 3]
        assert len({pair.group for pair in batch}) == 3
        assert len({word for pair in batch for word in pair[1:]}) == 6
    assert {WordPair(2, "dog", "hound"), WordPair(2, "dog", "Hund"), WordPair(2, "hound", "Hund")} <= {*pairs}
    assert pairs == draw(lexicon, batches=50, size=3, smoothing=0.5, seed=0)
    assert pairs != draw(lexicon, batches=50, size=3, smoothing=0.5, seed=1)


@pytest.mark.parametrize(("smoothing", "share"), [(0.0, 1 / 2), (0.5, 1 / 4), (1.0, 1 / 10)])
def test_rare_pairs_of_languages_are_drawn_more_often_by_smoothing(smoothing, share):
    """Of 90 pairs de-en and 10 en-tr, en-tr is drawn with 10 ** a / (10 ** a + 90 ** a)."""
    groups = [[(f"en{i}", "en"), (f"other{i}", "tr" if i < 10 else "de")] for i in range(100)]
    pairs = draw(Lexicon(groups, 0), batches=2000, size=1, smoothing=smoothing, seed=0)
    assert Counter(pair.group < 10 for pair in pairs)[True] / 2000 == pytest.approx(share, abs=0.03)


def test_too_few_words_for_a_batch():
    lexicon = Lexicon([[("dog", ""), ("hound", "")], [("dog", ""), ("cat", "")]], 0)
    with pytest.raises(InputError, match="the words are too few for batches of 2 pairs without a word twice"):
        draw(lexicon, batches=1, size=2, smoothing=0.5, seed=0)
