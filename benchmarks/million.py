"""Peak memory and rate of indexing many short documents: `python benchmarks/million.py [COUNT]`.

The encoder is a stand-in, so this measures the engine: reading, storing, BM25, vectors, commits.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path


def write_corpus(path: Path, count: int) -> None:
    """Documents of about 20 words, Zipf-distributed over 50,000, one JSON object a line."""
    words = [f"w{i}" for i in range(50_000)]
    rng = random.Random(0)
    weights = [1 / (i + 1) for i in range(len(words))]
    with path.open("w") as file:
        for start in range(0, count, 10_000):
            drawn = rng.choices(words, weights, k=20 * min(10_000, count - start))
            for i in range(min(10_000, count - start)):
                text = " ".join(drawn[20 * i : 20 * i + 20])
                file.write(json.dumps({"_id": f"d{start + i}", "text": text}) + "\n")


def peak_memory() -> int:
    """Kilobytes; not getrusage's figure, which a child process inherits from the parent that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1])  # type: ignore[index]


def main() -> None:
    """Make the corpus, index it, print what it took."""
    from retriever import Retriever, read_corpus

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_corpus(corpus, count)
        started = time.perf_counter()
        views = ["bm25", "dense(random_encoder:RandomEncoder)"]
        index = Retriever.create(Path(folder) / "index", views=views)
        index.add(read_corpus(corpus))
        seconds = time.perf_counter() - started
        peak = peak_memory() / 1024
        size = index.info()["bytes"]
        rate = f"{count / seconds:,.0f} documents/s"
        print(f"{count:,} documents: {rate}, peak {peak:,.0f} MB resident, index {size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
