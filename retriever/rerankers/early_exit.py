"""Early exit: a pair that a lower layer is sure of is not read by the layers above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from scipy.special import expit

from retriever.encoders.batches import by_budget
from retriever.encoders.models import find_model
from retriever.errors import InputError
from retriever.rerankers.bert_layers import BertLayers, bert_layers, padded
from retriever.rerankers.classifier import Stamp, check_scores_pairs, stamp
from retriever.rerankers.cross_encoder import activated, check
from retriever.rerankers.heads import head_settings, load_weights
from retriever.rerankers.pairs import PairTokens, tokenize_pairs
from retriever.tallies import tally
from retriever.types import Floats, Mask, Rows

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

_AT_ONCE = 16_384
"""Pairs whose tokens are held at once: about 100 MB where they have 512 each."""
_TOKENS = 65_536
"""Tokens whose states are in memory at once, padding included: 100 MB where they have 384 numbers."""


@dataclass(frozen=True)
class EarlyExitConfig:
    """model: a folder that `retriever train head early-exit` made. relevant, irrelevant: a pair is read no further when
    a layer gives the one or the other a probability above this; above 1, never. depth: how many documents of each list
    it reads. precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    model: str
    relevant: float = 0.95
    irrelevant: float = 0.95
    depth: int = 100
    precision: str = "auto"

    def __post_init__(self) -> None:
        check(self.depth, self.precision)
        if self.relevant < 0 or self.irrelevant < 0:
            raise ValueError("relevant and irrelevant must be at least 0")


class _Read(NamedTuple):
    """values: float32 [n], logits; layers: int64 [n], how many were read for each."""

    values: Floats
    layers: Rows


