"""Our BM25, RM3 and Rocchio beside Lucene's, in one run: `python benchmarks/lucene.py DATA --out docs/lucene.md`.

Needs the extra `lucene`. Lucene indexes each collection through Pyserini with its default English analysis, title and
text joined; ours is the view `bm25(k1=0.9, b=0.4, language=lucene)`. With `--cacm cacm.tar.gz qrels.cacm.txt`, both
from the Anserini repository, CACM is also measured as Anserini publishes it: its files with authors, dates and
citations, which the BEIR form of the collection leaves out, and its own judgements.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from machine import describe

from retriever import Document, Qrels, Query, Retriever, Run, evaluate, read_corpus, read_queries
from retriever.indexers import lucene_jvm

COLLECTIONS = ("scifact", "vaswani", "cacm")
MEASURES = ("nDCG@10", "AP", "R@100")
SYSTEMS = {"BM25": "bm25", "BM25 + RM3": "bm25 >> rm3 >> bm25", "BM25 + Rocchio": "bm25 >> rocchio >> bm25"}
PUBLISHED = {
    ("scifact", "BM25"): "nDCG@10 .6789, R@100 .9253 (Pyserini, BEIR)",
    ("cacm, as Anserini has it", "BM25"): "AP .3123 (Anserini)",
    ("cacm, as Anserini has it", "BM25 + RM3"): "AP .3648 (Anserini)",
}

HEADER = """# Beside Lucene

BM25 with k1 = 0.9 and b = 0.4, RM3 and Rocchio with Anserini's defaults, 1000 results a query, test queries. Made with

    python benchmarks/lucene.py {arguments} --out docs/lucene.md

on {machine}, pyserini {pyserini}.
Lucene's rows are Pyserini's own searches over an index that it built in the same run. Ours are the pipelines {systems}
over the view `bm25(k1=0.9, b=0.4, language=lucene)`, whose analysis is Lucene's default English one without Java.
overlap@10: the mean share of Lucene's first ten that are among our first ten.
"""


def main() -> None:
    """Measure each collection; write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--cacm", type=Path, nargs=2, metavar=("ARCHIVE", "QRELS"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sections = []
    for name in COLLECTIONS:
        folder = options.data / name
        qrels = Qrels.read(folder / "qrels" / "test.tsv")
        sections.append(section(name, list(read_corpus(folder)), list(read_queries(folder)), qrels))
    if options.cacm:
        archive, judged = options.cacm
        queries = list(read_queries(options.data / "cacm"))
        sections.append(section("cacm, as Anserini has it", list(files_of(archive)), queries, Qrels.read(judged)))
    from importlib.metadata import version

    header = HEADER.format(
        arguments="DATA" + (" --cacm cacm.tar.gz qrels.cacm.txt" if options.cacm else ""),
        machine=describe(),
        pyserini=version("pyserini"),
        systems=", ".join(f"`{pipeline}`" for pipeline in SYSTEMS.values()),
    )
    options.out.write_text(header + "\n" + "\n".join(sections), encoding="utf-8")


def section(name: str, documents: Sequence[Document], queries: Sequence[Query], qrels: Qrels) -> str:
    """One collection's table."""
    asked = [query for query in queries if query.id in qrels]
    lines = [
        f"## {name}",
        "",
        f"{len(documents):,} documents, {len(asked)} queries.",
        "",
        f"| | {' | '.join(MEASURES)} | overlap@10 | published |",
        f"| --- |{' ---: |' * (len(MEASURES) + 1)} --- |",
    ]
    with tempfile.TemporaryDirectory() as place:
        index = Retriever.create(Path(place) / "index", ["bm25(k1=0.9, b=0.4, language=lucene)"])
        index.add(documents)
        lucene = Lucene(Path(place) / "lucene", documents)
        for system, pipeline in SYSTEMS.items():
            theirs, ours = lucene.run(system, asked), index.run(asked, pipeline=pipeline)
            lines.append(row(f"Lucene {system}", theirs, qrels, "", PUBLISHED.get((name, system), "")))
            lines.append(row(f"ours, {system}", ours, qrels, f"{overlap(theirs, ours):.3f}", ""))
    print("\n".join(lines), end="\n\n", flush=True)
    return "\n".join(lines) + "\n"


def row(name: str, run: Run, qrels: Qrels, shared: str, published: str) -> str:
    """One line of the table."""
    means = evaluate(run, qrels, MEASURES).means
    return f"| {name} | {' | '.join(f'{means[measure]:.4f}' for measure in MEASURES)} | {shared} | {published} |"


def overlap(theirs: Run, ours: Run) -> float:
    """The mean share of their first ten results that are among our first ten."""
    shares = []
    for query, ranking in theirs.items():
        first = list(ranking)[:10]
        shares.append(len(set(first).intersection(list(ours.get(query, {}))[:10])) / len(first))
    return statistics.mean(shares)


class Lucene:
    """Pyserini's indexer and searcher, as its users call them."""

    def __init__(self, folder: Path, documents: Sequence[Document]) -> None:
        lucene_jvm.java("java.lang.System")  # starts the machine before Pyserini would
        os.environ.setdefault("OPENAI_API_KEY", "none")  # Pyserini cannot be imported without one
        from pyserini.index.lucene import LuceneIndexer

        indexer = LuceneIndexer(args=["-index", str(folder), "-storeDocvectors"], threads=2)
        for document in documents:
            indexer.add_doc_dict({"id": document.id, "contents": document.contents})
        indexer.close()
        self.folder = folder

    def run(self, system: str, queries: Sequence[Query]) -> Run:
        """One system's rankings."""
        from pyserini.search.lucene import LuceneSearcher

        searcher: Any = LuceneSearcher(str(self.folder))
        searcher.set_bm25(0.9, 0.4)
        if system.endswith("RM3"):
            searcher.set_rm3()
        if system.endswith("Rocchio"):
            searcher.set_rocchio()
        found = searcher.batch_search([query.text for query in queries], [query.id for query in queries], k=1000)
        rankings = {query: {hit.docid: hit.score for hit in hits} for query, hits in found.items()}
        return Run.ranked(rankings, f"lucene-{system}")


def files_of(archive: Path) -> Iterator[Document]:
    """The text of each HTML file in Anserini's CACM archive."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if file := tar.extractfile(member):
                page = Page()
                page.feed(file.read().decode("utf-8"))
                page.close()
                yield Document(Path(member.name).stem, " ".join(page.text).strip())


class Page(HTMLParser):
    """The text of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []

    def handle_data(self, data: str) -> None:
        """Called for each run of text."""
        self.text.append(data)


if __name__ == "__main__":
    main()
