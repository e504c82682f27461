"""MTEB's retrieval tasks, written `mteb:NAME`, or `mteb:NAME/SUBSET` where a task has several (languages, mostly).

A name is MTEB's own, or "their.module:Class" for a task that is not among its own. The data are fetched by mteb and
kept as a BEIR folder, by the revision that the task names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retriever.bench.mteb import import_mteb
from retriever.components import load_class
from retriever.errors import InputError, RetrieverError

PREFIX = "mteb:"
CUTS = (1, 3, 5, 10, 20, 100, 1000)
"""Ranks at which MTEB measures retrieval."""
_FAMILIES = {
    "ndcg": "nDCG@{}",
    "map": "AP@{}",
    "recall": "R@{}",
    "precision": "P@{}",
    "mrr": "RR@{}",
    "hit_rate": "Success@{}",
}
SCORES = {f"{name}_at_{cut}": text.format(cut) for name, text in _FAMILIES.items() for cut in CUTS} | {
    "accuracy": "R@1"
}
"""MTEB's names of retrieval scores, as ours."""
_TYPES = ("Retrieval", "InstructionRetrieval")
_SHOWN = 12
"""Subsets that a message lists."""


@dataclass(frozen=True)
class Task:
    """What MTEB says of a collection. revision: of its data. subset: "default" where there is only one. languages: as
    in eng-Latn. main_score: of SCORES, by which MTEB ranks. drop_identical: whether a result that is the query itself
    is taken out.
    """

    name: str
    revision: str
    split: str
    subset: str = "default"
    languages: tuple[str, ...] = ()
    main_score: str = "ndcg_at_10"
    drop_identical: bool = False


def fetch_task(text: str, split: str, cache: Path) -> tuple[Path, Task]:
    """The BEIR folder of a task below `cache`, made where it is not there yet, and what the task is.

    split: whose judgements are used where the task evaluates on several; of one with only one, it is that.

    Raises: MissingDependencyError; InputError for a name, subset or split that is not there, and for a task that a run
    over one collection of texts does not answer; RetrieverError where the data cannot be had.
    """
    name, _, subset = text.removeprefix(PREFIX).partition("/")
    found = _found(name, import_mteb(f"the task {text}"))
    _check(found, text)
    subset = _chosen(subset, found.hf_subsets, f"mteb:{name}/SUBSET", text)
    split = _chosen("" if len(found.eval_splits) == 1 else split, found.eval_splits, "--split SPLIT", text)
    meta = found.metadata
    languages = tuple(meta.hf_subsets_to_langscripts[subset])
    task = Task(meta.name, meta.revision, split, subset, languages, meta.main_score, found.ignore_identical_ids)
    folder = cache / meta.name / meta.revision / subset / split
    if ":" in name or not folder.is_dir():  # of a class that somebody works on, a revision says nothing
        _write(folder, task.split, _data(found, task, text))
    return folder, task


def _found(name: str, mteb: Any) -> Any:
    if ":" in name:
        found = load_class(name)
        return found() if isinstance(found, type) else found
    try:
        return mteb.get_task(name)
    except KeyError as problem:
        raise InputError(str(problem.args[0]).removeprefix("KeyError: "), PREFIX + name) from None


def _check(found: Any, text: str) -> None:
    """Raise InputError for a task whose score is not that of a ranking of one collection's texts."""
    from mteb.abstasks import AbsTaskRetrieval

    if not isinstance(found, AbsTaskRetrieval) or found.metadata.type not in _TYPES:
        kind = found.metadata.type if hasattr(found, "metadata") else type(found).__name__
        raise InputError(f"is of the type {kind}; expected a task of the type {' or '.join(_TYPES)}", text)
    if list(found.metadata.modalities) != ["text"]:
        raise InputError(f"is of {', '.join(found.metadata.modalities)}; expected text alone", text)
    if found.metadata.main_score not in SCORES or found.skip_first_result:
        raise InputError(f"its score is {found.metadata.main_score}, of more than one ranking; use mteb itself", text)


def _chosen(asked: str, there: Sequence[str], how: str, text: str) -> str:
    if not asked and len(there) == 1:
        return there[0]
    if asked not in there:
        more = ", ..." if len(there) > _SHOWN else ""
        raise InputError(f"choose one with {how}, of {', '.join(list(there)[:_SHOWN])}{more}", text)
    return asked


def _data(found: Any, task: Task, text: str) -> Mapping[str, Any]:
    """Corpus, queries, relevant_docs.

    Raises: RetrieverError where they cannot be loaded, InputError where they rank candidates.
    """
    found.filter_eval_splits([task.split])
    if found.metadata.is_multilingual:
        found.filter_languages(None, hf_subsets=[task.subset])
    try:
        found.load_data()
    except (OSError, RuntimeError, ValueError) as problem:  # of datasets and of the hub's client
        raise RetrieverError(f"{text}: mteb cannot provide it: {type(problem).__name__}: {problem}") from problem
    found.convert_v1_dataset_format_to_v2(num_proc=None)
    data: Mapping[str, Any] = found.dataset[task.subset][task.split]
    if data["top_ranked"]:
        raise InputError("gives each query candidates of its own; expected a task that searches its whole corpus", text)
    return data


def _write(folder: Path, split: str, data: Mapping[str, Any]) -> None:
    """A BEIR folder, whole or not at all."""
    room = folder.with_name(folder.name + ".writing")
    shutil.rmtree(room, ignore_errors=True)
    (room / "qrels").mkdir(parents=True)
    write_corpus(room / "corpus.jsonl", data["corpus"])
    _lines(room / "queries.jsonl", ({"_id": row["id"], "text": asked(row)} for row in data["queries"]))
    with (room / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for query, judged in data["relevant_docs"].items():
            file.writelines(f"{query}\t{document}\t{grade}\n" for document, grade in judged.items())
    shutil.rmtree(folder, ignore_errors=True)
    room.replace(folder)


def write_corpus(path: Path, corpus: Iterable[Mapping[str, Any]]) -> None:
    """The corpus of a task as BEIR's corpus.jsonl."""
    _lines(path, ({"_id": row["id"], "title": row.get("title") or "", "text": row["text"]} for row in corpus))


def asked(row: Mapping[str, Any]) -> str:
    """The text of a query, with its instruction behind it, as mteb has it.

    Raises: InputError for a conversation.
    """
    text, instruction = row["text"], row.get("instruction")
    if not isinstance(text, str):
        raise InputError(f"query {row['id']!r} is a conversation; expected a text: use mteb itself")
    return f"{text} {instruction}" if instruction else text


def _lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
