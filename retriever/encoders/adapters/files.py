"""An adapter on disk: a folder with adapter.json and adapter.safetensors; for LoRA, PEFT's two files beside them.

What an adapter was trained on is known by a digest of the transformer's *body*: its weights without any head. So one
adapter fits a language model, an encoder and a cross-encoder that have the same body.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retriever.encoders.models import find_model, sha256
from retriever.errors import InputError
from retriever.store.files import replacing

SETTINGS, WEIGHTS = "adapter.json", "adapter.safetensors"
PEFT_SETTINGS = "adapter_config.json"
KINDS = ("lora", "bottleneck", "mask")
HEAD = "head."
"""Before the names of parameters outside of the body, which an adapter of a cross-encoder brings whole."""
_FILES = ("*.json", "*.safetensors", "*.bin")


@dataclass(frozen=True)
class AdapterSettings:
    """What adapter.json says. kind: one of KINDS. role: language or ranking. base: the model that it was trained on, as
    it was named then; weights: the digest of its body; none for an adapter that PEFT made. options: the kind's own.
    """

    kind: str
    role: str | None
    base: str
    weights: str | None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapter:
    """An adapter that was found. name: as it was given."""

    name: str
    folder: Path
    settings: AdapterSettings

    def tensors(self) -> dict[str, Any]:
        """The tensors of adapter.safetensors, by name; none where there is no such file.

        Raises: InputError where it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / WEIGHTS
        try:
            return dict(load_file(path)) if path.exists() else {}
        except (OSError, SafetensorError) as problem:
            raise InputError(f"cannot be read as an adapter's weights: {problem}", path) from None

    def digest(self) -> str:
        """SHA-256 over all that decides what the adapter does."""
        files = sorted(path for pattern in _FILES for path in self.folder.glob(pattern) if path.name.startswith("adap"))
        listing = [[path.name, sha256(path)] for path in files]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def find_adapter(name: str) -> Adapter:
    """An adapter by its folder, or of PEFT by a name on the hub.

    Raises: InputError where there is none.
    """
    folder = find_model(name)
    path = folder / SETTINGS
    if not path.exists():
        if (folder / PEFT_SETTINGS).exists():
            base = str(_json(folder / PEFT_SETTINGS).get("base_model_name_or_path"))
            return Adapter(name, folder, AdapterSettings("lora", None, base, None))
        raise InputError(f"holds no adapter: neither {SETTINGS} nor PEFT's {PEFT_SETTINGS}", folder)
    try:
        settings = AdapterSettings(**_json(path))
    except TypeError as problem:
        raise InputError(f"does not describe an adapter: {problem}", path) from None
    if settings.kind not in KINDS:
        raise InputError(f"an adapter is {', '.join(KINDS)}, not {settings.kind!r}", path)
    return Adapter(name, folder, settings)


def save_adapter(folder: Path, settings: AdapterSettings, tensors: Mapping[str, Any]) -> None:
    """Write adapter.json and adapter.safetensors, each whole or not at all; without tensors only the first."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if tensors:
        with replacing(folder / WEIGHTS) as temporary:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    with replacing(folder / SETTINGS) as temporary:
        temporary.write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")


def body_of(model: Any) -> Any:
    """The transformer inside a transformers model, or the model itself where it is one."""
    return getattr(model, "base_model", model)


def body_parameters(model: Any) -> dict[str, Any]:
    """The parameters of the body by their names in it. A pooler is left out: language models have none."""
    return {name: value for name, value in body_of(model).named_parameters() if not name.startswith("pooler.")}


def head_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """All other parameters of a model, by their names in it."""
    body = {id(value) for value in body_parameters(model).values()}
    return ((name, value) for name, value in model.named_parameters() if id(value) not in body)


def body_digest(model: Any) -> str:
    """SHA-256 over the names, shapes and float32 values of the body's parameters."""
    digest = hashlib.sha256()
    for name, value in sorted(body_parameters(model).items()):
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise InputError(f"is not JSON: {problem}", path) from None
    if not isinstance(kept, dict):
        raise InputError("is no JSON object", path)
    return kept
