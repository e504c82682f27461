"""Any sentence-transformers or transformers model as a dense encoder; pooling, prompts and lengths come from its own
files, or are stated (a transformers model says nothing of pooling: sentence-transformers takes the mean).

What is ours is only how texts reach the model: batches by token budget over length-sorted texts, and a `runtime`
that computes the transformer's token embeddings in the fastest form this machine has. Every module after the
transformer (pooling, projections, normalisation) is the model's own, in float32.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.adapters.stack import Adapters, stack_identity
from retriever.encoders.base import Encoded
from retriever.encoders.batches import NO_LIMIT, hidden_states, tokenize
from retriever.encoders.matformer import Width, narrowed
from retriever.encoders.models import check_tokenizer, code_digest, find_model, weights_digest
from retriever.encoders.runtime import Runtime, Runtimes
from retriever.encoders.state_space import InSegments, is_state_space, prepare
from retriever.encoders.stated import POOLINGS, Stated
from retriever.errors import InputError
from retriever.types import Floats

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class SentenceTransformerEncoder:
    """Dense vectors of a sentence-transformers model, by name or path.

    precision: "auto" (bfloat16 where the hardware has it) or "float32". stated: what overrules the model's files.
    """

    def __init__(self, model: str, precision: str = "auto", stated: Stated | None = None) -> None:
        self.name, self.precision, self.stated = model, precision, stated or Stated()
        self._folder = find_model(model)
        self._narrow: dict[Width, SentenceTransformerEncoder] = {}

    @cached_property
    def model(self) -> SentenceTransformer:
        """The loaded model, in eval mode on the best device there is."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # loading bars would write into pipes
        trust = bool(self.stated.remote_code)
        try:
            model = SentenceTransformer(str(self._folder), local_files_only=True, trust_remote_code=trust).eval()
        except (OSError, ValueError, KeyError, ImportError) as problem:
            if "trust_remote_code=True" in str(problem):
                raise InputError(
                    f"{self._folder}: brings Python code of its own, which would run with your rights; read it, and "
                    "where you trust it state remote_code=true in the view"
                ) from None
            raise InputError(f"{self._folder}: sentence-transformers cannot load it: {problem}") from None
        check_tokenizer(self._folder)
        _keep_to_positions(model)
        if model.similarity_fn_name == "manhattan":
            raise InputError(f"{self._folder}: compares by Manhattan distance; a dense view has cosine, dot, euclidean")
        return as_stated(model, self.stated, self.name)

    @cached_property
    def _runtimes(self) -> Runtimes:
        transformer = self.model[0].auto_model
        if is_state_space(transformer):  # bfloat16 made it little faster, at cosines below 0.9999
            return Runtimes(InSegments(transformer), self.model.device, "float32")
        return Runtimes(transformer, self.model.device, self.precision)

    def runtime(self, tokens: int) -> Runtime:
        """What computes so many tokens."""
        return self._runtimes.of(tokens)

    def narrow(self, width: Width) -> SentenceTransformerEncoder:
        """The same encoder with the first units of its feed-forward layers alone; made once for each width.

        Raises: InputError where it was not trained with it (`encoders.matformer`).
        """
        if self.stated.adapters:
            raise InputError(f"{self.name}: query_width takes its own layers apart, so it goes with no adapters")
        if width not in self._narrow:
            small = narrowed(getattr(self.model[0], "auto_model", None), width, self.name)
            self._narrow[width] = copy.copy(self)  # which has the loaded model
            self._narrow[width]._runtimes = Runtimes(small, self.model.device, self.precision)
        return self._narrow[width]

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
        modules = [[type(module).__name__, settings(module)] for module in list(self.model)[1:]]
        pooling = [module.get_config_dict() for module in self.model if type(module).__name__ == "Pooling"]
        return {
            "model": self.name,
            "weights": self.weights,
            "modules": modules,
            "pooling": pooling[0]["pooling_mode"] if pooling else None,
            "prompts": {kind: prompt(self.model, kind) for kind in ("query", "document")},
            "max_length": self._max_length,
            "dimension": self.dimension,
            "similarity": self.model.similarity_fn_name or "cosine",
            **({"eos": True} if self._adds_eos else {}),
            **({"adapters": stack_identity(self.stated.adapters)} if self.stated.adapters else {}),
            **({"remote_code": code_digest(self._folder)} if self.stated.remote_code else {}),
        }

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> Encoded:
        """float32 [n, d]; unit length where the model compares by cosine."""
        return self._encode(texts, "document", progress)

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """float32 [n, d]; unit length where the model compares by cosine."""
        return self._encode(texts, "query", lambda _: None)

    @property
    def _max_length(self) -> int | None:
        """Tokens that are read; none where neither the model nor its tokenizer has a limit."""
        length = self.model.max_seq_length
        return None if length is None or length > NO_LIMIT else int(length)

    @cached_property
    def _adds_eos(self) -> bool:
        """Whether the end-of-sequence token is ours to add, because the tokenizer does not."""
        tokenizer = self.model.tokenizer
        return self.stated.pooling == "eos" and tokenizer("a")["input_ids"][-1] != tokenizer.eos_token_id

    def _prompt_length(self, prompt: str) -> int:
        """Tokens before the text, for a pooling that leaves the prompt out; a closing special token is none of them."""
        ids = self.model.tokenizer(prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.model.tokenizer.all_special_ids)

    def _encode(self, texts: Sequence[str], kind: str, progress: Callable[[float], None]) -> Encoded:
        if hasattr(self.model[0], "auto_model"):
            vectors, truncated = self._transformed(texts, prompt(self.model, kind), progress)
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

        most = self._max_length
        tokens = tokenize(
            self.model.tokenizer, [prompt + text for text in texts], most - 1 if most and self._adds_eos else most
        )
        ids = [[*row, self.model.tokenizer.eos_token_id] for row in tokens.ids] if self._adds_eos else tokens.ids
        before = {"prompt_length": self._prompt_length(prompt)} if prompt else {}
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        with torch.inference_mode():
            for place, hidden in hidden_states(ids, self.model.tokenizer, self._runtimes):
                pooled = {**hidden, **before}
                for module in list(self.model)[1:]:
                    pooled = module(pooled)
                vectors[place] = pooled["sentence_embedding"].float().cpu().numpy()[:, : self.dimension]
                progress(len(place))
        return vectors, tokens.truncated


