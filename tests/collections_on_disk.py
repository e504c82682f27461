"""Small BEIR folders that a tiny model can learn from within seconds."""

import json
from collections.abc import Mapping
from pathlib import Path

THINGS = ["wing", "lift", "drag", "flow", "heat", "shock", "plate", "body"]
PLACES = ["in", "over", "under", "of"]


def write(folder: Path, documents: Mapping[str, str], queries: Mapping[str, str], **splits: list[str]) -> Path:
    """A BEIR folder; each split is a list of lines `query document grade`."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = (json.dumps({"_id": key, "text": text}) for key, text in texts.items())
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for split, judged in splits.items():
        rows = ["query-id corpus-id score", *judged]
        (folder / "qrels" / f"{split}.tsv").write_text("".join("\t".join(row.split()) + "\n" for row in rows))
    return folder


def things(folder: Path, **splits: list[str]) -> Path:
    """A document for each thing in each place; a query names the two in the other order."""
    pairs = {f"{thing}-{place}": (thing, place) for thing in THINGS for place in PLACES}
    documents = {f"d-{name}": f"the {thing} is {place} a body" for name, (thing, place) in pairs.items()}
    queries = {f"q-{name}": f"query : {place} {thing}" for name, (thing, place) in pairs.items()}
    judged = [f"q-{name} d-{name} 1" for name in pairs]
    return write(folder, documents, queries, **(splits or {"train": judged}))
