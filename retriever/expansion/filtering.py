"""doc2query-- (Gospodinov, MacAvaney and Macdonald, ECIR 2023): only the queries that a reranker finds relevant.

Every query is scored with the document that it was made from, and those under one threshold for the whole collection
are dropped. The scores are kept beside the expansions, in FILE.scores, so another threshold scores nothing again.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retriever.encoders.models import find_model, weights_digest
from retriever.errors import InputError
from retriever.expansion.files import ExpansionFile
from retriever.expansion.records import Record, Records, appending, fingerprint, in_batches, read_header, write_whole
from retriever.progress import advance
from retriever.rerankers import RERANKERS
from retriever.rerankers.base import Reranker
from retriever.rerankers.nested import scorer
from retriever.types import Document

_BATCH = 16
"""Documents whose scores are written at once."""
_READ = 1024
"""Documents whose expansions and scores are read at once."""


@dataclass
class FilterReport:
    """Queries: all of them and those kept, whose scores reach the threshold. Documents: scored now, and scored already;
    left out, because the corpus has them not, or not with the text that was expanded.
    """

    queries: int = 0
    kept: int = 0
    threshold: float = -math.inf
    scored: int = 0
    known: int = 0
    left_out: int = 0


def filter_expansion(
    documents: Iterable[Document],
    source: Path,
    target: Path,
    text: str,
    *,
    keep: float | None = None,
    threshold: float | None = None,
) -> FilterReport:
    """Write the best of an expansion file's queries to another one.

    documents: the corpus that was expanded. text: the reranker, as in "cross-encoder(MODEL)". keep: the share of all
    queries to keep, the best ones and what ties with the last of them; or threshold: the least score to keep, as the
    reports and headers of earlier calls give it. With `keep`, all scores are in memory once, 4 bytes each.

    Raises: SpecError for a text that is no reranker of pairs; InputError for both or neither of keep and threshold, a
    document that was not expanded, scores by another reranker, a target that is something else.
    """
    if (keep is None) == (threshold is None) or not 0 <= (keep or 0) <= 1 or math.isnan(threshold or 0):
        raise InputError("give either the share of queries to keep, from 0 to 1, or the least score to keep")
    if target.exists() and (target.samefile(source) or read_header(target, "expansion").get("filter") is None):
        raise InputError("holds expansions that no filter made; give the result another name", target)
    expansions, report = ExpansionFile(source), FilterReport()
    scores = _scored(documents, expansions, text, report)
    report.threshold = _best_share(expansions, scores, keep or 0) if threshold is None else threshold
    least = report.threshold if math.isfinite(report.threshold) else str(report.threshold)  # JSON has no infinity
    made_by = {"filter": scores.header["scores"], "filter_model": scores.header["model"], "threshold": least}
    write_whole(target, {**expansions.header, **made_by}, _survivors(expansions, scores, report))
    return report


def kth_largest(values: array[float], count: int) -> float:
    """The count-th largest of float32 values, which are reordered; inf for none of them."""
    if not count:
        return math.inf
    numbers = np.frombuffer(values, dtype=np.float32)
    numbers.partition(len(numbers) - count)
    return float(numbers[len(numbers) - count])


def _scored(documents: Iterable[Document], expansions: ExpansionFile, text: str, report: FilterReport) -> Records:
    """The scores of all queries, those that are not there yet computed now.

    A document's queries are scored together and with no others: scores must not depend on where a run was cut.
    """
    component, reranker = scorer(text)
    model = _identity(component.name, reranker)
    path = expansions.path.with_name(expansions.path.name + ".scores")
    with appending(path, {"scores": str(component), "model": model, "of": expansions.digest}, "scores") as append:
        known = Records(path, "scores")
        for batch in in_batches(documents, _BATCH):
            records = expansions.records(batch)
            found = known.find([_key(record) for record in records])
            new = [
                pair for pair, (_, made) in zip(zip(batch, records, strict=True), found, strict=True) if made is None
            ]
            append(_score(reranker, *pair) for pair in new)
            report.scored += len(new)
            report.known += len(batch) - len(new)
            advance(len(batch))
        return Records(path, "scores")


def _identity(name: str, reranker: Reranker) -> dict[str, Any]:
    """A reranker's configuration, and the digest of its model's weights where the reranker is one of ours."""
    config = asdict(reranker.config)
    model = config.get("model")
    return {**config, "weights": weights_digest(find_model(model))} if name in RERANKERS and model else config


def _key(record: Record) -> tuple[str, str]:
    """What the scores of a document's queries are found by: its id, and its text and queries."""
    return str(record["id"]), fingerprint(json.dumps([record.get("sha256"), record["expansion"]]))


def _score(reranker: Reranker, document: Document, record: Record) -> Record:
    scores = reranker.score([(query, document.contents) for query in record["expansion"]])
    if not np.isfinite(scores).all():
        raise InputError(f"the reranker gave a score for document {document.id!r} that is no finite number")
    id, key = _key(record)
    return {"id": id, "sha256": key, "scores": [float(score) for score in scores]}


def _pairs(expansions: ExpansionFile, scores: Records) -> Iterator[tuple[Record, list[float] | None]]:
    """Each document's expansion with the scores of its queries; none where it was not scored."""
    for batch in in_batches(expansions, _READ):
        found = scores.find([_key(record) for record in batch])
        yield from ((record, made["scores"] if made else None) for record, (_, made) in zip(batch, found, strict=True))


def _best_share(expansions: ExpansionFile, scores: Records, keep: float) -> float:
    """The least score among the best `keep` of all queries: their number is rounded, and what ties with it reaches it.

    pyterrier_doc2query takes `numpy.percentile`, which may lie between two scores: one query more or less reaches it.
    """
    values = array("f")
    for _, given in _pairs(expansions, scores):
        values.extend(given or ())
    return kth_largest(values, round(keep * len(values)))


def _survivors(expansions: ExpansionFile, scores: Records, report: FilterReport) -> Iterator[Record]:
    for record, given in _pairs(expansions, scores):
        if given is None:
            report.left_out += 1
            continue
        queries = record["expansion"]
        kept = [query for query, score in zip(queries, given, strict=True) if score >= report.threshold]
        report.queries += len(queries)
        report.kept += len(kept)
        yield {**record, "expansion": kept}
