"""Rerankers trained here, on test splits: writes its sections of docs/results.md.

    python benchmarks/rerank_results.py DATA --model MODEL --parade PARADE --exits EXITS --ck CK --out docs/results.md

MODEL is made by `retriever train reranker`, the others by `retriever train head`; docs/training.md has the commands.
Nothing is tuned on a test split: every setting is a default or stands in the system's name.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from results import markdown, put

from retriever import Qrels, Query, Retriever, evaluate, read_corpus, read_queries
from retriever.errors import InputError
from retriever.eval import report
from retriever.eval.measures import Results
from retriever.rerankers.cross_encoder import CrossEncoder
from retriever.training.data import some
from retriever.types import Floats

# Queries of each collection: a sentence costs a fifth of a paragraph, and a judgement there is one of 13,447 sentences.
SEEN = {"squadshifts_wiki": 200, "squadshifts_reddit": 200, "squad_sentences": 1000, "medquad": 200}
UNSEEN = {"scifact": 100, "cranfield": 100, "covidqa_long": 100}
LONG = ("qmsum_long", "covidqa_long")
MEASURES = ("nDCG@10", "RR@10", "R@10")
FIRST = {"bm25": "bm25(k=100)", "dense": "dense(k=100)", "hybrid": "bm25(k=100) + dense(k=100) >> rrf"}
REMEMBERED = "rerank_results:Remembered"
_known: dict[tuple[str, str], float] = {}


class Remembered(CrossEncoder):
    """A cross-encoder that scores a pair once, however many systems ask for it."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n]."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in _known]
        _known.update(zip(new, super().score(new).tolist(), strict=True))
        return np.array([_known[pair] for pair in pairs], dtype=np.float32)


RERANKED = """## A cross-encoder trained here

*Reranked*: the first 100 of a list, with as many tokens of a pair as in training, {length}. The first row is the first
stage that is best **on this test split**; `*` marks a difference to it with p < .05 (paired t-test, Holm's correction
over the table). `hybrid` is {hybrid}, `mixed` is
`{mixed}`:
of the cross-encoder's weights that were tried on {dev} queries each of the dev splits (mean nDCG@10: {weights}) the
best one. Where a split has more queries than a table, they were chosen by a seed.

[training.md](training.md) has the model's course. Made with
`python benchmarks/rerank_results.py DATA --only reranked --model MODEL --out {out}`.
"""

LONG_PAGE = """## Long documents

The first {depth} of bm25, reranked: whole documents cut at the {length} tokens that the model reads (the first row, to
which `*` marks a difference with p < .05, as above), or by their passages: at most {cap}, of {window} tokens, one every
{stride}. {queries} test queries chosen by a seed, and up to {once} of those systems that read a document once. PARADE's
transformer was trained on qmsum_long's train split with the cross-encoder as it stands (`retriever train head parade`);
its maximum is not trained.

Made with `python benchmarks/rerank_results.py DATA --only long --model MODEL --parade PARADE --out {out}`.
"""

COST_PAGE = """## Reranking: quality against cost

squadshifts_wiki's test split, {queries} queries chosen by a seed, behind `bm25(k=100)`. *ms/query* is the wall time of
the whole search on {machine}, one run behind an uncounted one of a few queries (of all for prettr, which stores the
documents' states then); `*` marks a difference to the first row.
`EXITS` and `CK` were trained by `retriever train head early-exit` and `ck` on squadshifts_wiki's train split.

Made with `python benchmarks/rerank_results.py DATA --only cost --model MODEL --exits EXITS --ck CK --out {out}`.
"""
LENGTH = 256
WEIGHTS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
DEV_QUERIES = 60
LONG_QUERIES, ONCE_QUERIES, COST_QUERIES = 60, 400, 40
DEPTH, CAP, WINDOW, STRIDE = 10, 30, 225, 200


def main() -> None:
    """Run what is asked for, and put each section where it was, or behind the others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--parade", type=Path)
    parser.add_argument("--exits", type=Path)
    parser.add_argument("--ck", type=Path)
    parser.add_argument("--only", choices=["reranked", "long", "cost"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    parts = {"reranked": reranked, "long": long_documents, "cost": costs}
    for name, part in parts.items():
        if options.only in (None, name):
            put(options.out, part(options))


def asked(folder: Path, count: int, split: str = "test") -> tuple[list[Query], Qrels]:
    """A split's queries, at most `count`, and their judgements."""
    qrels = Qrels.read(folder / "qrels" / f"{split}.tsv")
    chosen = {*some(qrels, count, 0)} if len(qrels) > 1.5 * count else {*qrels}
    kept = Qrels({query: row for query, row in qrels.items() if query in chosen})
    return [query for query in read_queries(folder) if query.id in kept], kept


