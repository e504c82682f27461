"""Trainings and what they give, on test splits: `python benchmarks/recipes.py NAME DATA OUT --page docs/results.md`.

Runs a recipe's commands as a user would, with models, reports and indexes in OUT, then writes its section of the page.
A training goes on where it was stopped and a finished one is not run again, nor is what the reports' cache knows.
Settings were chosen on dev splits; where a test split had been read before, the section says so.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from results import markdown, put

from retriever.bench.outcome import Experiment
from retriever.eval.report import report, values_table

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
FIRST, LAST = 3, 10
"""Entries of a log, of ten steps each, whose mean is a training's first loss, and its last."""


class Recipe(NamedTuple):
    """trainings: name -> what `retriever train` is told; the model lies in OUT/name. benches: what `retriever bench` is
    told. before: a script that makes what is trained. timed: documents/s matter; then nothing else should run.
    """

    title: str
    about: str
    trainings: dict[str, str]
    benches: Sequence[str]
    before: str = ""
    timed: bool = False


BOTH = "--data DATA/squadshifts_wiki --data DATA/squadshifts_reddit"
ALL = f"{BOTH} --data DATA/medquad"
DEV = ALL.replace("--data", "--dev")
BOTH_DEV = BOTH.replace("--data", "--dev")
TUNED = "--learning-rate 5e-5 --evaluate-every"


def _composed(language: str, collections: str) -> str:
    """A comparison with and without the adapters, of an encoder and behind bm25 of a cross-encoder."""

    def stacks(rank: str) -> dict[str, str]:
        return {
            "language only": f"OUT/{language}",
            "rank only": f"OUT/{rank}",
            "both": f"OUT/{language} + OUT/{rank}",
        }

    pairs = stacks("pairs")
    del pairs["language only"]  # has no head
    systems = {
        "base": "dense",
        **{name: f"dense(adapters='{stack}')" for name, stack in stacks("rank").items()},
        "bm25": "bm25",
        **{
            f"bm25, {name}": f"bm25 >> cross-encoder({MODEL}, depth=10, adapters='{stack}')"
            for name, stack in pairs.items()
        },
    }
    return f"{collections} --queries 300" + "".join(f' -s "{name} = {text}"' for name, text in systems.items())


