"""`retriever eval` beside the C trec_eval on the same files: `python benchmarks/evaluation.py PATH/TO/trec_eval`.

Both measure a made run of 6,980 queries x 1,000 documents, about 300 MB, in turns, from starting the process to the
table: seconds (and of the processor), most memory, and whether the tables say the same. trec_eval is built from
https://github.com/usnistgov/trec_eval with `make CFLAGS="-O3 -I. -DVERSIONID=..."`; as it comes, it is not optimised.
A run of ten million lines: `--queries 10000`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

MEASURES = {"nDCG@10": "ndcg_cut.10", "R@100": "recall.100", "RR": "recip_rank", "AP": "map"}


class Cost(NamedTuple):
    """Of one process: seconds, seconds of processors, MB at the most."""

    wall: float
    processor: float
    memory: float


def make_files(folder: Path, queries: int, depth: int) -> tuple[Path, Path]:
    """A run in trec_eval's own order but for ties, and about one judgement a query, as MS MARCO's dev set has them."""
    rng = np.random.default_rng(1)
    run, judgements = folder / "made.trec", folder / "made.qrels"
    with run.open("w") as lines, judgements.open("w") as judged:
        for query in range(1_000_000, 1_000_000 + queries):
            documents = rng.choice(8_841_823, depth, replace=False).tolist()
            scores = np.sort(np.round(rng.gamma(5, 3, depth), 4))[::-1].tolist()
            ranked = enumerate(zip(documents, scores, strict=True), 1)
            lines.write("".join(f"{query} Q0 {name} {rank} {score:.6f} made\n" for rank, (name, score) in ranked))
            relevant = {documents[rng.integers(depth)] if rng.random() < 0.9 else 9_000_000}
            if rng.random() < 0.07:
                relevant.add(documents[rng.integers(min(depth, 100))])
            judged.writelines(f"{query} 0 {name} 1\n" for name in sorted(relevant))
    return run, judgements


def measured(command: list[str]) -> tuple[str, Cost]:
    """What a process prints, and what it cost."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed")
    return printed, Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def same(ours: str, theirs: str) -> bool:
    """Whether both tables hold the same four digits."""
    names, values = (line.split("\t")[1:] for line in ours.splitlines())
    found = {line.split()[0]: line.split()[2] for line in theirs.splitlines()}
    return all(found[MEASURES[name].replace(".", "_")] == value for name, value in zip(names, values, strict=True))


def main() -> None:
    """Print a line a round, and the ratio of the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trec_eval")
    parser.add_argument("--queries", type=int, default=6_980)
    parser.add_argument("--depth", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, judgements = make_files(Path(folder), options.queries, options.depth)
        code = "import sys; from retriever.cli import main; sys.exit(main())"
        ours = [sys.executable, "-c", code, "eval", str(run), "--qrels", str(judgements)]
        theirs = [options.trec_eval, "-c"]
        for name, other in MEASURES.items():
            ours += ["-m", name]
            theirs += ["-m", other]
        theirs += [str(judgements), str(run)]
        measured(ours)  # machine code is compiled once in the life of an installation
        rounds = [(measured(ours), measured(theirs)) for _ in range(options.rounds)]
        agree = all(same(one[0], other[0]) for one, other in rounds)
        print(f"{run.stat().st_size / 1e6:.0f} MB, {options.queries} queries x {options.depth}; same values: {agree}")
    for (_, one), (_, other) in rounds:
        print(
            f"retriever {one.wall:.2f} s (processor {one.processor:.2f}), {one.memory:.0f} MB; "
            f"trec_eval {other.wall:.2f} s (processor {other.processor:.2f}), {other.memory:.0f} MB"
        )
    for name in ("wall", "processor"):
        best, other_best = (min(getattr(each[side][1], name) for each in rounds) for side in (0, 1))
        print(f"{name}: retriever / trec_eval = {best / other_best:.2f}")


if __name__ == "__main__":
    main()
