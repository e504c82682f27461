"""Pointwise cross-encoders: monoBERT, MiniLM and every other sequence classifier over pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from retriever.encoders.adapters.stack import brings_head
from retriever.encoders.models import find_model
from retriever.encoders.runtime import PRECISIONS
from retriever.errors import InputError
from retriever.rerankers.classifier import Classifier, check_scores_pairs, classifier
from retriever.tallies import tally
from retriever.types import Floats


@dataclass(frozen=True)
class CrossEncoderConfig:
    """model: name or path of a sequence classifier with one or two outputs. depth: how many documents of each list it
    reads. precision: "auto" (bfloat16 where the hardware has it) or "float32". adapters: a stack of them, as
    `encoders.adapters.stack` writes it; one that brings a head makes a cross-encoder of a model without one.
    """

    model: str
    depth: int = 100
    precision: str = "auto"
    adapters: str | None = None

    def __post_init__(self) -> None:
        check(self.depth, self.precision)


class CrossEncoder:
    """One output (as sentence-transformers trains): the score is that output, through the activation that the model's
    files name, as `CrossEncoder.predict` gives it. Two (monoBERT, Nogueira and Cho 2019, arXiv 1901.04085): the score
    is the logarithm of the softmax probability of class 1, relevant, which is pygaggle's score and orders as the
    paper's probability does.

    A pair that is too long loses tokens of its longer text, as in `CrossEncoder.predict`, and is tallied.

    Proven, on random weights: in float32 the scores are those of `CrossEncoder.predict` to 1e-4. In bfloat16 they
    differ in the third digit; with the extra `fast`, only searches of many pairs are computed so. Not proven: the
    published effectiveness, for want of the published weights.
    """

    Config = CrossEncoderConfig

    def __init__(self, config: CrossEncoderConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        if not (config.adapters and brings_head(config.adapters)):
            check_scores_pairs(self._folder)

    @cached_property
    def _classifier(self) -> Classifier:
        found = classifier(self._folder, self.config.precision, self.config.adapters)
        if found.labels not in (1, 2):
            raise InputError(f"{self._folder}: has {found.labels} outputs; a reranker has one, or two classes")
        return found

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], computed in batches of like length and returned in the order of the pairs."""
        return activated(self.logits(pairs), self._classifier.model)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n]: the single output before any activation; of two, the second less the first.

        Either way the logistic function of it is the probability of relevance for a model trained by cross-entropy.
        """
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        values, cut = self._classifier.logits(pairs)
        tally(
            f"pairs were longer than the {self._classifier.max_length} tokens that {self.config.model} reads, and cut",
            int(cut.sum()),
        )
        difference: Floats = values[:, -1] - values[:, 0] if values.shape[1] == 2 else values[:, 0]
        return difference


def activated(logits: Floats, model: Any) -> Floats:
    """float32 [n]: what sentence-transformers' CrossEncoder makes of logits.

    Of its single output what its activation does; of two (logits are their difference) the logarithm of the softmax.
    """
    import torch

    if model.num_labels == 2:
        scores: Floats = -np.logaddexp(0, -logits.astype(np.float64)).astype(np.float32)
        return scores
    with torch.inference_mode():
        single: Floats = model.activation_fn(torch.from_numpy(logits)).numpy()
    return single


def check(depth: int, precision: str) -> None:
    """What every reranker's configuration owes. Raises: ValueError."""
    if depth < 1:
        raise ValueError("depth must be at least 1")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")
