"""CIFF, byte for byte, and there and back."""

import gzip
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever import Document, InputError
from retriever.corpus import read_corpus
from retriever.interchange import external_sort
from retriever.interchange.ciff import CiffReader, Header, write_ciff
from retriever.interchange.external_sort import Sorter

DOCUMENTS = [("d1", {"wing": 3, "lift": 1}), ("d2", {}), ("d3", {"wing": 300, "drag": 2})]

FILE = b"".join(
    [
        # Header: version 1, 3 lists, 3 documents, 3 lists, 3 documents, 306 in all, average 102.0, "toy"
        b"\x1b\x08\x01\x10\x03\x18\x03\x20\x03\x28\x03\x30\xb2\x02\x39\x00\x00\x00\x00\x00\x80\x59\x40\x42\x03toy",
        b"\x10\x0a\x04drag\x10\x01\x18\x02\x22\x04\x08\x02\x10\x02",
        b"\x0e\x0a\x04lift\x10\x01\x18\x01\x22\x02\x10\x01",  # protobuf leaves out document 0
        b"\x16\x0a\x04wing\x10\x02\x18\xaf\x02\x22\x02\x10\x03\x22\x05\x08\x02\x10\xac\x02",
        b"\x06\x12\x02d1\x18\x04",
        b"\x06\x08\x01\x12\x02d2",
        b"\x09\x08\x02\x12\x02d3\x18\xae\x02",
    ]
)


def ciff(documents: Sequence[tuple[str, Mapping[str, int]]], description: str = "toy") -> bytes:
    file = io.BytesIO()
    write_ciff(file, documents, description)
    return file.getvalue()


def read(data: bytes, piece: int = 1 << 20) -> list[tuple[str, dict[str, int]]]:
    reader = CiffReader(data[at : at + piece] for at in range(0, len(data), piece))
    vectors: dict[int, dict[str, int]] = {}
    for found in reader.postings_lists():
        for number, weight in zip(found.documents.tolist(), found.weights.tolist(), strict=True):
            vectors.setdefault(number, {})[found.term] = weight
    return [(record.id, vectors.get(record.number, {})) for record in reader.records()]


def test_the_bytes_are_those_of_the_format():
    assert ciff(DOCUMENTS) == FILE
    assert CiffReader([FILE]).header == Header(3, 3, 3, 3, 306, 102.0, "toy")
    assert read(FILE) == DOCUMENTS


def test_without_documents_there_is_a_header_alone():
    assert read(ciff([])) == []


weights = st.integers(1, 300) | st.integers(1, 2**31 - 1)
vectors = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), weights, max_size=8
)


@settings(deadline=None)
@given(st.lists(vectors, max_size=30), st.integers(1, 50))
def test_there_and_back(bags, piece):
    documents = [(f"d{i}", bag) for i, bag in enumerate(bags) if sum(bag.values()) < 2**31]
    assert read(ciff(documents), piece) == documents


def test_many_documents_in_many_runs_and_blocks(monkeypatch):
    monkeypatch.setattr(external_sort, "RUN", 1000)
    monkeypatch.setattr(external_sort, "BLOCK", 300)
    pick = np.random.default_rng(0)
    documents = [
        (f"d{i}", {f"t{term}": int(pick.integers(1, 9)) for term in pick.zipf(1.3, 20) % 400} | {"every": 1})
        for i in range(1000)
    ]
    data = ciff(documents)
    assert read(data) == [(id, dict(sorted(vector.items()))) for id, vector in documents]
    terms = [found.term for found in CiffReader([data]).postings_lists()]
    assert terms == sorted(terms, key=str.encode)