RECIPES = {
    "encoder": Recipe(
        "A dense encoder trained here",
        "all-MiniLM-L6-v2 on three train splits: all its weights, a LoRA and a sparse mask (LT-SFT). scifact and\n"
        "cranfield were never seen.",
        {
            "full": f"encoder --base {MODEL} {ALL} {DEV} --steps 480 {TUNED} 120",
            "lora": f"adapter lora --role encoder --base {MODEL} {ALL} {DEV} --steps 160 --batch-size 32 --negatives 1"
            " --learning-rate 5e-4 --evaluate-every 80",
            "mask": f"adapter mask --role encoder --base {MODEL} {ALL} {DEV} --reduction 4 --first-steps 60"
            " --steps 120 --batch-size 32 --negatives 1 --evaluate-every 60",
        },
        [
            "DATA/squadshifts_wiki DATA/squadshifts_reddit DATA/medquad DATA/scifact DATA/cranfield --skip-bad"
            " -s dense -s 'all weights = dense(OUT/full)' -s \"LoRA = dense(adapters='OUT/lora')\""
            " -s \"mask = dense(adapters='OUT/mask')\"",
        ],
    ),
    "hmde": Recipe(
        "A hierarchical encoder of long documents trained here",
        "HMDE over all-MiniLM-L6-v2, which stays as it is, beside what needs no training: the text cut at 256 tokens,\n"
        "the mean of the segments' vectors, and the best passage's score (MaxP). squadshifts_wiki_long's articles and\n"
        "covidqa_long's were never seen.",
        {
            "mean": f"hmde --base {MODEL} --layers 0 --window 150 --segments 96",
            "hmde": f"hmde --base {MODEL} --data DATA/qmsum_long --dev DATA/qmsum_long --window 150 --segments 96"
            " --steps 200 --learning-rate 3e-5 --evaluate-every 20",
        },
        [
            "DATA/qmsum_long DATA/covidqa_long DATA/squadshifts_wiki_long -s dense"
            " -s 'segments averaged = dense(OUT/mean)' -s 'MaxP = dense(passage=150)' -s 'HMDE = dense(OUT/hmde)'",
        ],
    ),
    "esimcse": Recipe(
        "ESimCSE on a collection's text",
        "all-MiniLM-L6-v2, a retriever already, trained further on unlabelled text, one model for each collection.",
        {
            name: f"esimcse --base {MODEL} --texts DATA/{name} --dev DATA/{name} --steps 200 --evaluate-every 100"
            for name in ("medquad", "squadshifts_reddit")
        },
        [f"DATA/{name} -s dense -s 'ESimCSE = dense(OUT/{name})'" for name in ("medquad", "squadshifts_reddit")],
    ),
    "student": Recipe(
        "Students of three layers",
        "Three of all-MiniLM-L6-v2's six layers, as they are and distilled (MiniLM's two losses) on\n"
        "unlabelled text; then each fine-tuned alike on judgements.",
        {
            "cut": f"student --base {MODEL} --texts DATA/squadshifts_wiki --texts DATA/squadshifts_reddit --steps 1"
            " --learning-rate 0",
            "distilled": f"student --base {MODEL} --texts DATA/squadshifts_wiki --texts DATA/squadshifts_reddit"
            " --dev DATA/squadshifts_wiki --steps 150 --evaluate-every 75",
            "cut-tuned": f"encoder --base OUT/cut {BOTH} {BOTH_DEV} --steps 100 {TUNED} 50",
            "distilled-tuned": f"encoder --base OUT/distilled {BOTH} {BOTH_DEV} --steps 100 {TUNED} 50",
        },
        [
            "DATA/squadshifts_wiki DATA/squadshifts_reddit DATA/scifact -s 'three layers, tuned = dense(OUT/cut-tuned)'"
            " -s 'distilled, tuned = dense(OUT/distilled-tuned)' -s 'distilled = dense(OUT/distilled)'"
            " -s 'three layers = dense(OUT/cut)' -s 'six layers = dense'",
        ],
        timed=True,
    ),
    "nested": Recipe(
        "Small query encoders inside a large one",
        "MatFormer: documents are read by all units of the feed-forward layers, queries by the first half, quarter or\n"
        "eighth; *plain* is fine-tuned alike, but not for that (its last step learns nothing: it puts the weightiest\n"
        "units first and calls it nested).",
        {
            "nested": f"encoder --nested --base {MODEL} {BOTH} {BOTH_DEV} --steps 100 --learning-rate 1e-4"
            " --evaluate-every 50",
            "tuned": f"encoder --base {MODEL} {BOTH} {BOTH_DEV} --steps 100 --learning-rate 1e-4 --evaluate-every 50",
            "plain": f"encoder --nested --base OUT/tuned {BOTH} --steps 1 --learning-rate 0",
        },
        [
            "DATA/squadshifts_wiki DATA/squadshifts_reddit -s 'nested, all units = dense(OUT/nested)'"
            + "".join(
                f" -s '{name}, {width} of a query = dense(OUT/{name}, query_width={width})'"
                for name in ("nested", "plain")
                for width in (0.5, 0.25, 0.125)
            )
            + " -s 'plain, all units = dense(OUT/tuned)'",
        ],
    ),
    "composition": Recipe(
        "Language and ranking adapters, put together",
        "Bottlenecks on all-MiniLM-L6-v2, an English model: of a language, by masked-language modelling on paragraphs\n"
        "without questions, and of ranking, trained behind the English one on English judgements. A cross-encoder's\n"
        "head comes with its ranking adapter. German has no adapter: there the English one stands in its place.",
        {
            **{
                language: f"adapter bottleneck --role language --base {MODEL} --texts DATA/{texts} --reduction 2"
                " --steps 100 --batch-size 32 --evaluate-every 50"
                for language, texts in (("en", "squadshifts_wiki"), ("tr", "tquad_tr"), ("es", "xquad_es"))
            },
            "rank": f"adapter bottleneck --role encoder --base {MODEL} --under OUT/en {BOTH} {BOTH_DEV} --reduction 4"
            " --steps 120 --batch-size 32 --negatives 1 --evaluate-every 60 --learning-rate 5e-4",
            "pairs": f"adapter bottleneck --role reranker --base {MODEL} --under OUT/en {BOTH} --dev"
            " DATA/squadshifts_wiki --reduction 4 --steps 100 --batch-size 8 --negatives 5 --train-length 192"
            " --evaluate-every 50 --learning-rate 5e-4",
        },
        [
            _composed("tr", "DATA/tquad_tr DATA/xquad_tr"),
            _composed("es", "DATA/xquad_es"),
            _composed("en", "DATA/xquad_de"),
        ],
    ),
    "mamba": Recipe(
        "Mamba beside a BERT of the same size",
        "Both from random weights, with the mean of their tokens, on the same pairs in the same order (no\n"
        "judge of negatives: a base that knows nothing cannot be one). [encoders.md](encoders.md) has their layouts.",
        {
            f"{kind}-trained": f"encoder --base OUT/{kind} {BOTH} {BOTH_DEV} --steps 300 --learning-rate 5e-4"
            " --drop-above 0 --evaluate-every 150"
            for kind in ("bert", "mamba")
        },
        [
            "DATA/squadshifts_wiki DATA/squadshifts_reddit DATA/scifact -s 'BERT = dense(OUT/bert-trained)'"
            " -s 'Mamba = dense(OUT/mamba-trained)' -s bm25"
        ],
        before="benchmarks/mamba.py make OUT",
        timed=True,
    ),
}


