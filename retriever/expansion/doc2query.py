"""doc2query (Nogueira et al. 2019) and docTTTTTquery (Nogueira and Lin 2019): queries that a document might answer."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from retriever.encoders.models import find_model, weights_digest
from retriever.encoders.pretrained import load_model, load_tokenizer
from retriever.expansion.documents import Expanded

_AT_ONCE = 40
"""Samples that are drawn side by side: their keys and values for a text of 512 tokens take 1.5 GB in T5-base."""


@dataclass(frozen=True)
class Doc2QueryConfig:
    """model: name or path of a transformers sequence-to-sequence model that was trained to ask a document's questions.
    n: queries a document; each token is drawn from the top_k likeliest. max_length: a query's tokens, the start among
    them. doc_length: tokens of a document that are read, never more than the model has places for. seed: of the draws.
    """

    model: str
    n: int = 40
    top_k: int = 10
    max_length: int = 64
    doc_length: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"n": 0, "top_k": 1, "max_length": 2, "doc_length": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")


class Doc2Query:
    """Queries sampled from a sequence-to-sequence model, with docTTTTTquery's settings as defaults.

    The sampling is transformers' `generate`, one document at a time with a seed of its own: neither its neighbours nor
    their padding can change a document's queries. The same machine and libraries give the same queries. What a model's
    own files say of generation applies, except of the sampling, which is the configuration's.

    Proven (tests/expansion/test_doc2query.py): queries equal those of `generate` alone, tokens are among the top k. Not
    proven: the published effectiveness, for want of the published weights.
    """

    Config = Doc2QueryConfig
    batch = 8

    def __init__(self, config: Doc2QueryConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)

    def identity(self) -> Mapping[str, Any]:
        """The model and the digest of its weights."""
        return {"model": self.config.model, "weights": weights_digest(self._folder)}

    def expand(self, texts: Sequence[str], progress: Callable[[float], None]) -> Expanded:
        """`n` queries for each text."""
        queries, truncated = [], 0
        for text in texts:
            queries.append(self._queries(text))
            truncated += len(self._loaded[1](text, verbose=False)["input_ids"]) > self._most
            progress(1)
        return Expanded(queries, truncated)

    @property
    def _most(self) -> int:
        """Tokens of a document that are read."""
        places = getattr(self._loaded[0].config, "max_position_embeddings", None)
        return min(self.config.doc_length, places or self.config.doc_length)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer."""
        from transformers import AutoModelForSeq2SeqLM

        model = load_model(AutoModelForSeq2SeqLM, self._folder, "sequence-to-sequence model")
        return model, load_tokenizer(self._folder)

    def _queries(self, text: str) -> list[str]:
        import torch

        model, tokenizer = self._loaded
        read = tokenizer(text, truncation=True, max_length=self._most, return_tensors="pt").to(model.device)
        ids, mask = read["input_ids"], read["attention_mask"]  # int64 [1, length]
        settings = copy.deepcopy(model.generation_config)
        settings.update(do_sample=True, num_beams=1, temperature=1.0, top_p=1.0, max_new_tokens=None)
        settings.update(top_k=self.config.top_k, max_length=self.config.max_length)
        queries: list[str] = []
        with torch.inference_mode(), _seeded(model.device, f"{self.config.seed}\n{text}"):
            while left := self.config.n - len(queries):
                settings.num_return_sequences = min(left, _AT_ONCE)
                sampled = model.generate(
                    ids, attention_mask=mask, generation_config=settings
                )  # int64 [samples, length]
                queries.extend(map(str.strip, tokenizer.batch_decode(sampled, skip_special_tokens=True)))
        return queries


@contextmanager
def _seeded(device: Any, key: str) -> Iterator[None]:
    """Torch's own generator, which `generate` draws from, seeded for the block and then as it was before."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1)
        yield
