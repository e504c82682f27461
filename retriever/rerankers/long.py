"""Reranking long documents by their passages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retriever.errors import InputError
from retriever.passages import Pooling, Splitter, Splitting
from retriever.rerankers.base import reorder
from retriever.rerankers.nested import pointwise, tokens_of
from retriever.rerankers.passage_lists import Lists, PassageLists
from retriever.types import Document, Floats, Hits, Rows


@dataclass(frozen=True)
class LongConfig:
    """reranker: what scores the passages, a reranker of pairs in its text form. unit, window, stride, cap, middle,
    seed: `passages.Splitting`. title: begin every passage with the title; without it only the first one has it.
    pool, top, weights: `passages.Pooling`. alpha: the share of the search before in the score. select: a cheaper
    reranker, which chooses the `keep` passages of each document that `reranker` reads. tokenizer: the model whose
    tokens unit=tokens counts (none: that of `reranker`). depth: how many documents of each list are reranked.
    """

    reranker: str
    unit: str = "words"
    window: int | None = None
    stride: int | None = None
    cap: int = 30
    middle: str = "even"
    seed: int = 0
    title: bool = True
    pool: str = "max"
    top: int = 3
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    alpha: float = 0.0
    select: str | None = None
    keep: int = 4
    tokenizer: str | None = None
    depth: int = 100

    def __post_init__(self) -> None:
        _ = self.splitting, self.pooling
        if self.keep < 1 or self.depth < 1:
            raise ValueError("keep and depth must be at least 1")
        if not 0 <= self.alpha <= 1:
            raise ValueError("alpha must be between 0 and 1")
        if self.select and self.pool == "first":
            raise ValueError("pool=first reads one passage; there is nothing to select")

    @property
    def splitting(self) -> Splitting:
        """How documents are split."""
        return Splitting(self.unit, self.window, self.stride, self.cap, self.middle, self.seed)

    @property
    def pooling(self) -> Pooling:
        """How the scores of passages become one."""
        return Pooling(self.pool, self.top, self.weights)


class Long:
    """Passages scored by any reranker of pairs, and one score of them for the document.

    - FirstP, MaxP, SumP (Dai and Callan, SIGIR 2019) with pool=first, max, sum: windows of 150 words, half of each in
      the next, behind the title. They score at most 30, as here, but sample them: middle=random.
    - Birch (Akkalyoncu Yilmaz et al., EMNLP 2019): unit=sentences, pool=weighted, weights=[1, beta, gamma], alpha. The
      score is alpha * score of the search before + (1 - alpha) * (S1 + beta * S2 + gamma * S3), where S1, S2, S3 are
      those of the best sentences; both enter as they are, and the paper finds its numbers by cross-validation.
    - IDCM (Hofstätter et al., SIGIR 2021): select='ck(FOLDER)', keep=4, pool=weighted: every passage is scored by the
      cheap model, and the best of each document by the dear one; `ck` says how to write the whole. Any other reranker
      selects as well. Its learned weights of the best scores are not here: `weights` are given.

    Sums and weights are of scores as the reranker gives them: where they may be negative, a sum punishes length.
    The papers' numbers could not be reproduced here, without their collections and models.
    """

    Config = LongConfig

    def __init__(self, config: LongConfig) -> None:
        self.config = config
        self._reranker = pointwise(config.reranker)
        self._selector = pointwise(config.select) if config.select else None
        tokens = tokens_of(self._reranker, config.tokenizer) if config.unit == "tokens" else None
        self._lists = PassageLists(Splitter(config.splitting, tokens), title=config.title, first=config.pool == "first")

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n]: pairs of a query and a text that has no title of its own.

        Raises: InputError where `alpha` asks for the score of a search before, which pairs have not.
        """
        if self.config.alpha:
            raise InputError(
                f"long mixes in the scores of the search before with alpha={self.config.alpha}, and pairs have none; "
                "put it behind a view, or set alpha=0"
            )
        return self._evidence(self._lists.of_pairs(pairs))

    def rerank(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
        """The first `depth` of each list in the order of their new scores; the rest follow in their old order."""
        head = hits.rows[:, : self.config.depth]
        owners, columns = np.nonzero(head >= 0)
        alpha, before = np.float32(self.config.alpha), hits.scores[owners, columns]
        scores = alpha * before + (1 - alpha) * self._evidence(self._lists.of_rows(head, queries, fetch))
        return reorder(hits, [scores[owners == i] for i in range(len(head))])

    def _evidence(self, lists: Lists) -> Floats:
        """float32 [n]: one score for each query and the passages of a document."""
        if self._selector:
            lists = selected(lists, self._selector.score, self.config.keep)
        counts = np.array([len(passages) for _, passages in lists], dtype=np.int64)
        scores = self._reranker.score([(query, passage) for query, passages in lists for passage in passages])
        return self.config.pooling.scores(scores, counts)


def selected(lists: Lists, score: Callable[[Sequence[tuple[str, str]]], Floats], keep: int) -> Lists:
    """Each query with the `keep` passages that score best, in their order in the document; ties go to the first ones.

    Where there are no more than that they are not scored.
    """
    too_many = [i for i, (_, passages) in enumerate(lists) if len(passages) > keep]
    scores = score([(lists[i][0], passage) for i in too_many for passage in lists[i][1]])
    chosen, start = list(lists), 0
    for i in too_many:
        query, passages = lists[i]
        best = np.argsort(-scores[start : start + len(passages)], kind="stable")[:keep]
        chosen[i] = query, [passages[j] for j in np.sort(best).tolist()]
        start += len(passages)
    return chosen
