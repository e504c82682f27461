"""The demo's collection: documents from this interpreter, questions and judgements from `examples/stdlib`."""

import csv
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "stdlib"


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stdlib_corpus", FOLDER / "corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def documents(corpus: ModuleType) -> dict[str, dict[str, object]]:
    return {document["_id"]: document for document in corpus.documents()}


@pytest.fixture(scope="module")
def queries() -> dict[str, str]:
    lines = (FOLDER / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return {query["_id"]: query["text"] for query in map(json.loads, lines)}


@pytest.fixture(scope="module")
def qrels() -> list[dict[str, str]]:
    with (FOLDER / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_a_document_is_what_help_would_show(documents):
    document = documents["os.path.join"]

    assert document["title"] == "os.path.join(a, *p)"
    assert document["text"].startswith("Join two or more pathname components")
    assert document["metadata"] == {"module": "os.path", "kind": "function"}


@pytest.mark.parametrize(
    ("doc_id", "kind"),
    [
        ("json", "module"),
        ("sorted", "function"),  # builtins go by their bare names
        ("str.split", "method"),
        ("collections.OrderedDict", "class"),
        ("pathlib.Path.glob", "method"),
        ("argparse.ArgumentParser.add_argument", "method"),  # from the private argparse._ActionsContainer
        ("concurrent.futures.ThreadPoolExecutor", "class"),  # loaded on first access, documented in __init__
        ("random.choice", "function"),  # a bound method of a hidden random.Random
        ("os.getcwd", "function"),  # from posix
    ],
)
def test_an_object_goes_by_the_name_of_the_manual(documents, doc_id, kind):
    assert documents[doc_id]["metadata"]["kind"] == kind


@pytest.mark.parametrize("doc_id", ["posixpath.join", "io.open", "random.Random.choice", "json.decoder.JSONDecoder"])
def test_an_object_has_one_document(documents, doc_id):
    assert doc_id not in documents


def test_there_are_several_thousand_documents(documents):
    assert len(documents) > 5000


def test_no_two_documents_share_an_id(corpus):
    counts = Counter(document["_id"] for document in corpus.documents())

    assert [doc_id for doc_id, count in counts.items() if count > 1] == []


def test_every_document_has_text_and_no_private_name(documents):
    assert [doc_id for doc_id, document in documents.items() if not document["text"]] == []
    assert [doc_id for doc_id in documents if doc_id.startswith("_") or "._" in doc_id] == []


def test_two_calls_give_the_same_documents(corpus, documents):
    assert list(corpus.documents()) == list(documents.values())


def test_two_processes_write_the_same_file(tmp_path):
    """Hash seed, addresses and environment differ between processes; nothing of them may reach a document."""
    contents = []
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "DEMO_SECRET": f"do-not-index-{seed}"}
        command = [sys.executable, "-W", "error", str(FOLDER / "corpus.py"), str(tmp_path / seed)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        contents.append((tmp_path / seed / "corpus.jsonl").read_text(encoding="utf-8"))

    assert contents[0] == contents[1]
    assert "do-not-index" not in contents[0]


def test_there_are_at_least_a_hundred_questions(queries):
    assert len(queries) >= 100
    assert len(set(queries.values())) == len(queries)


def test_every_question_has_an_answer(queries, qrels):
    answered = {line["query-id"] for line in qrels if line["score"] == "2"}

    assert answered == set(queries)


def test_every_question_has_one_to_six_judgements(queries, qrels):
    counts = Counter(line["query-id"] for line in qrels)

    assert set(counts) == set(queries)
    assert max(counts.values()) <= 6
    assert len({(line["query-id"], line["corpus-id"]) for line in qrels}) == len(qrels)
    assert {line["score"] for line in qrels} == {"1", "2"}


def test_judged_documents_exist(documents, qrels):
    """All of them on the Python they were judged on; another version may have renamed a few."""
    judged = {line["corpus-id"] for line in qrels}
    missing = sorted(judged - set(documents))

    allowed = 0 if sys.version_info[:2] == (3, 11) else 0.05 * len(judged)
    assert len(missing) <= allowed, f"judged, but not in this interpreter: {missing}"


def test_no_question_names_its_answer(queries, qrels):
    """It would measure string matching. Names without a dot are left out, for they are words: `json`, `sorted`."""
    named = [
        (line["query-id"], line["corpus-id"])
        for line in qrels
        if "." in line["corpus-id"] and line["corpus-id"].lower() in queries[line["query-id"]].lower()
    ]

    assert named == []