def prompt(model: Any, kind: str) -> str:
    """The prompt that sentence-transformers' encode_query or encode_document would use."""
    names = {"query": ["query"], "document": ["document", "passage", "corpus"]}[kind]
    name = next((name for name in names if name in model.prompts), model.default_prompt_name)
    return model.prompts.get(name) or ""


def as_stated(model: Any, stated: Stated, name: str) -> Any:
    """A loaded model, changed to what a view states.

    Raises: InputError for what this model cannot do.
    """
    prepare(model)
    for kind, prefix in (("query", stated.query_prefix), ("document", stated.document_prefix)):
        if prefix is not None:
            model.prompts[kind] = prefix
    if stated.pooling:
        _set_pooling(model, stated.pooling, name)
    if stated.max_length:
        _set_length(model, stated.max_length, name)
    if stated.normalize is not None:
        _set_normalisation(model, normalize=stated.normalize)
    if stated.dimensions:
        if stated.dimensions > model.get_embedding_dimension():
            raise InputError(f"{name}: has {model.get_embedding_dimension()} dimensions, not {stated.dimensions}")
        model.truncate_dim = stated.dimensions
    if stated.adapters:
        if not hasattr(model[0], "auto_model"):
            raise InputError(f"{name}: has no transformer that adapters could be put on")
        Adapters(model[0].auto_model, name).use(stated.adapters)
    return model


def _set_pooling(model: Any, pooling: str, name: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    places = [key for key, module in model.named_children() if isinstance(module, Pooling)]
    if not places:
        raise InputError(f"{name}: has no pooling that could be {pooling!r}")
    if pooling == "eos" and model.tokenizer.eos_token_id is None:
        raise InputError(f"{name}: its tokenizer has no end-of-sequence token; state pooling=last or cls")
    setattr(model, places[0], Pooling(model[0].get_embedding_dimension(), POOLINGS[pooling]))


def _positions(model: Any) -> int | None:
    """Tokens that a transformer has positions for; none where it has no such limit.

    RoBERTa's kind, MPNet's too, counts positions from behind the padding token's id: a table of 514 is for 512 tokens.
    """
    transformer = getattr(model[0], "auto_model", None)
    positions: int | None = getattr(getattr(transformer, "config", None), "max_position_embeddings", None)
    return positions and positions - _before_first(transformer)


def _before_first(transformer: Any) -> int:
    """Entries of the table of positions that no token has."""
    parts = transformer.modules() if transformer is not None else ()
    tables = [part for part in parts if hasattr(getattr(part, "position_embeddings", None), "num_embeddings")]
    return max(
        (part.padding_idx + 1 for part in tables if isinstance(getattr(part, "padding_idx", None), int)), default=0
    )


def _keep_to_positions(model: Any) -> None:
    """Shorten a length that the model's files state where the table of positions, counted rightly, ends before it."""
    if not _before_first(getattr(model[0], "auto_model", None)):
        return
    positions, length = _positions(model), model.max_seq_length
    if positions and (length is None or length > positions):
        model.max_seq_length = positions


def _set_length(model: Any, length: int, name: str) -> None:
    positions = _positions(model)
    if positions and length > positions:
        raise InputError(f"{name}: has positions for {positions} tokens, not for max_length={length}")
    model.max_seq_length = length


def _set_normalisation(model: Any, *, normalize: bool) -> None:
    from sentence_transformers.sentence_transformer.modules import Normalize

    if normalize:
        model.similarity_fn_name = "cosine"  # whose vectors `_encode` brings to unit length
        return
    for key in [key for key, module in model.named_children() if isinstance(module, Normalize)]:
        delattr(model, key)
    if model.similarity_fn_name in (None, "cosine"):
        model.similarity_fn_name = "dot"


def settings(module: Any) -> dict[str, Any]:
    """A module's own settings, as JSON values."""
    given = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    plain: dict[str, Any] = json.loads(json.dumps(given, default=str))
    return plain
