"""The two sides of HMDE's training: queries and documents to vectors that a gradient goes through."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders.hierarchy import padded, upper
from retriever.encoders.hmde import Segments, segmented, splitter
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder, prompt
from retriever.progress import advance, bar
from retriever.store.files import replacing
from retriever.training.settings import HmdeTraining
from retriever.types import Floats

if TYPE_CHECKING:
    from torch import Tensor


class Towers:
    """A sentence encoder and the hierarchy over it, which begins as the seed says.

    A sentence encoder without a learning rate reads each text once (`prepare`), into files of the folder `kept`.
    `modules` are what is trained.
    """

    def __init__(self, settings: HmdeTraining, kept: Path) -> None:
        """Raises: InputError where the sentence encoder cannot be loaded or the hierarchy does not fit it."""
        import torch

        self.settings, self._kept = settings, kept
        self.lower = SentenceTransformerEncoder(settings.base, settings.precision)
        self._split = splitter(settings, settings.base)
        self._known: dict[tuple[str, str], Floats] = {}
        self.device = self.lower.model.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            parts = {"upper": upper(settings, self.lower.dimension)}
        if settings.lower_learning_rate:
            parts["lower"] = self.lower.model
        self.modules = torch.nn.ModuleDict(parts).to(self.device)

    def prepare(self, texts: Sequence[str], kind: str) -> list[str]:
        """Read texts, "query" or "document", ahead, if that can be done; says what is cut of them."""
        texts = list(dict.fromkeys(texts))
        split, cut = self._segments(texts, kind), 0
        if not self.settings.lower_learning_rate:
            vectors, cut = self._vectors(split.texts, kind)
            for text, part in zip(texts, np.split(vectors, np.cumsum(split.counts)[:-1]), strict=True):
                self._known[kind, text] = part
        what = {"query": "queries", "document": "documents"}[kind]
        notes = {
            f"{split.capped:,} of {len(texts):,} {what} have more than {self.settings.segments} segments: so many of "
            "each are read, evenly spaced": split.capped,
            f"{cut:,} of {len(split.texts):,} segments of {what} are longer than the sentence encoder reads": cut,
        }
        return [note for note, count in notes.items() if count]

    def encode(self, texts: Sequence[str], kind: str) -> Tensor:
        """float32 [n, d], of length 1."""
        import torch

        if self.settings.lower_learning_rate:
            split = self._segments(texts, kind)
            segments, real = padded(self._read(split.texts, kind), split.counts)
        else:
            parts = [self._known[kind, text] for text in texts]
            segments, real = padded(np.concatenate(parts), list(map(len, parts)))
        segments, real = segments.to(self.device), real.to(self.device)
        if self._through(kind):
            vectors: Tensor = self.modules["upper"](segments, real)
            return vectors
        return torch.nn.functional.normalize(segments[:, 0], dim=-1)

    def _through(self, kind: str) -> bool:
        return kind == "document" or self.settings.queries == "documents"

    def _segments(self, texts: Sequence[str], kind: str) -> Segments:
        return segmented(self._split, texts) if self._through(kind) else Segments(list(texts), [1] * len(texts), 0)

    def _read(self, segments: list[str], kind: str) -> Tensor:
        """float32 [n, d]: as `lower` encodes, but by modules that a gradient goes through."""
        from sentence_transformers.util import batch_to_device

        model = self.lower.model
        before = prompt(model, "document" if self._through(kind) else "query")
        features = batch_to_device(model.preprocess([before + segment for segment in segments]), self.device)
        vectors: Tensor = model(features)["sentence_embedding"]
        return vectors

    def _vectors(self, segments: list[str], kind: str) -> tuple[Floats, int]:
        """float32 [n, d], and how many segments were cut; from the file that an interrupted training left."""
        what = json.dumps([self.lower.weights, self._through(kind), segments])
        path = self._kept / f"{hashlib.sha256(what.encode()).hexdigest()}.npz"
        if path.exists():
            with np.load(path) as known:
                return known["vectors"], int(known["cut"])
        with bar("segments", "segments", total=len(segments)):
            if self._through(kind):
                encoded = self.lower.encode_documents(segments, advance)
            else:
                encoded = self.lower.encode_queries(segments)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, vectors=encoded.vectors, cut=encoded.truncated)
        return encoded.vectors, encoded.truncated
