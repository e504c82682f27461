"""How queries are read."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import zstandard

from retriever.corpus import read_queries
from retriever.errors import InputError
from retriever.types import Query

SHARED = Path(__file__).parents[2] / "shared" / "data"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
TWO = [Query("1", "what is wifi"), Query("2", "who is who")]


@pytest.mark.parametrize("end", COMPRESS)
def test_beir_folder_or_its_query_file(tmp_path: Path, end: str) -> None:
    content = b'{"_id": "1", "text": "what is wifi", "metadata": {}}\n{"_id": 2, "text": "who is who"}\n'
    path = tmp_path / f"queries.jsonl{end}"
    path.write_bytes(COMPRESS[end](content))
    assert read_queries(tmp_path) == read_queries(str(path)) == TWO


@pytest.mark.parametrize("name", ["queries.dev.tsv", "topics.dl20.txt"])
@pytest.mark.parametrize("end", COMPRESS)
@pytest.mark.parametrize("header", ["", "qid\tquery\r\n"])
def test_two_columns(tmp_path: Path, name: str, end: str, header: str) -> None:
    path = tmp_path / f"{name}{end}"
    path.write_bytes(COMPRESS[end](f"{header}1\twhat is wifi\r\n\r\n2\twho is who".encode()))
    assert read_queries(path) == TWO


class IrQuery(NamedTuple):
    query_id: str
    text: str
    reasoning: str


def test_ir_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    ir_datasets = pytest.importorskip("ir_datasets")

    class Dataset:
        def has_queries(self) -> bool:
            return True

        def queries_iter(self) -> Iterator[IrQuery]:
            yield IrQuery("1", "what is wifi", "because")
            yield IrQuery("2", "who is who", "because")

    monkeypatch.setattr(ir_datasets, "load", {"my/set": Dataset()}.__getitem__)
    assert read_queries("ir:my/set") == TWO


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("q.tsv", "1\ta\n2\tb\n1\tc\n", "q.tsv:3: query id '1' stands already at line 1: an id may stand once"),
        ("q.tsv", "1\ta\n2\t \n", "q.tsv:2: empty text in '2': fill it or leave the record out"),
        ("q.tsv", "1\ta\n\tb\n", "q.tsv:2: empty id: every record needs one of its own"),
        ("q.tsv", "1\ta\n2\tb\tc\n", "q.tsv:2: 3 columns, expected 2: 'qid', 'text'"),
        ("q.tsv", "1 a\n", "q.tsv:1: 1 column and no known header: expected 2 (qid, text) columns, or a header with"),
        ("q.jsonl", '{"_id": "1"}', "q.jsonl:1: no text: expected one of 'text', 'query', got no fields"),
        ("q.jsonl", "", "q.jsonl: holds no queries"),
        ("q.xml", "<top>", "q.xml: a file of no known format: expected .jsonl, .json, .csv, .tsv, .parquet, .txt"),
    ],
)
def test_faults_are_named(tmp_path: Path, name: str, content: str, told: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_queries(path)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(told)


def test_a_folder_without_queries(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"a folder without queries\.jsonl: give the file with the queries by its path"
    ):
        read_queries(tmp_path)
    with pytest.raises(InputError, match="there is no such file or folder"):
        read_queries(tmp_path / "none.tsv")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "count"), [("cacm", 64), ("cranfield", 225), ("msmarco_topics_qrels/topics.dl19-passage.txt", 43)]
)
def test_shared_queries(name: str, count: int) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is absent")
    assert len(read_queries(SHARED / name)) == count
