"""What a user gets wrong, and what a machine does: message, exit code, and what is left on disk."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import crash_driver
import pytest
import toy_encoders
from index_tools import TESTS, contents, environment, mounted, read_only, retriever, write_corpus

from retriever import Retriever, cli, read_corpus, writer
from retriever.store import manifest as manifests

VIEWS = ["--view", "bm25", "--view", "dense(toy_encoders:HashEncoder)"]
GOOD = [json.dumps({"_id": f"g{number}", "text": f"a good text {number}"}) for number in range(3)]


class Answer(NamedTuple):
    code: int
    output: str
    errors: str


@pytest.fixture
def call(monkeypatch, capsys):
    """The command line as it is, in this process."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["retriever", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def index(tmp_path) -> Path:
    path = tmp_path / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ENCODED_SEGMENT", 3)
        made = Retriever.prepare(path, VIEWS[1::2])
        made.add(read_corpus(write_corpus(tmp_path / "first.jsonl", range(5))))
    made.close()
    return path


def state(index: Path) -> dict[str, bytes]:
    """Every byte of an index but its locks."""
    return {str(path): path.read_bytes() for path in index.rglob("*") if path.is_file() and path.suffix != ".lock"}


def refused(answer: Answer, message: str, code: int = 2) -> None:
    """The whole of standard error is one message; nothing went to standard output."""
    assert re.fullmatch(f"error: {message}\n", answer.errors), answer.errors
    assert (answer.code, answer.output) == (code, "")


def lines(*records: str | bytes) -> bytes:
    return b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in records)


