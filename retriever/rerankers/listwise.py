"""Listwise reranking by a language model that orders windows of passages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retriever.generators import Sampling, generator
from retriever.rerankers.base import contents, reorder
from retriever.tallies import tally
from retriever.types import Document, Hits, Rows

_ANSWER = 8
"""Tokens of an answer for each passage: a number in brackets and a sign."""


@dataclass(frozen=True)
class ListwiseConfig:
    """model: a text generator (`generators.generator`): "http://host:port/v1#model", or a model's name or path. depth:
    how many documents of each list are ordered. window: how many of them a prompt holds. stride: how far a window
    stands above the one before. words: of a passage that the prompt holds.
    """

    model: str
    depth: int = 20
    window: int = 20
    stride: int = 10
    words: int = 300

    def __post_init__(self) -> None:
        for name, least in {"depth": 2, "window": 2, "stride": 1, "words": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")
        if self.stride > self.window:
            raise ValueError("stride must not be larger than window: documents between two windows would not be read")


class Listwise:
    """RankGPT's permutation generation with sliding windows (Sun et al., EMNLP 2023).

    The last `window` documents are ordered first, then those that stand `stride` higher, and so on up to the top, so
    the best of a window can rise through the next. RankGPT's dialogue is put into one message, as RankVicuna and
    RankZephyr do, because not all servers keep turns apart. Temperature is 0.

    An answer counts where it names each passage of its window in brackets once, as in "[2] > [1] > [3]", whatever else
    it says. For any other the order that it should have replaced stays, and it is tallied; RankGPT's code repairs such
    answers. Words of a passage beyond `words` are not sent, and that is tallied too. A generator that fails raises.

    The scores are ranks, as falling whole numbers: n for the first of n documents, 1 for the last. They say nothing of
    how much better one is. Not proven: the published effectiveness, for want of such a language model here.
    """

    Config = ListwiseConfig

    def __init__(self, config: ListwiseConfig) -> None:
        self.config = config
        self._generator = generator(config.model, Sampling(_ANSWER * config.window, 0.0, 0))

    def rerank(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
        """The first `depth` of each list in their new order; the rest follow in their old one.

        Raises: RetrieverError where the generator fails.
        """
        head = hits.rows[:, : self.config.depth]
        whole = contents(head, fetch)
        words = self.config.words
        texts = {row: " ".join(text.split(maxsplit=words)[:words]) for row, text in whole.items()}
        cut = sum(len(text.split(maxsplit=words)) > words for text in whole.values())
        tally(f"passages had more than the {words} words that {self.config.model} was given", cut)
        orders = [rows[rows >= 0].tolist() for rows in head]
        for step in range(max((len(self._windows(len(order))) for order in orders), default=0)):
            self._order(orders, step, queries, texts)
        ranks = [_ranks(rows[rows >= 0], order) for rows, order in zip(head, orders, strict=True)]
        return reorder(hits, ranks)

    def _windows(self, n: int) -> list[slice]:
        return windows(n, self.config.window, self.config.stride)

    def _order(self, orders: list[list[int]], step: int, queries: Sequence[str], texts: dict[int, str]) -> None:
        """One window of every list that has so many: they are asked for together."""
        asked = [(i, self._windows(len(order))) for i, order in enumerate(orders)]
        asked = [(i, parts[step : step + 1]) for i, parts in asked if len(parts) > step]
        prompts = [prompt(queries[i], [texts[row] for row in orders[i][part]]) for i, (part,) in asked]
        malformed = 0
        for (i, (part,)), (answer,) in zip(asked, self._generator.generate(prompts, 1), strict=True):
            rows = orders[i][part]
            places = permutation(answer, len(rows))
            malformed += places is None
            orders[i][part] = rows if places is None else [rows[place] for place in places]
        tally(f"answers of {self.config.model} were no order of their passages; the old order stays", malformed)


def windows(n: int, window: int, stride: int) -> list[slice]:
    """Which of n documents are ordered together, one window after the other, from the bottom to the top.

    The last window begins at the top, whatever the stride. One document needs no order, and has no window.
    """
    found, end = [], n
    while end > 1:
        start = max(0, end - window)
        found.append(slice(start, end))
        end = 0 if start == 0 else end - stride
    return found


def permutation(answer: str, n: int) -> list[int] | None:
    """The places, from 0, that an answer names in brackets, best first; none where they are not all n, once each."""
    places = [int(number) - 1 for number in re.findall(r"\[(\d{1,9})\]", answer)]
    return places if sorted(places) == list(range(n)) else None


def prompt(query: str, passages: Sequence[str]) -> str:
    """RankGPT's instruction, passages and question in one message."""
    n = len(passages)
    listed = "\n".join(f"[{i}] {passage}" for i, passage in enumerate(passages, 1))
    return (
        f"I will provide you with {n} passages, each indicated by a numerical identifier []. Rank the passages based "
        f"on their relevance to the search query: {query}.\n\n{listed}\n\nSearch query: {query}.\nRank the {n} "
        "passages above based on their relevance to the search query. All the passages should be included and listed "
        "using identifiers, in descending order of relevance. The output format should be [] > [], e.g., [2] > [1]. "
        "Only respond with the ranking results, do not say any word or explain."
    )


def _ranks(rows: Rows, order: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    place = {row: i for i, row in enumerate(order)}
    return np.array([len(order) - place[row] for row in rows.tolist()], dtype=np.float32)
