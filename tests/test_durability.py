"""A killed writer loses nothing that was committed, and the same command then ends where it would have ended."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crash_driver
import pytest
import toy_encoders
from index_tools import (
    QUERIES,
    RAM,
    TESTS,
    Server,
    contents,
    documents,
    environment,
    write_corpus,
)

from retriever import InputError, Query, Retriever, read_corpus, writer
from retriever.store import manifest as manifests

VIEWS = (
    "bm25",
    "free = bm25(k1=0.9, b=0.4)",
    "splade(toy_encoders:TermEncoder)",
    "ann = dense(toy_encoders:HashEncoder, index='IVF2,Flat')",
)
COMMIT = {crash_driver.COMMIT: "3"}


@pytest.fixture(autouse=True)
def small_commits(monkeypatch):
    monkeypatch.setenv(crash_driver.COMMIT, "3")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def fast_folder() -> Iterator[Path]:
    """In memory where that is possible: what a kill leaves there is what it leaves on a disk, without the waiting."""
    with tempfile.TemporaryDirectory(dir=RAM if os.access(RAM, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(**COMMIT)
    yield server
    server.close()


@dataclass
class Command:
    """A command with the index that it starts from (none: it makes one) and what it leads to."""

    arguments: Callable[[Path], list[str]]
    before: Path | None
    after: dict[str, Any]
    steps: int

    def start(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        if self.before:
            shutil.copytree(self.before, folder)
        return folder


@pytest.fixture(scope="module")
def commands(server, fast_folder) -> dict[str, Command]:
    """index: three commits; add: new and changed documents; delete and compact: on an index that had deletions."""
    folder = fast_folder / "commands"
    folder.mkdir()
    first = str(write_corpus(folder / "first.jsonl", range(8)))
    second = str(write_corpus(folder / "second.jsonl", [*range(7, 11), 2, 3], "new words"))
    views = [part for view in VIEWS for part in ("--view", view)]
    index = folder / "index"

    def command(arguments: Callable[[Path], list[str]]) -> Command:
        before = None
        if index.exists():
            before = folder / f"before-{len(list(folder.iterdir()))}"
            shutil.copytree(index, before)
        done = server.run(*arguments(index))
        assert done["code"] == 0, done
        return Command(arguments, before, contents(index), done["steps"])

    return {
        "index": command(lambda path: ["index", first, str(path), *views]),
        "delete": command(lambda path: ["delete", str(path), "d1", "d5", "absent"]),
        "add": command(lambda path: ["add", str(path), second]),
        "compact": command(lambda path: ["compact", str(path)]),
    }


def check_survivor(path: Path, command: Command, name: str) -> dict[str, Any]:
    """What must hold right after a kill; returns the live documents."""
    if not (path / manifests.NAME).exists():
        assert command.before is None
        with pytest.raises(InputError, match="no index here"):
            Retriever(path)
        return {}
    index = Retriever(path)
    assert index.verify() == []
    live = documents(path)
    before = documents(command.before) if command.before else {}
    after = {document.id: document for row, document in command.after["rows"] if row not in command.after["deleted"]}
    assert len(index) == len(live)
    assert all(document in (before.get(id), after.get(id)) for id, document in live.items())
    lost = before.keys() - live.keys()
    assert lost == (before.keys() - after.keys() if lost else set()), "a deletion is seen whole or not at all"
    if name in ("index", "add"):
        assert not lost
    for view in index.info()["views"]:
        for _, ranking in index.run([Query(text, text) for text in QUERIES], pipeline=view).items():
            assert ranking.keys() <= live.keys()
    index.close()
    return live


def check_completion(server: Server, path: Path, command: Command) -> None:
    done = server.run(*command.arguments(path))
    assert done["code"] == 0, done
    assert Retriever(path).verify() == []
    assert contents(path) == command.after


NAMES = ["index", "delete", "add", "compact"]


@pytest.mark.parametrize("name", NAMES)
def test_every_state_that_a_kill_can_leave_is_sound(name, commands, server, fast_folder):
    """All states are looked at; one in twelve is completed, and all of them in the slow test below."""
    check_all_states(commands[name], name, server, fast_folder, every=12)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_state_that_a_kill_can_leave_completes(name, commands, server, fast_folder):
    check_all_states(commands[name], name, server, fast_folder, every=1)


def check_all_states(command: Command, name: str, server: Server, fast_folder: Path, every: int) -> None:
    """One run, its folder copied before every step: such a copy is what a kill there would leave."""
    folder = fast_folder / "states"
    shutil.rmtree(folder, ignore_errors=True)
    path = command.start(fast_folder / "index")
    done = server.run(*command.arguments(path), copy=[str(path), str(folder)])
    assert done["code"] == 0
    states = sorted(folder.iterdir(), key=lambda state: int(state.name))
    assert len(states) > 5
    different = {digest_of(state): state for state in reversed(states)}
    live: dict[str, Any] = {}
    for number, state in enumerate(reversed(different.values())):
        now = check_survivor(state, command, name)
        if name in ("index", "add"):
            assert live.keys() <= now.keys(), "documents that were there are gone"
            live = now
        if number % every == 0:
            check_completion(server, state, command)
    assert len(different) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_every_step(name, commands, server, fast_folder):
    command = commands[name]
    for step in range(1, command.steps + 1):
        path = command.start(fast_folder / "index")
        done = server.run(*command.arguments(path), kill_at=step)
        # tantivy writes one file more or less from run to run, so the last steps may not come
        assert done["code"] == -signal.SIGKILL or (done["code"] == 0 and step > done["steps"]), (step, done)
        check_survivor(path, command, name)
        check_completion(server, path, command)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["interrupt_at", "fail_at"])
def test_interrupted_or_failing_at_some_steps(name, ending, commands, server, fast_folder):
    check_endings(commands[name], name, ending, server, fast_folder, every=31)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["interrupt_at", "fail_at"])
def test_interrupted_or_failing_at_every_step(name, ending, commands, server, fast_folder):
    check_endings(commands[name], name, ending, server, fast_folder, every=1)


def check_endings(command: Command, name: str, ending: str, server: Server, fast_folder: Path, every: int) -> None:
    """Ctrl-C, or a disk that fails once. Unlike a kill, the writer still cleans up: it must not clean too much."""
    codes = set()
    for step in range(1, command.steps + 1, every):
        path = command.start(fast_folder / "index")
        done = server.run(*command.arguments(path), **{ending: step})
        assert "Traceback" not in done["output"], (step, done)
        codes.add(done["code"])
        check_survivor(path, command, name)
        check_completion(server, path, command)
    failed = 130 if ending == "interrupt_at" else 1
    assert failed in codes
    assert codes <= {0, failed}  # 0: after the last commit, or where another way was found


def digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def kill_at_random(name: str, command: Command, server: Server, folder: Path, kills: int, seed: int) -> None:
    """Real processes, killed by another at any moment between their first step and a little after their last."""
    chance, times = random.Random(seed), []
    killed = 0
    for _ in range(kills):
        path = command.start(folder / "index")
        process = subprocess.Popen(
            [sys.executable, str(TESTS / "crash_driver.py"), *command.arguments(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**COMMIT),
        )
        with process:
            assert process.stdout.readline() == b"started\n"
            began = time.monotonic()
            try:
                process.wait(chance.uniform(0, max(times, default=0.3) * 1.05))
                times.append(time.monotonic() - began)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            assert process.wait() in (0, -signal.SIGKILL), process.stderr.read()
        check_survivor(path, command, name)
        check_completion(server, path, command)
    assert killed


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments(name, commands, server, tmp_path):
    kill_at_random(name, commands[name], server, tmp_path, 3, seed=len(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_many_random_moments(name, commands, server, tmp_path):
    kill_at_random(name, commands[name], server, tmp_path, 75, seed=100 + len(name))


def test_killed_again_and_again_the_same_command_still_arrives(commands, server, fast_folder):
    """Killed at ever later steps of each new attempt, as by a machine with too little memory."""
    command = commands["index"]
    path = command.start(fast_folder / "index")
    live: dict[str, Any] = {}
    for attempt in range(1, 100):
        done = server.run(*command.arguments(path), kill_at=35 * attempt)
        now = check_survivor(path, command, "index")
        assert live.keys() <= now.keys()
        live = now
        if done["code"] == 0:
            break
    assert attempt > 2
    assert contents(path) == command.after


def test_a_finished_segment_is_not_encoded_again(commands, server, fast_folder, tmp_path):
    command, finished = commands["index"], set()
    for step in range(10, command.steps, 25):
        path = command.start(fast_folder / "index")
        log = tmp_path / f"log-{step}"
        server.run(*command.arguments(path), kill_at=step)
        live = documents(path) if (path / manifests.NAME).exists() else {}
        server.run(*command.arguments(path), env={toy_encoders.LOG: str(log)})
        encoded = log.read_text().split() if log.exists() else []
        expected = [
            hashlib.sha256(document.contents.encode()).hexdigest()
            for _, document in command.after["rows"]
            if document.id not in live
        ]
        assert sorted(encoded) == sorted(2 * expected)  # two views encode
        finished.add(len(live))
    assert finished >= {0, 3, 6}


def test_a_view_added_to_an_index_is_completed_segment_by_segment(commands, server, fast_folder, tmp_path):
    """Killed while a view is built from the stored documents: what it has encoded is kept, the others go on."""
    base, path = fast_folder / "base", fast_folder / "index"
    corpus = write_corpus(tmp_path / "corpus.jsonl", range(8))
    shutil.rmtree(base, ignore_errors=True)
    server.run("index", corpus, base, "--view", "bm25")
    command = ["index", corpus, path, "--view", "dense(toy_encoders:HashEncoder)"]
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(base, path)
    steps = server.run(*command)["steps"]
    whole = contents(path)
    partial = set()
    for step in range(1, steps, 3):
        shutil.rmtree(path)
        shutil.copytree(base, path)
        server.run(*command, kill_at=step)
        index = Retriever(path)
        assert index.verify() == []
        assert len(index.search("lift", 10, pipeline="bm25")) == 8
        views = index.info()["views"]
        if 0 < (rows := views.get("dense", {"documents": 0})["documents"]) < 8:
            partial.add(rows)
            with pytest.raises(InputError, match=rf"holds {rows} of 8 documents: its build was interrupted"):
                index.search("lift", 10)
        log = tmp_path / f"log-{step}"
        assert server.run(*command, env={toy_encoders.LOG: str(log)})["code"] == 0
        assert len(log.read_text().split() if log.exists() else []) == 8 - rows
        assert contents(path) == whole
    assert partial == {3, 6}


def test_a_manifest_names_only_what_was_synced_before(monkeypatch, tmp_path):
    """No kill shows this, but a power cut would: contents and names reach the disk before the manifest does."""
    contents_synced: set[tuple[int, int, int]] = set()
    names_synced: dict[Path, set[str]] = {}
    fsync, publish, path = os.fsync, manifests.publish, tmp_path / "index"

    def watched_fsync(handle: int) -> None:
        fsync(handle)
        place = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if place.is_dir():
            names_synced[place] = {entry.name for entry in place.iterdir()}
        else:
            contents_synced.add(version(place))

    def watched_publish(folder: Path, manifest: manifests.Manifest) -> manifests.Manifest:
        for name in manifest.all_files():
            assert version(folder / name) in contents_synced, name
            for inner in [folder / name, *(folder / name).parents]:
                if inner.parent == folder:
                    break  # the folder itself is synced with the manifest's name
                assert inner.name in names_synced[inner.parent], inner
        seen.append(len(manifest.all_files()))
        return publish(folder, manifest)

    def version(place: Path) -> tuple[int, int, int]:
        status = place.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    seen: list[int] = []
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(manifests, "publish", watched_publish)
    monkeypatch.setattr(writer, "ENCODED_SEGMENT", 3)
    index = Retriever.create(path, VIEWS)
    index.add(read_corpus(write_corpus(tmp_path / "c.jsonl", range(8))))
    index.delete(["d1"])
    index.compact()
    assert len(seen) >= 6
    assert max(seen) > 10
