"""PARADE's aggregation: the vectors of a document's passages into one, and that into a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retriever.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

LAYERS = 2
"""Of the transformer that reads passages."""


def aggregation(aggregator: str, config: Any, linear: Any, start: Any) -> Any:
    """A torch module: n documents, each float [passages, d] -> float32 [n], their scores.

    config: of the BERT whose sizes the transformer has. linear: torch.nn.Linear(d, 1). start: float32 [d], the word
    embedding of [CLS], behind which the transformer reads the passages. Beside `linear`, which is given, weights begin
    so: attention's vector at zero, which is the mean; the transformer's at random.

    `aggregate` takes states, float32 [n, most passages, d], and real, bool [n, most passages]: what stands where `real`
    is false, counts nowhere.
    """
    import torch

    class Aggregation(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear
            if aggregator == "attention":
                self.query = torch.nn.Parameter(torch.zeros(linear.in_features))
            if aggregator == "transformer":
                self.start = torch.nn.Parameter(start)
                self.layers = torch.nn.ModuleList(_layer(config) for _ in range(LAYERS))

        def forward(self, documents: Sequence[Floats]) -> Tensor:
            return self.linear(self.aggregate(*padded(documents))).squeeze(-1)

        def aggregate(self, states: Tensor, real: Tensor) -> Tensor:
            """float32 [n, d]."""
            return _JOINS[aggregator](self, states, real)

    return Aggregation()


def shares(logits: Tensor, real: Tensor) -> Tensor:
    """float32 [n, most passages]: what each passage counts in a mean; 0 for those that are not there."""
    made: Tensor = logits.masked_fill(~real, float("-inf")).softmax(dim=1)
    return made


def _max(_: Any, states: Tensor, real: Tensor) -> Tensor:
    return states.masked_fill(~real.unsqueeze(-1), float("-inf")).amax(dim=1)


def _avg(_: Any, states: Tensor, real: Tensor) -> Tensor:
    return _mean(states, real, shares(states.new_zeros(states.shape[:2]), real))


def _attention(module: Any, states: Tensor, real: Tensor) -> Tensor:
    return _mean(states, real, shares(states @ module.query, real))


def _mean(states: Tensor, real: Tensor, weights: Tensor) -> Tensor:
    return (weights.unsqueeze(-1) * states.masked_fill(~real.unsqueeze(-1), 0)).sum(dim=1)


def _transformer(module: Any, states: Tensor, real: Tensor) -> Tensor:
    import torch

    rows = torch.cat([module.start.expand(len(states), 1, -1), states], dim=1)  # [n, 1 + most passages, d]
    unreal = torch.nn.functional.pad(~real, (1, 0))
    for layer in module.layers:
        rows = layer(rows, src_key_padding_mask=unreal)
    return rows[:, 0]


_JOINS = {"max": _max, "avg": _avg, "attention": _attention, "transformer": _transformer}


def padded(documents: Sequence[Floats]) -> tuple[Tensor, Tensor]:
    """float32 [n, most passages, d], and bool [n, most passages]: which of them there are."""
    import torch

    states = [torch.from_numpy(each).float() for each in documents]
    counts = torch.tensor([len(each) for each in states])
    real = torch.arange(int(counts.max())) < counts.unsqueeze(1)
    return torch.nn.utils.rnn.pad_sequence(states, batch_first=True), real


def _layer(config: Any) -> Any:
    """An encoder layer with the sizes, activation, dropout and random start of a BERT's."""
    import torch
    from transformers.activations import ACT2FN

    layer = torch.nn.TransformerEncoderLayer(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.hidden_dropout_prob,
        ACT2FN[config.hidden_act],
        config.layer_norm_eps,
        batch_first=True,
    )
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=config.initializer_range)
    return layer
