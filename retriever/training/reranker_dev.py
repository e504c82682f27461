"""Measuring a cross-encoder between training steps, on lists that fit between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.measures import evaluate
from retriever.runs import Qrels, Run
from retriever.training.data import Search, some
from retriever.training.dev import MEASURE
from retriever.types import Query

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

QUERIES, DEPTH = 60, 20
"""So many dev queries, and of each the first documents that the search gives which is to be reranked."""


class Lists(NamedTuple):
    """What is reranked of one collection. first: the search's own run."""

    name: str
    first: Run
    pairs: list[tuple[str, str]]
    qrels: Qrels


def dev_lists(search: Search, seed: int) -> Lists:
    """QUERIES dev queries, chosen by the seed, with the first DEPTH documents that the search gives."""
    collection = search.collection
    asked = [Query(name, collection.queries[name]) for name in some(collection.dev, QUERIES, seed)]
    run = search.run(asked, DEPTH)
    pairs = [(collection.queries[query], collection.documents[found]) for query in run for found in run[query]]
    return Lists(collection.name, run, pairs, Qrels({query.id: collection.dev[query.id] for query in asked}))


def measure_lists(model: CrossEncoder, lists: Sequence[Lists]) -> dict[str, float]:
    """MEASURE of the reranked lists averaged over the collections and for each, and of the search before for each."""
    values: dict[str, float] = {}
    before: dict[str, float] = {}
    for each in lists:
        scores = np.asarray(model.predict(each.pairs, show_progress_bar=False), dtype=np.float32)
        ends = np.cumsum([len(each.first[query]) for query in each.first])[:-1]
        reranked = Run(
            {
                query: dict(zip(each.first[query], part.tolist(), strict=True))
                for query, part in zip(each.first, np.split(scores, ends), strict=True)
            }
        )
        for kept, run in ((values, reranked), (before, each.first)):
            kept[each.name] = evaluate(run, each.qrels, [MEASURE]).means[MEASURE]
    mean = sum(values.values()) / len(values)
    own = {f"{name}_{MEASURE}": value for name, value in values.items()}
    return {MEASURE: mean, **own, **{f"{name}_first_{MEASURE}": value for name, value in before.items()}}
