"""What the numbers of a page were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def describe() -> str:
    """Processor, cores and the versions that matter."""
    import torch

    known = torch.cpu.get_capabilities()
    features = [name for name in ("avx2", "avx512_bf16", "amx_bf16") if known.get(name)]
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "faiss-cpu", "tantivy", "sentence-transformers")
    )
    return (
        f"{os.cpu_count()} cores of {known.get('cpu_name', platform.processor())} ({', '.join(features)}), {packages}"
    )


def runtime() -> str:
    """The runtime that encodes a corpus here."""
    from retriever.encoders.models import DEFAULT_MODEL
    from retriever.encoders.runtime import COMPILE
    from retriever.encoders.sentence_transformer import SentenceTransformerEncoder

    return SentenceTransformerEncoder(DEFAULT_MODEL).runtime(COMPILE).name
