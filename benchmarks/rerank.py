"""Reranking beside `CrossEncoder.predict` with its defaults: `python benchmarks/rerank.py --model FOLDER`.

The first 100 documents of the bm25 view for each SciFact query, all pairs in one call. Contenders take turns, after an
unmeasured one over the first pairs, and medians are quoted; pairs that are longer than the model reads are cut by all
alike. Without --model a cross-encoder is made of all-MiniLM-L6-v2 with a head at random: as fast as a trained one, and
of no use otherwise.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from run import alternate, built, table, without_openvino
from scipy.stats import kendalltau

from retriever import Query, read_corpus, read_queries
from retriever.encoders.models import DEFAULT_MODEL, find_model
from retriever.encoders.runtime import COMPILE
from retriever.eval.measures import evaluate
from retriever.rerankers.classifier import Classifier
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.runs import Qrels, Run

WARM = 300
"""Pairs of the unmeasured turn: enough for compiling."""


def random_head(folder: Path) -> Path:
    """all-MiniLM-L6-v2 as a cross-encoder that was never trained."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # that the head is new is known
    torch.manual_seed(0)
    source = find_model(DEFAULT_MODEL)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def candidates(data: Path, count: int, depth: int) -> tuple[list[Query], Run, dict[str, str]]:
    """Queries with the bm25 view's first documents, and the texts of those."""
    documents = list(read_corpus(data))
    judged = Qrels.read(data / "qrels" / "test.tsv")
    queries = [query for query in read_queries(data) if query.id in judged][:count]
    with tempfile.TemporaryDirectory() as folder:
        run = built(Path(folder) / "index", ["bm25"], documents).run(queries, k=depth)
    found = {id for query in run for id in run[query]}
    return queries, run, {document.id: document.contents for document in documents if document.id in found}


def stage(folder: Path, precision: str) -> CrossEncoder:
    """A reranker with a model of its own, which shares no runtime with the others."""
    made = CrossEncoder(CrossEncoderConfig(str(folder), precision=precision))
    made._classifier = Classifier(folder, precision)
    return made


def quality(run: Run, scores: np.ndarray[Any, Any], reference: np.ndarray[Any, Any], judged: Qrels) -> str:
    """nDCG@10, and how far the scores and their order are from the first row's."""
    ends = np.cumsum([len(run[query]) for query in run])[:-1]
    own, other = np.split(scores, ends), np.split(reference, ends)
    ranked = {query: dict(zip(run[query], part.tolist(), strict=True)) for query, part in zip(run, own, strict=True)}
    judgements = Qrels({query: judged[query] for query in run})
    ndcg = evaluate(Run(ranked), judgements, ["nDCG@10"]).means["nDCG@10"]
    tau = np.mean([kendalltau(*pair).statistic for pair in zip(own, other, strict=True) if len(pair[0]) > 1])
    return f"nDCG@10 {ndcg:.4f}, Kendall's τ {tau:.4f}, largest difference {np.abs(scores - reference).max():.1e}"


def compare(folder: Path, run: Run, pairs: Sequence[tuple[str, str]], judged: Qrels, rounds: int) -> str:
    """The table."""
    from sentence_transformers import CrossEncoder as Peer

    peer = Peer(str(folder), device="cpu", local_files_only=True)
    stages = {
        "ours in float32": stage(folder, "float32"),
        "ours without extras": stage(folder, "auto"),
        "ours with the extra `fast`": stage(folder, "auto"),
    }
    with without_openvino():
        stages["ours without extras"]._classifier.runtime(COMPILE)  # chosen for good
    results: dict[str, np.ndarray[Any, Any]] = {}

    def timed(name: str, score: Any) -> Any:
        parts = chain([pairs[:WARM]], repeat(pairs))

        def once() -> None:
            results[name] = np.asarray(score(list(next(parts))), dtype=np.float32)

        return once

    contenders = {"CrossEncoder.predict": timed("CrossEncoder.predict", peer.predict)}
    contenders |= {name: timed(name, made.score) for name, made in stages.items()}
    seconds = alternate(contenders, rounds)
    notes = {name: quality(run, scores, results["CrossEncoder.predict"], judged) for name, scores in results.items()}
    for name, made in stages.items():
        notes[name] = f"{made._classifier.runtime(COMPILE).name}; {notes[name]}"
    return table(f"Reranking: {len(run)} queries, {len(pairs):,} pairs", "pairs", len(pairs), seconds, notes)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data/scifact"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    queries, run, texts = candidates(options.data, options.queries, options.depth)
    asked = {query.id: query.text for query in queries}
    pairs = [(asked[query], texts[id]) for query in run for id in run[query]]
    judged = Qrels.read(options.data / "qrels" / "test.tsv")
    with tempfile.TemporaryDirectory() as folder:
        compare(options.model or random_head(Path(folder)), run, pairs, judged, options.rounds)


if __name__ == "__main__":
    main()
