"""Sequence classifiers over pairs of texts, computed in batches of like length by the fastest runtime there is.

sentence-transformers' CrossEncoder loads the model. The transformer runs as an encoder's does (`encoders.runtime`:
bfloat16 where the hardware has it, compiled for many pairs with the extra `fast`); its head, on which the order of like
scores hangs, stays in float32.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retriever.encoders.adapters.files import find_adapter
from retriever.encoders.adapters.stack import Adapters, brings_head, parse_stack
from retriever.encoders.batches import hidden_states
from retriever.encoders.models import check_tokenizer
from retriever.encoders.runtime import INPUTS, Runtime, Runtimes, quiet
from retriever.errors import InputError
from retriever.rerankers.first_token import first_token_only
from retriever.rerankers.pairs import PairTokens, tokenize_pairs
from retriever.types import Floats, Mask

_AT_ONCE = 16_384
"""Pairs whose tokens are held at once: about 100 MB where they have 512 each."""
_PREDICTED = 32
"""Pairs of a batch where sentence-transformers makes the batches."""
Stamp = tuple[tuple[str, int, int], ...]


class Outputs(NamedTuple):
    """values: float32 [n, labels], or [n, d]; cut: bool [n], which pairs were longer than the model reads."""

    values: Floats
    cut: Mask


def classifier(folder: Path, precision: str, adapters: str | None = None) -> Classifier:
    """The model of a folder, loaded once by a process while its files stay as they are. adapters: a stack put on it.

    Raises: InputError where there is none that can be loaded, or an adapter does not fit it.
    """
    folders = [find_adapter(name).folder for term in parse_stack(adapters) for name in term.names] if adapters else []
    return _loaded(folder, precision, adapters, tuple(stamp(each) for each in (folder, *folders)))


def stamp(folder: Path) -> Stamp:
    """The folder's files with size and time, so that a model that was trained anew is loaded anew."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(maxsize=4)  # each search makes its pipeline anew, and a cascade has a few models
def _loaded(folder: Path, precision: str, adapters: str | None, stamps: tuple[Stamp, ...]) -> Classifier:
    return Classifier(folder, precision, adapters)


