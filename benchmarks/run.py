"""Speed beside what a user would use instead, in one run: `python benchmarks/run.py --out docs/benchmarks.md`.

Every comparison alternates its contenders over several rounds and quotes medians; ratios are to the first row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from retriever import Document, Query, Retriever, read_corpus, read_queries
from retriever.encoders.models import DEFAULT_MODEL, find_model

ROUNDS = 5
Timed = Callable[[], Any]


def alternate(contenders: dict[str, Timed], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each contender; they take turns, after one unmeasured turn each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            started = time.perf_counter()
            contender()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def table(title: str, unit: str, items: int, seconds: dict[str, float], notes: dict[str, str] | None = None) -> str:
    """One comparison as Markdown: items a second and the ratio to the first row."""
    first = next(iter(seconds.values()))
    lines = [f"### {title}", "", f"| | {unit}/s | ratio | |", "| --- | ---: | ---: | --- |"]
    for name, value in seconds.items():
        lines.append(f"| {name} | {items / value:,.1f} | {first / value:.2f} | {(notes or {}).get(name, '')} |")
    text = "\n".join(lines) + "\n"
    print(text, flush=True)
    return text


def encoding(documents: Sequence[Document]) -> str:
    """`SentenceTransformer.encode` with its defaults against indexing end to end."""
    from sentence_transformers import SentenceTransformer

    from retriever.encoders.sentence_transformer import SentenceTransformerEncoder

    texts = [document.contents for document in documents]
    peer = SentenceTransformer(str(find_model(DEFAULT_MODEL)), device="cpu")
    tokens = statistics.mean(len(ids) for ids in peer.tokenizer(texts, truncation=True, max_length=256)["input_ids"])
    reference = peer.encode(texts, normalize_embeddings=True)
    encoders = {
        "without extras": SentenceTransformerEncoder(DEFAULT_MODEL),
        "with the extra `fast`": SentenceTransformerEncoder(DEFAULT_MODEL),
        "in float32, as on a processor without bfloat16": SentenceTransformerEncoder(DEFAULT_MODEL, "float32"),
    }
    with without_openvino():
        encoders["without extras"].encode_documents(texts, lambda _: None)  # chooses its runtime for good
    contenders: dict[str, Timed] = {"SentenceTransformer.encode": lambda: peer.encode(texts)}
    notes = {}
    for name, encoder in encoders.items():
        vectors = encoder.encode_documents(texts, lambda _: None).vectors
        cosine = float((vectors * reference).sum(axis=1).min())
        notes[f"index {name}"] = (
            f"{encoder.runtime(round(tokens * len(texts))).name}; least cosine to the first row {cosine:.5f}"
        )
        contenders[f"index {name}"] = lambda encoder=encoder: index_with(documents, encoder)  # type: ignore[misc]
    contenders["the floor"] = products(peer[0].auto_model.config, round(tokens * len(texts)))
    notes["the floor"] = "the products with the weights alone, in torch's bfloat16: no attention, nothing between them"
    seconds = alternate(contenders, rounds=3)
    title = f"Encoding: {len(texts)} documents of {tokens:.0f} tokens; `index`: read, store, encode, BM25, commit"
    return table(title, "documents", len(texts), seconds, notes)


def products(config: Any, tokens: int) -> Timed:
    """A BERT's products of so many tokens with its layers' weights, in bfloat16, 2,048 tokens at a time."""
    import torch

    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    shapes = [(hidden, hidden)] * 4 + [(inner, hidden), (hidden, inner)]
    weights = [torch.randn(shape).bfloat16() for _ in range(layers) for shape in shapes]
    read = {width: torch.randn(2048, width).bfloat16() for width in (hidden, inner)}

    @torch.inference_mode()
    def once() -> None:
        for _ in range(tokens // 2048):
            for weight in weights:
                torch.nn.functional.linear(read[weight.shape[1]], weight)

    return once


@contextmanager
def without_openvino() -> Iterator[None]:
    """As on a machine without the extra `fast`."""
    installed = sys.modules.get("openvino")
    sys.modules["openvino"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["openvino"]
        if installed:
            sys.modules["openvino"] = installed


def index_with(documents: Sequence[Document], encoder: Any) -> None:
    """Index from a file with both default views, with an encoder whose model is loaded already."""
    from retriever.indexers.dense import Dense
    from retriever.writer import Writer

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        lines = ({"_id": d.id, "title": d.title, "text": d.text} for d in documents)
        corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
        Retriever.create(Path(folder) / "index")
        with Writer(Path(folder) / "index") as writer:
            view = writer.view("dense")
            assert isinstance(view, Dense)
            view.encoder = encoder
            writer.add(read_corpus(corpus))


def lexical(documents: Sequence[Document], queries: Sequence[Query]) -> list[str]:
    """Raw tantivy and bm25s against the bm25 view: build, then search."""
    with tempfile.TemporaryDirectory() as folder:
        new = (Path(folder) / str(number) for number in count())
        build: dict[str, Callable[[], Any]] = {
            "raw tantivy": lambda: RawTantivy(next(new), documents),
            "bm25s": lambda: RawBm25s(documents),
            "bm25 view": lambda: built(next(new), ["bm25"], documents),
        }
        title = f"BM25: build, {len(documents):,} documents (ours: stored, committed, fsynced)"
        pages = [table(title, "documents", len(documents), alternate(build))]
        raw, peer, index = (make() for make in build.values())
        for k in (10, 1000):
            search: dict[str, Timed] = {
                "raw tantivy, ids from its store": lambda k=k: raw.search(queries, k),  # type: ignore[misc]
                "bm25s": lambda k=k: peer.search(queries, k),  # type: ignore[misc]
                "bm25 view, `run`": lambda k=k: index.run(queries, k),  # type: ignore[misc]
            }
            title = f"BM25: {len(queries)} queries, k = {k}, ids and scores"
            pages.append(table(title, "queries", len(queries), alternate(search)))
    return pages


class RawBm25s:
    """What a bm25s user writes: English stop words, Snowball stemmer, our k1 and b."""

    def __init__(self, documents: Sequence[Document]) -> None:
        import bm25s
        import Stemmer

        self.ids = [document.id for document in documents]
        self.tokenize = partial(bm25s.tokenize, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)
        self.model = bm25s.BM25(k1=1.2, b=0.75)
        self.model.index(self.tokenize([document.contents for document in documents]), show_progress=False)

    def search(self, queries: Sequence[Query], k: int) -> dict[str, dict[str, float]]:
        """Ids and scores of each query."""
        tokens = self.tokenize([query.text for query in queries])
        rows, scores = self.model.retrieve(tokens, k=k, show_progress=False)
        lists = zip(queries, rows.tolist(), scores.tolist(), strict=True)
        return {q.id: dict(zip((self.ids[row] for row in found), values, strict=True)) for q, found, values in lists}


class RawTantivy:
    """What a tantivy user writes: the same analyzer and fields, ids stored in the index."""

    def __init__(self, folder: Path, documents: Sequence[Document]) -> None:
        import tantivy

        from retriever.analyzers import analyzer

        folder.mkdir()
        builder = tantivy.SchemaBuilder().add_text_field("id", stored=True, tokenizer_name="raw")
        for name in ("contents", "title"):
            builder = builder.add_text_field(name, tokenizer_name="analyzer")
        self.schema, self.analyzer = builder.build(), analyzer("english")
        self.index = tantivy.Index(self.schema, path=str(folder))
        self.index.register_tokenizer("analyzer", self.analyzer)
        writer = self.index.writer(heap_size=128_000_000, num_threads=2)
        for document in documents:
            writer.add_document(tantivy.Document(id=document.id, contents=document.contents, title=document.title))
        writer.commit()
        writer.wait_merging_threads()
        self.index.reload()

    def search(self, queries: Sequence[Query], k: int) -> dict[str, dict[str, float]]:
        """Ids and scores of each query."""
        import tantivy

        searcher = self.index.searcher()
        results = {}
        for query in queries:
            terms = [
                (tantivy.Occur.Should, tantivy.Query.term_query(self.schema, "contents", t))
                for t in self.analyzer.analyze(query.text)
            ]
            hits = searcher.search(tantivy.Query.boolean_query(terms), k, count=False).hits
            results[query.id] = {searcher.doc(at).get_first("id"): score for score, at in hits}
        return results


def built(folder: Path, views: Sequence[str], documents: Sequence[Document]) -> Retriever:
    """An index of the documents."""
    index = Retriever.create(folder, views)
    index.add(documents)
    return index


def dense(size: int, queries: int) -> list[str]:
    """Raw FAISS against the dense view, on vectors of 384 dimensions that cost nothing to encode."""
    import faiss
    from random_encoder import RandomEncoder

    documents = [Document(f"d{i}", f"text {i}") for i in range(size)]
    asked = [Query(f"q{i}", f"query {i}") for i in range(queries)]
    encoder = RandomEncoder()
    vectors = encoder.encode_queries([document.text for document in documents]).vectors
    ids = [document.id for document in documents]
    raw = faiss.IndexFlatIP(encoder.dimension)
    raw.add(vectors)
    pages = []
    with tempfile.TemporaryDirectory() as folder:
        index = built(Path(folder) / "index", ["dense(random_encoder:RandomEncoder)"], documents)

        def search_raw(k: int) -> Any:
            found = encoder.encode_queries([query.text for query in asked]).vectors
            scores, rows = raw.search(found, k)
            lists = zip(asked, rows.tolist(), scores.tolist(), strict=True)
            return {
                query.id: dict(zip((ids[row] for row in row_list), score_list, strict=True))
                for query, row_list, score_list in lists
            }

        for k in (10, 100, 1000):
            seconds = alternate(
                {
                    "raw FAISS, ids from a list": lambda k=k: search_raw(k),
                    "dense view, `run`": lambda k=k: index.run(asked, k),
                }  # type: ignore[misc]
            )
            title = f"Dense: Flat, {size:,} vectors of 384 dimensions, {queries} queries, k = {k}"
            pages.append(table(title, "queries", queries, seconds))
    return pages


def memory() -> str:
    """Peak memory of indexing a million short documents, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("million.py"))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(printed, flush=True)
    return f"### Memory: `python benchmarks/million.py`, bm25 and dense views, random vectors\n\n{printed}"


