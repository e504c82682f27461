"""A BERT cross-encoder in its parts: embeddings, layer after layer, and what makes a logit of the first token.

For rerankers that leave a model before its end, or begin in the middle. torch runs the layers, in bfloat16 where the
hardware has it; the pooler and the classifier, on which the order of like scores hangs, stay in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.encoders.runtime import has_bfloat16
from retriever.errors import InputError
from retriever.rerankers.classifier import Stamp, stamp
from retriever.rerankers.first_token import first_token_only
from retriever.rerankers.heads import bert_parts

if TYPE_CHECKING:
    from torch import Tensor


def bert_layers(folder: Path, precision: str, method: str) -> BertLayers:
    """The model of a folder, loaded once by a process while its files stay as they are. method: for messages.

    Raises: InputError where there is none that can be taken apart.
    """
    return _loaded(folder, precision, method, stamp(folder))


@lru_cache(maxsize=2)  # each search makes its pipeline anew
def _loaded(folder: Path, precision: str, method: str, stamp: Stamp) -> BertLayers:
    return BertLayers(folder, precision, method)


class BertLayers:
    """count: its layers; width: d, of their states; dtype: of those. max_length: tokens that it reads of a pair.
    budget: tokens of one batch, padding included. whole: sentence-transformers' CrossEncoder.

    Its methods are to be called in `torch.inference_mode()`.
    """

    def __init__(self, folder: Path, precision: str, method: str) -> None:
        import torch

        parts = bert_parts(folder, method)
        bert = parts.bert
        bert.set_attn_implementation("sdpa")  # the masks below are of its form
        shortened = first_token_only(bert)
        if shortened is None:
            raise InputError(f"{folder}: {method} cannot use it: its tokens see only those before them")
        self._pooler = copy.deepcopy(bert.pooler)  # the transformer may turn into bfloat16
        self._weight, self._bias = parts.weight, parts.bias
        self.whole, self.tokenizer, self.device = parts.whole, parts.tokenizer, parts.device
        bfloat16 = precision != "float32" and has_bfloat16(self.device.type)
        self.dtype = torch.bfloat16 if bfloat16 else torch.float32
        bert.to(self.dtype)
        self._embeddings, self._layers = bert.embeddings, list(shortened.encoder.layer)
        self._typed = "token_type_ids" in self.tokenizer.model_input_names
        self.count, self.width = len(self._layers), int(bert.config.hidden_size)
        self.max_length = parts.length
        self.budget = 2048 if self.device.type == "cpu" else 65_536

    def embed(
        self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]], start: int = 0
    ) -> tuple[Tensor, Tensor]:
        """What the first layer is given, [n, longest, d], and the mask, bool [n, longest].

        ids, types: by text, at least one of each. start: the position of the first token.
        """
        import torch

        words, mask = padded([torch.tensor(row, dtype=torch.int64, device=self.device) for row in ids])
        kinds, _ = padded([torch.tensor(row, dtype=torch.int64, device=self.device) for row in types])
        places = torch.arange(start, start + words.shape[1], device=self.device)[None]  # [1, longest]
        given = kinds if self._typed else torch.zeros_like(kinds)
        return self._embeddings(input_ids=words, token_type_ids=given, position_ids=places), mask

    def through(self, hidden: Tensor, mask: Tensor, first: int, stop: int) -> Tensor:
        """States behind the layers [first, stop), from those before: [n, longest, d].

        Behind the last layer they are of the first token alone, [n, 1, d]: the head reads no other. mask: bool
        [n, longest].
        """
        length = mask.shape[1]
        seen = None if bool(mask.all()) else mask[:, None, None].expand(-1, 1, length, -1)  # [n, 1, longest, longest]
        for layer in self._layers[first:stop]:
            hidden = layer(hidden, seen)
        return hidden

    def logits(self, first: Tensor) -> Tensor:
        """float32 [n], from the first token's states behind the last layer, [n, d].

        The single output; of two, the second less the first, as `CrossEncoder.logits` has it.
        """
        import torch

        pooled = self._pooler(first.float()[:, None])  # [n, d]: it takes the first of [n, 1, d]
        return torch.nn.functional.linear(pooled, self._weight, self._bias)[:, 0]

    def head(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `logits` reckons with: weight [d, d] and bias [d] of the pooler, [d] and [] of the one output."""
        return self._pooler.dense.weight, self._pooler.dense.bias, self._weight[0], self._bias[0]


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tensors of one length, [n, longest, ...], with zeros behind them, and bool [n, longest]: what is there."""
    import torch

    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    together = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return together, torch.arange(together.shape[1], device=lengths.device) < lengths[:, None]
