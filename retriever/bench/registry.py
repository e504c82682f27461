"""Published numbers of known systems on known collections, to stand beside ours. They are data: registry.json."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from retriever.bench.outcome import Published
from retriever.bench.sources import Source
from retriever.bench.systems import System
from retriever.corpus.ir import PREFIX
from retriever.errors import SpecError
from retriever.eval.measures import Results, parse_measures
from retriever.spec import parse_pipeline

_ELSEWHERE = re.compile(r"(beir:|ir:beir/|ir:beir-)?(.+?)(/test)?")


def published(source: Source, system: System, results: Results) -> dict[str, Published]:
    """By measure, what was published of this system on this collection, where something was.

    A collection is known by its name, and only its test split; a system by its canonical pipeline.
    """
    if not (source.qrels.startswith(PREFIX) or source.qrels.endswith("/test.tsv")):
        return {}
    known = _ELSEWHERE.fullmatch(source.name)
    name, pipeline = known[2].replace("/", "-") if known else source.name, _canonical(system.text)
    found: dict[str, Published] = {}
    for entry in _entries():
        if pipeline in entry["systems"] and name in entry["scores"]:
            for measure, value in entry["scores"][name].items():
                canonical = str(*parse_measures([measure]))
                if canonical in results.means:
                    found[canonical] = _beside(entry, value, results.means[canonical])
    return found


def _beside(entry: dict[str, Any], value: float, ours: float) -> Published:
    within = abs(ours - value) <= entry["tolerance"] + 1e-9
    return Published(value, entry["tolerance"], entry["source"], within)


def _canonical(text: str) -> str:
    try:
        return str(parse_pipeline(text))
    except SpecError:  # a run file
        return text


@cache
def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((files("retriever.bench") / "registry.json").read_text("utf-8"))
    return entries
