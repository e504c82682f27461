"""Readers beside a writer, a second writer, and damage."""

import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import crash_driver
import pytest
import reading_loop
from index_tools import TESTS, Server, contents, environment, retriever, write_corpus

from retriever import Retriever, RetrieverError
from retriever.errors import CorruptIndexError, IndexLockedError
from retriever.store import manifest as manifests
from retriever.writer import Writer

VIEWS = [
    "bm25",
    "splade(toy_encoders:TermEncoder)",
    "dense(toy_encoders:HashEncoder)",
    "ann = dense(toy_encoders:HashEncoder, index='IVF2,Flat')",
]
VIEW_ARGUMENTS = [part for view in VIEWS for part in ("--view", view)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(**{crash_driver.COMMIT: str(reading_loop.FAMILY)})
    yield server
    server.close()


def write_families(path: Path, families: range, version: int) -> Path:
    with path.open("w") as file:
        for family in families:
            for member in range(reading_loop.FAMILY):
                text = f"family {family} {member} version{version}"
                file.write(json.dumps({"_id": f"{family}-{member}", "text": text, "member": member}) + "\n")
    return path


def family_ids(*families: int) -> list[str]:
    return [f"{family}-{member}" for family in families for member in range(reading_loop.FAMILY)]


@pytest.fixture
def families(server, tmp_path) -> Path:
    """An index of four families."""
    index = tmp_path / "index"
    corpus = write_families(tmp_path / "first.jsonl", range(4), 0)
    assert server.run("index", corpus, index, *VIEW_ARGUMENTS)["code"] == 0
    return index


class TestReadersBesideAWriter:
    def write(self, server: Server, index: Path, folder: Path) -> None:
        """Add, change, delete and compact; three families are left."""
        for version in range(1, 5):
            corpus = write_families(folder / f"{version}.jsonl", range(version % 3, version % 3 + 4), version)
            gone = range(3, 9) if version == 4 else [version % 5]
            for command in (["add", index, corpus], ["delete", index, *family_ids(*gone)], ["compact", index]):
                answer = server.run(*command)
                assert answer["code"] == 0, answer

    def test_every_search_sees_one_whole_generation(self, server, families, tmp_path):
        """Two processes and two threads, each with indexes of its own."""
        stop = tmp_path / "stop"
        command = [sys.executable, str(TESTS / "reading_loop.py"), str(families), str(stop)]
        started = threading.Barrier(3, timeout=60)
        with ExitStack() as resources:
            processes = []
            for _ in range(2):
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
                processes.append(resources.enter_context(process))
                resources.callback(process.kill)
            pool = resources.enter_context(ThreadPoolExecutor(2))
            resources.callback(stop.touch)
            threads = [pool.submit(reading_loop.read, families, stop, started.wait) for _ in range(2)]
            started.wait()
            for process in processes:
                assert process.stdout.readline() == b"ready\n", process.stderr.read()
            self.write(server, families, tmp_path)
            stop.touch()
            assert all({16, 12} <= thread.result() for thread in threads)
            for process in processes:
                output, errors = process.communicate(timeout=60)
                assert (process.returncode, errors) == (0, b"")
                assert {16, 12} <= set(map(int, output.split()))
        assert Retriever(families).verify() == []

    def test_threads_share_one_object_while_it_is_refreshed(self, server, families, tmp_path):
        shared, stop = Retriever(families), threading.Event()

        def search(number: int) -> set[int]:
            sizes = {reading_loop.check(shared, None)}
            while not stop.is_set():
                sizes.add(reading_loop.check(shared, reading_loop.PIPELINES[number % 4]))
                shared.refresh()
                number += 1
            return sizes | {reading_loop.check(shared, None)}

        with ThreadPoolExecutor(4) as pool:
            threads = [pool.submit(search, number) for number in range(4)]
            try:
                self.write(server, families, tmp_path)
            finally:
                stop.set()
            assert all(12 in thread.result() for thread in threads)

    def test_what_was_opened_before_a_compaction_is_still_there(self, server, families):
        """All files of the old generation are gone; what this reader had opened stays as it was."""
        index = families
        reader, late = Retriever(index), Retriever(index)
        assert reading_loop.check(reader, None) == 16
        assert server.run("delete", index, *family_ids(0, 1))["code"] == 0
        assert server.run("compact", index)["code"] == 0
        assert reading_loop.check(reader, None) == 16
        assert reading_loop.check(late, None) == 8  # had opened no view yet: it goes to the newest generation
        reader.refresh()
        assert reading_loop.check(reader, None) == 8


@pytest.fixture(scope="module")
def sound(server, tmp_path_factory) -> Path:
    """An index with every kind of file: several document files, deletions, vectors, a FAISS index, tantivy's."""
    folder = tmp_path_factory.mktemp("sound")
    path = folder / "index"
    corpus = write_corpus(folder / "c.jsonl", range(10))
    assert server.run("index", corpus, path, *VIEW_ARGUMENTS)["code"] == 0
    assert server.run("delete", path, "d3")["code"] == 0
    return path


@pytest.fixture
def index(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "index"))


