"""Retrieval tasks as MTEB has them, whose data are made here: `mteb:toy_mteb:Things`.

A test module that imports this is skipped where mteb is not installed.
"""

import random
from typing import Any

import pytest

mteb = pytest.importorskip("mteb", reason="the extra `mteb` is not installed")
Dataset = pytest.importorskip("datasets").Dataset

WORDS = "wing lift drag flow heat shock plate body in over under of".split()


def data(seed: int, instructions: bool = False) -> dict[str, Any]:
    """40 documents, some with a title, and 12 queries with graded judgements; three ids are of both."""
    pick = random.Random(seed)
    texts = [" ".join(pick.choices(WORDS, k=pick.randint(3, 12))) for _ in range(40)]
    corpus = [{"id": f"d{i}", "title": "the plate" if i % 3 else "", "text": text} for i, text in enumerate(texts)]
    queries = [{"id": f"d{i}" if i < 3 else f"q{i}", "text": " ".join(pick.sample(WORDS, 3))} for i in range(12)]
    if instructions:
        queries = [{**query, "instruction": "heat of the wing"} for query in queries]
    judged = {query["id"]: {f"d{n}": pick.choice([0, 1, 2]) for n in pick.sample(range(40), 6)} for query in queries}
    for judgements in judged.values():
        judgements[next(iter(judgements))] = 1
    return {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(queries),
        "relevant_docs": judged,
        "top_ranked": None,
    }


def about(name: str, **more: Any) -> Any:
    known = {
        "name": name,
        "description": "Things in places.",
        "dataset": {"path": "none", "revision": "1"},
        "type": "Retrieval",
        "category": "t2t",
        "modalities": ["text"],
        "eval_splits": ["test"],
        "eval_langs": ["eng-Latn"],
        "main_score": "ndcg_at_10",
    }
    return mteb.TaskMetadata(**{**known, **more})


class Things(mteb.abstasks.AbsTaskRetrieval):
    metadata = about("Things")

    def load_data(self, *_: Any, **__: Any) -> None:
        self.dataset = {
            subset: {split: self.part(len(subset + split)) for split in self.eval_splits} for subset in self.hf_subsets
        }
        self.data_loaded = True

    def part(self, seed: int) -> dict[str, Any]:
        return data(seed)


class NotItself(Things):
    """A result that is the query itself does not count."""

    metadata = about("NotItself", main_score="recall_at_5")
    ignore_identical_ids = True


class Instructed(Things):
    metadata = about("Instructed", type="InstructionRetrieval")

    def part(self, seed: int) -> dict[str, Any]:
        return data(seed, instructions=True)


class Languages(Things):
    metadata = about("Languages", eval_splits=["dev", "test"], eval_langs={"en": ["eng-Latn"], "german": ["deu-Latn"]})


class Candidates(Things):
    metadata = about("Candidates")

    def part(self, seed: int) -> dict[str, Any]:
        made = data(seed)
        return {**made, "top_ranked": {query: ["d1", "d2"] for query in made["relevant_docs"]}}


class Conversations(Things):
    metadata = about("Conversations")

    def part(self, seed: int) -> dict[str, Any]:
        return {**data(seed), "queries": Dataset.from_list([{"id": "q3", "text": ["wing", "lift"]}])}


class Unreachable(Things):
    metadata = about("Unreachable")

    def load_data(self, *_: Any, **__: Any) -> None:
        raise ConnectionError("no route to the hub")
