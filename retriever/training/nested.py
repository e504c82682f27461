"""Training of nested feed-forward layers (MatFormer; `encoders.matformer`) under any loss of queries and texts.

Before the first step the weightiest units of each layer come to its front (`nest`): without training for this a model
has them anywhere. Then for each batch one width is drawn, all as likely, and holds for all layers. As it will be in a
search, only the queries are read so; texts are always read by the whole model, to which the small queries thereby stay
close. (The paper's loss reads everything at the drawn width: its small models meet each other.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from retriever.encoders.matformer import KEY, WIDTHS, feed_forward_layers, units_of
from retriever.progress import advance, bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers import SentenceTransformer
    from torch import Tensor

FEATURE = "width"
"""What a batch's features call the width that they are to be read with; without it, all units are."""
ASKED = 512
"""Queries on which the units of a model that is not nested yet are weighed."""


def nest(model: SentenceTransformer, queries: Sequence[str]) -> None:
    """Write into a model's configuration that its layers are nested. If it did not say so, each layer's weightiest
    units, by `queries`, come to the front before, and it computes the same. docs/results.md has what that brings.
    """
    config = model[0].auto_model.config
    if not getattr(config, KEY, None):
        _bring_forward(model, queries)
    config.matformer = list(WIDTHS)


def _bring_forward(model: SentenceTransformer, queries: Sequence[str]) -> None:
    """A unit weighs what it adds to its layer's output: the root mean square of its activation over the queries' tokens
    times the norm of its outgoing weights. DynaBERT (Hou et al., NeurIPS 2020, arXiv 2004.04037) rewires layers before
    it trains their widths too, by a loss's gradients; Wanda (Sun et al., ICLR 2024, arXiv 2306.11695) weighs by
    activations, as here.
    """
    import torch

    layers = feed_forward_layers(model[0].auto_model, "the base")
    squares = [torch.zeros(layer.output.dense.in_features) for layer in layers]

    def weigh(number: int, _module: Any, _given: Any, hidden: Tensor) -> None:
        squares[number] += hidden.float().square().sum(dim=(0, 1)).cpu()

    hooks = [layer.intermediate.register_forward_hook(partial(weigh, number)) for number, layer in enumerate(layers)]
    with bar("weighing units", "queries", total=len(queries)):
        for query in queries:  # one by one: padding would weigh too
            model.encode_query(query, show_progress_bar=False)
            advance(1)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for layer, square in zip(layers, squares, strict=True):
            up, down = layer.intermediate.dense, layer.output.dense
            added = square.sqrt().to(down.weight.device) * down.weight.norm(dim=0)
            order = added.argsort(descending=True, stable=True)
            for weights in (up.weight, up.bias, down.weight.T):
                weights.copy_(weights[order])


def unmark(model: SentenceTransformer) -> None:
    """Take out of a model's configuration that its layers are nested."""
    if transformer := getattr(model[0], "auto_model", None):
        vars(transformer.config).pop(KEY, None)


class Nesting:
    """A model whose hidden units behind a width are silent, so that it computes and learns what `matformer.narrowed`
    does. usual: the width of what is read without one of its own.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model, self.usual, self._now = model, 1.0, 1.0
        model[0].register_forward_pre_hook(self._read)
        for layer in feed_forward_layers(model[0].auto_model, "the base"):
            layer.intermediate.register_forward_hook(self._silence)

    def _read(self, _module: Any, given: tuple[dict[str, Any]]) -> None:
        self._now = given[0].pop(FEATURE, self.usual)

    def _silence(self, _module: Any, _given: Any, hidden: Tensor) -> Tensor:
        import torch

        if self._now == 1:
            return hidden
        units = units_of(hidden.shape[-1], self._now)
        return torch.nn.functional.pad(hidden[..., :units], (0, hidden.shape[-1] - units))

    def encoders(self) -> dict[str, Callable[..., Any]]:
        """The smaller encoders of queries, by what a measurement is called."""
        return {f"at_{width}": partial(self._encode, width) for width in WIDTHS[:-1]}

    def _encode(self, width: float, texts: Sequence[str], **given: Any) -> Any:
        with self._at(width):
            return self.model.encode_query(texts, **given)

    @contextmanager
    def _at(self, width: float) -> Iterator[None]:
        self.usual = width
        try:
            yield
        finally:
            self.usual = 1.0


def nested_loss(model: SentenceTransformer, loss: Any) -> Any:
    """A loss around another, whose first column, the queries, is read at the width that is drawn."""
    import torch

    class Nested(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = model, loss

        def forward(self, columns: Sequence[dict[str, Any]], labels: Tensor | None) -> Any:
            queries, *texts = columns
            width = WIDTHS[int(torch.randint(len(WIDTHS), ()))]
            return self.loss([{**queries, FEATURE: width}, *texts], labels)

    return Nested()
