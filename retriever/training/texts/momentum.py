"""Contrastive learning beside a momentum encoder and its queue (He et al., CVPR 2020), as ESimCSE does it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

    from retriever.training.settings import EsimcseTraining

FILE = "momentum.safetensors"
"""Of a checkpoint: all of the loss but the model, which stands beside it."""


def contrast(model: SentenceTransformer, settings: EsimcseTraining, checkpoint: Path | None = None) -> Any:
    """The loss, a module: `model`, `head` (dense, tanh) behind it, both once more as they were on average, and `queue`.

    queue: float32 [at most settings.queue, d]. checkpoint: where all but the model is taken from.
    """
    import torch
    from safetensors.torch import load_file

    class Contrast(torch.nn.Module):  # type: ignore[misc]
        queue: Tensor

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(settings.seed)
            width = model.get_embedding_dimension()
            self.model = model
            self.head = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Tanh())
            self.slow = torch.nn.Sequential(*(deepcopy(module) for module in model))
            self.slow_head = deepcopy(self.head)
            for module in (self.slow, self.slow_head):
                module.requires_grad_(False).eval()  # without dropout, always
            self.register_buffer("queue", torch.zeros(0, width))

        def forward(self, texts: list[dict[str, Any]], labels: Any = None) -> Tensor:
            first, second = (self.head(self.model(dict(text))["sentence_embedding"]) for text in texts)
            loss = info_nce(first, second, self.queue, settings.temperature)
            follow(self.slow, self.model, settings.momentum)
            follow(self.slow_head, self.head, settings.momentum)
            with torch.no_grad():
                seen = self.slow_head(self.slow(dict(texts[0]))["sentence_embedding"])
            self.queue = push(self.queue, seen, settings.queue)
            return loss

    loss = Contrast()
    if checkpoint:
        kept = load_file(checkpoint / FILE)
        loss.queue = kept.pop("queue")
        loss.load_state_dict(kept, strict=False)
    return loss


def follow(slow: Any, quick: Any, momentum: float) -> None:
    """theta_m <- momentum theta_m + (1 - momentum) theta_e, in place, for all parameters."""
    import torch

    with torch.no_grad():
        for kept, new in zip(slow.parameters(), quick.parameters(), strict=True):
            kept.mul_(momentum).add_(new, alpha=1 - momentum)


def push(queue: Tensor, vectors: Tensor, size: int) -> Tensor:
    """The last `size` vectors, the new ones behind the old."""
    import torch

    grown = torch.cat([queue, vectors.detach().to(queue.dtype)])
    return grown[max(0, len(grown) - size) :]


def info_nce(first: Tensor, second: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Softmax cross-entropy of each cosine with its own partner, among those with all partners and with the queue.

    first, second: float32 [n, d]; queue: float32 [m, d]. One direction only.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    others = normalize(torch.cat([second, queue.to(second.dtype)]).float(), dim=1)
    cosines = normalize(first.float(), dim=1) @ others.T  # [n, n + m]
    return cross_entropy(cosines / temperature, torch.arange(len(first), device=first.device))


def keeping(trainer: Any, loss: Any) -> type:
    """A trainer's class, whose checkpoints hold the loss's own tensors beside the model."""
    from safetensors.torch import save_file

    class Keeping(trainer):  # type: ignore[misc]
        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            super()._save(output_dir, state_dict)
            own = {name: value for name, value in loss.state_dict().items() if not name.startswith("model.")}
            save_file({name: value.contiguous() for name, value in own.items()}, Path(output_dir or "") / FILE)

    return Keeping
