"""One learned weight a token or word of the text itself: uniCOIL, TILDEv2, DeepImpact, DeepCT and HDCT.

Each model is BERT with a head that gives every token one number; they differ in which tokens count, in what equal ones
add up to, and in what a query is. Texts that the methods want expanded come expanded: the new words stand after the
passage, in Pyserini's uniCOIL and in TILDEv2 after a "[SEP]", which tokenizers read as the special token.

In bfloat16, which "auto" takes for many texts, the numbers move a little: with MiniLM's weights and random heads by at
most a hundredth of the largest, and DeepCT's frequencies by at most 1, in one word of twenty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retriever.analyzers import words
from retriever.encoders.base import TermWeights
from retriever.encoders.batches import Tokens, tokenize, vocabulary
from retriever.encoders.bert_head import BertHead
from retriever.encoders.stop_words import DEEPIMPACT, NLTK_ENGLISH, QUESTIONS
from retriever.encoders.words import collected, counted
from retriever.types import Floats, Rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class UniCoil:
    """uniCOIL: tokens of the vocabulary, weighted max(0, w · h_i + b) from BERT's last hidden state h_i.

    Lin and Ma, arXiv 2106.14807, after COIL (Gao, Dai and Callan, NAACL 2021). A document's token has the largest
    weight of its occurrences, a query's the sum; [CLS] and [SEP] have none, as in the authors' COIL repository.
    (Pyserini's encoder leaves [SEP] in, for which no weight was trained.) model: a folder with BERT's parameters and
    `tok_proj`, as castorini/unicoil-msmarco-passage. Read is as much of a text as the model's files allow, 512 tokens
    for BERT; the authors read 192 of a passage and 64 of a query, Pyserini 512 and 128. precision: "auto" (bfloat16
    where the hardware has it) or "float32".

    Proven: the arithmetic, on random weights. Not proven: published scores, for want of the published weights.
    """

    method = "unicoil"
    limit: int | None = None

    def __init__(self, model: str, precision: str = "auto") -> None:
        self.bert = BertHead(model, precision, "tok_proj", _linear, self.limit)

    @cached_property
    def terms(self) -> list[str]:
        """The vocabulary, by token id."""
        return vocabulary(self.bert.tokenizer, len(self.bert.tokenizer))

    @cached_property
    def _left_out(self) -> list[int]:
        return _framing(self.bert.tokenizer)

    def identity(self) -> Mapping[str, Any]:
        """The checkpoint, how much of a text it reads, and the method."""
        return {**self.bert.identity(), "method": self.method}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        """CSR float32 [n, vocabulary]."""
        return self._weighted(texts, np.maximum, progress)

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """CSR float32 [n, vocabulary]."""
        return self._weighted(texts, np.add, lambda _: None)

    def _weighted(self, texts: Sequence[str], join: np.ufunc, progress: Callable[[float], None]) -> TermWeights:
        tokens = self.bert.tokenize(texts)
        return self._joined(tokens, self.bert.numbers(tokens.ids, progress), join)

    def _joined(self, tokens: Tokens, numbers: Sequence[Floats], join: np.ufunc) -> TermWeights:
        matrix = by_token(tokens.ids, numbers, self._left_out, join, len(self.terms))
        return TermWeights(matrix, self.terms, tokens.truncated)


class TildeV2(UniCoil):
    """TILDEv2: tokens of the vocabulary, weighted as in uniCOIL; a query's tokens count 1 each, without the model.

    Zhuang and Zuccon, arXiv 2108.08513. Left out are special tokens, NLTK's English stop words but for seven question
    words, "##s", and tokens that hold anything but ASCII letters, digits, "_" and "-". A query's token that comes twice
    counts 2. model: a folder with BERT's parameters and `tok_proj`, as ielab/TILDEv2-TILDE200-exp. Read are 192 tokens
    of a text, as the reference does. precision: "auto" (bfloat16 where the hardware has it) or "float32".

    Proven: the arithmetic, on random weights. Not proven: published scores, for want of the published weights.
    """

    method = "tildev2"
    limit = 192

    @cached_property
    def _left_out(self) -> list[int]:
        tokenizer = self.bert.tokenizer
        stops = NLTK_ENGLISH - QUESTIONS | {"##s"}
        known = tokenizer.get_vocab().items()
        return sorted({*tokenizer.all_special_ids, *(id for token, id in known if token in stops or not _plain(token))})

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """CSR float32 [n, vocabulary]: how often each token occurs."""
        tokens = tokenize(self.bert.tokenizer, list(texts), self.bert.max_length, special=False)
        ones = [np.ones(len(ids), dtype=np.float32) for ids in tokens.ids]
        return self._joined(tokens, ones, np.add)


class DeepImpact:
    """DeepImpact: whole words, weighted by a two-layer head on the first piece of a word where it first stands.

    Mallia, Khattab, Suel and Tonellotto, SIGIR 2021. Words are what `document_words` makes of a text; a query is its
    distinct words without stop words (`query_words`), each with weight 1, without the model. model: a folder with
    BERT's parameters and `impact_score_encoder`: the published file, renamed to pytorch_model.bin, beside the
    config.json and the tokenizer of bert-base-uncased. Read are 300 tokens of a text, as the reference does.
    precision: "auto" (bfloat16 where the hardware has it) or "float32".

    Two differences: punctuation, which the reference weighs but no query asks for, is left out; and a word that begins
    just where a text is cut has no weight, where the reference gives it what it computes of [SEP].

    Proven: the arithmetic, on random weights. Not proven: published scores, for want of the published weights.
    """

    def __init__(self, model: str, precision: str = "auto") -> None:
        self.bert = BertHead(model, precision, "impact_score_encoder", _two_layers, 300)

    def identity(self) -> Mapping[str, Any]:
        """The checkpoint, how much of a text it reads, and the method."""
        return {**self.bert.identity(), "method": "deepimpact"}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        """CSR float32 [n, words of these texts]."""
        texts_words = [document_words(text) for text in texts]
        tokens = self.bert.tokenize([" ".join(own) for own in texts_words])
        numbers = self.bert.numbers(tokens.ids, progress)
        bags = map(_impacts, texts_words, tokens.encodings, numbers)
        return collected(list(bags))._replace(truncated=tokens.truncated)

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """CSR float32 [n, words of these texts], all 1."""
        return counted([list(dict.fromkeys(query_words(text))) for text in texts])


class DeepCt:
    """DeepCT: term frequencies for BM25 from a linear regression y on each word's first piece: round(100 * max(y, 0)).

    Dai and Callan, arXiv 1910.10687; sqrt: round(100 * sqrt(max(y, 0))), which keeps more words (the authors' later
    choice). Frequencies below 1 are dropped, the same word has the largest of its occurrences. A word goes through
    Lucene's English analysis, as the repeated words of the reference do in Anserini; words that come to the same term
    add up. A query is its analysed words. 128 tokens of a text are read, as in the paper.

    passage: HDCT (Dai and Callan, WWW 2020; with sqrt and 300 in the paper): a document is read in passages of so many
    words and a word's frequency is int(sum_i tf_i / i / sum_{i <= n} 1 / i) over the n passages. The reference cuts
    passages at sentences, here after so many words.

    model: a folder with BERT's parameters and `classifier`, BertForTokenClassification with one label, as
    macavaney/deepct. precision: "auto" (bfloat16 where the hardware has it) or "float32".
    A word is taken as it stands in the text; the reference puts it together from its pieces, which have lost accents
    and are "[UNK]" where the vocabulary has none, so that no query finds it.

    Proven: the arithmetic, on random weights. Not proven: published scores, for want of the published weights.
    """

    def __init__(self, model: str, precision: str = "auto", *, sqrt: bool = False, passage: int | None = None) -> None:
        if passage is not None and passage < 1:
            raise ValueError("passage must be at least 1 word")
        self.sqrt, self.passage = sqrt, passage
        self.bert = BertHead(model, precision, "classifier", _linear, 128 if passage is None else None)
        self._analyze = words("lucene")

    def identity(self) -> Mapping[str, Any]:
        """The checkpoint, how much of a text it reads, how weights become frequencies, and the analyzer."""
        own = {"method": "deepct", "sqrt": self.sqrt, "passage": self.passage, "language": "lucene"}
        return {**self.bert.identity(), **own}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        """CSR float32 [n, terms of these texts]: whole numbers."""
        passages = [passages_of(text, self.passage) for text in texts]
        owners = _owners(passages)
        flat = [passage for own in passages for passage in own]
        tokens = self.bert.tokenize(flat)
        numbers = self.bert.numbers(tokens.ids, lambda done: progress(done * len(texts) / len(flat)))
        bags: list[list[dict[str, int]]] = [[] for _ in texts]
        for owner, text, encoding, own in zip(owners, flat, tokens.encodings, numbers, strict=True):
            bags[owner].append(self._frequencies(text, encoding, own))
        joined = [self._analyzed(own[0] if self.passage is None else position_decay(own)) for own in bags]
        return collected(joined)._replace(truncated=len(np.unique(owners[tokens.cut])))

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """CSR float32 [n, terms of these texts]: counts."""
        return counted([self._analyze(text) for text in texts])

    def _frequencies(self, text: str, encoding: Any, numbers: Floats) -> dict[str, int]:
        """Of the words of a passage, in small letters."""
        framing, ids, given = _framing(self.bert.tokenizer), encoding.ids, frequency(numbers, self.sqrt)
        found: dict[str, int] = {}
        for first, word in _first_pieces(encoding):
            if given[first] >= 1 and ids[first] not in framing:
                start, stop = encoding.word_to_chars(word)
                key = text[start:stop].lower()
                found[key] = max(found.get(key, 0), int(given[first]))
        return found

    def _analyzed(self, frequencies: Mapping[str, int]) -> dict[str, float]:
        terms: dict[str, float] = {}
        for word, times in frequencies.items():
            for term in self._analyze(word):
                terms[term] = terms.get(term, 0) + times
        return terms


# -- arithmetic --------------------------------------------------------------------------------------------------------


def by_token(
    ids: Sequence[Sequence[int]], numbers: Sequence[Floats], left_out: Sequence[int], join: np.ufunc, width: int
) -> csr_array:
    """CSR float32 [n, width]: numbers above 0 of tokens not left out, equal tokens of a text joined by a ufunc."""
    from scipy.sparse import csr_array

    rows = _owners(ids)
    columns = np.array([id for own in ids for id in own], dtype=np.int64)
    values = np.concatenate([np.zeros(0, dtype=np.float32), *numbers])
    kept = np.flatnonzero((values > 0) & ~np.isin(columns, left_out))
    keys = rows[kept] * width + columns[kept]
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.diff(keys[order], prepend=-1))
    joined = join.reduceat(values[kept][order], first) if len(first) else values[:0]
    at = keys[order][first]
    starts = np.searchsorted(at, np.arange(len(ids) + 1) * width)
    return csr_array((joined, at % width, starts), shape=(len(ids), width))


def frequency(weights: npt.ArrayLike, sqrt: bool) -> Rows:
    """int64: DeepCT's term frequencies of predicted weights (equation 4 of the paper, with 100 for N)."""
    positive = np.maximum(np.asarray(weights, dtype=np.float64), 0)
    return np.round(100 * (np.sqrt(positive) if sqrt else positive)).astype(np.int64)


def position_decay(passages: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """HDCT's frequencies of a document from those of its passages: averages that weigh the i-th passage by 1 / i."""
    sums: dict[str, float] = {}
    for place, frequencies in enumerate(passages, start=1):
        for word, times in frequencies.items():
            sums[word] = sums.get(word, 0.0) + times / place
    norm = sum(1 / place for place in range(1, len(passages) + 1))
    whole = {word: int(total / norm + 1e-9) for word, total in sums.items()}  # thirds do not add up to 1
    return {word: times for word, times in whole.items() if times > 0}


def _owners(lists: Sequence[Sequence[Any]]) -> Rows:
    """int64: for each item of all lists, which list it is of."""
    return np.repeat(np.arange(len(lists)), np.array(list(map(len, lists)), dtype=np.int64))


def passages_of(text: str, length: int | None) -> list[str]:
    """A text in pieces of so many words; the whole text where no length is given."""
    if length is None:
        return [text]
    parts = text.split()
    return [" ".join(parts[start : start + length]) for start in range(0, len(parts), length)] or [""]


def document_words(text: str) -> list[str]:
    """DeepImpact's words of a document: ASCII letters and digits in small letters, and punctuation as words.

    "u.s." is "us", "3.14" is "3 . 14", and "wi-fi" is "wifi ( wi fi )".
    """
    parts = re.sub(r"[^0-9A-Za-z,.\- ]", " ", text).lower().replace(",", " , ").split()
    parts = " ".join(_apart(part, ".", " . ", max) for part in parts).split()
    return " ".join(f"{p.replace('-', '')} ( {p.replace('-', ' ')} )" if "-" in p else p for p in parts).split()


def query_words(text: str) -> list[str]:
    """DeepImpact's words of a query: as of a document without punctuation and stop words; "wi-fi" is "wi fi" and
    "e-mail" is "email".
    """
    parts = re.sub(r"[^0-9A-Za-z.\- ]", " ", text).lower().split()
    parts = " ".join(_apart(part, ".", " ", max) for part in parts).split()
    parts = " ".join(_apart(part, "-", " ", min) for part in parts).split()
    return [part for part in parts if part not in DEEPIMPACT]


def _apart(word: str, mark: str, between: str, measure: Callable[[Iterator[int]], int]) -> str:
    """The parts of a word put apart where the longest (or shortest) has two letters or more, else put together."""
    parts = word.split(mark)
    return (between if measure(map(len, parts)) > 1 else "").join(parts)


def _impacts(text_words: Sequence[str], encoding: Any, numbers: Floats) -> dict[str, float]:
    """A document's distinct words that are read, with the number of the first piece of the first occurrence."""
    first: dict[str, float] = {}
    for place, word in _first_pieces(encoding):
        first.setdefault(text_words[word], float(numbers[place]))
    return {word: impact for word, impact in first.items() if impact > 0 and word.isalnum()}


def _first_pieces(encoding: Any) -> Iterator[tuple[int, int]]:
    """Where each word's first token is, and the word's number."""
    last = None
    for place, word in enumerate(encoding.word_ids):
        if word is not None and word != last:
            yield place, word
        last = word


def _framing(tokenizer: Any) -> list[int]:
    """[CLS], [SEP] and [PAD]."""
    ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    return [id for id in ids if id is not None]


def _plain(token: str) -> bool:
    return (len(token) > 1 and token.startswith("#")) or re.fullmatch("[A-Za-z0-9_-]*", token) is not None


def _linear(width: int) -> Any:
    from torch.nn import Linear

    return Linear(width, 1)


def _two_layers(width: int) -> Any:
    from torch.nn import Dropout, Linear, ReLU, Sequential

    return Sequential(Linear(width, width), ReLU(), Dropout(), Linear(width, 1), ReLU())
