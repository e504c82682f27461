"""Encoders without a model, for views such as `dense(toy_encoders:HashEncoder)`.

tests/ is on the path by `pythonpath` in pyproject.toml; a subprocess needs it in PYTHONPATH.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from retriever.encoders.base import Encoded, TermWeights
from retriever.encoders.words import collected

LOG = "TOY_ENCODER_LOG"
"""Environment variable with a file's name: every document that is encoded adds a line to it, its text's SHA-256."""
SLEEP = "TOY_ENCODER_SLEEP"
"""Environment variable: seconds that SlowEncoder takes for one document."""


def log(text: str) -> None:
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="ascii") as file:
            file.write(hashlib.sha256(text.encode()).hexdigest() + "\n")


class HashEncoder:
    """A unit vector per text, drawn with the text's hash as seed: equal texts have equal vectors, others unrelated."""

    dimension = 32
    name = "hash"

    def identity(self) -> Mapping[str, Any]:
        return {"name": self.name, "dimension": self.dimension}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        vectors = np.array([self._document(text) for text in texts], dtype=np.float32)
        progress(len(texts))
        return Encoded(vectors.reshape(len(texts), self.dimension), 0)

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        return Encoded(np.array([self.vector(text) for text in texts], np.float32).reshape(-1, self.dimension), 0)

    def vector(self, text: str) -> Any:
        seed = int.from_bytes(hashlib.sha256(f"{self.name}\n{text}".encode()).digest()[:8], "little")
        vector = np.random.default_rng(seed).standard_normal(self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def _document(self, text: str) -> Any:
        log(text)
        return self.vector(text)


class OtherEncoder(HashEncoder):
    """Not the encoder that HashEncoder is: its identity says so, and its vectors differ."""

    name = "other"


class SlowEncoder(HashEncoder):
    """HashEncoder, but slow enough to be killed or interrupted in the middle."""

    name = "slow"

    def _document(self, text: str) -> Any:
        time.sleep(float(os.environ.get(SLEEP, "0.01")))
        return super()._document(text)


class EuclideanEncoder(HashEncoder):
    """Vectors of many lengths, compared by distance: the nearest is not the one with the largest inner product."""

    name = "euclidean"

    def identity(self) -> Mapping[str, Any]:
        return {**super().identity(), "similarity": "euclidean"}

    def vector(self, text: str) -> Any:
        return super().vector(text) * np.float32(1 + len(text) % 5)


class TopicEncoder(HashEncoder):
    """Texts that begin with the same word lie close together, as texts on one topic do: what FAISS's indexes need."""

    name = "topic"

    def vector(self, text: str) -> Any:
        vector = super().vector(text.split()[0]) + 0.8 * super().vector(text)
        return vector / np.linalg.norm(vector)


class TermEncoder:
    """Weights of lower-cased words: how often one occurs, times a number between 0 and 2 drawn from its hash."""

    name = "terms"

    def identity(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        for text in texts:
            log(text)
        progress(len(texts))
        return self.encode_queries(texts)

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        return collected([self.weights(text) for text in texts])

    def weights(self, text: str) -> dict[str, float]:
        counts = Counter(text.lower().split())
        return {word: float(np.float32(count * self._weight(word))) for word, count in counts.items()}

    def _weight(self, word: str) -> float:
        return (1 + hashlib.sha256(word.encode()).digest()[0]) / 128


class CountEncoder(TermEncoder):
    """How often each lower-cased word occurs."""

    name = "counts"

    def _weight(self, word: str) -> float:
        return 1.0
