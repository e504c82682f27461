"""KeyB: a long document by those of its blocks that the query's words are in, read in one piece."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.analyzers import WORDS, words
from retriever.errors import InputError
from retriever.passages import Spans
from retriever.rerankers.nested import pointwise, tokens_of
from retriever.spec import suggest
from retriever.types import Floats

BLOCK = 63
"""Tokens of a block, at most."""
_READ, _SPECIAL = 512, 3
"""Tokens that are read of query and document, and the special ones among them."""
_EACH, _SENTENCE, _COMMA, _LINE, _HARD, _IN_WORD = 4, 1, 2, 0, 8, 16
"""What a block costs, and what its end costs by where it is."""
_K1, _B = 0.9, 0.4


@dataclass(frozen=True)
class KeybConfig:
    """reranker: what scores the chosen blocks, a reranker of pairs in its text form. budget: tokens of query, blocks
    and three special ones together (none: 512, or what the model reads if that is less). language: the analyzer by
    which query and blocks are compared. tokenizer: the model whose tokens count (none: that of `reranker`). depth: how
    many documents of each list are reranked.
    """

    reranker: str
    budget: int | None = None
    language: str = "english"
    tokenizer: str | None = None
    depth: int = 100

    def __post_init__(self) -> None:
        if self.depth < 1 or (self.budget is not None and self.budget < 1):
            raise ValueError("depth and budget must be at least 1")
        if self.language not in WORDS:
            raise ValueError(f"no analyzer for language {self.language!r}; {suggest(self.language, WORDS)}")


class Keyb:
    """KeyB with BM25 (KeyBLD: Li and Gaussier, SIGIR 2021; Li et al., ACM TOIS 41(3) 2023).

    A document is cut into blocks of at most 63 tokens at cheap places (`cut`). Blocks are taken by their BM25 for the
    query until the budget is used up, put back into the document's order, and read by the reranker at once.

    Differs from the authors' code: inverse document frequencies are over the blocks of the document, because a reranker
    sees no collection (a word that is in every block chooses hardly); words are compared by an analyzer; a block that
    does not fit is passed over for the next that does, where the authors' last block may exceed the budget; and a block
    ends inside a word only where a word is longer than a block. A document that fits is read unchanged; of one
    for which the query leaves no room, one block is. The paper's numbers could not be reproduced here, without its
    collections and models.
    """

    Config = KeybConfig

    def __init__(self, config: KeybConfig) -> None:
        self.config = config
        self._reranker = pointwise(config.reranker)
        self._tokens = tokens_of(self._reranker, config.tokenizer)
        self._analyze = words(config.language)
        if config.budget and config.budget > (reads := self._tokens.limit):
            raise InputError(
                f"keyb: a budget of {config.budget} tokens, but {config.reranker} reads {reads}; give less"
            )

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], by one call of the reranker."""
        return self._reranker.score(self.shortened(pairs))

    def shortened(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """The pairs with the chosen blocks of each document."""
        room = {query: self._room(query) for query in dict.fromkeys(query for query, _ in pairs)}
        terms = {query: self._analyze(query) for query in room}
        made = list(pairs)
        order = sorted(range(len(pairs)), key=lambda i: pairs[i][1])
        for text, group in groupby(order, key=lambda i: pairs[i][1]):
            spans, cuts = self._tokens(text), dict[int, Blocks]()
            for i in group:
                query = pairs[i][0]
                if len(spans) <= room[query]:
                    continue
                limit = min(BLOCK, room[query]) if room[query] > 0 else BLOCK
                if limit not in cuts:
                    cuts[limit] = Blocks.of(text, spans, self._analyze, limit)
                made[i] = query, cuts[limit].read(cuts[limit].chosen(terms[query], room[query]))
        return made

    def _room(self, query: str) -> int:
        """Tokens of a document that are read with a query."""
        budget = self.config.budget or min(_READ, self._tokens.limit)
        return budget - _SPECIAL - len(self._tokens(query))


class Blocks(NamedTuple):
    """A document in blocks. ends: int64 [n, 2], their characters; sizes: int64 [n], their tokens; words: of each, how
    often.
    """

    text: str
    ends: Spans
    sizes: npt.NDArray[np.int64]
    words: list[Counter[str]]

    @classmethod
    def of(cls, text: str, tokens: Spans, analyze: Callable[[str], list[str]], limit: int) -> Blocks:
        """tokens: where they stand, of which there are some; limit: of a block."""
        found = cut(text, tokens, limit)
        ends = np.stack([tokens[found[:, 0], 0], tokens[found[:, 1] - 1, 1]], axis=1)
        counts = [Counter(analyze(text[start:stop])) for start, stop in ends.tolist()]
        return cls(text, ends, found[:, 1] - found[:, 0], counts)

    def chosen(self, query: Sequence[str], room: int) -> list[int]:
        """The best blocks that go into so many tokens, in the order of the text; the best one in any case."""
        order = np.argsort(-local_bm25(query, self.words), kind="stable").tolist()
        taken, left = [order[0]], room - int(self.sizes[order[0]])
        for block in order[1:]:
            if left <= 0:
                break
            if self.sizes[block] <= left:
                taken.append(block)
                left -= int(self.sizes[block])
        return sorted(taken)

    def read(self, chosen: Sequence[int]) -> str:
        """The text of these blocks, neighbours as they stand."""
        runs: list[list[int]] = []
        for block in chosen:
            start, stop = self.ends[block].tolist()
            if runs and runs[-1][1] == self.ends[block - 1, 1]:
                runs[-1][1] = stop
            else:
                runs.append([start, stop])
        return " ".join(self.text[start:stop] for start, stop in runs)


def cut(text: str, tokens: Spans, limit: int = BLOCK) -> Spans:
    """int64 [n, 2]: blocks as the first token and the one behind the last, where ends and blocks cost least together.

    A block costs 4, and its end 0 at a new line, 1 behind a sentence, 2 behind a comma, 8 elsewhere between words, 16
    inside one. Among equal ways the last block is the shortest. tokens: int64 [n, 2].
    """
    parents = _parents(_costs(text, tokens).tolist(), limit)
    bounds = [len(tokens)]
    while bounds[-1]:
        bounds.append(parents[bounds[-1]])
    edges = np.array(bounds[::-1], dtype=np.int64)
    return np.stack([edges[:-1], edges[1:]], axis=1)


_MARKS = {
    re.compile(r",(?=\s)|[，、]"): _COMMA,
    re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？｡]"): _SENTENCE,
    re.compile(r"\n"): _LINE,
}
"""What stands before an end and makes it cheap, the cheapest last."""