def table(rows: Sequence[tuple[str, Results]], extra: Sequence[Sequence[str]] = ()) -> list[str]:
    """The report's lines, with more columns in front of its values where there are any."""
    lines = report.values_table(report.report(rows))
    for line, more in zip(lines, extra, strict=False):
        line[1:1] = more
    return markdown(lines)


def reranked(options: argparse.Namespace) -> str:
    """Each first stage with and without the cross-encoder."""
    ce = f"{REMEMBERED}('{options.model}', depth=100)"
    with tempfile.TemporaryDirectory() as place:
        indexes = {name: _indexed(options.data / name, Path(place) / name) for name in (*SEEN, *UNSEEN)}
        weight, chosen = _weight(options, indexes, ce)
        mixed = _mixed(ce, weight)
        parts = [
            RERANKED.format(
                hybrid=f"`{FIRST['hybrid']}`",
                mixed=_mixed("ce", weight),
                weights=chosen,
                dev=DEV_QUERIES,
                length=LENGTH,
                out=options.out,
            )
        ]
        systems = {
            **FIRST,
            **{f"{first}, reranked": f"{text} >> {ce}" for first, text in FIRST.items()},
            "mixed": mixed,
        }
        for name, index in indexes.items():
            parts.append(_reranked(name, index, systems, *asked(options.data / name, {**SEEN, **UNSEEN}[name])))
            print(parts[-1], flush=True)
    return "\n".join(parts)


def _indexed(folder: Path, place: Path) -> Retriever:
    index = Retriever.create(place)
    bad: list[InputError] = []
    index.add(read_corpus(folder, on_bad=bad.append))
    return index


def _mixed(ce: str, weight: float) -> str:
    hybrid = FIRST["hybrid"]
    return f"({hybrid}) + ({hybrid} >> {ce}) >> wsum(weights=[{1 - weight:.1f}, {weight:.1f}], norm=zscore)"


def _weight(options: argparse.Namespace, indexes: dict[str, Retriever], ce: str) -> tuple[float, str]:
    """The cross-encoder's weight with the best mean nDCG@10 on dev splits, and all that were tried, in words."""
    values: dict[float, list[float]] = {weight: [] for weight in WEIGHTS}
    for name in SEEN:
        if (options.data / name / "qrels" / "dev.tsv").exists():
            queries, qrels = asked(options.data / name, DEV_QUERIES, "dev")
            for weight in WEIGHTS:
                run = indexes[name].run(queries, k=100, pipeline=_mixed(ce, weight))
                values[weight].append(evaluate(run, qrels, ["nDCG@10"]).means["nDCG@10"])
            _known.clear()
    means = {weight: float(np.mean(each)) for weight, each in values.items()}
    return max(means, key=lambda weight: means[weight]), ", ".join(f"{w} {mean:.4f}" for w, mean in means.items())


def _reranked(name: str, index: Retriever, systems: dict[str, str], queries: list[Query], qrels: Qrels) -> str:
    _known.clear()
    runs = {
        system: evaluate(index.run(queries, k=100, pipeline=text), qrels, MEASURES) for system, text in systems.items()
    }
    best = max(FIRST, key=lambda system: runs[system].means["nDCG@10"])
    order = [best, *(system for system in systems if system != best)]
    return "\n".join(
        [
            f"### {name}",
            "",
            f"{index.info()['documents']:,} documents, {len(queries):,} queries; "
            f"{'its train split was trained on' if name in SEEN else 'never seen in training'}.",
            "",
            *table([(system, runs[system]) for system in order]),
            "",
        ]
    )


