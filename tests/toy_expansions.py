"""Expansions and a reranker without a model, for texts such as `toy_expansions:Synonyms(n=2)`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retriever.expansion.documents import Expanded
from retriever.types import Floats

LOG = "TOY_EXPANSION_LOG"
"""Environment variable with a file's name: every text that is expanded, and every query that is scored, adds a line."""


@dataclass(frozen=True)
class SynonymsConfig:
    n: int = 3
    model: str = "first"


class Synonyms:
    """Each text's first n words, with "like" in front: words that are in no text. It reads ten words of a text."""

    Config = SynonymsConfig
    batch = 4

    def __init__(self, config: SynonymsConfig) -> None:
        self.config = config

    def identity(self) -> Mapping[str, Any]:
        return {"model": self.config.model}

    def expand(self, texts: Sequence[str], progress: Callable[[float], None]) -> Expanded:
        _log(texts)
        progress(len(texts))
        return Expanded(
            [[f"like{word}" for word in text.split()[: self.config.n]] for text in texts],
            sum(len(text.split()) > 10 for text in texts),
        )


@dataclass(frozen=True)
class LengthConfig:
    depth: int = 100
    nan: bool = False


class Length:
    """Scores a pair by the length of its query."""

    Config = LengthConfig

    def __init__(self, config: LengthConfig) -> None:
        self.config = config

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        _log([query for query, _ in pairs])
        return np.array([np.nan if self.config.nan else len(query) for query, _ in pairs], dtype=np.float32)


def _log(texts: Sequence[str]) -> None:
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in texts)
