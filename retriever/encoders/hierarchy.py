"""HMDE's hierarchy (arXiv 2305.07016): how documents are split, and the transformer over their segments' vectors."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from retriever.passages import Splitting

SETTINGS, WEIGHTS, LOWER = "hmde.json", "upper.safetensors", "lower"
"""What an HMDE folder holds: these two files, and the sentence encoder in a folder of its own."""
LAYOUTS = ("residual", "bert")
POOLINGS = ("mean", "dcls")
QUERIES = ("lower", "documents")
_EPSILON, _SPREAD = 1e-12, 0.02
"""BERT's, of its layer norms and of its random start."""


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """unit, window, stride: how documents are split (`passages.Splitting`; stride none: segments do not overlap).
    segments: the most of one document, evenly spaced where there are more (32 in the paper).
    layers, heads, feed_forward, dropout: of the transformer; no layers: the mean of the segments' vectors.
    layout: `bert`, as in the paper: a layer norm on what goes in and one behind each part of a layer, all at random at
    the start. Or `residual`: layer norms before each part, and the matrices that end it at zero, so that the untrained
    hierarchy is the mean of the segments' vectors and a training with few pairs begins there.
    pooling: `mean` of what the transformer makes of the segments, or `dcls`: what it makes of a document token before
    them (of the layout `bert`). positions: whether it is told the segments' order.
    queries: `lower`: the sentence encoder alone reads them; `documents`: they go through the hierarchy as documents do.
    """

    unit: str = "words"
    window: int | None = None
    stride: int | None = None
    segments: int = 32
    layers: int = 2
    heads: int = 8
    feed_forward: int = 2048
    dropout: float = 0.1
    layout: str = "residual"
    pooling: str = "mean"
    positions: bool = True
    queries: str = "lower"

    def __post_init__(self) -> None:
        for name, known in (("layout", LAYOUTS), ("pooling", POOLINGS), ("queries", QUERIES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {' or '.join(known)}, not {getattr(self, name)!r}")
        for name, least in (("segments", 1), ("layers", 0), ("heads", 1), ("feed_forward", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.pooling == "dcls" and (self.layout != "bert" or not self.layers):
            raise InputError("pooling dcls needs layers in the layout bert: others begin at the mean")

    @property
    def splitting(self) -> Splitting:
        """How documents are split. Raises: InputError where they cannot be."""
        from retriever.passages import Splitting

        try:
            plain = Splitting(self.unit, self.window, cap=self.segments)
            return replace(plain, stride=plain.size if self.stride is None else self.stride)
        except ValueError as problem:
            raise InputError(str(problem)) from None


def hierarchy_of(settings: Hierarchy) -> Hierarchy:
    """The hierarchy's own part of settings that hold more."""
    return Hierarchy(**{field.name: getattr(settings, field.name) for field in fields(Hierarchy)})


def upper(settings: Hierarchy, dimension: int) -> Any:
    """A torch module: segments, float32 [n, most, d], and which there are, bool [n, most] -> unit float32 [n, d].

    With pooling `mean` there is no document token: the paper's code seems to put one there all the same.

    Raises: InputError where the heads do not divide the dimension.
    """
    import torch
    from torch import nn

    if settings.layers and dimension % settings.heads:
        raise InputError(f"{settings.heads} heads do not divide vectors of {dimension} dimensions; give another number")
    bert = settings.layout == "bert"

    class Upper(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            if settings.layers and settings.positions:
                self.positions = nn.Parameter(torch.zeros(settings.segments, dimension))
            if settings.pooling == "dcls":
                self.dcls = nn.Parameter(torch.zeros(dimension))
            if settings.layers and bert:
                self.norm = nn.LayerNorm(dimension, _EPSILON)
                self.dropout = nn.Dropout(settings.dropout)
            self.layers = nn.ModuleList(_layer(settings, dimension) for _ in range(settings.layers))
            _start(self, bert=bert)

        def forward(self, segments: Tensor, real: Tensor) -> Tensor:
            rows = segments + self.positions[: segments.shape[1]] if hasattr(self, "positions") else segments
            if hasattr(self, "dcls"):
                rows = torch.cat([self.dcls.expand(len(rows), 1, -1), rows], dim=1)  # [n, 1 + most, d]
                real = nn.functional.pad(real, (1, 0), value=True)
            if hasattr(self, "norm"):
                rows = self.dropout(self.norm(rows))
            for layer in self.layers:
                rows = layer(rows, src_key_padding_mask=~real)
            pooled = rows[:, 0] if hasattr(self, "dcls") else _mean(rows, real)
            return nn.functional.normalize(pooled, dim=-1)

    return Upper()


def _layer(settings: Hierarchy, dimension: int) -> Any:
    from torch import nn

    return nn.TransformerEncoderLayer(
        dimension,
        settings.heads,
        settings.feed_forward,
        settings.dropout,
        "gelu",
        layer_norm_eps=_EPSILON,
        batch_first=True,
        norm_first=settings.layout != "bert",
    )


def _start(module: Any, *, bert: bool) -> None:
    """BERT's random start; in the other layout what ends each part of a layer, and the positions, stay at zero."""
    from torch import nn

    for name, parameter in module.named_parameters():
        if "norm" in name:
            continue
        ending = name.endswith(("out_proj.weight", "linear2.weight", "positions"))
        if name.endswith("bias") or (ending and not bert):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=_SPREAD)


def _mean(rows: Tensor, real: Tensor) -> Tensor:
    total = rows.masked_fill(~real.unsqueeze(-1), 0).sum(dim=1)  # [n, d]
    mean: Tensor = total / real.sum(dim=1, keepdim=True)
    return mean


def padded(vectors: Any, counts: list[int]) -> tuple[Tensor, Tensor]:
    """float32 [n, most, d], and bool [n, most]: which there are; of segments [all, d], one document's behind another's.

    vectors: a tensor, or float32 of NumPy.
    """
    import torch

    parts = torch.as_tensor(vectors).split(counts)
    real = torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(1)
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), real.to(parts[0].device)


def save_hierarchy(folder: Path, settings: Hierarchy, module: Any) -> None:
    """Write the transformer and its settings into a folder; the sentence encoder is not part of it."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous().cpu() for name, tensor in module.state_dict().items()}, folder / WEIGHTS)
    text = json.dumps(asdict(hierarchy_of(settings)), indent=2) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")


def is_hmde(folder: Path) -> bool:
    """Whether a folder holds a hierarchical encoder."""
    return (folder / SETTINGS).is_file()


def read_hierarchy(folder: Path) -> Hierarchy:
    """The settings of an HMDE folder. Raises: InputError where they are missing or damaged."""
    path = folder / SETTINGS
    try:
        return Hierarchy(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, InputError) as problem:
        raise InputError(f"is no hierarchy's settings: {problem}", path) from None


def load_upper(folder: Path, settings: Hierarchy, dimension: int) -> Any:
    """The transformer of an HMDE folder, in eval mode. Raises: InputError where its file is missing or does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    module = upper(settings, dimension)
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as problem:
        raise InputError(f"cannot be read as this hierarchy's weights: {problem}", folder / WEIGHTS) from None
    return module.eval()
