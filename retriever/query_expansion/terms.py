"""Query expansion by the terms of the documents that a first search found (pseudo-relevance feedback).

RM3 and Rocchio do what Anserini's Rm3Reranker and RocchioReranker do, Bo1 and KL what Terrier's DFRBagExpansionTerms
does: the details that papers leave open (which terms are dropped, what is normalised when) were read there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.errors import InputError
from retriever.indexers.base import Terms, TermView
from retriever.query_expansion.base import Feedback
from retriever.types import Floats

_PLAIN = re.compile(r"[a-z0-9]+")
_LENGTHS = range(2, 21)
"""Lengths of terms that RM3 and Rocchio take from documents."""
_SMALL = 0.001
"""A document whose terms sum up to less says nothing; Anserini skips it too."""
_MIN_DOCUMENTS = 2
"""Bo1 and KL take a term from so many documents, unless the query has it (Amati 2006; Terrier's default)."""


@dataclass(frozen=True)
class Rm3Config:
    """docs, terms: how many feedback documents, and how many of their terms. original: the query's share of the result.
    max_df: terms in more than this share of all documents are not taken. plain: nor those that are not [a-z0-9]+;
    false for other scripts.
    """

    docs: int = 10
    terms: int = 10
    original: float = 0.5
    max_df: float = 0.1
    plain: bool = True

    def __post_init__(self) -> None:
        _check_counts(docs=self.docs, terms=self.terms)
        _check_shares(original=self.original, max_df=self.max_df)


class Rm3:
    """RM3: a relevance model (Lavrenko and Croft, SIGIR 2001) mixed with the query (Abdul-Jaleel et al., TREC 2004).

    As Anserini's, whose defaults it has. The model is estimated from each document's `terms` largest terms, weighted by
    its score, which therefore must not be negative.
    """

    Config = Rm3Config
    asks = (TermView,)
    feedback = True

    def __init__(self, config: Rm3Config) -> None:
        self.config = config

    def expand(self, view: TermView, queries: Sequence[str], feedback: Sequence[Feedback]) -> list[Terms]:
        """The sum original * query + (1 - original) * relevance model, both with weights that sum to 1.

        Raises: InputError for a feedback document with a negative score.
        """
        found = _usual_terms(view, feedback, self.config.max_df, self.config.plain)
        expanded = []
        for query, documents, given in zip(view.query_terms(queries), found, feedback, strict=True):
            _check_scores(given)
            model = relevance_model(documents, given.scores, self.config.terms)
            expanded.append(interpolate(query, model, self.config.original) if model else query)
        return expanded


@dataclass(frozen=True)
class RocchioConfig:
    """docs, terms: how many feedback documents, and how many terms of their mean. alpha, beta: weights of the query and
    of that mean. negative: how many documents at the end of the list count against their terms, with weight gamma.
    max_df: terms in more than this share of all documents are not taken.
    """

    docs: int = 10
    terms: int = 10
    alpha: float = 1.0
    beta: float = 0.75
    gamma: float = 0.15
    negative: int = 0
    max_df: float = 0.1

    def __post_init__(self) -> None:
        _check_counts(docs=self.docs, terms=self.terms)
        _check_shares(max_df=self.max_df)
        if min(self.alpha, self.beta, self.gamma, self.negative) < 0:
            raise ValueError("alpha, beta, gamma and negative must not be negative")


class Rocchio:
    """alpha * query + beta * mean of the first documents - gamma * mean of the last (Rocchio 1971).

    As Anserini's: every vector holds term frequencies and has length 1, a mean is cut to its `terms` largest and given
    length 1 again, and what ends at or below 0 is dropped. The last documents are those of the list that is fed back,
    so its depth matters to them.
    """

    Config = RocchioConfig
    asks = (TermView,)
    feedback = True

    def __init__(self, config: RocchioConfig) -> None:
        self.config = config

    def expand(self, view: TermView, queries: Sequence[str], feedback: Sequence[Feedback]) -> list[Terms]:
        """The query's terms and those that the mean adds."""
        found = _usual_terms(view, feedback, self.config.max_df, plain=False)
        return [
            self._moved(query, documents) if documents else query
            for query, documents in zip(view.query_terms(queries), found, strict=True)
        ]

    def _moved(self, query: Terms, documents: Sequence[Terms]) -> Terms:
        config = self.config
        towards = centroid(documents[: config.docs], config.terms)
        away = centroid(documents[-config.negative :], config.terms) if config.negative else {}
        start = _scaled(query, 2)
        summed = {
            term: config.alpha * start.get(term, 0.0)
            + config.beta * towards.get(term, 0.0)
            - config.gamma * away.get(term, 0.0)
            for term in start | towards
        }
        return {term: weight for term, weight in summed.items() if weight > 0}


@dataclass(frozen=True)
class BagConfig:
    """docs, terms: how many feedback documents, and how many of their terms (or as many as the query has)."""

    docs: int = 3
    terms: int = 10

    def __post_init__(self) -> None:
        _check_counts(docs=self.docs, terms=self.terms)


class Totals(NamedTuple):
    """documents, tokens: of the collection. length: tokens of the feedback documents together."""

    documents: int
    tokens: float
    length: float


Numbers = npt.NDArray[np.float64]
Divergence = Callable[[Numbers, Numbers, Totals], Numbers]
"""Weights of terms, from how often each occurs in the feedback (tf) and in the collection (cf), float64 [n]."""


class Bo1:
    """Bose-Einstein 1: how far a term's frequency in the feedback is from that expected by its mean in the collection.

    Amati, "Probability models for information retrieval based on divergence from randomness", PhD thesis, Glasgow 2003.
    As Terrier's parameter-free form; only its formulas were compared, no run of Terrier's. Terrier's BM25 dampens the
    weights of query terms, ours takes them as they are.
    """

    Config = BagConfig
    asks = (TermView,)
    feedback = True

    def __init__(self, config: BagConfig) -> None:
        self.config = config

    def expects(self, view: TermView) -> str | None:
        """Collection frequencies."""
        return _counts_occurrences(view, "bo1")

    def expand(self, view: TermView, queries: Sequence[str], feedback: Sequence[Feedback]) -> list[Terms]:
        """Weights qtf / largest qtf + Bo1 weight / the largest that the best term's tf could have had."""
        return _expand_bags(view, queries, feedback, self.config.terms, bo1)


class Kl:
    """Kullback-Leibler divergence of a term's share of the feedback from its share of the collection.

    Amati 2003 (see Bo1), after Carpineto et al., TOIS 2001. As Terrier's parameter-free form; only its formulas were
    compared, no run of Terrier's.
    """

    Config = BagConfig
    asks = (TermView,)
    feedback = True

    def __init__(self, config: BagConfig) -> None:
        self.config = config

    def expects(self, view: TermView) -> str | None:
        """Collection frequencies."""
        return _counts_occurrences(view, "kl")

    def expand(self, view: TermView, queries: Sequence[str], feedback: Sequence[Feedback]) -> list[Terms]:
        """Weights qtf / largest qtf + KL weight / the largest that the best term's tf could have had."""
        return _expand_bags(view, queries, feedback, self.config.terms, kl)


def relevance_model(documents: Sequence[Terms], scores: Floats, terms: int) -> dict[str, float]:
    """P(t|R) = sum over documents of score(d) * tf(t, d) / |d|, cut to `terms` terms and scaled to sum to 1.

    Each document is cut to its `terms` largest terms first, and |d| counts only those. Computed in float32, as in
    Anserini: rounding decides which of two like terms is cut.
    """
    cut = [_largest(document, terms) for document in documents]
    vocabulary = sorted({term for document in cut for term in document})
    summed = np.zeros(len(vocabulary), dtype=np.float32)
    for document, score in zip(cut, scores, strict=True):
        weights = np.array([document.get(term, 0.0) for term in vocabulary], dtype=np.float32)
        norm = weights.sum(dtype=np.float64).astype(np.float32)
        if norm > _SMALL:
            summed += weights / norm * np.float32(score)
    return _scaled(_largest(dict(zip(vocabulary, summed.tolist(), strict=True)), terms), 1)


def interpolate(query: Terms, model: Terms, original: float) -> dict[str, float]:
    """The sum original * query (scaled to sum to 1) + (1 - original) * model; terms of weight 0 are left out."""
    start = _scaled(query, 1)
    mixed = {
        term: original * start.get(term, 0.0) + (1 - original) * model.get(term, 0.0) for term in start | dict(model)
    }
    return {term: weight for term, weight in mixed.items() if weight > 0}


def centroid(documents: Sequence[Terms], terms: int) -> dict[str, float]:
    """The mean of the documents' vectors, each of length 1, cut to its `terms` largest and of length 1 again."""
    vocabulary = sorted({term for document in documents for term in document})
    summed = np.zeros(len(vocabulary), dtype=np.float32)
    for document in documents:
        weights = np.array([document.get(term, 0.0) for term in vocabulary], dtype=np.float32)
        norm = np.float32(np.sqrt(np.square(weights, dtype=np.float64).sum()))
        if norm > _SMALL:
            summed += weights / norm
    mean = summed / np.float32(len(documents))
    return _scaled(_largest(dict(zip(vocabulary, mean.tolist(), strict=True)), terms), 2)


def bo1(tf: Numbers, cf: Numbers, totals: Totals) -> Numbers:
    """Weights tf * log2((1 + P) / P) + log2(1 + P), P = cf / documents: Amati 2003, the Bose-Einstein model."""
    mean = cf / totals.documents
    weights: Numbers = tf * np.log2((1 + mean) / mean) + np.log2(1 + mean)
    return weights


def kl(tf: Numbers, cf: Numbers, totals: Totals) -> Numbers:
    """Weights p * log2(p / P), p = tf / length, P = cf / tokens; 0 where p < P: Amati 2003."""
    here, everywhere = tf / totals.length, cf / totals.tokens
    weights: Numbers = here * np.log2(np.maximum(here, everywhere) / everywhere)
    return weights


def bag_weights(
    query: Terms, documents: Sequence[Terms], cf: Mapping[str, float], totals: Totals, divergence: Divergence
) -> dict[str, float]:
    """Weights of the terms of the documents, taken as one bag, as shares of the normaliser.

    The normaliser is the weight of a term that occurs in the collection only in the feedback, as often as the best term
    does there: Terrier's `parameterFreeNormaliser`, Amati's limit for F -> tf.
    """
    vocabulary = sorted({term for document in documents for term in document})
    tf = np.array([sum(document.get(term, 0.0) for document in documents) for term in vocabulary])
    weights = divergence(tf, np.array([cf[term] for term in vocabulary]), totals)
    if len(documents) >= _MIN_DOCUMENTS:
        spread = np.array([sum(term in document for document in documents) for term in vocabulary])
        weights[(spread < _MIN_DOCUMENTS) & np.array([term not in query for term in vocabulary])] = 0.0
    best = tf[np.argmax(weights)]
    (normaliser,) = divergence(np.array([best]), np.array([best]), totals)
    if not weights.any():
        return {}
    return dict(zip(vocabulary, (weights / normaliser).tolist(), strict=True))


def _expand_bags(
    view: TermView, queries: Sequence[str], feedback: Sequence[Feedback], terms: int, divergence: Divergence
) -> list[Terms]:
    found = _document_terms(view, feedback)
    vocabulary = sorted({term for documents in found for document in documents for term in document})
    counts = view.frequencies(vocabulary)
    cf = dict(zip(vocabulary, counts.cf.tolist(), strict=True))
    expanded: list[Terms] = []
    for query, documents in zip(view.query_terms(queries), found, strict=True):
        length = sum(sum(document.values()) for document in documents)
        if not length:
            expanded.append(query)
            continue
        weights = bag_weights(query, documents, cf, Totals(counts.documents, counts.tokens, length), divergence)
        added = _largest(weights, max(terms, len(query)))
        most = max(query.values(), default=1.0)
        summed = {term: query.get(term, 0.0) / most + added.get(term, 0.0) for term in dict(query) | added}
        expanded.append({term: weight for term, weight in summed.items() if weight > 0})
    return expanded


def _usual_terms(view: TermView, feedback: Sequence[Feedback], max_df: float, plain: bool) -> list[list[Terms]]:
    """The documents' terms without rare forms and common words. Shares are compared in float32, as in Anserini."""
    found = _document_terms(view, feedback)
    vocabulary = sorted({term for documents in found for document in documents for term in document})
    counts = view.frequencies(vocabulary)
    share = counts.df.astype(np.float32) / np.float32(max(1, counts.documents))
    kept = {
        term
        for term, common in zip(vocabulary, (share > np.float32(max_df)).tolist(), strict=True)
        if not common and len(term) in _LENGTHS and (not plain or _PLAIN.fullmatch(term))
    }
    return [
        [{term: weight for term, weight in document.items() if term in kept} for document in documents]
        for documents in found
    ]


def _document_terms(view: TermView, feedback: Sequence[Feedback]) -> list[list[Terms]]:
    """Each query's documents as terms; a document that several queries found is read once."""
    documents = {
        row: document for given in feedback for row, document in zip(given.rows.tolist(), given.documents, strict=True)
    }
    terms = view.document_terms(np.array(list(documents), dtype=np.int64), list(documents.values()))
    by_row = dict(zip(documents, terms, strict=True))
    return [[by_row[row] for row in given.rows.tolist()] for given in feedback]


def _largest(terms: Terms, count: int) -> dict[str, float]:
    """The heaviest terms; of like ones those that come first in the alphabet."""
    return dict(sorted(terms.items(), key=lambda item: (-item[1], item[0]))[:count])


def _scaled(terms: Terms, order: int) -> dict[str, float]:
    """Divided by the norm: order 1, the sum of the weights; order 2, the length of the vector."""
    norm = float(np.linalg.norm(list(terms.values()), order)) if terms else 0.0
    return {term: weight / norm for term, weight in terms.items()} if norm else {}


def _counts_occurrences(view: TermView, name: str) -> str | None:
    if not np.isnan(view.frequencies([]).tokens):
        return None
    return (
        f"{name} needs to know how often each term occurs in the collection, which this view does not count; "
        "NAME = bm25(k1=1.2, b=0.75) makes one that does"
    )


def _check_scores(given: Feedback) -> None:
    if len(given.scores) and given.scores.min() < 0:
        raise InputError(
            f"rm3 weights its feedback by the documents' scores, and one is {given.scores.min():g}; feed back a search "
            "whose scores are not negative, or use rocchio, which does not look at them"
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be between 0 and 1")
