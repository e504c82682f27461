"""Any sentence-transformers model as a dense encoder; pooling, prompts and lengths come from the model's own files.

What is ours is only how texts reach the model: batches by token budget over length-sorted texts, and a `runtime`
that computes the transformer's token embeddings in the fastest form this machine has. Every module after the
transformer (pooling, projections, normalisation) is the model's own, in float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.base import Encoded
from retriever.encoders.models import find_model, weights_digest
from retriever.encoders.runtime import Features, Runtime, has_bfloat16, openvino_runtime, torch_runtime
from retriever.errors import InputError
from retriever.types import Floats

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

COMPILE = 20_000
"""From so many tokens on, compiling the model first (about a second) pays."""


class SentenceTransformerEncoder:
    """Dense vectors of a sentence-transformers model, by name or path.

    precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    def __init__(self, model: str, precision: str = "auto") -> None:
        self.name, self.precision = model, precision
        self._folder = find_model(model)

    @cached_property
    def model(self) -> SentenceTransformer:
        """The loaded model, in eval mode on the best device there is."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # loading bars would write into pipes
        try:
            model = SentenceTransformer(str(self._folder), local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as problem:
            raise InputError(f"{self._folder}: sentence-transformers cannot load it: {problem}") from None
        if model.similarity_fn_name == "manhattan":
            raise InputError(f"{self._folder}: compares by Manhattan distance; a dense view has cosine, dot, euclidean")
        return model

    @cached_property
    def _compiled(self) -> Runtime | None:
        if self.precision == "float32" or self.model.device.type != "cpu" or not has_bfloat16("cpu"):
            return None
        return openvino_runtime(self.model)

    @cached_property
    def _plain(self) -> Runtime:
        fast = self.precision != "float32" and has_bfloat16(self.model.device.type)
        # OpenVINO compiles the float32 weights, so they stay as they are where it is installed
        return torch_runtime(self.model, bfloat16=fast and find_spec("openvino") is None)

    def runtime(self, tokens: int) -> Runtime:
        """What computes so many tokens."""
        return (self._compiled if tokens >= COMPILE else None) or self._plain

    @cached_property
    def weights(self) -> str:
        """SHA-256 over the model's weight files."""
        return weights_digest(self._folder)

    @property
    def dimension(self) -> int:
        """The vectors' length."""
        return int(self.model.get_embedding_dimension() or 0)

    def identity(self) -> Mapping[str, Any]:
        """Model, weights, pooling, prompts and length, from the loaded model."""
        modules = [[type(module).__name__, _config(module)] for module in list(self.model)[1:]]
        pooling = [module.get_config_dict() for module in self.model if type(module).__name__ == "Pooling"]
        return {
            "model": self.name,
            "weights": self.weights,
            "modules": modules,
            "pooling": pooling[0]["pooling_mode"] if pooling else None,
            "prompts": {kind: self._prompt(kind) for kind in ("query", "document")},
            "max_length": self.model.max_seq_length,
            "dimension": self.dimension,
            "similarity": self.model.similarity_fn_name or "cosine",
        }

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        """float32 [n, d]; unit length where the model compares by cosine."""
        return self._encode(texts, "document", progress)

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """float32 [n, d]; unit length where the model compares by cosine."""
        return self._encode(texts, "query", lambda _: None)

    def _prompt(self, kind: str) -> str:
        """The prompt that sentence-transformers' encode_query or encode_document would use."""
        names = {"query": ["query"], "document": ["document", "passage", "corpus"]}[kind]
        default = self.model.default_prompt_name
        known = self.model.prompts or {}
        found = next((known[name] for name in names if name in known), None)
        return found if found is not None else known.get(default, "") if default else ""

    def _prompt_length(self, prompt: str) -> int:
        """Tokens before the text, for a pooling that leaves the prompt out; a closing special token is none of them."""
        ids = self.model.tokenizer(prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.model.tokenizer.all_special_ids)

    def _encode(self, texts: Sequence[str], kind: str, progress: Callable[[float], None]) -> Encoded:
        if hasattr(self.model[0], "auto_model"):
            vectors, truncated = self._transformed(texts, self._prompt(kind), progress)
        else:  # static embeddings and the like: no transformer to run faster
            encode = self.model.encode_query if kind == "query" else self.model.encode_document
            given = encode(list(texts), show_progress_bar=False)
            vectors, truncated = np.array(given, np.float32).reshape(len(texts), self.dimension), 0
            progress(len(texts))
        if self.model.similarity_fn_name in (None, "cosine"):
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Encoded(vectors, truncated)

    def _transformed(self, texts: Sequence[str], prompt: str, progress: Callable[[float], None]) -> tuple[Floats, int]:
        import torch

        tokens = _tokenize(self.model, [prompt + text for text in texts])
        lengths = [len(ids) for ids in tokens.ids]
        runtime = self.runtime(sum(lengths))
        places = list(_batches(lengths, runtime.token_budget))
        batches = (self._features([tokens.ids[i] for i in place], prompt) for place in places)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        with torch.inference_mode():
            for place, features in zip(places, runtime.run(batches), strict=True):
                pooled = features
                for module in list(self.model)[1:]:
                    pooled = module(pooled)
                vectors[place] = pooled["sentence_embedding"].float().cpu().numpy()
                progress(len(place))
        return vectors, tokens.truncated

    def _features(self, ids: Sequence[Sequence[int]], prompt: str) -> Features:
        import torch

        padded = _pad(ids, self.model.tokenizer)
        features: Features = {name: torch.from_numpy(array).to(self.model.device) for name, array in padded.items()}
        return {**features, "prompt_length": self._prompt_length(prompt)} if prompt else features


def _config(module: Any) -> dict[str, Any]:
    """A module's own settings, as JSON values."""
    settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


class _Tokens:
    """Token ids of each text, cut to the model's length, and how many were cut."""

    def __init__(self, ids: list[list[int]], truncated: int) -> None:
        self.ids, self.truncated = ids, truncated


def _tokenize(model: Any, texts: list[str]) -> _Tokens:
    if not texts:
        return _Tokens([], 0)
    if not getattr(model.tokenizer, "is_fast", False):
        plain = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
        return _Tokens(plain, sum(len(ids) >= (model.max_seq_length or len(ids) + 1) for ids in plain))
    encoded = model.tokenizer(
        texts,
        truncation=True,
        max_length=model.max_seq_length,
        return_overflowing_tokens=True,  # what overflows tells which texts were cut
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    owners = np.asarray(encoded["overflow_to_sample_mapping"])
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    counts = np.diff(np.append(first, len(owners)))
    return _Tokens([encoded["input_ids"][i] for i in first], int(np.count_nonzero(counts > 1)))


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions of texts, longest first, in batches of at most `budget` tokens with padding."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _pad(ids: Sequence[Sequence[int]], tokenizer: Any) -> dict[str, Any]:
    """int64 [n, longest] ids and mask, padded on the side that the tokenizer pads on."""
    width = max(map(len, ids))
    padded = np.full((len(ids), width), tokenizer.pad_token_id or 0, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for i, row in enumerate(ids):
        where = slice(width - len(row), width) if tokenizer.padding_side == "left" else slice(len(row))
        padded[i, where], mask[i, where] = row, 1
    return {"input_ids": padded, "attention_mask": mask}
