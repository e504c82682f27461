"""What a system takes: time, memory, room on disk. All of it is measured in the run that makes the results."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from retriever.encoders.models import find_model
from retriever.encoders.runtime import has_bfloat16
from retriever.endpoints import is_endpoint
from retriever.errors import InputError
from retriever.store import manifest as manifests
from retriever.types import Query

WARM = 5
"""Queries that are asked before a clock starts: models load, and files come into memory."""
TIMED = 100
"""Queries that are timed one at a time."""
_LONGEST = 30.0
"""Seconds after which no further query is timed, so that a slow reranker does not cost an hour."""
SAMPLE = 1000
"""Documents whose tokens are counted, spread over the collection."""
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def forget_peak() -> bool:
    """Begin to measure the process's peak memory anew; says whether this system can (Linux).

    What nobody holds any more is given back first. Libraries that an earlier system loaded stay, and are counted.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_mb() -> float:
    """Most memory of the process, in megabytes, since `forget_peak`, or since it began where that cannot be."""
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1 << 20) if sys.platform == "darwin" else most / 1024


def latencies(ask: Callable[[Query], Any], queries: Sequence[Query]) -> tuple[float, float, float]:
    """p50, p95 and p99 of queries one at a time, in milliseconds, of up to 100 of them and up to 30 seconds."""
    taken: list[float] = []
    begun = time.perf_counter()
    for query in queries[:TIMED]:
        start = time.perf_counter()
        ask(query)
        taken.append(1000 * (time.perf_counter() - start))
        if time.perf_counter() - begun > _LONGEST:
            break
    p50, p95, p99 = np.percentile(taken, [50, 95, 99]).tolist()
    return p50, p95, p99


def bytes_of(index: Path, views: Sequence[str]) -> int:
    """What searches of these views read: all their files, but not the vectors that a FAISS index was built from."""
    known = manifests.load(index).views
    total = 0
    for name in views:
        sizes = {path: file.size for path, file in known[name].files.items()}
        built = any(path.endswith(".faiss") for path in sizes)
        total += sum(size for path, size in sizes.items() if not (built and path.endswith(".f32")))
    return total


def parameters(models: Sequence[str]) -> int | None:
    """Numbers in the weights of these models, from the heads of their safetensors files; none where one has no such."""
    counts = [_parameters(model) for model in models]
    return None if not counts or None in counts else sum(filter(None, counts))


def _parameters(model: str) -> int | None:
    if ":" in model:
        return None
    files = list(find_model(model).rglob("*.safetensors"))
    return sum(map(_numbers, files)) if files else None


def _numbers(path: Path) -> int:
    """Of a safetensors file: its first 8 bytes are the length of a JSON object with a shape for each tensor."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(int(np.prod(tensor["shape"])) for name, tensor in head.items() if name != "__metadata__")


def tokens_each(model: str, texts: Sequence[str], most: int | None) -> float | None:
    """Mean tokens of texts as a model reads them, cut to `most`; none where its tokenizer cannot be had."""
    from transformers import AutoTokenizer

    if ":" in model or not texts:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(find_model(model), local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, InputError):
        return None
    ids = tokenizer(list(texts), truncation=most is not None, max_length=most)["input_ids"]
    return float(np.mean([len(row) for row in ids]))


def runs_on(models: Sequence[str], config: dict[str, Any] | None) -> tuple[str, str | None]:
    """Device and precision of what encodes; no precision where nothing does, or where it is not ours to know.

    config: of the view with the model; none for stages.
    """
    import torch

    if any(map(is_endpoint, models)):
        return "a server", None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not models or ":" in models[0]:
        return "cpu" if not models else device, None
    auto = (config or {}).get("precision", "auto") == "auto"
    return device, "bfloat16" if auto and has_bfloat16(device) else "float32"


def machine() -> str:
    """Processor, cores and the versions that decide numbers."""
    import torch

    known = torch.cpu.get_capabilities()
    features = [name for name in ("avx2", "avx512_bf16", "amx_bf16") if known.get(name)]
    processor = f"{os.cpu_count()} cores of {known.get('cpu_name', platform.processor())} ({', '.join(features)})"
    gpu = [torch.cuda.get_device_name(0)] if torch.cuda.is_available() else []
    names = ("retriever-engine", "torch", "openvino", "faiss-cpu", "faiss-gpu", "tantivy", "sentence-transformers")
    return ", ".join([processor, *gpu, *filter(None, map(_version, names))])


def _version(name: str) -> str | None:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return None
