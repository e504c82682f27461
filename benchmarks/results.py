"""Effectiveness on BEIR-layout collections: `python benchmarks/results.py DATA --out docs/results.md`.

Each collection is indexed by `retriever index`'s own code path and searched by the systems below, 1000 deep, on its
test split. Nothing is tuned: every setting is the default or stands in the system's name.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

COLLECTIONS = ("scifact", "cranfield", "vaswani", "cacm", "squadshifts_wiki", "msmarco_sample")
SYSTEMS = (
    "bm25",
    "dense",
    "bm25(k=1000) + dense(k=1000) >> rrf",
    "bm25(k=1000) + dense(k=1000) >> wsum(weights=[0.5, 0.5], norm=zscore)",
)
ARITHMETIC = {
    "torch float32": "dense(precision=float32)",
    "torch bfloat16 (without extras)": "dense",
    "openvino bfloat16 (extra `fast`)": "dense",
}
LEARNED = ("scifact", "squadshifts_wiki")
SPARSE = (
    "bm25",
    "dense",
    "splade",
    "bm25(k=1000) + splade(k=1000) >> rrf",
    "splade(k=1000) + dense(k=1000) >> rrf",
    "splade >> rm3 >> splade",
)
MEASURES = ("nDCG@10", "R@100", "RR@10", "AP")

TRAINING = """`*` marks a difference to bm25. Trained on two cores from all-MiniLM-L6-v2, on train splits only, with

    retriever train sparse --base sentence-transformers/all-MiniLM-L6-v2 --out MODEL --data DATA/squadshifts_wiki \\
        --data DATA/squad_sentences --data DATA/msmarco_sample --data DATA/medquad --data DATA/squadshifts_reddit \\
        --data DATA/scifact --dev DATA/squadshifts_wiki --dev DATA/scifact

and measured with `python benchmarks/results.py DATA --splade MODEL --only-splade --out docs/results.md`;
[training.md](training.md) has its course. RM3 is at its defaults here, which drop terms in a tenth of the documents."""

HEADER = """# Results

Test splits, 1000 results a query; `*` marks a difference to bm25 with p < .05 (paired t-test, Holm's correction over
the collection's table). Made with `make results` (`python benchmarks/results.py DATA --out docs/results.md`) on
{machine}; one collection by hand:

    retriever index DATA/scifact INDEX --skip-bad
    retriever search INDEX --queries DATA/scifact -k 1000 --pipeline "dense" --run dense.trec
    retriever eval dense.trec --qrels DATA/scifact/qrels/test.tsv -m nDCG@10 -m R@100 -m RR@10 -m AP

- bm25: tantivy, k1 = 1.2, b = 0.75, title and text joined; lower-cased, Lucene's 33 English stop words, Snowball
  English stemmer, words over 40 bytes dropped.
- dense: sentence-transformers/all-MiniLM-L6-v2 (256 tokens), FAISS `Flat`, encoded by {runtime}.
- A document without title and text is a bad record and left out (`--skip-bad`).
"""


def main() -> None:
    """Index, search and measure each collection; write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--splade", help="a model that `retriever train sparse` made")
    parser.add_argument("--only-splade", action="store_true", help="make that section alone")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.only_splade:
        put(options.out, learned(options.data, options.splade))
        return
    sections = [section(options.data / name) for name in COLLECTIONS if (options.data / name).is_dir()]
    sections.append(precision(options.data / COLLECTIONS[0]))
    if options.splade:
        sections.append(learned(options.data, options.splade))
    from machine import describe, runtime

    others = (
        re.split(r"^(?=## )", options.out.read_text(encoding="utf-8"), flags=re.M)[1:] if options.out.exists() else []
    )
    page = HEADER.format(machine=describe(), runtime=runtime()) + "\n" + "\n".join(sections)
    options.out.write_text(page, encoding="utf-8")
    made = {section.partition("\n")[0] for section in sections}
    for other in others:  # of the other scripts
        if other.partition("\n")[0] not in made:
            put(options.out, other)


def put(page: Path, section: str) -> None:
    """Replace the section of the same heading, or append it."""
    heading = section.partition("\n")[0]
    parts = re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.M)
    kept = [part.rstrip() for part in parts]
    places = [i for i, part in enumerate(kept) if part.partition("\n")[0] == heading]
    if places:
        kept[places[0]] = section.rstrip()
    else:
        kept.append(section.rstrip())
    page.write_text("\n\n".join(kept) + "\n", encoding="utf-8")


