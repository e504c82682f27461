"""What training reads: BEIR folders, made into queries with a relevant text and irrelevant ones."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from retriever.corpus import read_corpus, read_queries
from retriever.engine import Retriever
from retriever.errors import InputError
from retriever.runs import Qrels, Run
from retriever.types import Document, Query

FIRST, LAST = 3, 30
"""Ranks that negatives are drawn from: above them stand too many relevant texts that nobody judged."""
SPARE = 3
"""Results of the search that a judge reads of each query, times the negatives that are wanted."""
HELD_OUT = 10
"""One train query of so many is kept for measuring where a collection has no dev split."""


@dataclass(frozen=True)
class Collection:
    """A BEIR folder in memory: texts by id, and the judgements to train on and to measure on (either may be empty)."""

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    train: Qrels
    dev: Qrels


class Example(NamedTuple):
    """One step's worth of texts for one query."""

    query: str
    positive: str
    negatives: tuple[str, ...]


class Examples(NamedTuple):
    """unanswered: train queries without a relevant document, left out; labelled, mined, drawn: where negatives are from
    (judged irrelevant, the search, or any document where both had too few). pipeline: the search's. false: results of
    the search left out as false negatives; judged: by whom, if at all.
    """

    examples: list[Example]
    unanswered: int
    labelled: int
    mined: int
    drawn: int
    pipeline: str
    false: int = 0
    judged: str | None = None


class Judge(NamedTuple):
    """Who says which results of a search are no negatives (NV-Retriever, Moreira et al. 2024, arXiv 2407.15831: TopK-
    PercPos): those that score above `share` of what the relevant text does. The paper has cosines, all above 0; a
    relevant text below 0 is met by the same distance: s - (1 - share)|s|.

    name: for reports. score: of (query, text) pairs, larger is better.
    """

    name: str
    score: Callable[[Sequence[tuple[str, str]]], Sequence[float]]
    share: float

    def doubts(self, negative: float, positive: float) -> bool:
        """Whether a text with this score may be relevant beside one that is and has that score."""
        return negative > positive - (1 - self.share) * abs(positive)


class Search:
    """Search over a whole collection, in an index that is made when first asked and lasts as long as the `with` block.

    views: of the index. pipeline: as `retriever search`'s.
    """

    def __init__(self, collection: Collection, views: Sequence[str] = ("bm25",), pipeline: str = "bm25") -> None:
        self.collection, self.views, self.pipeline = collection, list(views), pipeline
        self._open = ExitStack()

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def _index(self) -> Retriever:
        # tantivy's threads may still be merging when the folder is removed
        folder = self._open.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
        index = Retriever.create(Path(folder) / "index", self.views)
        index.add(Document(name, text) for name, text in self.collection.documents.items())
        return index

    def run(self, queries: Iterable[Query], k: int) -> Run:
        """The k best documents of each query."""
        return self._index.run(queries, k=k, pipeline=self.pipeline)


def read_collection(folder: Path, *, measured: bool) -> Collection:
    """Read corpus.jsonl, queries.jsonl, qrels/train.tsv and qrels/dev.tsv.

    measured: the collection is measured on: where it has no qrels/dev.tsv, a tenth of the train queries, chosen by
    their ids' MD5, becomes the dev split and is not trained on.

    Raises: InputError naming file and line, also for a judgement of an unknown query or document.
    """
    documents = {document.id: document.contents for document in read_corpus(folder)}
    queries = {query.id: query.text for query in read_queries(folder)}
    train, dev = (_judgements(folder / "qrels" / f"{split}.tsv", documents, queries) for split in ("train", "dev"))
    if measured and not dev:
        dev = Qrels({query: row for query, row in train.items() if _held_out(query)})
        train = Qrels({query: row for query, row in train.items() if not _held_out(query)})
    if not train and not (measured and dev):
        raise InputError("holds no judgements: expected qrels/train.tsv, as in BEIR", folder)
    return Collection(folder.resolve().name, documents, queries, train, dev)


def _judgements(path: Path, documents: Mapping[str, str], queries: Mapping[str, str]) -> Qrels:
    """The judgements of a split; none where it has no file."""
    if not path.exists():
        return Qrels({})
    qrels = Qrels.read(path)
    for query, row in qrels.items():
        for document in row:
            for what, name, known in (("query", query, queries), ("document", document, documents)):
                if name not in known:
                    message = f"{what} {name!r} is judged, but it is not in the {what} file of this folder"
                    raise InputError(message, path, _line(path, query, document))
    return qrels


def _line(path: Path, query: str, document: str) -> int | None:
    with path.open(encoding="utf-8") as lines:
        return next((number for number, line in enumerate(lines, 1) if {query, document} <= {*line.split()}), None)


