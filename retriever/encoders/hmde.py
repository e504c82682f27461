"""HMDE: a hierarchical document encoder over any sentence encoder (arXiv 2305.07016), from a folder that
`retriever train hmde` made.

A document is split into segments; the sentence encoder makes a vector of each, and a small transformer one of those.
Queries are read by the sentence encoder alone, unless the folder says otherwise: a query is a sentence, which it is
good at, its vector is the one that searches passages too, and few training pairs have less to change. The paper, whose
training pairs are documents, sends both sides through the hierarchy. Its numbers could not be reproduced here: no
checkpoint of it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from retriever.encoders.base import Encoded
from retriever.encoders.hierarchy import LOWER, Hierarchy, load_upper, padded, read_hierarchy
from retriever.encoders.models import find_model, weights_digest
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.encoders.stated import Stated
from retriever.encoders.token_spans import TokenSpans
from retriever.passages import Splitter
from retriever.types import Floats

_ITS_OWN = ("pooling", "max_length", "normalize", "dimensions", "adapters", "remote_code")
_AT_ONCE = 512
"""Documents whose segments are in memory at once."""


class Segments(NamedTuple):
    """Of n documents. texts: one document's behind another's. counts: of each, at least 1. capped: documents that had
    more than are kept.
    """

    texts: list[str]
    counts: list[int]
    capped: int


def splitter(settings: Hierarchy, lower: str) -> Splitter:
    """Documents to segments. lower: the sentence encoder's name or path, whose tokens may be the unit."""
    return Splitter(settings.splitting, TokenSpans(lower) if settings.unit == "tokens" else None)


def segmented(split: Splitter, texts: Sequence[str]) -> Segments:
    """The segments of texts."""
    found = [split.split(text) for text in texts]
    return Segments(
        [segment for each in found for segment in each.texts],
        [len(each.texts) for each in found],
        sum(each.total > len(each.texts) for each in found),
    )


class Hmde:
    """Dense vectors of whole documents, compared by cosine. `truncated` counts segments longer than the sentence
    encoder reads, and documents with more segments than are kept.

    precision: as `SentenceTransformerEncoder`. stated: prefixes alone; the rest is the folder's to say.
    """

    def __init__(self, model: str, precision: str = "auto", stated: Stated | None = None) -> None:
        stated = stated or Stated()
        stated.refuse(_ITS_OWN, model, "a hierarchy was trained on the vectors of its sentence encoder as it is")
        self.name, self._folder = model, find_model(model)
        self.settings = read_hierarchy(self._folder)
        self.lower = SentenceTransformerEncoder(str(self._folder / LOWER), precision, stated)

    @property
    def dimension(self) -> int:
        """The vectors' length."""
        return self.lower.dimension

    def identity(self) -> Mapping[str, Any]:
        """That of the sentence encoder, and the hierarchy over it."""
        own = {"model": self.name, "weights": weights_digest(self._folder), "similarity": "cosine"}
        return {**self.lower.identity(), **own, "hmde": asdict(self.settings)}

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        """float32 [n, d], of unit length."""
        parts, truncated = [np.zeros((0, self.dimension), np.float32)], 0
        for first in range(0, len(texts), _AT_ONCE):
            split = segmented(self._splitter, texts[first : first + _AT_ONCE])
            share = len(split.counts) / len(split.texts)
            encoded = self.lower.encode_documents(split.texts, partial(_part, progress, share))
            parts.append(self.join(encoded.vectors, split.counts))
            truncated += encoded.truncated + split.capped
        return Encoded(np.concatenate(parts), truncated)

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """float32 [n, d], of unit length."""
        if self.settings.queries == "documents":
            return self.encode_documents(texts, lambda _: None)
        vectors, truncated = self.lower.encode_queries(texts)
        return Encoded(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), truncated)

    def join(self, vectors: Floats, counts: list[int]) -> Floats:
        """float32 [n, d] of segments' vectors, one document's behind another's."""
        import torch

        segments, real = padded(vectors, counts)
        device = self.lower.model.device
        with torch.inference_mode():
            joined: Floats = self._upper(segments.to(device), real.to(device)).cpu().numpy()
        return joined

    @cached_property
    def _upper(self) -> Any:
        return load_upper(self._folder, self.settings, self.dimension).to(self.lower.model.device)

    @cached_property
    def _splitter(self) -> Splitter:
        return splitter(self.settings, str(self._folder / LOWER))


def _part(progress: Callable[[float], None], share: float, done: float) -> None:
    progress(share * done)