BAD_RECORDS = {
    "broken JSON": (
        lines(GOOD[0], GOOD[1], '{"_id": "x", "text": "cut sho', GOOD[2]),
        r":3: broken JSON at column 22: Unterminated string starting at; expected one JSON object per line",
    ),
    "no _id": (
        lines(GOOD[0], '{"text": "whose?"}', *GOOD[1:]),
        r":2: no id: expected one of '_id', 'id', 'docid', 'pid', got 'text'",
    ),
    "an id twice": (
        lines(*GOOD, '{"_id": "g0", "text": "again"}'),
        r":4: document id 'g0' comes a second time in this corpus; ids must be unique",
    ),
    "empty text": (
        lines('{"_id": "e", "text": " "}', *GOOD),
        r":1: empty text and title in 'e': fill it or leave the record out",
    ),
    "not UTF-8": (
        lines(GOOD[0], b'{"_id": "l", "text": "caf\xe9"}', *GOOD[1:]),
        r":2: not UTF-8: byte 26 of the line is 0xe9; convert the file to UTF-8",
    ),
    "10 MB": (
        lines(*GOOD, json.dumps({"_id": "big", "text": "lorem " * 1_750_000})),
        r":4: document 'big' has 10,500,000 bytes of text, the limit is 8,388,608: split it into passages",
    ),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
class TestBadRecords:
    @pytest.fixture
    def bad(self, kind, tmp_path) -> tuple[Path, str]:
        data, message = BAD_RECORDS[kind]
        corpus = tmp_path / "bad.jsonl"
        corpus.write_bytes(data)
        return corpus, re.escape(str(corpus)) + message

    def test_a_new_index_is_not_made(self, bad, call, tmp_path):
        corpus, message = bad
        refused(call("index", corpus, tmp_path / "new", *VIEWS), message)
        assert not (tmp_path / "new").exists()

    def test_an_index_that_is_there_stays_as_it_is(self, bad, call, index):
        corpus, message = bad
        before = state(index)
        refused(call("add", index, corpus), message)
        refused(call("index", corpus, index), message)
        assert state(index) == before

    @pytest.mark.parametrize("command", ["index", "add"])
    def test_skip_bad_indexes_the_rest_and_counts(self, bad, call, index, tmp_path, command):
        corpus, message = bad
        target = tmp_path / "new" if command == "index" else index
        arguments = ["index", corpus, target, *VIEWS] if command == "index" else ["add", index, corpus]
        answer = call(*arguments, "--skip-bad")
        documents = 3 if command == "index" else 8
        told = rf"skipped: {message}\n.*: 3 added, 0 updated, 0 unchanged, 1 bad records skipped; {documents} documents"
        assert re.match(told, answer.errors), answer.errors
        assert answer.code == 0
        assert set(Retriever(target).documents(["g0", "g1", "g2", "x", "e", "l", "big"])) == {"g0", "g1", "g2"}
        assert Retriever(target).documents(["g0"])["g0"].text == "a good text 0"


def test_a_bad_record_after_commits_keeps_them_and_the_repaired_corpus_completes(call, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ENCODED_SEGMENT", 2)
    corpus, path, whole = tmp_path / "c.jsonl", tmp_path / "new", tmp_path / "whole"
    write_corpus(corpus, range(9))
    assert call("index", corpus, whole, *VIEWS).code == 0
    good = corpus.read_text().splitlines()
    corpus.write_text("\n".join([*good[:5], "{", *good[5:]]))
    answer = call("index", corpus, path, *VIEWS)
    refused(answer, rf"{corpus}:6: broken JSON .*")
    assert len(Retriever(path)) == 4
    assert Retriever(path).verify() == []
    corpus.write_text("\n".join(good))
    assert call("index", corpus, path, *VIEWS).code == 0
    assert contents(path) == contents(whole)


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_an_id_that_comes_again_in_a_later_commit(call, tmp_path, monkeypatch, distance):
    """Also when the first commits are found in the index already, and also when both documents are the same."""
    monkeypatch.setattr(writer, "ENCODED_SEGMENT", 2)
    corpus = write_corpus(tmp_path / "c.jsonl", [*range(distance), 0, 7, 8])
    place = rf"{corpus}:{distance + 1}: document id 'd0' comes a second time in this corpus; ids must be unique"
    for _ in range(2):
        refused(call("index", corpus, tmp_path / "new", *VIEWS), place)
    answer = call("index", corpus, tmp_path / "new", *VIEWS, "--skip-bad")
    assert "1 bad records skipped" in answer.errors
    assert len(Retriever(tmp_path / "new")) == distance + 2


@pytest.mark.parametrize("name", ["empty.jsonl", "blank.jsonl", "header.csv", "folder"])
@pytest.mark.parametrize("skip", [[], ["--skip-bad"]])
def test_an_empty_corpus(call, index, tmp_path, name, skip):
    corpus = tmp_path / name
    if name == "folder":
        corpus.mkdir()
        message = r"a folder of no known layout: looked for .*"
    else:
        corpus.write_text({"empty.jsonl": "", "blank.jsonl": "\n \n", "header.csv": "id,text\n"}[name])
        message = "holds no documents"
    before = state(index)
    refused(call("add", index, corpus, *skip), rf"{corpus}: {message}")
    refused(call("index", corpus, tmp_path / "new", *VIEWS, *skip), rf"{corpus}: {message}")
    assert state(index) == before
    assert not (tmp_path / "new").exists()


def test_a_corpus_of_which_everything_is_bad(call, tmp_path):
    corpus = tmp_path / "bad.jsonl"
    corpus.write_text("{\n[]\n")
    answer = call("index", corpus, tmp_path / "new", *VIEWS, "--skip-bad")
    assert answer.code == 2
    assert answer.errors.endswith(f"error: {corpus}: holds no documents; all 2 records are bad and were skipped\n")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("text=abstract", r"{corpus}:1: no column for the text: expected 'abstract', got 'id', 'body'; .*"),
        ("txt=body", r"--column takes id=NAME, title=NAME or text=NAME, not 'txt'"),
        ("text", r"--column takes id=NAME, title=NAME or text=NAME, not 'text'"),
    ],
)  # fmt: skip
def test_an_unknown_column(call, index, tmp_path, option, message):
    corpus = tmp_path / "c.csv"
    corpus.write_text("id,body\n1,hello\n")
    before = state(index)
    refused(call("index", corpus, tmp_path / "new", *VIEWS, "--column", option), message.format(corpus=corpus))
    refused(call("add", index, corpus, "--column", option), message.format(corpus=corpus))
    assert state(index) == before
    assert not (tmp_path / "new").exists()


def test_an_unknown_measure(call, tmp_path):
    """Told before any file is read."""
    answer = call("eval", tmp_path / "no.run", "--qrels", tmp_path / "no.qrels", "-m", "nDGC@10")
    refused(answer, r"unknown measure 'nDGC@10'; did you mean nDCG@10.*")


