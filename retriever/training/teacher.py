"""A reranker of pairs that other models learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from retriever.errors import InputError
from retriever.progress import advance, bar
from retriever.rerankers.nested import pointwise
from retriever.training.data import Example

TAUGHT = ("margin-mse", "kl")
"""Losses that read a teacher's scores."""
AT_ONCE = 8192
"""Pairs that a teacher scores in one call."""


def check_taught(loss: str, teacher: str | None) -> None:
    """Raise InputError where a loss that learns from a teacher has none."""
    if loss in TAUGHT and teacher is None:
        raise InputError(f"loss {loss} learns from a teacher: give one, as in 'cross-encoder(MODEL)'")


class Teacher:
    """A reranker of pairs, by its text form; what it scored once it does not read again."""

    def __init__(self, text: str) -> None:
        self.text, self._reranker = text, pointwise(text)
        self._known: dict[tuple[str, str], float] = {}

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Of (query, text) pairs; logits, where it has them: its probabilities would flatten the differences."""
        score = getattr(self._reranker, "logits", self._reranker.score)
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        with bar("teacher's scores", "pairs", total=len(new)):
            for first in range(0, len(new), AT_ONCE):
                part = new[first : first + AT_ONCE]
                self._known |= zip(part, score(part).tolist(), strict=True)
                advance(len(part))
        return [self._known[pair] for pair in pairs]

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The logistic function of the logits; the scores themselves where it has none."""
        if not hasattr(self._reranker, "logits"):
            return self.scores(pairs)
        return [0.5 + 0.5 * math.tanh(logit / 2) for logit in self.scores(pairs)]

    def taught(self, examples: Sequence[Example]) -> list[list[float]]:
        """The scores of each example's relevant text and negatives."""
        texts = [(each.positive, *each.negatives) for each in examples]
        scores = iter(
            self.scores([(each.query, text) for each, row in zip(examples, texts, strict=True) for text in row])
        )
        return [[next(scores) for _ in row] for row in texts]
