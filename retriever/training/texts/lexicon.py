"""Words that mean the same: read from a synonym or dictionary file, and drawn in pairs."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from retriever.corpus.lines import decode
from retriever.errors import InputError

TRIES = 100
"""A batch is given up after so many times its pairs were drawn: too few words to choose from."""


class Lexicon(NamedTuple):
    """words: in groups that mean the same, each at least two, with the language of each ("" where none is given).
    alone: groups of one word, left out.
    """

    words: list[list[tuple[str, str]]]
    alone: int


class WordPair(NamedTuple):
    """Two words of a group, by its number."""

    group: int
    first: str
    second: str


def read_words(paths: Iterable[str | Path]) -> Lexicon:
    """Groups of words from UTF-8 files of tab-separated lines without a header.

    Three columns are a group's id, a language (may be empty) and a word: of a thesaurus, or a dictionary of several
    languages. Two columns are words that mean the same: all lines with the same first word are one group, as a
    dictionary's entry is. Ids hold within their file. A word counts once in its group.

    Raises: InputError naming file and line, also where there is no group of two words.
    """
    groups: dict[tuple[Path, str], dict[str, str]] = defaultdict(dict)
    for path in map(Path, paths):
        for group, language, word in _records(path):
            groups[path, group].setdefault(word, language)
    words = [[*group.items()] for group in groups.values() if len(group) > 1]
    if not words:
        raise InputError(
            "there is nothing to train on: no two words that mean the same; give at least one file of them"
        )
    return Lexicon(words, len(groups) - len(words))


def _records(path: Path) -> Iterator[tuple[str, str, str]]:
    """Group, language and word of each line."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as problem:
        raise InputError(f"cannot be read: {problem.strerror}", path) from None
    width = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            cells = [cell.strip() for cell in decode(line).split("\t")]
        except InputError as problem:
            raise InputError(problem.message, path, number) from None
        if len(cells) not in (2, 3) or len(cells) != (width or len(cells)):
            wanted = f"{width}, as above" if width else "3 (group, language, word) or 2 (word, word)"
            raise InputError(f"{len(cells)} columns between tabs, expected {wanted}", path, number)
        width = len(cells)
        if not (cells[0] and cells[-1]):
            raise InputError("a column is empty; only the language may be", path, number)
        if width == 3:
            yield cells[0], cells[1], cells[2]
        else:
            yield from ((cells[0], "", word) for word in cells)


def draw(lexicon: Lexicon, batches: int, size: int, smoothing: float, seed: int) -> list[WordPair]:
    """Pairs for so many batches, batch after batch, no word and no group twice in one.

    A pair of languages with n pairs of words is drawn with a probability that grows as n ** smoothing, then one of its
    pairs. Other words of a batch are negatives, so none may be a word's own synonym or homograph.

    Raises: InputError where there are too few words for that.
    """
    kinds: dict[tuple[str, ...], list[WordPair]] = defaultdict(list)
    for number, group in enumerate(lexicon.words):
        for (first, one), (second, other) in combinations(group, 2):
            kinds[tuple(sorted((one, other)))].append(WordPair(number, first, second))
    chosen = random.Random(seed)
    weights = [len(pairs) ** smoothing for pairs in kinds.values()]
    return [pair for _ in range(batches) for pair in _batch([*kinds.values()], weights, size, chosen)]


def _batch(
    kinds: Sequence[Sequence[WordPair]], weights: Sequence[float], size: int, chosen: random.Random
) -> list[WordPair]:
    drawn: list[WordPair] = []
    taken: set[int | str] = set()
    for kind in chosen.choices(range(len(kinds)), weights, k=TRIES * size):
        pair = chosen.choice(kinds[kind])
        if taken.isdisjoint(pair):
            taken.update(pair)
            drawn.append(pair)
        if len(drawn) == size:
            return drawn
    raise InputError(f"the words are too few for batches of {size} pairs without a word twice: lower batch_size")