@pytest.mark.parametrize(
    ("option", "text", "message", "at"),
    [
        ("--pipeline", "bm25 + dense > rrf", "not understood from here", 13),
        ("--pipeline", "bm25(k=5", "expected ',', found the end", 8),
        ("--pipeline", "bm25 >>", "expected a component's name, found the end", 7),
        ("--pipeline", "bm25 + dense", "lists side by side need a stage that joins them: ... >> rrf", 0),
        ("--pipeline", "bm25 + dnse >> rrf", "this index has no view 'dnse'; did you mean 'dense'? known: ", 7),
        ("--pipeline", "bm25 >> cross-encodr(x)", "no stage is called 'cross-encodr'; did you mean 'cross-enc", 8),
        ("--pipeline", "bm25 + dense >> rff", "'rff' does not join lists; did you mean 'rrf'? ", 16),
        ("--pipeline", "bm25(depth=3)", "bm25: a search cannot set 'depth'; it can set: k, title_boost, syntax", 0),
        ("--pipeline", "bm25(k=0)", "bm25: k must be a whole number from 1", 0),
        ("--where", "year >=", "expected a number, a 'quoted text', true or false, found the end", 7),
        ("--where", "year >= 1950 nd lang", "expected 'and', 'or' or the end, found 'nd'", 13),
        ("--where", "year ? 3", "not understood from here", 5),
    ],
)  # fmt: skip
def test_a_pipeline_or_filter_that_does_not_parse_has_a_caret(call, index, option, text, message, at):
    answer = call("search", index, "lift", option, text)
    refused(answer, rf"{re.escape(message)}.*\n  {re.escape(text)}\n  {' ' * at}\^")


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("bm52", r"no view is called 'bm52'; did you mean 'bm25'\? known: bm25, .*dense, .*\n  (mine = )?bm52\n +\^"),
        ("bm25(language=klingon)", r"bm25: no analyzer for language 'klingon'; (?s:.*)"),
        ("dense(no/such-model)", r"model 'no/such-model' was not found; tried: the path no/such-model, "
         r"the Hugging Face cache\. What to do: give the path of a local model folder, or go online "
         r"\(HF_HUB_OFFLINE is set\)"),
        ("dense(toy_encoders:HashEncoder, index=Flt)", r"FAISS makes no index 'Flt' for 32 dimensions: .*Flt.*"),
        ("dense(toy_encoders:NoEncoder)", r"cannot import 'toy_encoders:NoEncoder': (?s:.*)"),
        ("dense(no_such_module:Encoder)", r"cannot import 'no_such_module:Encoder': (?s:.*)"),
    ],
)  # fmt: skip
def test_a_view_that_cannot_be_made(call, index, tmp_path, view, message):
    corpus = write_corpus(tmp_path / "c.jsonl", range(3))
    refused(call("index", corpus, tmp_path / "new", "--view", view), message)
    assert not (tmp_path / "new").exists()
    before = contents(index)
    refused(call("index", corpus, index, "--view", f"mine = {view}"), message)
    assert contents(index) == before
    assert call("verify", index).code == 0


class TestAnotherEncoder:
    def test_than_the_one_that_made_the_view(self, call, index, tmp_path, monkeypatch):
        corpus, before = write_corpus(tmp_path / "c.jsonl", range(20, 23)), state(index)
        monkeypatch.setattr(toy_encoders.HashEncoder, "name", "changed")
        message = (
            r"view 'dense' was encoded by another encoder than 'toy_encoders:HashEncoder' "
            r"\(name: 'hash', now 'changed'\)\. Give the encoder that made it, or make a new index\."
        )
        refused(call("add", index, corpus), message)
        refused(call("index", corpus, index), message)
        refused(call("search", index, "lift"), message)
        assert state(index) == before
        assert call("search", index, "lift", "--pipeline", "bm25").code == 0
        assert call("delete", index, "d1").code == 0  # needs no encoder

    def test_under_the_name_of_a_view_that_is_there(self, call, index, tmp_path):
        corpus, before = write_corpus(tmp_path / "c.jsonl", range(20, 23)), state(index)
        refused(
            call("index", corpus, index, "--view", "dense(toy_encoders:OtherEncoder)"),
            r"view 'dense' is dense\(model=toy_encoders:HashEncoder\), not dense\(model=toy_encoders:OtherEncoder\); "
            r"keep it as it is, give the other a name of its own \(--view \"dense2 = \.\.\.\"\), or make a new index",
        )
        assert state(index) == before