@pytest.mark.parametrize("ranked", [False, True])
def test_the_sorter_gives_back_what_it_was_given_by_key(ranked, monkeypatch):
    monkeypatch.setattr(external_sort, "RUN", 50)
    monkeypatch.setattr(external_sort, "BLOCK", 20)
    pick = np.random.default_rng(1)
    rank = pick.permutation(30) if ranked else None
    expected: list[tuple[int, int, int]] = []
    with Sorter() as sorter:
        for value in range(40):
            keys = pick.choice(30, size=int(pick.integers(0, 10)), replace=False)
            given_weights = pick.integers(1, 99, size=len(keys))
            sorter.add(keys, value, given_weights)
            places = keys if rank is None else rank[keys]
            expected += zip(places.tolist(), [value] * len(keys), given_weights.tolist(), strict=True)
        blocks = list(sorter.blocks(rank))
    found = [row for block in blocks for row in zip(*(part.tolist() for part in block), strict=True)]
    assert found == sorted(expected, key=lambda row: row[0])
    assert all(len(block.keys) <= 20 or len({*block.keys.tolist()}) == 1 for block in blocks)
    together = [key for block in blocks for key in {*block.keys.tolist()}]
    assert len(together) == len({*together}), "no key in two blocks"


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_file_is_a_corpus(end, tmp_path):
    path = tmp_path / f"index.ciff{end}"
    with_terms = [DOCUMENTS[0], DOCUMENTS[2]]
    path.write_bytes(gzip.compress(ciff(with_terms)) if end else ciff(with_terms))
    corpus = read_corpus(path)
    assert list(corpus) == [
        Document("d1", "wing lift", metadata={"vector": {"wing": 3, "lift": 1}}),
        Document("d3", "wing drag", metadata={"vector": {"wing": 300, "drag": 2}}),
    ]
    assert corpus.bytes_read == corpus.bytes_total == path.stat().st_size


def test_a_document_without_postings_is_a_bad_record(tmp_path):
    path = tmp_path / "index.ciff"
    path.write_bytes(FILE)
    with pytest.raises(InputError, match=r"index\.ciff:2: empty text and title in 'd2'"):
        list(read_corpus(path))
    skipped: list[InputError] = []
    assert [document.id for document in read_corpus(path, on_bad=skipped.append)] == ["d1", "d3"]
    assert len(skipped) == 1


def altered(old: bytes, new: bytes) -> bytes:
    assert FILE.count(old) == 1
    return FILE.replace(old, new)


BAD = {
    "empty": (b"", r"the Header, at byte 0: the file ends in it; is this file CIFF, and whole\?"),
    "text": (b'{"id": "d1"}\n', r"the Header, at byte 0: the file ends in it"),
    "cut in a list": (FILE[:40], r"PostingsList 1, at byte 28: the file ends in it"),
    "cut between documents": (FILE[:-10], r"DocRecord 3, at byte 97: the file ends in it"),
    "more than it says": (FILE + b"\0", r"something follows the last DocRecord, at byte 107"),
    "df": (altered(b"drag\x10\x01", b"drag\x10\x02"), r"PostingsList 1, at byte 28: a df of 2 with 1 postings"),
    "numbers": (
        altered(b"\x08\x02\x10\x02", b"\x08\x09\x10\x02"),
        r"PostingsList 1, at byte 28: document numbers that do not rise, or go beyond 2",
    ),
    "order": (
        altered(b"\x08\x02\x12\x02d3", b"\x08\x01\x12\x02d3"),
        r"DocRecord 1 comes after 1: expected them in rising order",
    ),
    "unknown document": (
        altered(b"\x09\x08\x02\x12\x02d3\x18\xae\x02", b"\x09\x08\x05\x12\x02d3\x18\xae\x02"),
        r"postings name document 2, which no DocRecord describes",
    ),
    "another form": (
        altered(b"\x22\x05\x08\x02\x10\xac\x02", b"\x22\x05\x08\x02\x18\xac\x02"),
        r"PostingsList 3, at byte \d+: postings in another form than a document's number and tf",
    ),
    "not UTF-8": (altered(b"drag", b"dr\xff\xff"), r"PostingsList 1, at byte 28: no such message"),
    "groups": (altered(b"\x0a\x04drag", b"\x0b\x04drag"), r"PostingsList 1, at byte 28: a field of kind 3"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_named_with_the_place(data, message, tmp_path):
    path = tmp_path / "bad.ciff"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.ciff: " + message):
        list(read_corpus(path, on_bad=lambda _: None))


@settings(deadline=None)
@given(st.integers(0, len(FILE) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_documents_or_an_input_error(at, byte):
    with suppress(InputError):
        assert all(type(id) is str for id, _ in read(FILE[:at] + bytes([byte]) + FILE[at + 1 :]))


@pytest.mark.parametrize("weight", [1.5, 0, -1, 2**31])
def test_weights_that_ciff_cannot_hold_are_refused(weight):
    with pytest.raises(InputError, match=rf"document 'x': the weight of 'wing' is {weight}.*give --scale, say 100"):
        ciff([("x", {"wing": weight})])


def test_a_sum_beyond_32_bits_is_refused():
    with pytest.raises(InputError, match="its weights sum to more than"):
        ciff([("x", {"wing": 2**31 - 1, "lift": 1})])