def section(folder: Path) -> str:
    """One collection's table."""
    from retriever import Qrels, Retriever, evaluate, read_corpus, read_queries
    from retriever.errors import InputError
    from retriever.eval import report

    bad: list[InputError] = []
    qrels = Qrels.read(folder / "qrels" / "test.tsv")
    queries = [query for query in read_queries(folder) if query.id in qrels]
    with tempfile.TemporaryDirectory() as place:
        index = Retriever.create(Path(place) / "index")
        index.add(read_corpus(folder, on_bad=bad.append))
        rows = report.report(
            [(system, evaluate(index.run(queries, pipeline=system), qrels, MEASURES)) for system in SYSTEMS]
        )
        info = index.info()
    documents, cut = info["documents"], info["views"]["dense"]["truncated"]
    notes = f"{documents:,} documents ({cut:,} cut to 256 tokens, {len(bad)} empty left out), {len(queries):,} queries"
    return "\n".join([f"## {folder.name}", "", f"{notes}.", "", *markdown(report.values_table(rows))]) + "\n"


TRAINED = "## A SPLADE encoder trained here"


def learned(data: Path, model: str) -> str:
    """A SPLADE model beside BM25 and dense, and the same weights in 8 bits."""
    from retriever import Qrels, Retriever, evaluate, read_corpus, read_queries
    from retriever.eval import report

    parts = [TRAINED, "", TRAINING, ""]
    for name in LEARNED:
        qrels = Qrels.read(data / name / "qrels" / "test.tsv")
        queries = [query for query in read_queries(data / name) if query.id in qrels]
        with tempfile.TemporaryDirectory() as place:
            index = Retriever.create(Path(place) / "index", ["bm25", "dense", f"splade('{model}')"])
            index.add(read_corpus(data / name))
            runs = [(system, evaluate(index.run(queries, pipeline=system), qrels, MEASURES)) for system in SPARSE]
            postings = index.info()["views"]["splade"]["bytes"]
            index = Retriever.prepare(Path(place) / "index", [f"splade('{model}', bits=8)"])
            runs.append(("splade, bits=8", evaluate(index.run(queries, pipeline="splade"), qrels, MEASURES)))
        table = markdown(report.values_table(report.report(runs)))
        parts += [f"### {name}", "", f"The splade view takes {postings / 1e6:.1f} MB.", "", *table, ""]
    return "\n".join(parts)


def markdown(table: list[list[str]]) -> list[str]:
    """A table's lines; printed too, since a collection takes minutes."""
    header, *body = ["| " + " | ".join(cells) + " |" for cells in table]
    lines = [header, "| --- " + "| ---: " * (len(table[0]) - 1) + "|", *body]
    print(*lines, sep="\n", flush=True)
    return lines


def precision(folder: Path) -> str:
    """The default encoder in each arithmetic, on one collection: effectiveness must not depend on it."""
    from retriever import Qrels, Retriever, evaluate, read_corpus, read_queries
    from retriever.eval import report

    qrels = Qrels.read(folder / "qrels" / "test.tsv")
    queries = [query for query in read_queries(folder) if query.id in qrels]
    runs = []
    for name, view in ARITHMETIC.items():
        if name.startswith("torch"):
            sys.modules["openvino"] = None  # type: ignore[assignment] # as on a machine without the extra `fast`
        else:
            sys.modules.pop("openvino", None)
        with tempfile.TemporaryDirectory() as place:
            index = Retriever.create(Path(place) / "index", [view])
            index.add(read_corpus(folder))
            runs.append((name, evaluate(index.run(queries), qrels, MEASURES)))
    table = markdown(report.values_table(report.report(runs)))
    return "\n".join([f"## Arithmetic, on {folder.name}", "", "`*` marks a difference to float32.", "", *table]) + "\n"


if __name__ == "__main__":
    main()