def main() -> None:
    """Run a recipe and write its section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--page", type=Path, help="a file whose section of the recipe's title is replaced")
    options = parser.parse_args()
    recipe = RECIPES[options.name]
    if recipe.before and not options.out.exists():
        subprocess.run([sys.executable, *_filled(options, recipe.before)], check=True)
    filled = [_filled(options, text) for text in recipe.trainings.values()]
    for name, arguments in zip(recipe.trainings, filled, strict=True):
        _run(["train", *arguments, "--out", str(options.out / name)])
    reports = [options.out / f"report-{number}" for number in range(len(recipe.benches))]
    for place, text in zip(reports, recipe.benches, strict=True):
        _run(["bench", *_filled(options, text), "--cache", str(options.out / "cache"), "--out", str(place)])
    text = section(options.name, recipe, options.out, reports)
    print(text)
    if options.page:
        put(options.page, text)


def _filled(options: argparse.Namespace, text: str) -> list[str]:
    return [part.replace("DATA", str(options.data)).replace("OUT", str(options.out)) for part in shlex.split(text)]


def _run(arguments: Sequence[str]) -> None:
    print(shlex.join(["retriever", *arguments]), flush=True)
    subprocess.run([sys.executable, "-c", "from retriever.cli import main; main()", *arguments], check=True)


def section(name: str, recipe: Recipe, out: Path, reports: Sequence[Path]) -> str:
    """The commands, how the trainings went, and every system on every collection."""
    experiments = [Experiment.from_json((place / "report.json").read_text(encoding="utf-8")) for place in reports]
    commands = [f"    python {recipe.before}"] if recipe.before else []
    commands += [f"    retriever train {text} --out OUT/{model}" for model, text in recipe.trainings.items()]
    commands += [f"    retriever bench {text} --out OUT/report-{number}" for number, text in enumerate(recipe.benches)]
    parts = [f"## {recipe.title}", "", recipe.about, ""]
    parts += [
        f"Test splits, on {experiments[0].machine};",
        "`*`: differs from the first row, p < .05 (paired t-test, Holm's correction over the collection).",
        f"Made with `python benchmarks/recipes.py {name} DATA OUT --page docs/results.md`, which runs",
        "",
        *commands,
        "",
    ]
    trained = [out / model for model in recipe.trainings if (out / model / "log.jsonl").exists()]
    parts += [*markdown([HEADER, *map(course, trained)]), ""]
    for experiment in experiments:
        parts += [*markdown(scores(experiment, timed=recipe.timed)), ""]
    return "\n".join(parts)


HEADER = ["training", "steps", "minutes", "loss, first", "last", "dev nDCG@10, first", "best later"]


def course(model: Path) -> list[str]:
    """How a training went, by its log; a dash where it was not measured. The first measurement is the base's."""
    entries = [json.loads(line) for line in (model / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    dev = [entry["eval_nDCG@10"] for entry in entries if "eval_nDCG@10" in entry]
    ends = [f"{mean(losses[:FIRST]):.3f}", f"{mean(losses[-LAST:]):.3f}"] if losses else ["-", "-"]
    measured = [f"{dev[0]:.4f}", f"{max(dev[1:], default=dev[0]):.4f}"] if dev else ["-", "-"]
    return [model.name, str(entries[-1]["step"]), f"{entries[-1]['seconds'] / 60:.0f}", *ends, *measured]


def scores(experiment: Experiment, *, timed: bool) -> list[list[str]]:
    """A row for each system: nDCG@10 and R@100 of each collection, and documents encoded and indexed a second."""
    columns = []
    for collection in experiment.collections:
        outcomes = experiment.of(collection.name)
        header, *rows = values_table(report([(outcome.system, outcome.results) for outcome in outcomes]))
        for measure in ("nDCG@10", "R@100"):
            place = header.index(measure)
            columns.append([f"{collection.name}, {measure}", *(row[place] for row in rows)])
        if timed:
            rates = [outcome.cost.documents_per_second for outcome in outcomes]
            columns.append(["documents/s", *("-" if rate is None else f"{rate:,.{int(rate < 10)}f}" for rate in rates)])
    return [list(row) for row in zip(["system", *experiment.systems], *columns, strict=True)]


if __name__ == "__main__":
    main()