class EarlyExit:
    """Early-exiting monoBERT (Xin et al., SustaiNLP 2020): behind every layer but the last stands a pooler with a
    classifier, and a pair leaves at the first layer whose P(relevant) is above `relevant` or whose 1 - P is above
    `irrelevant`. What goes on is packed into full batches again, so a layer is run for those alone that need it.

    The score is the logit of the layer where a pair left, through the cross-encoder's own activation. Scores of
    different layers stand beside each other because the classifiers learn the whole model's probabilities. The paper
    trains them together with the transformer on judgements; here that stays as it is (`EarlyExitHead`), so with the
    thresholds above 1 the scores are the cross-encoder's own. P is the logistic function of the logit: a probability
    for a model that was trained with cross-entropy; for others the thresholds are only numbers to be tried out.

    layers: int64 [n], of the pairs of the last call, how many layers were read for each; layers_read: their mean over
    all calls. A pair that is too long is cut and tallied, as by `cross-encoder`.

    Proven, on random weights: thresholds above 1 give the cross-encoder's scores to 1e-5, thresholds of 0 the first
    layer's; pairs leave where the rule written out says, later under higher thresholds; in float32 the other pairs of
    a batch change no score. Not proven: the paper's 2.5-fold speed at little loss, for want of its weights.
    """

    Config = EarlyExitConfig

    def __init__(self, config: EarlyExitConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        check_scores_pairs(self._folder)
        head_settings(self._folder, EarlyExitHead.method)
        self.layers: Rows = np.zeros(0, dtype=np.int64)
        self._total = self._pairs = 0

    @property
    def layers_read(self) -> float:
        """The mean number of layers that a pair was read by; 0 where there was none."""
        return self._total / self._pairs if self._pairs else 0.0

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], in the order of the pairs."""
        logits = self.logits(pairs)
        return activated(logits, self._head.model.whole) if len(pairs) else logits

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], before any activation."""
        import torch

        values, self.layers = np.empty(len(pairs), dtype=np.float32), np.zeros(len(pairs), dtype=np.int64)
        cut = 0
        for first in range(0, len(pairs), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            tokens = _tokens(self._head.model, pairs[part])
            cut += int(tokens.cut.sum())
            with torch.inference_mode():
                values[part], self.layers[part] = self._read(tokens)
        if pairs:
            most = self._head.model.max_length
            tally(f"pairs were longer than the {most} tokens that {self.config.model} reads, and cut", cut)
        self._total, self._pairs = self._total + int(self.layers.sum()), self._pairs + len(pairs)
        return values

    @cached_property
    def _head(self) -> EarlyExitHead:
        return _loaded(self._folder, self.config.precision, stamp(self._folder))

    def _read(self, tokens: PairTokens) -> _Read:
        """Some pairs, longest first, so many batches at a time."""
        head, config = self._head, self.config
        read = _Read(np.empty(len(tokens.ids), dtype=np.float32), np.empty(len(tokens.ids), dtype=np.int64))
        for place in by_budget([len(row) for row in tokens.ids], _TOKENS):
            going, rows = place, _embedded(head.model, tokens, place)
            for number in range(1, head.model.count + 1):
                values, rows = _one_layer(head, number, rows)
                left = _sure(values, config) if number < head.model.count else np.ones(len(going), dtype=np.bool_)
                for i in np.flatnonzero(left).tolist():
                    read.values[going[i]], read.layers[going[i]] = values[i], number
                stay = np.flatnonzero(~left).tolist()
                going, rows = [going[i] for i in stay], [rows[i] for i in stay]
                if not going:
                    break
        return read


class EarlyExitHead:
    """What `retriever train head early-exit` trains: of every layer but the last a pooler and a classifier. They begin
    as the cross-encoder's own, and learn its probabilities from the first token's states.
    """

    method: ClassVar[str] = "early-exit"
    teacher: ClassVar[bool] = True

    def __init__(self, folder: Path, precision: str = "auto") -> None:
        """folder: of a cross-encoder.

        Raises: InputError where it is none, no BERT, or of one layer, behind which there is nothing to be saved.
        """
        self.model = bert_layers(folder, precision, self.method)
        if self.model.count < 2:
            raise InputError(f"{folder}: has one layer; early-exit needs two or more")
        self.module = _exits(self.model)

    def features(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """Of each pair, the first token's states behind every layer but the last: float16 [layers - 1, d]."""
        import torch

        tokens = _tokens(self.model, pairs)
        made = np.empty((len(pairs), self.model.count - 1, self.model.width), dtype=np.float16)
        with torch.inference_mode():
            for place in by_budget([len(row) for row in tokens.ids], self.model.budget):
                hidden, mask = self.model.embed([tokens.ids[i] for i in place], [tokens.types[i] for i in place])
                for layer in range(self.model.count - 1):
                    hidden = self.model.through(hidden, mask, layer, layer + 1)
                    made[place, layer] = hidden[:, 0].float().cpu().numpy()
        return list(made)

    def texts(self, positive: str, negatives: Sequence[str]) -> list[str]:
        """The texts as they are."""
        return [positive, *negatives]

    def loss(self, scores: Tensor, teacher: Tensor | None) -> Tensor:
        """The cross-entropy between the probabilities of each layer and of the whole model, summed over the layers.

        scores: float32 [texts, layers - 1]; teacher: the whole model's logits, float32 [texts].
        """
        import torch

        assert teacher is not None
        wanted = torch.sigmoid(teacher)[:, None].expand_as(scores)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
        return losses.mean(dim=0).sum()

    def settings(self) -> dict[str, Any]:
        """Nothing: the cross-encoder says what the module looks like."""
        return {}


@lru_cache(maxsize=2)  # each search makes its pipeline anew
def _loaded(folder: Path, precision: str, stamp: Stamp) -> EarlyExitHead:
    head = EarlyExitHead(folder, precision)
    load_weights(folder, head.module)
    head.module.to(head.model.device)
    return head


def _exits(model: BertLayers) -> Module:
    """A module from the first token's states to logits, on the CPU: float32 [n, layers - 1]."""
    import torch

    first, count = model.head(), model.count - 1

    class Exits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            copies = [each.detach().cpu().float().expand(count, *each.shape).clone() for each in first]
            names = ("pooler", "pooler_bias", "weight", "bias")
            for name, value in zip(names, copies, strict=True):
                setattr(self, name, torch.nn.Parameter(value))

        def forward(self, features: Sequence[Any]) -> Tensor:
            """features: n times float16 [layers - 1, d]."""
            states = torch.from_numpy(np.stack(features)).float()  # [n, layers - 1, d]
            return torch.stack([self.behind(layer + 1, states[:, layer]) for layer in range(count)], dim=1)

        def behind(self, number: int, states: Tensor) -> Tensor:
            """The logits of one layer, float32 [n]. number: from 1; states: float32 [n, d]."""
            own = number - 1
            pooled = torch.tanh(states @ self.pooler[own].T + self.pooler_bias[own])  # [n, d]
            return pooled @ self.weight[own] + self.bias[own]

    return Exits()


def _tokens(model: BertLayers, pairs: Sequence[tuple[str, str]]) -> PairTokens:
    return tokenize_pairs(model.tokenizer, pairs, model.max_length)


def _embedded(model: BertLayers, tokens: PairTokens, place: Sequence[int]) -> list[Tensor]:
    """What the first layer is given of these pairs, [tokens, d] each."""
    lengths = [len(tokens.ids[i]) for i in place]
    rows: list[Tensor] = []
    for batch in by_budget(lengths, model.budget):  # in the order of `place`, which is longest first
        own = [place[j] for j in batch]
        hidden, _ = model.embed([tokens.ids[i] for i in own], [tokens.types[i] for i in own])
        rows += [states[: lengths[j]] for j, states in zip(batch, hidden, strict=True)]
    return rows


def _one_layer(head: EarlyExitHead, number: int, rows: Sequence[Tensor]) -> tuple[Floats, list[Tensor]]:
    """The logits behind a layer, float32 [n], and the states, [tokens, d] each; from the states before, longest first.

    number: from 1.
    """
    model = head.model
    lengths = [len(row) for row in rows]
    values = np.empty(len(rows), dtype=np.float32)
    after: list[Tensor] = []
    for batch in by_budget(lengths, model.budget):
        hidden, mask = padded([rows[j] for j in batch])
        hidden = model.through(hidden, mask, number - 1, number)
        first = hidden[:, 0].float()  # [n, d]
        logits = model.logits(first) if number == model.count else head.module.behind(number, first)
        values[batch] = logits.cpu().numpy()
        after += [states[: lengths[j]] for j, states in zip(batch, hidden, strict=True)]
    return values, after


def _sure(logits: Floats, config: EarlyExitConfig) -> Mask:
    """Which pairs a layer is sure enough of, bool [n]."""
    wide = logits.astype(np.float64)
    sure: Mask = (expit(wide) > config.relevant) | (expit(-wide) > config.irrelevant)  # -: 1 - P, in full precision
    return sure
