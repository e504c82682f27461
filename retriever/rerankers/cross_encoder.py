"""Pointwise cross-encoders, by sentence-transformers' CrossEncoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retriever.encoders.models import find_model
from retriever.errors import InputError
from retriever.types import Floats

_BATCH = 32


@dataclass(frozen=True)
class CrossEncoderConfig:
    """model: name or path of a sequence classifier with one output; depth: how many documents of each list it reads."""

    model: str
    depth: int = 100

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError("depth must be at least 1")


class CrossEncoder:
    """The score is the model's single output, through the activation that its files name."""

    Config = CrossEncoderConfig

    def __init__(self, config: CrossEncoderConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        if not _scores_pairs(self._folder):
            raise InputError(
                f"{self._folder}: is no cross-encoder: its files hold no head that scores pairs. Give a model with one "
                "output, such as cross-encoder/ms-marco-MiniLM-L6-v2; a bi-encoder belongs in a dense view"
            )

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import CrossEncoder as Model
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            model = Model(str(self._folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as problem:
            raise InputError(f"{self._folder}: is not a cross-encoder that can be loaded: {problem}") from None
        if model.num_labels != 1:
            raise InputError(f"{self._folder}: has {model.num_labels} outputs; a reranker needs one score a pair")
        return model

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], computed in batches of like length and returned in the order of the pairs."""
        return self._predict(pairs, None)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n]: the model's single output before any activation."""
        from torch.nn import Identity

        return self._predict(pairs, Identity())

    def _predict(self, pairs: Sequence[tuple[str, str]], activation: Any) -> Floats:
        scores = np.empty(len(pairs), dtype=np.float32)
        if pairs:
            order = sorted(range(len(pairs)), key=lambda i: -sum(map(len, pairs[i])))
            asked = [pairs[i] for i in order]
            scores[order] = self._model.predict(
                asked, batch_size=_BATCH, show_progress_bar=False, activation_fn=activation
            )
        return scores


def _scores_pairs(folder: Path) -> bool:
    """Whether a model has a head: sentence-transformers would give one without it a random one, and say nothing."""
    modules = [str(module["type"]) for module in _json(folder / "modules.json", [])]
    if modules and (len(modules) > 1 or not modules[0].endswith(".Transformer")):
        return not any(module.endswith(".Pooling") for module in modules)
    config = _json(folder / "config.json", None)
    if config is None:
        return True  # an adapter, whose base model brings the head
    heads = [*(config.get("architectures") or []), *config.get("auto_map", {})]
    return any(name.endswith(("ForSequenceClassification", "ForCausalLM")) for name in heads)


def _json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as problem:
        raise InputError(f"is not JSON: {problem}", path) from None
