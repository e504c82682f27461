"""Results in MTEB's format: the folder that `mteb.ResultCache` reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from retriever.bench.experiment import Plan
from retriever.bench.mteb import import_mteb
from retriever.bench.mteb.models import DIGITS, model_meta
from retriever.bench.mteb.tasks import CUTS, SCORES, Task
from retriever.bench.outcome import Outcome
from retriever.bench.report import file_name
from retriever.bench.sources import Source
from retriever.bench.systems import System
from retriever.errors import InputError
from retriever.eval.measures import evaluate
from retriever.runs import Run


def mteb_writer(plan: Plan, folder: Path) -> Callable[[Outcome, Run], None]:
    """What writes an outcome of a plan, given its run.

    Raises: MissingDependencyError; InputError where runs are not deep enough for MTEB's scores.
    """
    import_mteb("writing results in MTEB's format")
    if plan.k < CUTS[-1]:
        raise InputError(f"MTEB measures to rank {CUTS[-1]}, and these runs hold {plan.k} results; give -k {CUTS[-1]}")
    sources = {source.name: source for source in plan.sources}
    systems = {system.name: system for system in plan.systems}
    drop = plan.drop_identical

    def write(outcome: Outcome, run: Run) -> None:
        write_result(folder, sources[outcome.collection], systems[outcome.system], run, drop_identical=drop)

    return write


def write_result(folder: Path, source: Source, system: System, run: Run, *, drop_identical: bool = False) -> None:
    """Write results/retriever__SYSTEM/KEY/TASK.json below a folder, by mteb's own code.

    A collection that is no task of MTEB's is written as one of its name, with the corpus's SHA-256 as the revision.
    What is there of the task's other subsets and splits is kept.
    """
    mteb = import_mteb("writing results in MTEB's format")
    task = source.task or Task(file_name(source.name), source.digest[:DIGITS], Path(source.qrels).stem)
    measured = scores(run, source, drop_identical=drop_identical or source.drop_identical)
    about = {"main_score": measured[task.main_score], "hf_subset": task.subset, "languages": list(task.languages)}
    result = mteb.TaskResult(
        dataset_revision=task.revision,
        task_name=task.name,
        mteb_version=mteb.__version__,
        scores={task.split: [{**measured, **about}]},
        evaluation_time=None,
        date=datetime.now(UTC),
    )
    kept, meta = mteb.ResultCache(folder), model_meta(system.name, system.key[:DIGITS])
    known = kept.load_task_result(task.name, meta)
    kept.save_to_cache(known.merge(result) if known and known.is_mergeable(result) else result, meta)


def scores(run: Run, source: Source, *, drop_identical: bool) -> dict[str, float]:
    """By MTEB's names, at its cuts. Without its nAUC values, which measure confidence.

    Means are over all judged queries, where mteb leaves out those that found nothing.
    """
    names = list(dict.fromkeys(SCORES.values()))
    means = evaluate(run, source.judgements, names, drop_identical=drop_identical).means
    return {name: means[measure] for name, measure in SCORES.items()}
