"""Downloads from a server of this machine that breaks off, resumes, and gives other files."""

import hashlib
import io
import zipfile

import pytest
from toy_files import serving

from retriever import InputError, RetrieverError
from retriever.bench import downloads
from retriever.bench.downloads import beir, fetch

CONTENT = bytes(range(256)) * 40


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name in names:
            made.writestr(name, "{}\n")
    return file.getvalue()


def test_a_download_that_broke_off_is_resumed_where_it_broke(tmp_path):
    with serving(CONTENT) as server:
        server.breaks = [1000, 500]
        path = fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5(CONTENT))
        assert server.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert path.read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_the_next_call_goes_on_from_what_is_kept(tmp_path):
    with serving(CONTENT) as server:
        server.breaks = [1000, 0, 0, 0, 0]
        with pytest.raises(RetrieverError, match=r"broke off 5 times: .*\. 1,000 bytes are kept in .*a\.zip\.part"):
            fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5(CONTENT))
        assert not (tmp_path / "a.zip").exists()
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5(CONTENT))
        assert server.asked[-1] == "bytes=1000-"
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_that_does_not_resume_is_asked_for_all(tmp_path):
    with serving(CONTENT) as server:
        server.breaks, server.ranges = [1000], False
        assert fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5(CONTENT)).read_bytes() == CONTENT


def test_a_file_that_was_whole_but_not_checked_is_checked_now(tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    with serving(CONTENT) as server:
        assert fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5(CONTENT)).read_bytes() == CONTENT


def test_another_file_than_the_known_one_is_refused_and_removed(tmp_path):
    with (
        serving(CONTENT) as server,
        pytest.raises(RetrieverError, match=f"its MD5 is {md5(CONTENT)}, expected {md5(b'')}; it was removed"),
    ):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", md5(b""))
    assert list(tmp_path.iterdir()) == []


def test_no_such_file_is_told_at_once(tmp_path):
    with serving(CONTENT) as server:
        with pytest.raises(RetrieverError, match=r"nowhere\.zip: status 404"):
            fetch(f"{server.url}/nowhere.zip", tmp_path / "a.zip", md5(CONTENT))
        assert len(server.asked) == 1


def test_a_collection_is_fetched_once_and_unpacked(tmp_path, monkeypatch):
    content = archive("scifact/corpus.jsonl", "scifact/qrels/test.tsv", "../outside")
    monkeypatch.setitem(downloads.BEIR, "scifact", md5(content))
    with serving(content) as server:
        folder = beir("scifact", tmp_path, server.url)
        assert beir("scifact", tmp_path, server.url) == folder
        assert len(server.asked) == 1
    assert (folder / "qrels" / "test.tsv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["scifact"]
    assert not (tmp_path.parent / "outside").exists()


def test_of_a_collection_in_parts_one_is_chosen(tmp_path, monkeypatch):
    content = archive("cqadupstack/android/corpus.jsonl", "cqadupstack/unix/corpus.jsonl")
    monkeypatch.setitem(downloads.BEIR, "cqadupstack", md5(content))
    with serving(content) as server:
        assert beir("cqadupstack/unix", tmp_path, server.url).name == "unix"
        with pytest.raises(InputError, match="choose a part of it, as in beir:cqadupstack/PART: android, unix"):
            beir("cqadupstack", tmp_path, server.url)


def test_an_archive_that_is_none_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(downloads.BEIR, "scifact", md5(CONTENT))
    with serving(CONTENT) as server, pytest.raises(RetrieverError, match="is no archive of one collection"):
        beir("scifact", tmp_path, server.url)


def test_another_name_is_refused(tmp_path):
    with pytest.raises(InputError, match="BEIR has no public collection 'sifact'; did you mean 'scifact'"):
        beir("sifact", tmp_path)
