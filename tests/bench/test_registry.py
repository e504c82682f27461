"""The registry of published numbers: found by what it calls things, and what its sources say."""

import json
from pathlib import Path

import pytest

from retriever.bench.registry import _entries, published
from retriever.bench.sources import Source
from retriever.bench.systems import parse_system
from retriever.eval.measures import Results, parse_measures
from retriever.spec import parse_pipeline

SCORES = Path(__file__).parents[3] / "shared" / "reference" / "reference_scores.json"


def test_systems_and_measures_are_written_as_they_are_looked_up():
    for entry in _entries():
        assert [str(parse_pipeline(system)) for system in entry["systems"]] == entry["systems"]
        for scores in entry["scores"].values():
            assert [str(each) for each in parse_measures(list(scores))] == list(scores)


@pytest.mark.parametrize(
    ("collection", "system", "measure", "value"),
    [
        ("beir:scifact", "bm25(k1=0.9, b=0.4)", "R@1000", 0.9767),
        ("ir:beir/scifact/test", "bm25(language=lucene)", "nDCG@10", 0.6789),
        ("ir:msmarco-passage/dev/small", "bm25(k1=0.82, b=0.68)", "RR@10", 0.1875),
        ("ir:msmarco-passage/trec-dl-2019/judged", "bm25(language=lucene) >> rm3 >> bm25(language=lucene)",
         "nDCG@10", 0.5216),
        ("ir:msmarco-passage/trec-dl-2020", "bm25(k1=0.9, b=0.4)", "nDCG@10", 0.4796),
    ],
)  # fmt: skip
def test_a_number_is_found(collection, system, measure, value):
    qrels = collection if collection.startswith("ir:") else "scifact/qrels/test.tsv"
    results = Results({measure: value + 0.004}, {measure: {"q": value + 0.004}}, 1, 0, 0, 0)
    found = published(Source(collection, collection, collection, qrels), parse_system(system), results)
    assert (found[measure].value, found[measure].within) == (value, True)


@pytest.mark.shared
def test_the_numbers_are_those_of_the_sources():
    if not SCORES.is_file():
        pytest.skip(f"{SCORES} is not there")
    theirs = json.loads(SCORES.read_text())
    flat, *marco = _entries()
    assert flat["scores"] == {name: rows["bm25-flat"] for name, rows in theirs["beir"].items()}
    for entry in marco:
        row = theirs["msmarco-v1-passage"][entry["source"].split(", ")[2].split(" ")[0]]
        dev, dl19, dl20 = (row[name] for name in ("msmarco-v1-passage.dev", "dl19-passage", "dl20-passage"))
        expected = {"dev-small": {"RR@10": dev["MRR@10"], "R@1000": dev["R@1K"]}}
        for year, graded in (2019, dl19), (2020, dl20):
            for judged in ("", "-judged"):
                expected[f"trec-dl-{year}{judged}"] = {"nDCG@10": graded["nDCG@10"]}
        assert entry["scores"] == {f"ir:msmarco-passage-{name}": scores for name, scores in expected.items()}