class TestASecondWriter:
    def test_is_refused_at_once_and_changes_nothing(self, index, tmp_path):
        before = contents(index)
        corpus = write_corpus(tmp_path / "more.jsonl", range(20, 25))
        with Writer(index):
            for command in (
                ["add", index, corpus],
                ["delete", index, "d1"],
                ["compact", index],
                ["index", corpus, index],
            ):
                result = retriever(*command)
                message = f"error: {index}: another process is writing to this index; try again later\n"
                assert (result.returncode, result.stderr) == (1, message)
            with pytest.raises(IndexLockedError, match="another process is writing"):
                Retriever(index).delete(["d1"])
            assert len(Retriever(index).search("lift", 100)) == 9
        assert contents(index) == before
        assert retriever("delete", index, "d1").returncode == 0

    def test_the_kernel_frees_the_lock_of_a_killed_writer(self, index):
        code = """
import sys, pathlib, retriever.writer
it = retriever.writer.Writer(pathlib.Path(sys.argv[1]))
print("has it", flush=True)
input()
"""
        with subprocess.Popen(
            [sys.executable, "-c", code, str(index)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout.readline() == b"has it\n"
            with pytest.raises(IndexLockedError):
                Retriever(index).delete(["d1"])
            other.kill()
        assert Retriever(index).delete(["d1"]) == 1

    def test_does_not_remove_the_new_index_of_the_first(self, tmp_path):
        """Both found nothing there and made the same index; the second must not clean up behind the first."""
        path = tmp_path / "index"
        path.mkdir()
        with manifests.writing(path), pytest.raises(IndexLockedError):
            Retriever.create(path, ["bm25"])
        assert path.exists()
        index = Retriever.create(path, ["bm25"])
        with Writer(path):
            index.discard_if_empty()
        assert Retriever(path).info()["documents"] == 0
        index.discard_if_empty()
        assert not path.exists()


def files_of(index: Path) -> list[Path]:
    """All files but the locks, which are empty."""
    return [path for path in sorted(index.rglob("*")) if path.is_file() and path.stat().st_size]


def problems(index: Path) -> str:
    try:
        return "\n".join(Retriever(index).verify())
    except RetrieverError as problem:
        return str(problem)


def flipped(path: Path, position: int, mask: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.unlink()  # a hard link may lead to it from elsewhere
    path.write_bytes(data)


class TestDamage:
    def test_every_file_is_known_to_the_manifest(self, index):
        assert retriever("search", index, "lift").returncode == 0
        named = {*manifests.load(index).all_files(), manifests.NAME}
        assert {path.relative_to(index).as_posix() for path in files_of(index)} == named
        kinds = {path.suffix for path in files_of(index)}
        assert kinds >= {".sqlite", ".npy", ".f32", ".faiss", ".json", ".idx", ".store", ".term", ".fast", ".pos"}

    def test_a_flipped_byte_anywhere_is_found(self, index):
        chance = random.Random(7)
        assert problems(index) == ""
        for path in files_of(index):
            whole, size = path.read_bytes(), path.stat().st_size
            for position in {0, size // 2, size - 1, *(chance.randrange(size) for _ in range(5))}:
                flipped(path, position, 1 << chance.randrange(8))
                found = problems(index)
                assert str(path) in found, (path, position)
                path.write_bytes(whole)
        assert problems(index) == ""

    def test_any_byte_of_the_manifest(self, index):
        path = index / manifests.NAME
        whole = path.read_bytes()
        for position in range(0, len(whole), 7):
            for mask in (1, 0x10, 0xFF):
                flipped(path, position, mask)
                assert str(path) in problems(index), position
        path.write_bytes(whole)
        assert problems(index) == ""

    @pytest.mark.parametrize("damage", ["missing", "empty", "half", "one byte short"])
    def test_missing_and_truncated_files_are_found(self, index, damage):
        for path in files_of(index):
            whole = path.read_bytes()
            keep = {"missing": None, "empty": 0, "half": len(whole) // 2, "one byte short": len(whole) - 1}[damage]
            path.unlink()
            if keep is not None:
                path.write_bytes(whole[:keep])
            found = problems(index)
            assert (str(path) in found) or (path.name == manifests.NAME and "no index here" in found), path
            path.write_bytes(whole)
        assert problems(index) == ""

    def test_the_command_names_every_damaged_file(self, index):
        vectors = sorted(index.rglob("*.f32"))
        for path in vectors:
            flipped(path, 5, 1)
        result = retriever("verify", index)
        assert result.returncode == 1
        assert len(vectors) == 2
        for path in vectors:
            assert f"{path}: bytes 0 to 512 differ from their checksum" in result.stderr
        assert "restore these files from a copy, or index the corpus again" in result.stderr

    @pytest.mark.parametrize("damage", ["flipped", "half", "empty", "missing"])
    @pytest.mark.parametrize("command", ["search", "add", "compact"])
    def test_commands_on_a_damaged_index_work_or_say_what_is_wrong(self, sound, server, tmp_path, command, damage):
        more = write_corpus(tmp_path / "more.jsonl", range(8, 12))
        index = tmp_path / "index"
        arguments = {"search": [index, "lift word1"], "add": [index, more], "compact": [index]}[command]
        failures = 0
        one_of_each_kind = {path.suffix or path.name: path for path in files_of(sound)}.values()
        for original in one_of_each_kind:
            shutil.rmtree(index, ignore_errors=True)
            shutil.copytree(sound, index)
            path = index / original.relative_to(sound)
            whole = path.read_bytes()
            if damage == "flipped":
                flipped(path, len(whole) // 2, 0x55)
            elif damage == "missing":
                path.unlink()
            else:
                path.write_bytes(whole[: len(whole) // 2 if damage == "half" else 0])
            answer = server.run(command, *arguments)
            assert answer["code"] in (0, 1, 2), (path, answer)
            assert "Traceback" not in answer["output"], (path, answer["output"])
            if answer["code"]:
                failures += 1
                assert "\nerror: " in "\n" + answer["output"], (path, answer)
            if command == "compact" and answer["code"] == 0:
                assert problems(index) == ""
        assert failures

    @pytest.mark.parametrize("damage", ["flipped", "half", "empty", "missing"])
    def test_a_damaged_faiss_index(self, server, tmp_path, damage):
        """Only a search without deletions and filters reads it in so small an index."""
        index = tmp_path / "index"
        view = "dense(toy_encoders:HashEncoder, index='IVF2,Flat')"
        server.run("index", write_corpus(tmp_path / "c.jsonl", range(10)), index, "--view", view)
        (path,) = index.rglob("*.faiss")
        whole = path.read_bytes()
        for position in (0, 4, 12, 40, 100) if damage == "flipped" else (0,):
            path.unlink()
            if damage == "flipped":
                path.write_bytes(whole)
                flipped(path, position, 0x55)
            elif damage != "missing":
                path.write_bytes(whole[: len(whole) // 2 if damage == "half" else 0])
            answer = server.run("search", index, "lift")
            assert answer["code"] in (0, 1), answer
            assert answer["code"] or damage == "flipped", answer
            assert str(path) in answer["output"] or not answer["code"], answer

    def test_a_compaction_does_not_make_damage_look_sound(self, index):
        """It copies all vectors and texts: with new checksums, nobody would find the damage again."""
        (path, *_) = sorted(index.rglob("*.f32"))
        flipped(path, 9, 1)
        with pytest.raises(CorruptIndexError, match="differ from their checksum"):
            Retriever(index).compact()
        assert str(path) in problems(index)
