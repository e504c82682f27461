"""Published figures on the collections in ../shared/data, through the whole engine; skipped where those are absent."""

from pathlib import Path

import pytest

from retriever import Qrels, Retriever, evaluate, read_corpus, read_queries

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
pytestmark = pytest.mark.shared


def collection(name: str, tmp_path: Path) -> tuple[Retriever, list, Qrels]:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not there")
    qrels = Qrels.read(DATA / name / "qrels" / "test.tsv")
    index = Retriever.create(tmp_path / name, ["bm25(k1=0.9, b=0.4, language=lucene)"])
    index.add(read_corpus(DATA / name))
    return index, [query for query in read_queries(DATA / name) if query.id in qrels], qrels


def test_bm25_on_scifact_is_anserinis(tmp_path):
    """Pyserini's BEIR page: nDCG@10 .6789, R@100 .9253 (BM25 "flat", k1 = 0.9, b = 0.4)."""
    index, queries, qrels = collection("scifact", tmp_path)
    means = evaluate(index.run(queries), qrels, ["nDCG@10", "R@100"]).means
    assert means["nDCG@10"] == pytest.approx(0.6789, abs=5e-4)
    assert means["R@100"] == pytest.approx(0.9253, abs=5e-4)


def test_rm3_on_cacm_and_vaswani_is_lucenes(tmp_path):
    """AP that Pyserini 1.6.0 gave on the same files (docs/lucene.md): BM25, then RM3, with Anserini's defaults."""
    for name, bm25, rm3 in ("cacm", 0.3251, 0.3201), ("vaswani", 0.2856, 0.2955):
        index, queries, qrels = collection(name, tmp_path)
        plain = evaluate(index.run(queries, pipeline="bm25"), qrels, ["AP"]).means["AP"]
        expanded = evaluate(index.run(queries, pipeline="bm25 >> rm3 >> bm25"), qrels, ["AP"]).means["AP"]
        assert plain == pytest.approx(bm25, abs=1e-3)
        assert expanded == pytest.approx(rm3, abs=1e-3)
