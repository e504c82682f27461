"""Encoders from elsewhere: any Python object that turns texts into vectors, and embeddings endpoints."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from retriever.encoders.base import Encoded, Encoder
from retriever.encoders.stated import Stated
from retriever.endpoints import EndpointError, address, ask
from retriever.errors import InputError, RetrieverError
from retriever.types import Floats

_ITS_OWN = ("pooling", "max_length", "adapters", "remote_code")
_BATCH = 64
"""Texts of one request."""
_AT_ONCE = 8
"""Requests that a server is given at a time."""


def as_encoder(found: Any, name: str, stated: Stated) -> Encoder:
    """An encoder of what "module:object" names: a class, made without arguments, or an object.

    It is an `encoders.base.Encoder`, known by its `identity`, or has `encode_queries` and `encode_documents`, or
    `encode` for both: list of texts -> [n, d], of NumPy, torch or lists.

    Raises: InputError for an object with neither.
    """
    encoder = found() if isinstance(found, type) else found
    if hasattr(encoder, "identity"):
        stated.refuse(tuple(stated.given()), name, "an encoder with an identity says all of itself")
        known: Encoder = encoder
        return known
    return ForeignObject(encoder, name, stated)


class _Foreign:
    """What encoders of both kinds share: prefixes, truncated dimensions and normalisation, where a view states them."""

    def __init__(self, name: str, stated: Stated) -> None:
        self.name, self.stated = name, stated

    def vectors(self, texts: list[str], kind: str, progress: Callable[[float], None]) -> Floats:
        """float32 [n, d] of texts of a kind, "query" or "document"; n is not 0."""
        raise NotImplementedError

    @cached_property
    def dimension(self) -> int:
        """The vectors' length, learned from one."""
        return int(self.encode_queries(["one"]).vectors.shape[1])

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        """float32 [n, d]. What the encoder cuts is not known here: truncated is 0."""
        return self._encode(texts, "document", progress)

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """float32 [n, d]."""
        return self._encode(texts, "query", lambda _: None)

    def _encode(self, texts: Sequence[str], kind: str, progress: Callable[[float], None]) -> Encoded:
        if not texts:
            return Encoded(np.zeros((0, self.dimension), np.float32), 0)
        vectors = self.vectors(self.stated.prefixed(list(texts), kind), kind, progress)
        return Encoded(self.stated.shaped(vectors), 0)


class ForeignObject(_Foreign):
    """An object with `encode_queries` and `encode_documents`, or with `encode`. Compared by inner product."""

    def __init__(self, encoder: Any, name: str, stated: Stated) -> None:
        super().__init__(name, stated)
        stated.refuse(_ITS_OWN, name, "a Python object pools and cuts by itself")
        whole = getattr(encoder, "encode", None)
        self._methods: dict[str, Any] = {
            kind: getattr(encoder, method, whole)
            for kind, method in (("query", "encode_queries"), ("document", "encode_documents"))
        }
        if not all(map(callable, self._methods.values())):
            raise InputError(f"{name}: encodes nothing: it has neither encode, nor encode_queries and encode_documents")
        self._encoder = encoder

    def identity(self) -> Mapping[str, Any]:
        """Its name and the source code of its module: what else decides its vectors, only an `identity` could say."""
        code = inspect.getsourcefile(type(self._encoder))
        digest = hashlib.sha256(Path(code).read_bytes()).hexdigest() if code and Path(code).is_file() else None
        return {"object": self.name, "source": digest, "dimension": self.dimension, **self.stated.given()}

    def vectors(self, texts: list[str], kind: str, progress: Callable[[float], None]) -> Floats:
        """float32 [n, d]: what the object gives.

        Raises: InputError where that is no matrix with a row for each text.
        """
        given = self._methods[kind](texts)
        if hasattr(given, "detach"):  # a tensor, wherever it lies
            given = given.detach().cpu().float()
        try:
            vectors: Floats = np.asarray(given, dtype=np.float32)
        except (ValueError, TypeError) as problem:
            raise InputError(f"{self.name}: gave no matrix of numbers for {len(texts)} texts: {problem}") from None
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise InputError(f"{self.name}: gave {list(vectors.shape)} for {len(texts)} texts; expected [n, d]")
        progress(len(texts))
        return vectors


class EmbeddingsEndpoint(_Foreign):
    """A model behind OpenAI's embeddings protocol, by the name "http://host:port/v1#model".

    Vectors are compared by inner product as the server gives them, which is of unit length from most. timeout, pause:
    `endpoints.ask`. Written without OpenAI's own server to try.
    """

    def __init__(self, name: str, stated: Stated, timeout: float = 300.0, pause: float = 1.0) -> None:
        super().__init__(name, stated)
        stated.refuse(_ITS_OWN, name, "a server pools and cuts by itself")
        self.url, self.model = address(name)
        self.timeout, self.pause = timeout, pause

    def identity(self) -> Mapping[str, Any]:
        """The address and the model's name: nothing else is known of it, so a server must not change its model."""
        return {"endpoint": self.name, "dimension": self.dimension, **self.stated.given()}

    def vectors(self, texts: list[str], kind: str, progress: Callable[[float], None]) -> Floats:
        """float32 [n, d], a few requests at a time.

        Raises: RetrieverError naming the model and the reason.
        """
        rest = iter(texts)
        batches = list(iter(lambda: list(islice(rest, _BATCH)), []))
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            parts = list(self._told(pool.map(self._batch, batches), progress))
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure nothing more is asked
        return np.concatenate(parts)

    def _told(self, parts: Iterator[Floats], progress: Callable[[float], None]) -> Iterator[Floats]:
        for part in parts:
            progress(len(part))
            yield part

    def _batch(self, texts: list[str]) -> Floats:
        body = {"model": self.model, "input": [text or " " for text in texts], "encoding_format": "float"}
        try:  # OpenAI's server refuses an empty text
            answer = ask(f"{self.url.rstrip('/')}/embeddings", body, self.timeout, self.pause)
        except EndpointError as problem:
            raise self._failure(str(problem)) from None
        try:
            rows = sorted(json.loads(answer)["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
        except (ValueError, LookupError, TypeError):
            raise self._failure(f"its answer holds no embeddings: {answer[:300].decode(errors='replace')}") from None
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise self._failure(f"it gave {list(vectors.shape)} for {len(texts)} texts; expected [n, d]")
        return vectors

    def _failure(self, reason: str) -> RetrieverError:
        return RetrieverError(f"{self.url}: model {self.model!r} embedded nothing: {reason}")
