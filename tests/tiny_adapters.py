"""Adapters with random weights for tiny models, in folders as training leaves them."""

from pathlib import Path
from typing import Any

from retriever.encoders.adapters.bottleneck import last_norms, new_adapter
from retriever.encoders.adapters.files import (
    HEAD,
    AdapterSettings,
    body_digest,
    body_of,
    body_parameters,
    head_parameters,
    save_adapter,
)
from retriever.encoders.adapters.lora import quietly
from retriever.encoders.adapters.mask import Change, to_tensors


def bottleneck(folder: Path, model: Any, seed: int = 0, **more: Any) -> str:
    import torch

    torch.manual_seed(seed)
    norms = last_norms(model)
    width = norms[0].normalized_shape[0]
    adapter = new_adapter(width, len(norms), 4, invertible=False)
    for value in adapter.parameters():
        torch.nn.init.normal_(value, std=0.3)
    options = {"width": width, "layers": len(norms), "reduction": 4}
    return _saved(folder, model, "bottleneck", options, adapter.state_dict(), **more)


def mask(folder: Path, model: Any, seed: int = 0, **more: Any) -> str:
    """A tenth of each tensor's entries."""
    import torch

    torch.manual_seed(seed)
    changes = {}
    for name, value in body_parameters(model).items():
        count = max(1, value.numel() // 10)
        changes[name] = Change(torch.randperm(value.numel())[:count].sort().values, 0.3 * torch.randn(count))
    return _saved(folder, model, "mask", {"count": 0}, to_tensors(changes), **more)


def lora(folder: Path, model: Any, seed: int = 0, whole: bool = False, **more: Any) -> str:
    """whole: as PEFT itself leaves it, put on the model with its head, and without adapter.json. `more`: LoraConfig."""
    import copy

    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], **more)
    with quietly():
        made = get_peft_model(copy.deepcopy(model if whole else body_of(model)), settings)
    for name, value in made.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.3)
    made.save_pretrained(str(folder), save_embedding_layers=False)
    return str(folder) if whole else _saved(folder, model, "lora", {"rank": 4}, {})


def _saved(
    folder: Path, model: Any, kind: str, options: dict[str, Any], tensors: dict[str, Any], headed: bool = False
) -> str:
    """headed: with the model's own head."""
    head = {f"{HEAD}{name}": value for name, value in head_parameters(model)} if headed else {}
    settings = AdapterSettings(kind, "language", f"the base of {folder.name}", body_digest(model), options)
    save_adapter(folder, settings, {**tensors, **head})
    return str(folder)
