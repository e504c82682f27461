"""The loop that expands a corpus: resumable, and the same however often it was interrupted."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_expansions
from index_tools import Server

from retriever import Document, InputError
from retriever.errors import SpecError
from retriever.expansion.documents import Report, expand

TOY = "toy_expansions:Synonyms(n=2)"
CORPUS = [Document(f"d{i}", f"word{i} " + "more " * i) for i in range(19)]


@pytest.fixture
def log(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv(toy_expansions.LOG, str(tmp_path / "log"))
    return tmp_path / "log"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_file_says_what_made_it_and_holds_a_line_a_document(tmp_path):
    report = expand(CORPUS[:2], tmp_path / "out", TOY)
    assert lines(tmp_path / "out") == [
        {"expansion": TOY, "config": {"n": 2, "model": "first"}, "model": {"model": "first"}},
        {"id": "d0", "sha256": digest("word0 "), "expansion": ["likeword0"]},
        {"id": "d1", "sha256": digest("word1 more "), "expansion": ["likeword1", "likemore"]},
    ]
    assert report == Report(expanded=2, known=0, truncated=0)
    assert expand(CORPUS, tmp_path / "out", TOY) == Report(expanded=17, known=2, truncated=9)


def test_an_interrupted_run_goes_on_and_ends_at_the_same_file(tmp_path, log):
    expand(CORPUS, tmp_path / "whole", TOY)
    log.unlink()

    def interrupted(after: int) -> Iterator[Document]:
        yield from CORPUS[:after]
        raise KeyboardInterrupt

    for after in (2, 6, 9):
        with pytest.raises(KeyboardInterrupt):
            expand(interrupted(after), tmp_path / "out", TOY)
    assert len(lines(tmp_path / "out")) == 1 + 8  # two whole batches of four
    expand(CORPUS, tmp_path / "out", TOY)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert len(log.read_text().splitlines()) == len(CORPUS)  # nothing was expanded twice


def test_a_run_killed_at_any_step_on_disk_goes_on_and_ends_at_the_same_file(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": each.id, "text": each.text}) + "\n" for each in CORPUS))
    server, out = Server(), tmp_path / "out"
    command = ["expand", str(corpus), str(out), "--with", TOY]
    done = server.run(*command)
    assert done["code"] == 0, done
    whole = out.read_bytes()
    assert done["steps"] > 5
    for step in range(1, done["steps"] + 1):
        out.unlink(missing_ok=True)
        assert server.run(*command, kill_at=step)["code"] == -9
        assert server.run(*command)["code"] == 0
        assert out.read_bytes() == whole
    server.close()


def test_what_a_document_gets_does_not_depend_on_its_neighbours(tmp_path):
    expand(CORPUS, tmp_path / "one", TOY)
    expand(random.Random(1).sample(CORPUS, 15), tmp_path / "two", TOY)
    expand(CORPUS, tmp_path / "two", TOY)
    by_id = [{line["id"]: line for line in lines(tmp_path / name)[1:]} for name in ("one", "two")]
    assert by_id[0] == by_id[1]


def test_another_component_or_model_is_refused(tmp_path):
    expand(CORPUS, tmp_path / "out", TOY)
    with pytest.raises(InputError, match=r"expansion 'toy_expansions:Synonyms\(n=2\)', now 'toy_expansions:Synonyms'"):
        expand(CORPUS, tmp_path / "out", "toy_expansions:Synonyms(n=3)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("doc2quiry(x)", "no document expansion is called 'doc2quiry'; did you mean 'doc2query'?"),
        ("doc2query", r"doc2query needs 'model', as in doc2query\(MODEL\)"),
        ("doc2query(x, n=-1)", "doc2query: n must be at least 0"),
        ("doc2query(x) >> y", r"this is a pipeline; give one document expansion, as in doc2query\(MODEL\)"),
        ("tilde(x, max_length=2)", "tilde: max_length must be at least 3"),
        ("tilde(no/such)", "model 'no/such' was not found"),
    ],
)
def test_what_is_wrong_with_the_text_is_said_before_anything_is_written(tmp_path, monkeypatch, text, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=message) as caught:
        expand(CORPUS, tmp_path / "out", text)
    assert isinstance(caught.value, SpecError) or "not found" in message
    assert not (tmp_path / "out").exists()
