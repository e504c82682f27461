"""Long texts in passages, and the scores of passages as one score of their document.

A splitting is two steps: units with their places in the text, and windows over the units. A passage is the text from
its first unit to its last, as it stands there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.types import Document, Floats, Rows

Spans = npt.NDArray[np.int64]
"""int64 [n, 2]: where units begin and end, ascending: characters of a text, or units of it."""

UNITS = {"words": 150, "tokens": 225, "sentences": 1}
"""What a passage is counted in, and how many make one by default: those of Dai and Callan, PARADE and Birch."""

MIDDLES = ("even", "random")
POOLS = ("first", "max", "sum", "mean", "top", "weighted")


@dataclass(frozen=True)
class Splitting:
    """unit: words (between white space; for scripts that write none take another), tokens (a passage may begin and end
    inside a word), or sentences (by `sentence_spans`). window: how many make a passage (none: 150 words, 225 tokens, 1
    sentence). stride: how many lie between the beginnings of two (none: half a window, rounded up). cap: the most
    passages of one document: its first, its last, and of those between evenly spaced ones (`even`) or a sample
    (`random`) that depends on seed and number alone.
    """

    unit: str = "words"
    window: int | None = None
    stride: int | None = None
    cap: int = 30
    middle: str = "even"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit is one of {', '.join(UNITS)}, not {self.unit!r}")
        if self.middle not in MIDDLES:
            raise ValueError(f"middle is {' or '.join(MIDDLES)}, not {self.middle!r}")
        if self.size < 1 or self.cap < 1 or self.seed < 0:
            raise ValueError("window and cap must be at least 1, seed at least 0")
        if not 1 <= self.step <= self.size:
            raise ValueError(f"stride must be from 1 to window ({self.size}), or text would be left out")

    @property
    def size(self) -> int:
        """Units in a passage."""
        return UNITS[self.unit] if self.window is None else self.window

    @property
    def step(self) -> int:
        """Units between the beginnings of two passages."""
        return (self.size + 1) // 2 if self.stride is None else self.stride


class Passages(NamedTuple):
    """texts: at least one. total: how many there were before the cap."""

    texts: list[str]
    total: int


class Splitter:
    """Texts to passages."""

    def __init__(self, config: Splitting, tokens: Callable[[str], Spans] | None = None) -> None:
        """tokens: where the tokens of a text stand (`encoders.token_spans.TokenSpans`), for the unit of that name."""
        if config.unit == "tokens" and tokens is None:
            raise ValueError("passages of tokens need a tokenizer")
        self.config = config
        self._spans = {"words": word_spans, "tokens": tokens or word_spans, "sentences": sentence_spans}[config.unit]

    def split(self, text: str) -> Passages:
        """The passages of a text; of one without units the text itself."""
        spans = self._spans(text)
        if not len(spans):
            return Passages([text.strip()], 1)
        found = windows(len(spans), self.config.size, self.config.step)
        chosen = found[kept(len(found), self.config)]
        places = np.stack([spans[chosen[:, 0], 0], spans[chosen[:, 1] - 1, 1]], axis=1)
        return Passages([text[start:stop].strip() for start, stop in places.tolist()], len(found))

    def split_document(self, document: Document, title: bool) -> Passages:
        """The passages of a document's text, each behind the title; or, without `title`, those of both in a row."""
        if not (title and document.title):
            return self.split(document.contents)
        texts, total = self.split(document.text)
        return Passages([Document("", text, document.title).contents.strip() for text in texts], total)


def windows(count: int, size: int, step: int) -> Spans:
    """int64 [n, 2]: the first unit of each passage and the one behind its last.

    The last passage is the first that reaches the end. The loop of Dai and Callan (SIGIR 2019) goes on while a window
    begins inside the text, and so makes passages that lie wholly in the one before: of 300 words (225, 300) behind
    (150, 300). They say nothing new and would count twice in a sum, so they are left out here.
    """
    starts = np.arange(0, max(count - size, 0) + step, step)
    return np.stack([starts, np.minimum(starts + size, count)], axis=1)


def kept(count: int, config: Splitting) -> Rows:
    """Which of so many passages are kept under the cap, ascending.

    Dai and Callan (2019) and PARADE (Li et al. 2023) keep first and last and sample the rest, as `random` does.
    """
    if count <= config.cap:
        return np.arange(count)
    if config.cap == 1:
        return np.zeros(1, dtype=np.int64)
    if config.middle == "even":
        return np.linspace(0, count - 1, config.cap).round().astype(np.int64)
    between = np.random.default_rng([config.seed, count]).choice(count - 2, config.cap - 2, replace=False) + 1
    return np.concatenate([[0], np.sort(between), [count - 1]]).astype(np.int64)


