"""Readers beside a writer, a second writer, and damage."""

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import crash_driver
import reading_loop
from index_tools import TESTS, Server, contents, environment, retriever, write_corpus
from retriever import Retriever, RetrieverError
from retriever.errors import CorruptIndexError, IndexLockedError
from retriever.store import manifest as manifests
from retriever.writer import Writer

VIEWS = ["bm25", "dense(toy_encoders:HashEncoder)", "ann = dense(toy_encoders:HashEncoder, index='IVF2,Flat')"]
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


class TestReadersBesideAWriter:
    SECONDS = 5.0

    def write(self, server: Server, index: Path, folder: Path, end: float) -> int:
        """Add, change, delete and compact until the time is over; returns how many commands it were."""
        done = 0
        for version in range(1, 1000):
            corpus = write_families(folder / f"{version}.jsonl", range(version % 3, version % 3 + 4), version)
            for command in (
                ["add", index, corpus],
                ["delete", index, *family_ids(version % 5)],
                ["compact", index],
            ):
                answer = server.run(*command)
                assert answer["code"] == 0, answer
                done += 1
                if time.monotonic() > end:
                    return done
        raise AssertionError

    def test_every_search_sees_one_whole_generation(self, server, tmp_path):
        index = tmp_path / "index"
        first = write_families(tmp_path / "first.jsonl", range(4), 0)
        assert server.run("index", first, index, *VIEW_ARGUMENTS)["code"] == 0
        others = [
            subprocess.Popen(
                [sys.executable, str(TESTS / "reading_loop.py"), str(index), str(self.SECONDS)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for _ in range(2)
        ]
        with ThreadPoolExecutor(2) as pool:
            threads = [pool.submit(reading_loop.read, index, self.SECONDS) for _ in range(2)]
            commands = self.write(server, index, tmp_path, time.monotonic() + self.SECONDS + 0.5)
            assert commands >= 6
            for thread in threads:
                searches, sizes = thread.result()
                assert searches > 20
                assert len(sizes) > 1, "the readers saw no change at all"
        for other in others:
            output, errors = other.communicate(timeout=60)
            assert (other.returncode, errors) == (0, "")
            assert int(output.split()[0]) > 5
        assert Retriever(index).verify() == []

    def test_threads_share_one_object_while_it_is_refreshed(self, server, tmp_path):
        index = tmp_path / "index"
        first = write_families(tmp_path / "first.jsonl", range(4), 0)
        assert server.run("index", first, index, *VIEW_ARGUMENTS)["code"] == 0
        shared, stop = Retriever(index), threading.Event()

        def search(number: int) -> int:
            searches = 0
            while not stop.is_set():
                reading_loop.check(shared, reading_loop.PIPELINES[(searches + number) % 4])
                shared.refresh()
                searches += 1
            return searches

        with ThreadPoolExecutor(4) as pool:
            threads = [pool.submit(search, number) for number in range(4)]
            try:
                self.write(server, index, tmp_path, time.monotonic() + 2.5)
            finally:
                stop.set()
            assert all(thread.result() > 2 for thread in threads)

    def test_what_was_opened_before_a_compaction_is_still_there(self, server, tmp_path):
        """All files of the old generation are gone; what this reader had opened stays as it was."""
        index = tmp_path / "index"
        server.run("index", write_families(tmp_path / "c.jsonl", range(4), 0), index, *VIEW_ARGUMENTS)
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
        code = "import sys, pathlib, retriever.writer as w; it = w.Writer(pathlib.Path(sys.argv[1])); print('has it', flush=True); input()"
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
        for number, original in enumerate(files_of(sound)):
            if command != "search" and number % 3:
                continue
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

    def test_a_compaction_does_not_make_damage_look_sound(self, index):
        """It reads all vectors and texts: copied as they are, with new checksums, nobody would find the damage again."""
        (path, *_) = sorted(index.rglob("*.f32"))
        flipped(path, 9, 1)
        with pytest.raises(CorruptIndexError, match="differ from their checksum"):
            Retriever(index).compact()
        assert str(path) in problems(index)