class TestPlaces:
    def test_no_index_there(self, call, tmp_path):
        for command in (["search", "lift"], ["info"], ["verify"], ["compact"], ["delete", "x"], ["add", "c.jsonl"]):
            answer = call(command[0], tmp_path / "none", *command[1:])
            refused(answer, rf"{tmp_path}/none: no index here; make one with `retriever index CORPUS {tmp_path}/none`")

    def test_no_corpus_there(self, call, tmp_path):
        answer = call("index", tmp_path / "none.jsonl", tmp_path / "new", *VIEWS)
        refused(answer, rf"{tmp_path}/none.jsonl: there is no such file or folder")
        assert not (tmp_path / "new").exists()

    def test_a_folder_that_holds_something_else(self, call, tmp_path):
        corpus = write_corpus(tmp_path / "c.jsonl", range(3))
        answer = call("index", corpus, tmp_path, *VIEWS)
        refused(answer, rf"{tmp_path}: is not empty and holds no index; give another folder")
        assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]
        refused(call("index", corpus, corpus, *VIEWS), rf"{corpus}: is a file; an index is a folder")

    @pytest.mark.parametrize(("arguments", "message"), [
        (["lift", "-k", "0"], "k must be at least 1, not 0"),
        ([" "], "the query is empty; give at least one word"),
        ([], "give a query, or --queries with a file of them"),
        (["lift", "--run", "x"], "--run writes the results of --queries; a single query is printed"),
    ])  # fmt: skip
    def test_a_search_for_nothing(self, call, index, arguments, message):
        refused(call("search", index, *arguments), message)


def test_an_index_of_a_newer_format(call, index):
    path = index / manifests.NAME
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    for command in (["search", "lift"], ["verify"], ["delete", "d1"]):
        answer = call(command[0], index, *command[1:])
        refused(answer, rf"{path}: format 7, this version reads up to 1: upgrade retriever-engine")


class TestFullDisk:
    """A file system with room for part of the work."""

    FULL = r".*the disk is full; free some space and run the same command again: what was committed is kept"

    @pytest.mark.parametrize(
        "view", ["bm25", "dense(toy_encoders:HashEncoder)", "a = dense(toy_encoders:HashEncoder, index=HNSW8)"]
    )
    @pytest.mark.parametrize("room", [0, 8, 40, 80])
    def test_leaves_a_sound_index_and_the_command_completes_later(self, call, tmp_path, view, room):
        first, more = write_corpus(tmp_path / "1.jsonl", range(5)), write_corpus(tmp_path / "2.jsonl", range(3, 800))
        whole = tmp_path / "whole"
        for corpus in (first, more):
            assert call("index", corpus, whole, "--view", view).code == 0
        with mounted(tmp_path / "disk", "size=2m") as disk:
            index, fill = disk / "index", disk / "fill"
            assert call("index", first, index, "--view", view).code == 0
            before = contents(index)
            self.fill(fill, room)
            refused(call("add", index, more), self.FULL, 1)
            refused(call("index", more, disk / "new", "--view", view), self.FULL, 1)
            assert call("verify", index).code == 0
            assert len(Retriever(index).search("lift", 1000)) in (5, 800)
            if not view.startswith("a ="):  # what was committed is kept when only the FAISS index finds no room
                assert contents(index) == before
            fill.unlink()
            assert call("add", index, more).code == 0
            assert contents(index) == contents(whole)

    def test_deleting_and_compacting(self, call, index, tmp_path):
        with mounted(tmp_path / "disk", "size=1m") as disk:
            path, fill = disk / "index", disk / "fill"
            assert call("index", write_corpus(tmp_path / "c.jsonl", range(300)), path, *VIEWS).code == 0
            before = contents(path)
            self.fill(fill, 0)
            refused(call("delete", path, "d1", "d2"), self.FULL, 1)
            refused(call("compact", path), self.FULL, 1)
            assert contents(path) == before
            assert call("verify", path).code == 0
            fill.unlink()
            assert call("delete", path, "d1", "d2").code == 0
            assert call("compact", path).code == 0
            assert len(Retriever(path)) == 298

    @staticmethod
    def fill(path: Path, room: int) -> None:
        """Leave `room` KiB."""
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                file.truncate(max(0, file.tell() - room * 1024))