def corpus(data: Path) -> tuple[list[Document], list[Query]]:
    """SciFact where it is there, else the documentation of the standard library."""
    if (data / "scifact").is_dir():
        return list(read_corpus(data / "scifact")), read_queries(data / "scifact")[:300]
    examples = Path(__file__).parent.parent / "examples" / "stdlib"
    sys.path.append(str(examples))
    from corpus import documents  # type: ignore[import-not-found]

    made = [Document(d["_id"], d["text"], d["title"]) for d in documents()]
    return made, read_queries(examples / "queries.jsonl")


def main() -> None:
    """Run every comparison and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=["encode", "lexical", "dense", "memory"])
    options = parser.parse_args()
    documents, queries = corpus(options.data)
    rng = np.random.default_rng(0)
    chosen = [documents[i] for i in rng.choice(len(documents), 512, replace=False)]
    pages = [
        *([encoding(chosen)] if options.only in (None, "encode") else []),
        *(lexical(documents, queries) if options.only in (None, "lexical") else []),
        *(dense(100_000, 1000) if options.only in (None, "dense") else []),
        *([memory()] if options.only in (None, "memory") else []),
    ]
    if options.out:
        made = f"Made with `make bench` (`python benchmarks/run.py --out {options.out}`) on {describe()}."
        rest = (__doc__ or "").split("\n", 2)[2]
        options.out.write_text(f"# Benchmarks\n\n{made}\n{rest}\n" + "\n".join(pages), encoding="utf-8")


if __name__ == "__main__":
    main()
