"""SPLADE: documents and queries as weighted terms of a masked language model's vocabulary.

Formal, Piwowarski and Clinchant, SIGIR 2021, with the maximum of "SPLADE v2" (arXiv 2109.10086): the weight of term j
in a text is max_i ln(1 + max(0, logit_ij)) over its tokens i; the first version has the sum. sentence-transformers
loads the model. Ours is the order of the arithmetic: batches by token budget, no padding in the projection to the
vocabulary, which is most of the work, and one logarithm a text and term where there is a maximum, not one a token.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoders.base import TermWeights
from retriever.encoders.batches import Tokens, hidden_states, tokenize, vocabulary
from retriever.encoders.models import check_tokenizer, find_model, weights_digest
from retriever.encoders.runtime import Runtimes
from retriever.encoders.sentence_transformer import prompt, settings
from retriever.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sentence_transformers import SparseEncoder
    from torch import Tensor

_ROUND = 64
"""Tokens whose logits are computed are padded to a multiple of this."""
_GROUP = {"cpu": 512}
"""Tokens whose logits are held at once (62 MB for 30,522 terms in float32): about what a cache takes."""
_GROUP_ELSEWHERE = 8192
_MODULES = "a masked language model with SpladePooling, or SparseStaticEmbedding"


@dataclass(frozen=True)
class _Route:
    """What texts of one kind go through. special: whether its tokenizer adds [CLS] and the like."""

    modules: list[Any]
    prompt: str
    max_length: int | None
    special: bool

    def tokens(self, texts: Sequence[str]) -> Tokens:
        given = [self.prompt + text for text in texts]
        return tokenize(self.modules[0].tokenizer, given, self.max_length, special=self.special)


class Splade:
    """Terms of a sentence-transformers SparseEncoder, by name or path; a plain masked language model is pooled by max.

    Maximum and sum, prompts, lengths of queries and of documents, `max_active_dims`, and other modules for queries than
    for documents (a Router: no model, only a weight a term) come from the model's files. precision: "auto" (bfloat16
    where the hardware has it) or "float32".

    Proven, on random weights: in float32 the result is SparseEncoder's to 1e-5; in bfloat16 a text's weights have a
    cosine of 0.998 and more to those. Not proven: the published effectiveness of the naver models, whose weights were
    not at hand (and are not free for commercial use).
    """

    def __init__(self, model: str, precision: str = "auto") -> None:
        self.name, self.precision = model, precision
        self._folder = find_model(model)

    @cached_property
    def model(self) -> SparseEncoder:
        """The loaded model, in eval mode on the best device there is."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        from sentence_transformers import SparseEncoder
        from transformers.utils import logging

        logging.disable_progress_bar()  # loading bars would write into pipes
        try:
            model = SparseEncoder(str(self._folder), local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as problem:
            raise InputError(f"{self._folder}: sentence-transformers cannot load it: {problem}") from None
        check_tokenizer(self._folder)
        return model

    @cached_property
    def _routes(self) -> dict[str, _Route]:
        return {kind: self._route(kind) for kind in ("document", "query")}

    def _route(self, kind: str) -> _Route:
        modules = list(self.model)
        if type(modules[0]).__name__ == "Router":
            modules = [*modules[0].sub_modules[_way(modules[0], kind, self._folder)], *modules[1:]]
        names = [type(module).__name__ for module in modules]
        static = names == ["SparseStaticEmbedding"]
        if not static and not (names[1:] == ["SpladePooling"] and hasattr(modules[0], "auto_model")):
            raise InputError(
                f"{self._folder}: has {', '.join(names)} for a {kind}; expected {_MODULES}: a term index needs weights "
                "of the vocabulary's terms"
            )
        first = modules[0]
        longest = getattr(first, f"{kind}_length", None) or first.max_seq_length
        return _Route(modules, prompt(self.model, kind), _bounded(longest), not static)

    @cached_property
    def _expanders(self) -> dict[str, _Expander]:
        """By kind of text, for those that a transformer reads; the same object where it is the same transformer."""
        made: dict[int, _Expander] = {}
        for route in self._routes.values():
            first = route.modules[0]
            if route.special and id(first) not in made:
                made[id(first)] = _Expander(first.auto_model, self.model.device, self.precision)
        return {kind: made[id(route.modules[0])] for kind, route in self._routes.items() if route.special}

    @cached_property
    def _static(self) -> dict[str, Any]:
        """float32 [vocabulary] by kind of text: weights of those that no transformer reads."""
        tables = {}
        for kind, route in self._routes.items():
            if not route.special:
                table = route.modules[0].weight.detach().float().cpu().numpy()
                if negative := int((table < 0).sum()):
                    warnings.warn(f"{self._folder}: {negative} terms weigh less than 0 and are left out", stacklevel=2)
                tables[kind] = np.maximum(table, 0)
        return tables

    @cached_property
    def terms(self) -> list[str]:
        """The vocabulary, by token id."""
        sizes = [len(table) for table in self._static.values()] + [e.vocabulary for e in self._expanders.values()]
        return vocabulary(self._routes["document"].modules[0].tokenizer, max(sizes))

    @cached_property
    def weights(self) -> str:
        """SHA-256 over the model's weight files."""
        return weights_digest(self._folder)

    def identity(self) -> Mapping[str, Any]:
        """Model, weights, and for each kind of text its modules, prompt and length, from the loaded model."""
        return {
            "model": self.name,
            "weights": self.weights,
            "max_active_dims": self.model.max_active_dims,
            **{kind: _described(route) for kind, route in self._routes.items()},
        }

    def encode_documents(self, texts: Sequence[str], progress: Callable[[float], None]) -> TermWeights:
        """CSR float32 [n, vocabulary]."""
        return self._encode(texts, "document", progress)

    def encode_queries(self, texts: Sequence[str]) -> TermWeights:
        """CSR float32 [n, vocabulary]."""
        return self._encode(texts, "query", lambda _: None)

    def _encode(self, texts: Sequence[str], kind: str, progress: Callable[[float], None]) -> TermWeights:
        import torch
        from scipy.sparse import csr_array, vstack
        from sentence_transformers.util import select_max_active_dims

        tokens, width = self._routes[kind].tokens(texts), len(self.terms)
        if kind in self._static:
            weights = _looked_up(tokens.ids, self._static[kind], self.model.max_active_dims, width)
            progress(len(texts))
            return TermWeights(weights, self.terms, tokens.truncated)
        order: list[int] = []
        parts: list[Any] = [csr_array((0, width), dtype=np.float32)]
        with torch.inference_mode():
            for place, dense in self._expanders[kind].expand(tokens.ids, self._routes[kind]):
                order += place
                parts.append(_sparse(select_max_active_dims(dense, self.model.max_active_dims), width))
                progress(len(place))
        return TermWeights(vstack(parts, format="csr")[np.argsort(order)], self.terms, tokens.truncated)


class _Expander:
    """A masked language model, its projection to the vocabulary taken off to be computed in our own order."""

    def __init__(self, transformer: Any, device: Any, precision: str) -> None:
        import torch

        trunk, projection = _split(transformer)
        self.runtimes, self.projection = Runtimes(trunk, device, precision), projection
        self.group = _GROUP.get(device.type, _GROUP_ELSEWHERE)
        self.vocabulary: int = transformer.config.vocab_size if projection is None else projection.out_features
        if projection is not None and self.runtimes.bfloat16:
            self.projection = copy.deepcopy(projection).to(torch.bfloat16)

    def expand(self, ids: Sequence[Sequence[int]], route: _Route) -> Iterator[tuple[list[int], Tensor]]:
        """Positions of some of the texts and their weights, float32 [some, vocabulary]; longest texts first."""
        first, pooling = route.modules
        for place, features in hidden_states(ids, first.tokenizer, self.runtimes):
            mask = features["attention_mask"].bool()
            hidden, lengths = features["token_embeddings"][mask], mask.sum(dim=1).tolist()  # [tokens, d]
            for texts, tokens in _groups(lengths, self.group):
                logits = self._logits(hidden[tokens])
                yield place[texts], pool(logits, lengths[texts], pooling.pooling_strategy, pooling.activation_function)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Float [tokens, vocabulary], computed in few sizes: torch keeps memory for each that it has seen."""
        import torch

        if self.projection is None:
            return hidden
        padding = torch.zeros(-len(hidden) % _ROUND, hidden.shape[1], dtype=hidden.dtype, device=hidden.device)
        padded = torch.cat([hidden, padding]).to(self.projection.weight.dtype)  # [tokens and padding, d]
        return self.projection(padded)[: len(hidden)]


def pool(logits: Tensor, lengths: Sequence[int], pooling: str, activation: str = "relu") -> Tensor:
    """float32 [texts, vocabulary] from logits [sum(lengths), vocabulary]: the equation above, by max or sum.

    The logarithm grows with the logit, so the maximum is taken first: the same numbers from fewer logarithms.
    activation: "relu", or "log1p_relu" of the OpenSearch models, which take the logarithm twice (arXiv 2504.14839).
    """
    import torch

    def saturated(values: Tensor) -> Tensor:
        once = values.float().relu().log1p_()
        return once.log1p_() if activation == "log1p_relu" else once

    texts = logits.split(list(lengths))
    if pooling == "max":
        return saturated(torch.stack([text.amax(dim=0) for text in texts]))
    return torch.stack([saturated(text).sum(dim=0) for text in texts])


def _split(transformer: Any) -> tuple[Any, Any]:
    """A masked language model without its last layer, and that layer; (all of it, None) where it does not come off."""
    last = transformer.get_output_embeddings()
    name = next((name for name, module in transformer.named_modules() if module is last), None)
    if last is None or name is None:
        return transformer, None
    trunk = _without(transformer, name)
    return (trunk, last) if _same(transformer, lambda ids: last(trunk(ids)[0])) else (transformer, None)


def _without(module: Any, path: str) -> Any:
    """A module that shares all parts with the given one, but for the part at `path`, which does nothing."""
    from torch.nn import Identity

    changed = copy.copy(module)
    changed._modules = dict(module._modules)
    name, _, rest = path.partition(".")
    changed._modules[name] = _without(module._modules[name], rest) if rest else Identity()
    return changed


def _same(transformer: Any, logits: Callable[[Tensor], Tensor]) -> bool:
    """Whether logits computed in two steps are the model's own."""
    import torch

    ids = torch.arange(2, 10)[None].to(transformer.device)
    with torch.inference_mode():
        try:
            return bool(torch.allclose(transformer(ids)[0], logits(ids), atol=1e-5))
        except RuntimeError:  # the shapes do not fit: something stands behind the last layer
            return False


def _groups(lengths: Sequence[int], most: int) -> Iterator[tuple[slice, slice]]:
    """Neighbouring texts with at most `most` tokens together (or one text): their positions, their tokens'."""
    ends = np.cumsum([0, *lengths])
    start = 0
    while start < len(lengths):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + most, side="right")) - 1)
        yield slice(start, stop), slice(int(ends[start]), int(ends[stop]))
        start = stop