class Classifier:
    """A loaded model. labels: its outputs. max_length: tokens that it reads of a pair; None where it has no limit.
    pooler: of a BERT, in float32; None for a model of another build.

    A model that is a sequence classifier and no more is run by us. One with modules, prompts or a chat template around
    it, as language models used as rerankers have, is run by sentence-transformers itself, in float32; how many of its
    pairs were cut is not known then.
    """

    def __init__(self, folder: Path, precision: str, adapters: str | None = None) -> None:
        self.folder = folder
        self.model = load(folder, adapters)
        self.labels = int(self.model.num_labels)
        self.tokenizer = self.model.tokenizer
        self.max_length = bounded(self.model.max_seq_length)
        self.segments = getattr(self.model.config, "type_vocab_size", None) or 1
        self.plain = is_plain(self.model)
        self.pooler: Any = None
        if self.plain:
            pooler = copy.deepcopy(getattr(self.model.model.base_model, "pooler", None))  # before any is bfloat16
            self._runtimes, self._head = self._parts(precision)
            if self._runtimes.transformer is not self.model.model:
                self.pooler = pooler

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Outputs:
        """The model's outputs before any activation, in the order of the pairs."""
        if not self.plain:
            values = np.empty((len(pairs), self.labels), dtype=np.float32)
            return Outputs(self._predicted(pairs, values), np.zeros(len(pairs), dtype=np.bool_))
        return self._of_pairs(pairs, self.labels, self._head)

    def pooled(self, pairs: Sequence[tuple[str, str]]) -> Outputs:
        """What `pooler`, in float32, makes of the first token: the vector that a BERT's last layer scores.

        Only for a model that has such a pooler.
        """
        width = int(self.model.config.hidden_size)
        return self._of_pairs(pairs, width, lambda batch: self.pooler(batch["token_embeddings"]))

    def _of_pairs(self, pairs: Sequence[tuple[str, str]], width: int, head: Any) -> Outputs:
        values = np.empty((len(pairs), width), dtype=np.float32)
        cut = np.zeros(len(pairs), dtype=np.bool_)
        for first in range(0, len(pairs), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            tokens = tokenize_pairs(self.tokenizer, pairs[part], self.max_length)
            values[part], cut[part] = self._of_tokens(tokens, width, head), tokens.cut
        return Outputs(values, cut)

    def runtime(self, tokens: int) -> Runtime:
        """What computes so many tokens, where the model is run by us."""
        return self._runtimes.of(tokens)

    def of_tokens(self, tokens: PairTokens) -> Floats:
        """float32 [n, labels]."""
        return self._of_tokens(tokens, self.labels, self._head)

    def _of_tokens(self, tokens: PairTokens, width: int, head: Any) -> Floats:
        import torch

        values = np.empty((len(tokens.ids), width), dtype=np.float32)
        types = tokens.types if "token_type_ids" in self._runtimes.inputs else None
        with torch.inference_mode():
            for place, batch in hidden_states(tokens.ids, self.tokenizer, self._runtimes, types):
                values[place] = head(batch).float().cpu().numpy()
        return values

    def _predicted(self, pairs: Sequence[tuple[str, str]], values: Floats) -> Floats:
        from torch.nn import Identity

        if pairs:
            given = self.model.predict(
                list(pairs), batch_size=_PREDICTED, show_progress_bar=False, activation_fn=Identity()
            )
            values[:] = given.reshape(values.shape)
        return values

    def _parts(self, precision: str) -> tuple[Runtimes, Any]:
        """What runs the transformer, and what makes logits of its output; for the first token alone where that will do.

        Where the model cannot be taken apart, the whole of it, in float32.
        """
        model, device = self.model.model, self.model.device
        inputs = (*INPUTS, "token_type_ids") if "token_type_ids" in self.tokenizer.model_input_names else INPUTS
        head = _head(model)
        for base in (first_token_only(model.base_model), model.base_model):
            if base and head and _same(model, base, head, inputs):
                return Runtimes(base, device, precision, inputs), head
        return Runtimes(model, device, "float32", inputs), lambda batch: batch["token_embeddings"]


def load(folder: Path, adapters: str | None = None) -> Any:
    """sentence-transformers' CrossEncoder, in eval mode and float32 on the best device there is, with a stack of
    adapters put on. Where an adapter brings the head, there is one output without an activation, as in its training.

    Raises: InputError where it cannot be loaded, or an adapter does not fit it.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading bars would write into pipes
    headed = {"num_labels": 1, "activation_fn": torch.nn.Identity()} if adapters and brings_head(adapters) else {}
    try:
        with quiet() if headed else nullcontext():  # on the head that is missing
            model = CrossEncoder(str(folder), local_files_only=True, model_kwargs={"dtype": torch.float32}, **headed)
    except (OSError, ValueError, KeyError) as problem:
        raise InputError(f"{folder}: is not a cross-encoder that can be loaded: {problem}") from None
    if (folder / "config.json").is_file():  # a PEFT adapter's folder has neither: its base model brings both
        check_tokenizer(folder)
    if adapters:
        Adapters(model.model, str(folder)).use(adapters)
    return model.eval()


def check_scores_pairs(folder: Path) -> None:
    """Raises: InputError for a model without a head that scores pairs; from its small files alone."""
    if not scores_pairs(folder):
        raise InputError(
            f"{folder}: is no cross-encoder: its files hold no head that scores pairs. Give a model with one or two "
            "outputs, such as cross-encoder/ms-marco-MiniLM-L6-v2; a bi-encoder belongs in a dense view"
        )


def scores_pairs(folder: Path) -> bool:
    """Whether a model has a head: sentence-transformers would give one without it a random one, and say nothing."""
    modules = [str(module["type"]) for module in _json(folder / "modules.json", [])]
    if modules and (len(modules) > 1 or not modules[0].endswith(".Transformer")):
        return not any(module.endswith(".Pooling") for module in modules)
    config = _json(folder / "config.json", None)
    if config is None:
        return True  # an adapter, whose base model brings the head
    heads = [*(config.get("architectures") or []), *config.get("auto_map", {})]
    return any(name.endswith(("ForSequenceClassification", "ForCausalLM")) for name in heads)


def bounded(length: int | None) -> int | None:
    """A model's length; tokenizers say some number beyond all texts where they know none."""
    return length if length and length < 1_000_000 else None


def is_plain(model: Any) -> bool:
    """Whether a CrossEncoder is one transformer over two texts, and nothing more."""
    first = model[0]
    return (
        len(model) == 1
        and getattr(first, "transformer_task", None) == "sequence-classification"
        and list(first.modality_config) == ["text"]
        and not first.processing_kwargs
        and not any((model.prompts or {}).values())
    )


def _head(model: Any) -> Any:
    """A function from a batch with `token_embeddings` to logits, in float32; none for a model without a base model.

    It is the model itself, whose transformer only hands on what it is given.
    """
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    base = model.base_model
    if base is model:
        return None

    class Given(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.pooler = copy.deepcopy(getattr(base, "pooler", None))  # the base model may turn into bfloat16

        def forward(self, *_: Any, inputs_embeds: Any = None, **__: Any) -> Any:
            pooled = None if self.pooler is None else self.pooler(inputs_embeds)
            return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)

    shell = copy.copy(model)
    shell._modules = {**model._modules, model.base_model_prefix: Given()}

    def head(batch: Any) -> Any:
        given = {"attention_mask": batch["attention_mask"], "inputs_embeds": batch["token_embeddings"]}
        return shell(input_ids=batch["input_ids"], **given).logits

    return head


def _same(model: Any, base: Any, head: Any, inputs: Sequence[str]) -> bool:
    """Whether a head makes of a transformer's output what the model makes of its input."""
    import torch

    ids = torch.arange(1, 25).reshape(2, 12) % model.get_input_embeddings().num_embeddings
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    batch = {name: value.to(model.device) for name, value in zip(INPUTS, (ids, mask), strict=True)}
    if len(inputs) > len(INPUTS):
        batch["token_type_ids"] = (batch["attention_mask"] * 0).long()
    try:
        with torch.inference_mode():
            expected = model(**batch).logits
            given = head({**batch, "token_embeddings": base(**batch)[0]})
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):  # a model of another build
        return False
    return given.shape == expected.shape and bool(torch.allclose(given, expected, atol=1e-5))


def _json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as problem:
        raise InputError(f"is not JSON: {problem}", path) from None
