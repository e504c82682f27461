"""From text to terms: the analyzers of the lexical views, by language. The chains are tantivy's."""

from __future__ import annotations

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