def _sparse(dense: Tensor, width: int) -> csr_array:
    """CSR float32 [n, width] of a dense tensor with at most that many columns."""
    from scipy.sparse import csr_array

    rows, columns = dense.nonzero(as_tuple=True)
    starts = np.searchsorted(rows.cpu().numpy(), np.arange(len(dense) + 1))
    values = dense[rows, columns].cpu().numpy()
    return csr_array((values, columns.cpu().numpy().astype(np.int32), starts), shape=(len(dense), width))


def _looked_up(ids: Sequence[Sequence[int]], table: Any, most: int | None, width: int) -> csr_array:
    """CSR float32 [n, width]: each text's distinct tokens, weighted by a table; only the `most` heaviest."""
    from scipy.sparse import csr_array

    distinct = [np.unique(np.asarray(row, dtype=np.int32)) for row in ids]
    kept = [np.sort(row[np.argsort(-table[row], kind="stable")[:most]]) for row in distinct]
    kept = [row[table[row] > 0] for row in kept]
    columns = np.concatenate([np.zeros(0, np.int32), *kept])
    return csr_array((table[columns], columns, np.cumsum([0, *map(len, kept)])), shape=(len(ids), width))


def _way(router: Any, kind: str, folder: Path) -> str:
    """The name of a Router's route for text of a kind, in sentence-transformers' order of precedence."""
    for asked in ((kind, "text"), (kind, None), (None, "text"), (None, None)):
        if asked in router.route_mappings:
            return str(router.route_mappings[asked])
    for name in (kind, "text"):
        if name in router.sub_modules:
            return name
    raise InputError(f"its Router has no route for a {kind}, only for {', '.join(router.sub_modules)}", folder)


def _bounded(length: int | None) -> int | None:
    """A tokenizer without a limit says 1e30."""
    return length if length is not None and length < 1 << 30 else None


def _described(route: _Route) -> dict[str, Any]:
    modules = route.modules if not route.special else route.modules[1:]
    return {
        "modules": [[type(module).__name__, settings(module)] for module in modules],
        "prompt": route.prompt,
        "max_length": route.max_length,
    }
