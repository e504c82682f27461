"""duoBERT and duoT5: pairwise reranking of the top few."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from retriever.encoders.models import find_model
from retriever.encoders.runtime import PRECISIONS
from retriever.errors import InputError
from retriever.rerankers.base import contents, reorder
from retriever.rerankers.classifier import Classifier, check_scores_pairs, classifier
from retriever.rerankers.pairs import PairTokens
from retriever.rerankers.true_false import Odds, true_false
from retriever.tallies import tally
from retriever.types import Document, Floats, Hits, Mask, Rows

_QUERY = 64
"""Tokens of a query that duoBERT reads, the special ones included."""
_AT_ONCE = 4096
"""Triples whose tokens are held at once."""
Numbers = npt.NDArray[np.float64]
Triple = tuple[str, str, str]

AGGREGATIONS: dict[str, Callable[[Numbers], Numbers]] = {
    "sym-sum": lambda p: p.sum(axis=1) + (1 - p).sum(axis=0),
    "sum": lambda p: p.sum(axis=1),
    "binary": lambda p: (p > 0.5).sum(axis=1).astype(np.float64),
}
"""Scores [n] from p float64 [n, n], p[i, j] the probability that i is more relevant than j; see `aggregate`."""


@dataclass(frozen=True)
class DuoConfig:
    """model: name or path of a T5 trained as duoT5 or a BERT trained as duoBERT. depth: how many documents of each list
    are compared, each with each other in both orders: n * (n - 1) runs of the model. aggregation: "sym-sum", "sum" or
    "binary". precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    model: str
    depth: int = 10
    aggregation: str = "sym-sum"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.depth < 2:
            raise ValueError("depth must be at least 2: documents are compared with each other")
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")


class Duo:
    """duoBERT (Nogueira, Yang, Cho and Lin 2019, arXiv 1910.14424), duoT5 (Pradeep, Nogueira and Lin 2021, arXiv
    2101.05667): a model reads the query and two documents, and says how likely the first is the more relevant one.

    duoT5 reads "Query: q Document0: i Document1: j Relevant:" and the probability is that of "true" against "false".
    duoBERT reads [CLS] q [SEP] i [SEP] j [SEP] with token types 0, 1 and 2 (1 for both documents where a model knows
    but two types): up to 64 tokens for the query and half of the rest for each document, as in the authors' code. It
    has two outputs, the second for "i is better", or one, of which the logistic function is taken. What is cut is
    tallied.

    Proven, on random weights: probabilities are those of transformers' own forward pass to 1e-4 in float32. Not proven:
    the published effectiveness, for want of the published weights.
    """

    Config = DuoConfig

    def __init__(self, config: DuoConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        self._t5 = _is_encoder_decoder(self._folder)
        if not self._t5:
            check_scores_pairs(self._folder)

    def rerank(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
        """The first `depth` of each list in the order of their new scores; the rest follow in their old order."""
        head = hits.rows[:, : self.config.depth]
        texts = contents(head, fetch)
        lists = [[texts[row] for row in rows[rows >= 0].tolist()] for rows in head]
        triples = [
            (query, left, right)
            for query, documents in zip(queries, lists, strict=True)
            for left, right in permutations(documents, 2)
        ]
        given = self.probabilities(triples)
        ends = np.cumsum([len(documents) * (len(documents) - 1) for documents in lists])
        parts = np.split(given, ends[:-1])
        pairs = zip(parts, lists, strict=True)
        return reorder(hits, [aggregate(own, len(docs), self.config.aggregation) for own, docs in pairs])

    def probabilities(self, triples: Sequence[Triple]) -> Numbers:
        """float64 [n]: how likely the first document of each (query, document, document) is the more relevant one."""
        if not triples:
            return np.zeros(0)
        odds, cut = self._t5_odds(triples) if self._t5 else self._bert_odds(triples)
        tally(f"comparisons were longer than {self.config.model} reads, and cut", int(cut.sum()))
        chances: Numbers = expit(odds)
        return chances

    def _t5_odds(self, triples: Sequence[Triple]) -> Odds:
        model = true_false(self._folder, self.config.model, self.config.precision)
        return model.odds([(f"Query: {q} Document0:", i, "Document1:", j, "Relevant:") for q, i, j in triples])

    def _bert_odds(self, triples: Sequence[Triple]) -> Odds:
        model = classifier(self._folder, self.config.precision)
        _check_bert(model)
        odds, cut = np.empty(len(triples)), np.zeros(len(triples), dtype=np.bool_)
        for first in range(0, len(triples), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            tokens = triple_tokens(model, triples[part])
            values = model.of_tokens(tokens).astype(np.float64)
            odds[part] = values[:, -1] - (values[:, 0] if model.labels == 2 else 0)
            cut[part] = tokens.cut
        return Odds(odds, cut)


def aggregate(p: Numbers, n: int, how: str) -> Floats:
    """float32 [n] from the probabilities of all ordered pairs of n documents, in the order of `itertools.permutations`.

    sym-sum (2021): s_i = sum_j (p_ij + 1 - p_ji). sum (2019): s_i = sum_j p_ij. binary (2019): s_i is how many j have
    p_ij > 0.5.
    """
    square = np.zeros((n, n))
    square[~np.eye(n, dtype=np.bool_)] = p
    scores = AGGREGATIONS[how](square)
    if how == "sym-sum":
        scores = scores - 1  # a document is not compared with itself: 1 - p[i, i]
    floats: Floats = scores.astype(np.float32)
    return floats


def triple_tokens(model: Classifier, triples: Sequence[Triple]) -> PairTokens:
    """Token ids and types of duoBERT's input."""
    texts = list(dict.fromkeys(text for triple in triples for text in triple))
    given = model.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    tokens = dict(zip(texts, given["input_ids"], strict=True))
    cls, sep = model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
    second = min(2, model.segments - 1)
    length = model.max_length or 512
    ids: list[list[int]] = []
    types: list[list[int]] = []
    cut: Mask = np.zeros(len(triples), dtype=np.bool_)
    for i, triple in enumerate(triples):
        query, left, right = (tokens[text] for text in triple)
        start = [cls, *query[: _QUERY - 2], sep]
        room = (length - len(start)) // 2 - 1
        cut[i] = len(query) > _QUERY - 2 or max(len(left), len(right)) > room
        one, two = [*left[:room], sep], [*right[:room], sep]
        ids.append([*start, *one, *two])
        types.append([0] * len(start) + [1] * len(one) + [second] * len(two))
    return PairTokens(ids, types, cut)


def _check_bert(model: Classifier) -> None:
    problems = {
        f"has {model.labels} outputs; duoBERT has two, or one": model.labels not in (1, 2),
        "knows no token types; duoBERT tells query and documents apart by them": model.segments < 2,
        "is more than a sequence classifier, which is all that duoBERT is": not model.plain,
    }
    for problem, found in problems.items():
        if found:
            raise InputError(f"{model.folder}: {problem}")


def _is_encoder_decoder(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder"))
    except (OSError, ValueError) as problem:
        raise InputError(f"holds no model that transformers can load: {problem}", folder / "config.json") from None
