"""From text to terms: the analyzers of the lexical views, by language: tantivy's chains, Lucene's English, and words by
Unicode where tantivy finds none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import tantivy
from tantivy import Filter, Tokenizer

STEMMED = (
    "arabic danish dutch english finnish french german greek hungarian italian norwegian portuguese romanian russian "
    "spanish swedish tamil turkish"
).split()
"""Languages with a Snowball stemmer."""

STOPPED = frozenset(STEMMED) - {"arabic", "greek", "romanian", "tamil", "turkish"}
"""Languages with a stop word list in tantivy (English: Lucene's 33 words)."""

LANGUAGES = {**dict.fromkeys(STEMMED, "stemmed"), "none": "words as they are", "bigrams": "pairs of characters"}
"""Analyzers that tantivy can index with."""

WORDS = {
    **LANGUAGES,
    "lucene": "Lucene's default English analysis, as Anserini and Pyserini use it",
    **dict.fromkeys(("chinese", "japanese", "korean", "thai"), "pairs of characters where no spaces are written"),
    "hindi": "Unicode's words, stemmed",
    "vietnamese": "Unicode's words: syllables",
}
"""Analyzers that give lists of words."""


def words(language: str) -> Callable[[str], list[str]]:
    """The function from text to terms of one of `WORDS`."""
    if language == "lucene":
        return LuceneEnglish().analyze
    return analyzer(language).analyze if language in LANGUAGES else UnicodeWords(language).analyze


def analyzer(language: str) -> tantivy.TextAnalyzer:
    """The chain from text to terms. Words over 40 bytes are dropped, as in tantivy's own analyzers."""
    if language == "bigrams":
        return tantivy.TextAnalyzerBuilder(Tokenizer.ngram(2, 2)).filter(Filter.lowercase()).build()
    chain = tantivy.TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(40)).filter(Filter.lowercase())
    if language in STOPPED:
        chain = chain.filter(Filter.stopword(language))
    if language in STEMMED:
        chain = chain.filter(Filter.stemmer(language))
    return chain.build()


class UnicodeWords:
    """Words by Unicode's segmentation (as `LuceneEnglish` cuts them), in NFKC and lower case: for languages whose words
    tantivy breaks, as Hindi's at every virama, or does not find.

    Hindi is stemmed by Snowball. Chinese, Japanese, Korean and Thai give the overlapping pairs of what a reader takes
    for a character (with its marks) in each run of their scripts, and one that stands alone as it is: what Lucene's
    CJKAnalyzer does, but for its English stop words, and for Thai, where Lucene looks words up in Java's dictionary.
    Runs of Lao, Khmer and Burmese are cut in the same way.
    """

    def __init__(self, language: str) -> None:
        self._stem = _stemmer(language).stemWord if language == "hindi" else str
        self._paired = language in ("chinese", "japanese", "korean", "thai")

    def analyze(self, text: str) -> list[str]:
        """The terms of a text, in its order."""
        plain = unicodedata.normalize("NFKC", text).lower()
        parts = _run_pattern().split(plain) if self._paired else [plain]  # what lies between runs, run, between, ...
        terms: list[str] = []
        for number, part in enumerate(parts):
            terms += _pairs(part) if number % 2 else map(self._stem, _lucene_words(part))
        return terms


def _pairs(run: str) -> list[str]:
    characters = _character_pattern().findall(run)
    return [one + next_ for one, next_ in pairwise(characters)] or characters


class LuceneEnglish:
    """Lucene 9's English analysis without Java: StandardTokenizer, EnglishPossessiveFilter, LowerCaseFilter, StopFilter
    with its 33 words, PorterStemFilter.

    The tokenizer is Unicode's word segmentation (UAX #29, rules WB4 to WB13) without what is no word; Han and Hiragana
    stand alone, Thai and its like in one piece, emoji are words, and a word of more than 255 characters is cut. It is
    held against Lucene itself in tests/test_analyzers.py. It is known to differ in scripts that Unicode took in after
    version 12.1, which are words here; in odd sequences of emoji and joiners; in an apostrophe at the end of a Hebrew
    word that holds a full stop; and in stems of words with "yy".
    """

    def __init__(self) -> None:
        self._terms = _Terms()

    def analyze(self, text: str) -> list[str]:
        """The terms of a text, in its order."""
        # No word holds a space, so the text may be cut there, and what stands between spaces comes again and again.
        pieces = text.split(" ") if "\u202f" in text else text.split()  # the one white space that joins words
        terms = " ".join(map(self._terms.__getitem__, pieces)).split(" ")
        return list(filter(None, terms))


class _Terms(dict[str, str]):
    """A piece of text to its terms, joined by spaces."""

    def __missing__(self, piece: str) -> str:
        terms = " ".join(filter(None, map(_lucene_term, _lucene_words(piece))))
        if len(piece) <= _REMEMBERED:
            if len(self) >= _PIECES:
                self.clear()
            self[piece] = terms
        return terms


_PIECES, _REMEMBERED = 200_000, 40
"""How many pieces of text have their terms kept, and how long each may be: some 40 MB."""
_LONGEST = 255
_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)
_POSSESSIVES = tuple(quote + s for quote in "'\u2019\uff07" for s in "sS")


