"""Small trained parts on top of a cross-encoder whose own weights stay as they are.

PARADE, CEDR, early exit and IDCM's selector each add one. A *head folder* is the cross-encoder's folder, whole, with
two files more: so it can be moved and copied, and every other reranker reads it as the cross-encoder that it still is.
`retriever train head` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from retriever.encoders.batches import Tokens, tokenize
from retriever.errors import InputError
from retriever.rerankers.classifier import bounded, check_scores_pairs, is_plain, load

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

SETTINGS, WEIGHTS = "head.json", "head.safetensors"
_CHARACTERS = 16
"""Of a text, for each token that is read of it: a million words are not tokenised for the first few."""
_AT_ONCE = 64
"""Texts that are tokenised at once: a tokenizer takes some hundred bytes for each token."""


class Head(Protocol):
    """What training needs of a method: features that are computed once, and a module that is trained on them."""

    method: ClassVar[str]
    """As `retriever train head` and head.json call it."""
    teacher: ClassVar[bool]
    """Whether the loss reads the cross-encoder's own scores."""
    module: Module
    """features of n pairs (a list, as `features` gives them) -> float32 [n, ...], scores first to last as the pairs."""

    def features(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """Of each (query, text), without gradients: what the frozen model makes of it, small enough for memory."""

    def texts(self, positive: str, negatives: Sequence[str]) -> list[str]:
        """What one example scores with its query: as a rule the texts as they are, the relevant one first."""

    def loss(self, scores: Tensor, teacher: Tensor | None) -> Tensor:
        """scores: float32 [texts, ...] of one example, as `texts` gives them; teacher: its logits, float32 [texts]."""

    def settings(self) -> dict[str, Any]:
        """What head.json keeps beside the method, to build the module again."""


def save_head(folder: Path, head: Head) -> None:
    """Write a head's two files into a folder that holds its cross-encoder."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in head.module.state_dict().items()}, folder / WEIGHTS)
    kept = {"method": head.method, **head.settings()}
    (folder / SETTINGS).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any] | None:
    """What head.json keeps; none where the folder has no head. Raises: InputError where it is damaged."""
    path = folder / SETTINGS
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as problem:
        raise InputError(f"is not JSON: {problem}", path) from None
    if not isinstance(kept, dict):
        raise InputError("is no JSON object", path)
    return kept


def head_settings(folder: Path, method: str) -> dict[str, Any]:
    """What head.json keeps.

    Raises: InputError where the folder has no head, or that of another method.
    """
    kept = read_settings(folder)
    made = f"make one with: retriever train head {method} --base CROSS_ENCODER --data FOLDER --out FOLDER"
    if kept is None:
        raise InputError(f"holds no trained head for {method}; {made}", folder)
    if kept.get("method") != method:
        raise InputError(f"holds a head for {kept.get('method')}, not for {method}; {made}", folder / SETTINGS)
    return kept


def load_weights(folder: Path, module: Module) -> None:
    """Fill a module from a head folder, in place.

    Raises: InputError where the file is missing, damaged, or of a module of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as problem:
        raise InputError(f"cannot be read as this head's weights: {problem}", folder / WEIGHTS) from None
    module.eval()


class BertParts(NamedTuple):
    """A cross-encoder that is a BERT, taken apart. bert: the transformer; its pooler is that of the classifier. weight,
    bias: of the one output (of two, the second less the first), float32 [1, d] and [1]. length: tokens it reads. whole:
    sentence-transformers' CrossEncoder around it.
    """

    bert: Any
    weight: Tensor
    bias: Tensor
    tokenizer: Any
    length: int
    device: Any
    whole: Any


def bert_parts(folder: Path, method: str) -> BertParts:
    """The cross-encoder of a folder, in eval mode and float32.

    Raises: InputError where it is none, or of a build that cannot be taken apart. method: for the message.
    """
    check_scores_pairs(folder)
    whole = load(folder)
    model, kind = whole.model, whole.config.model_type
    if kind != "bert" or not is_plain(whole):
        raise InputError(f"{folder}: {method} needs a BERT-type sequence classifier, such as MiniLM; this is a {kind}")
    weight, bias = one_output(model.classifier, folder)
    positions = int(model.config.max_position_embeddings)
    length = min(bounded(whole.max_seq_length) or positions, positions)
    return BertParts(model.bert, weight, bias, whole.tokenizer, length, whole.device, whole)


def one_output(linear: Any, folder: Path) -> tuple[Tensor, Tensor]:
    """A cross-encoder's last layer as float32 [1, d] and [1]; of two outputs, the second less the first.

    Raises: InputError where it has more.
    """
    weight, bias = linear.weight.detach(), linear.bias.detach()  # [labels, d], [labels]
    if len(weight) not in (1, 2):
        raise InputError(f"{folder}: has {len(weight)} outputs; a reranker has one, or two classes")
    return (weight[1:] - weight[:1], bias[1:] - bias[:1]) if len(weight) == 2 else (weight, bias)


def beginnings(tokenizer: Any, texts: Sequence[str], most: int) -> Tokens:
    """At most so many tokens of each text, without special ones and without the tokenizer's encodings."""
    characters = most * _CHARACTERS
    ids: list[list[int]] = []
    cut = np.array([len(text) > characters for text in texts], dtype=np.bool_)
    for first in range(0, len(texts), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        tokens = tokenize(tokenizer, [text[:characters] for text in texts[part]], most, special=False)
        ids += tokens.ids
        cut[part] |= tokens.cut
    return Tokens(ids, cut, [])
