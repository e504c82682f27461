"""Training of nested feed-forward layers (MatFormer; `encoders.matformer`) under any loss of queries and texts.

For each batch one width is drawn, all as likely, and holds for all layers. As it will be in a search, only the queries
are read so; texts are always read by the whole model, to which the small queries thereby stay close. (The paper's loss
reads everything at the drawn width: its small models meet each other.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from retriever.encoders.matformer import KEY, WIDTHS, feed_forward_layers, units_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers import SentenceTransformer
    from torch import Tensor

FEATURE = "width"
"""What a batch's features call the width that they are to be read with; without it, all units are."""


def mark(model: SentenceTransformer, *, nested: bool) -> None:
    """Write into the model's configuration, or take out of it, that its layers are nested.

    Raises: InputError where they cannot be.
    """
    transformer = getattr(model[0], "auto_model", None)
    if nested:
        feed_forward_layers(transformer, "the base")
        assert transformer is not None  # it has such layers
        transformer.config.matformer = list(WIDTHS)
    elif transformer is not None:
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