def test_a_read_only_disk_can_be_searched_and_not_written(call, tmp_path):
    corpus = write_corpus(tmp_path / "c.jsonl", range(9))
    with mounted(tmp_path / "disk") as disk:
        index = disk / "index"
        assert (
            call(
                "index", corpus, index, *VIEWS, "--view", "a = dense(toy_encoders:HashEncoder, index='IVF2,Flat')"
            ).code
            == 0
        )
        assert call("delete", index, "d1").code == 0
        expected = contents(index)
        for folder in {path.parent for path in index.rglob("meta.json")}:
            (folder / ".tantivy-meta.lock").touch()  # what an earlier reader may leave
        read_only(disk)
        message = r".*: the file system is read-only"
        for command in (["add", index, corpus], ["delete", index, "d2"], ["compact", index], ["index", corpus, index]):
            refused(call(*command), message, 1)
        refused(call("index", corpus, disk / "new", *VIEWS), message, 1)
        assert contents(index) == expected
        assert call("verify", index).code == 0
        assert call("info", index).code == 0
        result = retriever("search", index, "lift word1", "--json", "-k", 5)
        assert (result.returncode, len(result.stdout.splitlines())) == (0, 5)


class TestCtrlC:
    def start(self, *arguments: object, pause: str) -> subprocess.Popen:
        command = [sys.executable, str(TESTS / "crash_driver.py"), *map(str, arguments)]
        env = environment(**{crash_driver.COMMIT: "4", toy_encoders.SLEEP: pause})
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        assert process.stdout.readline() == "started\n"
        return process

    def interrupt(self, process: subprocess.Popen) -> None:
        with process:
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=20)
        message = "error: interrupted; what was committed is kept, and the same command goes on from there\n"
        assert (process.returncode, output, errors) == (130, "", message)

    @pytest.fixture
    def small_commits(self, monkeypatch):
        monkeypatch.setattr(writer, "ENCODED_SEGMENT", 4)

    @pytest.mark.usefixtures("small_commits")
    def test_in_the_middle_of_encoding(self, call, tmp_path, monkeypatch):
        monkeypatch.setenv(toy_encoders.SLEEP, "0")
        views = ["--view", "bm25", "--view", "dense(toy_encoders:SlowEncoder)"]
        corpus, path = write_corpus(tmp_path / "c.jsonl", range(42)), tmp_path / "index"
        assert call("index", corpus, tmp_path / "whole", *views).code == 0
        process = self.start("index", corpus, path, *views, pause="0.05")
        until(lambda: (path / manifests.NAME).exists() and manifests.load(path).rows >= 8)
        self.interrupt(process)
        rows = len(Retriever(path))
        assert 8 <= rows < 42
        assert rows % 4 == 0
        assert call("verify", path).code == 0
        assert call("index", corpus, path, *views).code == 0
        assert contents(path) == contents(tmp_path / "whole")

    def test_before_anything_is_committed_leaves_no_new_index(self, tmp_path):
        corpus, path = write_corpus(tmp_path / "c.jsonl", range(42)), tmp_path / "index"
        process = self.start("index", corpus, path, "--view", "dense(toy_encoders:SlowEncoder)", pause="2")
        until(lambda: (path / "documents").exists())
        self.interrupt(process)
        assert not path.exists()


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class TestTheInstalledCommand:
    """The same through the entry point, as a shell sees it."""

    def test_bad_input_is_exit_code_2(self, tmp_path):
        corpus = tmp_path / "bad.jsonl"
        corpus.write_bytes(lines(GOOD[0], "{"))
        result = retriever("index", "bad.jsonl", "new", "--view", "bm25", cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr.startswith("error: bad.jsonl:2: broken JSON at column 2: ")
        assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]

    def test_a_reader_of_our_output_that_leaves_is_no_error(self, index):
        command = [str(Path(sys.executable).with_name("retriever")), "search", str(index), "lift", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(20) == 0

    def test_a_command_that_does_not_exist(self):
        result = retriever("serch", "index", "lift")
        assert result.returncode == 2
        assert "No such command 'serch'" in result.stderr