@dataclass(frozen=True)
class Pooling:
    """pool: a document's score is that of its first passage, the largest, the sum, the mean, the mean of the `top` best
    (of all where there are fewer), or the sum of the best ones times `weights` (Birch: 1, beta, gamma).
    """

    pool: str = "max"
    top: int = 3
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f"pool is one of {', '.join(POOLS)}, not {self.pool!r}")
        if self.top < 1 or not self.weights:
            raise ValueError("top must be at least 1, and weights at least one number")

    def scores(self, passages: Floats, counts: Rows) -> Floats:
        """float32 [documents], from the scores of passages, one document's behind another's, and their numbers.

        counts: int64 [documents], each at least 1. Sums are in float64 over falling scores, so the order of the
        passages matters to `first` alone.
        """
        if not len(counts):
            return np.zeros(0, dtype=np.float32)
        starts = np.cumsum(counts) - counts
        if self.pool == "first":
            return np.asarray(passages[starts], dtype=np.float32)
        owners = np.repeat(np.arange(len(counts)), counts)
        falling = passages[np.lexsort((-passages, owners))].astype(np.float64)
        if self.pool == "max":
            return np.asarray(falling[starts], dtype=np.float32)
        ranks = np.arange(len(passages)) - starts[owners]
        pooled = np.add.reduceat(falling * self._shares(ranks, counts[owners]), starts)
        return np.asarray(pooled, dtype=np.float32)

    def _shares(self, ranks: Rows, counts: Rows) -> npt.NDArray[np.float64]:
        """What each passage counts by its rank in its document and the number of passages there."""
        if self.pool == "mean":
            return np.asarray(1 / counts)
        if self.pool == "top":
            return np.where(ranks < self.top, 1 / np.minimum(counts, self.top), 0.0)
        if self.pool == "weighted":
            return np.append(self.weights, 0.0)[np.minimum(ranks, len(self.weights))]
        return np.ones(len(ranks))


def word_spans(text: str) -> Spans:
    """int64 [n, 2]: what stands between white space."""
    return _spans(match.span() for match in re.finditer(r"\S+", text))


def sentence_spans(text: str) -> Spans:
    """int64 [n, 2]: sentences, by rule.

    One ends behind . ! ? or an ellipsis, with the quotes and brackets that close there, where white space follows and
    then no small letter; behind the full stops of Chinese and Japanese; and at an empty line. A full stop ends none
    behind an abbreviation of `_ABBREVIATIONS` and behind single letters (J. Smith, U.S., e.g.). What has more than 100
    words without such an end is cut every 100: tables and lists would be one sentence otherwise.
    """
    return _spans(
        span
        for start, stop in pairwise([0, *_sentence_ends(text), len(text)])
        for span in _short_enough(text, start, stop)
    )


_LONGEST = 100
_ABBREVIATIONS = frozenset(
    "al cf dr eq eqs fig figs gen hon mr mrs ms mt mx pp prof ref refs rep rev sec sen st vol vols vs".split()
)
_END = re.compile(
    r"(?<![.!?…])(?P<marks>[.!?…]++)[\"'”’»)\]]*+(?=\s)"  # possessive: a million points must not be tried again
    r"|(?P<wide>[。！？｡]++[」』”’）】]*+)"
    r"|(?P<line>\n[^\S\n]*+(?=\n))"
)
_NEXT = re.compile(r"\s*+[\"'“‘«(\[¿¡]*+(\S)")


def _sentence_ends(text: str) -> Iterator[int]:
    for found in _END.finditer(text):
        if marks := found["marks"]:
            follows = _NEXT.match(text, found.end())
            if follows and follows[1].islower():
                continue
            if marks == "." and _abbreviated(text[max(0, found.start() - 10) : found.start()]):
                continue
        yield found.end()


def _abbreviated(before: str) -> bool:
    """Whether a full stop belongs to the word that it stands behind."""
    word = re.split(r"[\s\"'“‘«(\[]", before)[-1]
    return word.lower() in _ABBREVIATIONS or all(len(part) == 1 and part.isalpha() for part in word.split("."))


def _short_enough(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """A sentence without the white space around it, in parts where it is long."""
    words = word_spans(text[start:stop]) + start
    for first in range(0, len(words), _LONGEST):
        part = words[first : first + _LONGEST]
        yield int(part[0, 0]), int(part[-1, 1])


def _spans(pairs: Iterator[tuple[int, int]]) -> Spans:
    return np.fromiter((place for pair in pairs for place in pair), dtype=np.int64).reshape(-1, 2)