def _held_out(query: str) -> bool:
    return int(hashlib.md5(query.encode(), usedforsecurity=False).hexdigest(), 16) % HELD_OUT == 0


def make_examples(search: Search, negatives: int, seed: int, judge: Judge | None = None) -> Examples:
    """One example for each relevant judgement of the train split.

    negatives: texts of each example that are not judged relevant: those judged irrelevant first, then some of the
    search's ranks FIRST to LAST that `judge` has no doubts of, then any document. The same seed gives the same
    examples.

    Raises: InputError where the collection has too few documents for that, or no query has a relevant one.
    """
    collection = search.collection
    chosen = random.Random(f"{seed} {collection.name}")
    everything = sorted(collection.documents)
    rankings = _mined(search, negatives) if negatives else {}
    if judge:
        rankings = {name: chosen.sample(found, min(len(found), SPARE * negatives)) for name, found in rankings.items()}
    doubts = _doubts(judge, collection, rankings) if judge else {}
    examples, counts, false = [], [0, 0, 0], 0
    for query, row in collection.train.items():
        relevant = [document for document, grade in row.items() if grade > 0]
        labelled = [document for document, grade in row.items() if grade <= 0]
        for positive in relevant:
            doubted = doubts.get((query, positive), set())
            mined = [document for document in rankings.get(query, ()) if document not in doubted]
            picked = _pick([labelled, mined, everything], negatives, {*relevant, *doubted}, chosen)
            if sum(map(len, picked)) < negatives:
                raise InputError(
                    f"{collection.name}: {len(everything)} documents are too few for {negatives} negatives"
                )
            counts = [count + len(part) for count, part in zip(counts, picked, strict=True)]
            false += len(doubted)
            texts = tuple(collection.documents[document] for part in picked for document in part)
            examples.append(Example(collection.queries[query], collection.documents[positive], texts))
    if collection.train and not examples:
        raise InputError(f"{collection.name}: no train query has a relevant document (a grade above 0)")
    unanswered = sum(max(row.values()) <= 0 for row in collection.train.values())
    judged = judge.name if judge else None
    return Examples(examples, unanswered, counts[0], counts[1], counts[2], search.pipeline, false, judged)


def columns(examples: Sequence[Example]) -> dict[str, list[str]]:
    """The texts of examples by column: query, positive, negative_1, negative_2 and so on."""
    texts = [[each.query, each.positive, *each.negatives] for each in examples]
    names = ["query", "positive", *(f"negative_{number}" for number in range(1, len(texts[0]) - 1))]
    return {name: [row[place] for row in texts] for place, name in enumerate(names)}


def _pick(sources: Sequence[Sequence[str]], count: int, taken: set[str], chosen: random.Random) -> list[list[str]]:
    """Up to `count` documents in all, as many as can be from each source before the next is asked; none twice."""
    picked = []
    for source in sources:
        order = iter(chosen.sample(source, len(source)) if len(source) <= LAST else _draws(source, chosen))
        part: list[str] = []
        while len(part) < count and (document := next(order, None)) is not None:
            if document not in taken:
                part.append(document)
                taken = taken | {document}
        count -= len(part)
        picked.append(part)
    return picked


def _draws(source: Sequence[str], chosen: random.Random) -> Iterator[str]:
    """Enough draws from a long source to find what is wanted, without shuffling it whole."""
    return (chosen.choice(source) for _ in range(64 * LAST))


def _mined(search: Search, negatives: int) -> dict[str, list[str]]:
    """Ranks FIRST to LAST of the search, those that are judged left out, for each train query that has too few
    documents judged irrelevant.
    """
    train = search.collection.train
    asked = [
        Query(query, search.collection.queries[query])
        for query, row in train.items()
        if sum(grade <= 0 for grade in row.values()) < negatives
    ]
    run = search.run(asked, LAST) if asked else {}
    return {
        query: [document for document in list(ranking)[FIRST - 1 :] if document not in train[query]]
        for query, ranking in run.items()
    }


def _doubts(
    judge: Judge, collection: Collection, rankings: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], set[str]]:
    """For each query and relevant document the results of the search that the judge takes for relevant too."""
    relevant = {query: [name for name, grade in collection.train[query].items() if grade > 0] for query in rankings}
    wanted = [(query, name) for query, found in rankings.items() for name in (*relevant[query], *found)]
    texts = [(collection.queries[query], collection.documents[name]) for query, name in wanted]
    scores = dict(zip(wanted, judge.score(texts) if texts else [], strict=True))
    return {
        (query, positive): {name for name in found if judge.doubts(scores[query, name], scores[query, positive])}
        for query, found in rankings.items()
        for positive in relevant[query]
    }


def some(names: Iterable[str], count: int, seed: int) -> list[str]:
    """Up to so many of the names, chosen by the seed."""
    known = sorted(names)
    return random.Random(seed).sample(known, min(count, len(known)))