def _costs(text: str, tokens: Spans) -> npt.NDArray[np.int64]:
    """What an end behind each token costs; nothing behind the last."""
    behind = tokens[:, 1]
    costs = np.where(np.append(tokens[1:, 0], len(text) + 1) > behind, _HARD, _IN_WORD)
    for pattern, cost in _MARKS.items():
        places = np.fromiter((found.end() for found in pattern.finditer(text)), dtype=np.int64)
        last = np.searchsorted(behind, places, side="right") - 1
        costs[last[last >= 0]] = cost
    costs[-1:] = 0
    return costs


def _parents(costs: Sequence[int], limit: int) -> list[int]:
    """For each number of tokens, where its last block begins in the cheapest way to cut so many."""
    best, parents = [0], [0]
    window = deque([0])  # beginnings of the next block, of which each is dearer than the one before
    for tokens, cost in enumerate(costs, 1):
        if window[0] < tokens - limit:
            window.popleft()
        start = window[0]
        best.append(best[start] + _EACH + cost)
        parents.append(start)
        while window and best[window[-1]] >= best[tokens]:
            window.pop()
        window.append(tokens)
    return parents


def local_bm25(query: Sequence[str], blocks: Sequence[Counter[str]]) -> npt.NDArray[np.float64]:
    """float64 [blocks]: the sum over the query's words of idf * tf / (tf + k1 * (1 - b + b * length / mean length)).

    k1 = 0.9, b = 0.4, and idf = ln(1 + (N - df + 0.5) / (df + 0.5)) over these N blocks.
    """
    lengths = np.array([block.total() for block in blocks], dtype=np.float64)
    norms = _K1 * (1 - _B + _B * lengths / max(lengths.mean(), 1.0))
    scores = np.zeros(len(blocks))
    for word, times in Counter(query).items():
        tf = np.array([block[word] for block in blocks], dtype=np.float64)
        df = np.count_nonzero(tf)
        scores += times * np.log1p((len(blocks) - df + 0.5) / (df + 0.5)) * tf / (tf + norms)
    return scores
