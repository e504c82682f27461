"""Every collection's judgements, with runs made at random: values are pytrec_eval's, from memory and from a file."""

import random
from collections.abc import Mapping
from pathlib import Path

import pytest
import pytrec_eval

from retriever.eval.measures import evaluate
from retriever.eval.run_files import evaluate_file
from retriever.runs import Qrels, Run

pytestmark = pytest.mark.shared

SHARED = Path(__file__).parents[3] / "shared" / "data"
FILES = [*sorted(SHARED.glob("*/qrels/test.tsv")), *sorted(SHARED.glob("*/qrels.*.txt"))]
NAMES = {"nDCG@10": "ndcg_cut_10", "nDCG": "ndcg", "AP": "map", "AP@100": "map_cut_100", "R@100": "recall_100",
         "P@10": "P_10", "RR": "recip_rank", "Rprec": "Rprec", "Bpref": "bpref", "Success@5": "success_5",
         "NumRet": "num_ret"}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_values_are_pytrec_evals_on_every_collection(path: Path, tmp_path: Path) -> None:
    qrels = Qrels.read(path)
    run = made(qrels)
    table = {query: dict(row) for query, row in qrels.items()}
    oracle = pytrec_eval.RelevanceEvaluator(table, {*NAMES.values()}).evaluate(run)
    results = evaluate(Run(run), qrels, [*NAMES])
    for ours, theirs in NAMES.items():
        assert results.per_query[ours] == {query: oracle[query][theirs] if query in oracle else 0.0 for query in qrels}
    assert results.missing == len(qrels) - len(oracle) > 0
    if not any(" " in name for query, row in run.items() for name in (query, *row)):
        Run(run).write(tmp_path / "run")
        assert evaluate_file(tmp_path / "run", qrels, [*NAMES], large=0) == results


def made(qrels: Qrels) -> Mapping[str, Mapping[str, float]]:
    """Nine queries in ten; judged and unjudged documents, tied and negative scores."""
    rng = random.Random(17)
    documents = sorted({document for row in qrels.values() for document in row})
    asked = [query for number, query in enumerate(qrels) if number % 10]
    return {
        query: {
            document: rng.randrange(-40, 40) / 8
            for document in sorted({*rng.sample(documents, min(40, len(documents))), *list(qrels[query])[::2]})
        }
        for query in asked
    }