def long_documents(options: argparse.Namespace) -> str:
    """A truncated cross-encoder beside those that read passages."""
    page = LONG_PAGE.format(
        length=LENGTH,
        depth=DEPTH,
        cap=CAP,
        window=WINDOW,
        stride=STRIDE,
        queries=LONG_QUERIES,
        once=ONCE_QUERIES,
        out=options.out,
    )
    shape = f"window={WINDOW}, stride={STRIDE}, cap={CAP}, depth={DEPTH}"
    inner = f"\"{REMEMBERED}('{options.model}')\""
    systems = {
        f"cut at {LENGTH} tokens": f"{REMEMBERED}('{options.model}', depth={DEPTH})",
        "FirstP": f"long({inner}, unit=tokens, pool=first, {shape})",
        "MaxP": f"long({inner}, unit=tokens, pool=max, {shape})",
        "AvgP": f"long({inner}, unit=tokens, pool=mean, {shape})",
        "top 3": f"long({inner}, unit=tokens, pool=top, top=3, {shape})",
        "SumP": f"long({inner}, unit=tokens, pool=sum, {shape})",
        "KeyB": f"keyb({inner}, depth={DEPTH})",
        "PARADE, max": f"parade('{options.model}', aggregator=max, {shape})",
    }
    if options.parade:
        systems["PARADE, transformer"] = f"parade('{options.parade}', aggregator=transformer, {shape})"
    systems["bm25 alone"] = ""
    once = {name: systems[name] for name in (f"cut at {LENGTH} tokens", "KeyB", "bm25 alone")}
    parts = [page]
    for name in LONG:
        parts += [f"### {name}", ""]
        with tempfile.TemporaryDirectory() as place:
            index = Retriever.create(Path(place) / "index", ["bm25"])
            index.add(read_corpus(options.data / name))
            for count, compared in ((LONG_QUERIES, systems), (ONCE_QUERIES, once)):
                parts += _long_table(index, compared, *asked(options.data / name, count))
    return "\n".join(parts)


def _long_table(index: Retriever, systems: dict[str, str], queries: list[Query], qrels: Qrels) -> list[str]:
    _known.clear()
    runs = []
    for system, text in systems.items():
        pipeline = " >> ".join(filter(None, ("bm25(k=100)", text)))
        runs.append((system, evaluate(index.run(queries, k=100, pipeline=pipeline), qrels, MEASURES)))
    return [f"{len(queries):,} queries.", "", *table(runs), ""]


def costs(options: argparse.Namespace) -> str:
    """Ways to read less, beside reading all."""
    from machine import describe

    page = COST_PAGE.format(queries=COST_QUERIES, machine=describe(), out=options.out)
    model = f"'{options.model}'"
    full = f'"cross-encoder({model})"'
    exits = f"early-exit('{options.exits}'"
    systems = {
        "all 100": f"cross-encoder({model})",
        "the first 20": f"cross-encoder({model}, depth=20)",
        "ck >> the first 20": f"ck('{options.ck}') >> cross-encoder({model}, depth=20)",
        "ck alone": f"ck('{options.ck}')",
        "early exit, .99": f"{exits}, relevant=0.99, irrelevant=0.99)",
        "early exit, .95": f"{exits}, relevant=0.95, irrelevant=0.95)",
        "early exit, .8": f"{exits}, relevant=0.8, irrelevant=0.8)",
        "budget, .2 s": f"budget({full}, seconds=0.2)",
        "budget, .1 s": f"budget({full}, seconds=0.1)",
        "gar over dense, 50 of them": f"gar({full}, dense, depth=50)",
        "the first 50": f"cross-encoder({model}, depth=50)",
        "prettr, join=1": f"prettr({model}, join=1, states=STATES)",
        "prettr, join=3": f"prettr({model}, join=3, states=STATES)",
    }
    folder = options.data / "squadshifts_wiki"
    queries, qrels = asked(folder, COST_QUERIES)
    runs, spent = [], []
    with tempfile.TemporaryDirectory() as place:
        index = Retriever.create(Path(place) / "index")
        index.add(read_corpus(folder))
        for number, (system, text) in enumerate(systems.items()):
            states = Path(place) / f"states-{number}"
            pipeline = f"bm25(k=100) >> {text.replace('STATES', repr(str(states)))}"
            index.run(queries if system.startswith("prettr") else queries[:3], k=100, pipeline=pipeline)
            start = time.perf_counter()
            run = index.run(queries, k=100, pipeline=pipeline)
            spent.append([f"{1000 * (time.perf_counter() - start) / len(queries):,.0f}"])
            runs.append((system, evaluate(run, qrels, MEASURES)))
    return "\n".join([page, *table(runs, [["ms/query"], *spent]), ""])


if __name__ == "__main__":
    main()
