"""Collections of a comparison: documents, queries and judgements from wherever they are.

| written | what |
| --- | --- |
| `FOLDER` | a BEIR folder; the split chooses its judgements |
| `beir:NAME` | one of BEIR's public collections, downloaded into the cache |
| `ir:ID` | an id of ir_datasets that has documents, queries and judgements |
| `mteb:TASK`, `mteb:TASK/SUBSET` | a retrieval task of MTEB, fetched by mteb into the cache |
| `QUERIES->CORPUS` | queries and judgements of one folder, documents of another: cross-lingual pairs |
| `CORPUS,QUERIES,QRELS` | three files, as MS MARCO and TREC DL come: collection.tsv, topics and judgements |

Before any of these, `NAME=` gives a name for the report.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random

from retriever.bench.downloads import beir
from retriever.bench.mteb.tasks import PREFIX as MTEB
from retriever.bench.mteb.tasks import Task, fetch_task
from retriever.corpus import Corpus, read_corpus, read_queries
from retriever.corpus.ir import PREFIX, read_ir_judgements
from retriever.encoders.models import sha256
from retriever.errors import InputError
from retriever.runs import Qrels
from retriever.types import Query

_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_BEIR = "beir:"


@dataclass(frozen=True)
class Source:
    """A collection that is known but not read. qrels: a file, or `ir:` and an id. task: of MTEB, if it is one. limit:
    so many of the judged queries, always the same ones; none: all.
    """

    name: str
    corpus: str
    queries: str
    qrels: str
    task: Task | None = None
    limit: int | None = None

    @property
    def drop_identical(self) -> bool:
        """Whether its own rules take out results that are the query itself."""
        return self.task is not None and self.task.drop_identical

    def documents(self, on_bad: Callable[[InputError], None] | None) -> Corpus:
        """The stream of its documents."""
        return read_corpus(self.corpus, on_bad=on_bad)

    @cached_property
    def judgements(self) -> Qrels:
        """Who is relevant to what."""
        ir = self.qrels.startswith(PREFIX)
        known = Qrels(read_ir_judgements(self.qrels)) if ir else Qrels.read(self.qrels)
        if self.limit is None or len(known) <= self.limit:
            return known
        kept = {*Random(0).sample(sorted(known), self.limit)}
        return Qrels({query: row for query, row in known.items() if query in kept})

    @cached_property
    def asked(self) -> list[Query]:
        """The judged queries: what is not judged measures nothing.

        Raises: InputError where none of the queries is judged.
        """
        queries = read_queries(self.queries)
        judged = [query for query in queries if query.id in self.judgements]
        if not judged:
            of_theirs = ", ".join(repr(query) for query in islice(self.judgements, 3))
            of_ours = ", ".join(repr(query.id) for query in queries[:3])
            raise InputError(
                f"{self.name}: no query is judged: {self.queries} has {of_ours}; {self.qrels} has {of_theirs}; "
                "do they belong to the same collection?"
            )
        return judged

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the corpus: of its files as they lie, or, of ir_datasets, of its documents."""
        if self.corpus.startswith(PREFIX):
            return _streamed(self.documents(None))
        path = Path(self.corpus)
        files = [path] if path.is_file() else sorted(inner for inner in path.rglob("*") if inner.is_file())
        listing = [[str(inner.relative_to(path)), sha256(inner)] for inner in files if _of_corpus(path, inner)]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def parse_source(text: str, split: str, cache: Path) -> Source:
    """The collection that a text means (see the module). split: whose judgements are used; cache: where downloads go.

    Raises: InputError where a part of it is not there, RetrieverError where a download fails.
    """
    named = _NAMED.fullmatch(text)
    if named and not Path(text).exists():
        name, text = named.groups()
        return replace(_source(text, split, cache), name=name)
    return _source(text, split, cache)


def _source(text: str, split: str, cache: Path) -> Source:
    if text.startswith(PREFIX):
        return Source(text, text, text, text)
    if text.startswith(_BEIR):
        folder = beir(text.removeprefix(_BEIR), cache / "beir")
        return Source(text, str(folder), str(folder), _judged(folder, split))
    if text.startswith(MTEB):
        folder, task = fetch_task(text, split, cache / "mteb")
        return Source(text, str(folder), str(folder), _judged(folder, task.split), task)
    if "->" in text:
        asking, answering = (Path(part) for part in text.split("->", 1))
        return Source(f"{asking.name}->{answering.name}", str(answering), str(asking), _judged(asking, split))
    if text.count(",") == 2 and not Path(text).exists():
        corpus, queries, qrels = text.split(",")
        return Source(Path(qrels).name, corpus, queries, qrels)
    folder = Path(text)
    if not folder.is_dir():
        raise InputError(
            "there is no such folder; a collection is a BEIR folder, beir:NAME, ir:ID, mteb:TASK, QUERIES->CORPUS "
            "or CORPUS,QUERIES,QRELS",
            text,
        )
    return Source(folder.resolve().name, text, text, _judged(folder, split))


def _judged(folder: Path, split: str) -> str:
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))) or "none"
        raise InputError(f"has no judgements of the split {split!r}; there: {there}", path)
    return str(path)


def _of_corpus(root: Path, file: Path) -> bool:
    """Whether a file of a folder belongs to its documents: all but the queries and judgements of a BEIR folder."""
    inner = file.relative_to(root)
    return root == file or not (inner.parts[0] == "qrels" or inner.name.startswith("queries."))


def _streamed(corpus: Corpus) -> str:
    digest = hashlib.sha256()
    for document in corpus:
        digest.update(json.dumps([document.id, document.title, document.text, dict(document.metadata)]).encode())
    return digest.hexdigest()
