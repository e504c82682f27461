"""A comparison made by hand: three systems on two small collections, a hostile text, a number out of tolerance."""

from retriever.bench.outcome import Collection, Cost, Experiment, Outcome, Published
from retriever.eval.measures import Results, evaluate
from retriever.runs import Qrels, Run

HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
SYSTEMS = ["bm25", "dense(a_b)", "bm25 + dense(a_b) >> rrf"]
MEASURES = ["nDCG@10", "RR@10"]
QUERIES = 12


def experiment() -> Experiment:
    """`wings` has all three systems; on `heat` the last, a fusion, did not run, and the first is a run file."""
    wings, heat = collection("wings", HOSTILE), collection("heat", "what is heat?")
    made = [
        outcome(wings, 0, 3, Cost(1000, 50_000, 2.5, 800, 0.5, 0.9, 1.4, 310, 150, None, "cpu")),
        outcome(wings, 1, 1, Cost(90, 4_500, 27.8, 120, 6, 8, 9.5, 1536, 900, 22_700_000, "cpu", "float32")),
        outcome(wings, 2, 2, Cost(82, 4_100, 30.3, 95, 7, 9, 11, 1846, 950, 22_700_000, "cpu", "float32")),
        outcome(heat, 0, 3, Cost()),
        outcome(heat, 1, 2, Cost(95, 4_800, 26.0, 118, 6, 8, 9.5, 1536, 900, 22_700_000, "cpu", "float32")),
    ]
    return Experiment(
        command='retriever bench wings/ heat/ --system "bm25" --system "dense(a_b)" --out report/',
        machine="2 cores of a processor; Python 3.11, faiss 1.12",
        date="2026-11-23",
        measures=MEASURES,
        systems=SYSTEMS,
        collections=[wings, heat],
        outcomes=made,
    )


def collection(name: str, first: str) -> Collection:
    """Twelve queries, each with a relevant document and one judged not relevant."""
    queries = {f"q{n}": f"query {n} about {name}" for n in range(QUERIES)} | {"q0": first}
    texts = {f"d{n}": f"Document {n} of {name}." for n in range(QUERIES)} | {"d0": f"Text with {HOSTILE}"}
    grades = {f"q{n}": {f"d{n}": 2, "x1": 0} for n in range(QUERIES)}
    return Collection(name, 1000, queries, texts, grades)


def outcome(asked: Collection, system: int, rank: int, cost: Cost) -> Outcome:
    """The relevant document stands at the given rank; for every fourth query one later, for q0 nowhere."""
    found = {query: ranking(query, rank + (int(query[1:]) % 4 == 3)) for query in asked.queries}
    published = (
        {"nDCG@10": Published(0.5, 0.01, "a paper, table 2", within=system == 0)} if asked.name == "wings" else {}
    )
    return Outcome(asked.name, SYSTEMS[system], measured(asked, found), cost, found, ["2 texts were cut"], published)


def ranking(query: str, rank: int) -> list[str]:
    others = [f"x{n}" for n in range(1, 10)]
    return others if query == "q0" else [*others[: rank - 1], f"d{query[1:]}", *others[rank - 1 :]]


def measured(asked: Collection, found: dict[str, list[str]]) -> Results:
    run = Run({query: {document: 1 / n for n, document in enumerate(ids, 1)} for query, ids in found.items()})
    return evaluate(run, Qrels(asked.grades), MEASURES)