def _lucene_words(text: str) -> Iterator[str]:
    """The words of a text, cut where they are too long: Lucene's tokenizer looks at so many characters at a time."""
    pattern, place = _word_pattern(), 0
    while found := pattern.search(text, place):
        start, place = found.span()
        if place - start > _LONGEST:
            found = pattern.search(text, start, start + _LONGEST)
            place = found.end() if found else start + 1
        if found:
            yield found[0]


def _lucene_term(word: str) -> str:
    """What the filters make of a word; nothing of a stop word."""
    if word.endswith(_POSSESSIVES):
        word = word[:-2]
    # Java lowers each character for itself: no final sigma, and one character for one.
    lower = word.lower() if word.isascii() else "".join(each.lower()[0] for each in word)
    return "" if lower in _STOP_WORDS else _porter(lower)


_LOGI_BLI = re.compile(r"(.*)(bl|log)(?:[iy](?:s|eds?|ings?)?|ies)", re.DOTALL)
_DOUBLED = re.compile(r"(.*([chjkqvwx]))\2(?:ed|ing)s?", re.DOTALL)
_VOWEL = re.compile(r"[aeiou]|(?<=[^aeiouy])y")
_MEASURED = re.compile(rf"(?:{_VOWEL.pattern})[^aeiou]")
"""A vowel and then a consonant: Porter's m > 0."""


def _porter(word: str) -> str:
    """Porter's stemmer as Lucene has it.

    That is the revision of Porter's own C and Java programs, not the paper, which Snowball's "porter" follows: after
    step 1, -bli becomes -ble and -logi -log where m > 0 ("possibly", "analogy"), and step 1b takes one of any double
    consonant but l, s and z ("trekking"; Snowball: only of b, d, f, g, m, n, p, r and t). Such words are given to
    Snowball as they are after that step.
    """
    if len(word.encode("utf-16-le")) <= 4:  # Java counts in units of UTF-16
        return word
    if (found := _LOGI_BLI.fullmatch(word)) and _MEASURED.search(found[1]):
        word = found[1] + ("ble" if found[2] == "bl" else "log")
    elif (found := _DOUBLED.fullmatch(word)) and _VOWEL.search(found[1]):
        word = found[1]
    stem: str = _stemmer("porter").stemWord(word)
    return stem


@cache
def _stemmer(algorithm: str) -> Any:
    from Stemmer import Stemmer

    return Stemmer(algorithm, 0)  # _Terms is its cache


_PICTURES = (
    r"\u2388\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2763-\u2767\U0001f000-\U0001f0ff"
    r"\U0001f10d-\U0001f10f\U0001f249-\U0001f53d\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f7d5-\U0001f7ff"
    r"\U0001f90c-\U0001f93a\U0001f93c-\U0001f945\U0001f947-\U0001faff"
)
"""What Unicode 12.1 calls Extended_Pictographic besides what is Emoji: later versions have taken it out again."""


@cache
def _run_pattern() -> Any:
    """Characters of scripts that are written without spaces, or, as Korean's, with spaces between more than words."""
    import regex

    return regex.compile(r"((?:[\p{Han}\p{Hiragana}\p{WB=Katakana}\p{Hangul}\p{LB=SA}]\p{M}*+)++)")


@cache
def _character_pattern() -> Any:
    import regex

    return regex.compile(r"\X")


@cache
def _word_pattern() -> Any:
    """UAX #29 as one regular expression. WB4 lets marks and joiners follow every character."""
    import regex

    marks = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}\p{Prepended_Concatenation_Mark}]*+"
    hebrew, joiner, katakana = (rf"\p{{WB={name}}}{marks}" for name in ("Hebrew_Letter", "ExtendNumLet", "Katakana"))
    # Unicode made letters of these after 12.1, the version of Lucene's tables
    letter = rf"[[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]--[\xb8\u02e5-\u02eb\u055a\u058a\ua708-\ua716]]{marks}"
    digit = rf"[\p{{WB=Numeric}}--\p{{Prepended_Concatenation_Mark}}]{marks}"
    in_word = rf"[[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]--\u055f]{marks}"
    in_number = rf"[\p{{WB=MidNum}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{marks}"
    run = "|".join(
        [
            rf'{hebrew}"{marks}(?={hebrew})|{hebrew}\'{marks}',  # WB7a to WB7c
            rf"{letter}(?:{in_word}(?={letter}))?+",  # WB5 to WB7
            rf"{digit}(?:{in_number}(?={digit}))?+",  # WB8 to WB12
        ]
    )
    part = rf"(?:(?:{run})++|(?:{katakana})++)"  # WB13: Katakana joins nothing else
    word = rf"(?:{joiner})*+{part}(?:(?:{joiner})++{part})*+(?:{joiner})*+"  # WB13a, WB13b
    picture = rf"[[\p{{Emoji}}{_PICTURES}]--[0-9#*\p{{RI}}]]"
    shown = rf"\u200d?{picture}[\p{{Emoji_Modifier}}\ufe0f]?+"
    flag, keycap = rf"\p{{RI}}{marks}\p{{RI}}{marks}", rf"[0-9#*]\ufe0f?\u20e3{marks}"
    emoji = rf"{flag}|{keycap}|{shown}[\U000e0020-\U000e007f]*+(?:\u200d{shown})*+{marks}"
    alone = rf"(?:\p{{LB=SA}}{marks})++|[\p{{Han}}\p{{Hiragana}}]{marks}"
    return regex.compile(f"{word}|{emoji}|{alone}", regex.VERSION1)
