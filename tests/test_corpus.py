"""How collections are read: one example per format, one per fault."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from retriever.corpus import MAX_DOCUMENT_BYTES, read_corpus
from retriever.corpus.lines import MAX_LINE_BYTES
from retriever.errors import InputError, MissingDependencyError, RetrieverError
from retriever.types import Document

SHARED = Path(__file__).parents[2] / "shared" / "data"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}

BEIR = b"""{"_id": "d1", "title": "Tides", "text": "The moon pulls the sea.", "metadata": {"year": 1687}}
{"_id": "d2", "title": "", "text": "Wind makes waves.", "lang": "en", "metadata": {}}
"""
BEIR_DOCUMENTS = [
    Document("d1", "The moon pulls the sea.", "Tides", {"year": 1687}),
    Document("d2", "Wind makes waves.", "", {"lang": "en"}),
]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error_of(path: Path | str, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        list(read_corpus(path, **options))
    return caught.value


def message(path: Path | str, **options: Any) -> str:
    """What the user reads, with the folder cut off."""
    error = error_of(path, **options)
    return str(error).replace(f"{Path(path).parent}/", "")


# Formats


@pytest.mark.parametrize("end", COMPRESS)
def test_beir_folder_or_its_corpus_file(tmp_path: Path, end: str) -> None:
    path = write(tmp_path / f"corpus.jsonl{end}", COMPRESS[end](BEIR))
    write(tmp_path / "queries.jsonl", '{"_id": "q", "text": "t"}')
    assert list(read_corpus(tmp_path)) == BEIR_DOCUMENTS
    assert list(read_corpus(str(path))) == BEIR_DOCUMENTS


@pytest.mark.parametrize("end", COMPRESS)
def test_pyserini_folder_in_the_order_of_the_names(tmp_path: Path, end: str) -> None:
    write(tmp_path / f"b.jsonl{end}", COMPRESS[end](b'{"id": 2, "contents": "two"}'))
    write(tmp_path / f"a.json{end}", COMPRESS[end](b'{"id": "1", "contents": "one"}\n'))
    assert list(read_corpus(tmp_path)) == [Document("1", "one"), Document("2", "two")]


@pytest.mark.parametrize("end", COMPRESS)
def test_ms_marco_passages(tmp_path: Path, end: str) -> None:
    path = write(tmp_path / f"collection.tsv{end}", COMPRESS[end](b'0\t"Quoted" text\r\n\n7\tMore\n'))
    assert list(read_corpus(path)) == [Document("0", '"Quoted" text'), Document("7", "More")]


def test_ms_marco_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "msmarco-docs.tsv", "D1\thttps://a.org\tTitle\tBody\nD2\thttps://b.org\t\tBody\n")
    assert list(read_corpus(path)) == [
        Document("D1", "Body", "Title", {"url": "https://a.org"}),
        Document("D2", "Body", "", {"url": "https://b.org"}),
    ]


@pytest.mark.parametrize("end", COMPRESS)
def test_csv_with_fields_over_several_lines(tmp_path: Path, end: str) -> None:
    content = b'id,title,text,year\r\n1,"A, B","line\r\nline ""2""",1999\r\n\r\n2,,plain,\r\n'
    corpus = read_corpus(write(tmp_path / f"c.csv{end}", COMPRESS[end](content)))
    assert [(document, corpus.line) for document in corpus] == [
        (Document("1", 'line\r\nline "2"', "A, B", {"year": "1999"}), 2),
        (Document("2", "plain", "", {"year": ""}), 5),
    ]


def test_tsv_with_a_header_is_quoted_as_csv_is(tmp_path: Path) -> None:
    # The form of DPR's psgs_w100.tsv.
    path = write(tmp_path / "psgs.tsv", 'id\ttext\ttitle\n1\t"Aaron (or ""Aharon"")"\tAaron\n')
    assert list(read_corpus(path)) == [Document("1", 'Aaron (or "Aharon")', "Aaron")]


def test_two_columns_with_a_header_are_not_ms_marco(tmp_path: Path) -> None:
    assert list(read_corpus(write(tmp_path / "a.tsv", "pid\tpassage\n1\tone\n"))) == [Document("1", "one")]


@pytest.mark.parametrize(("name", "tab"), [("a.csv", ","), ("a.tsv", "\t")])
def test_columns_under_names_of_your_own(tmp_path: Path, name: str, tab: str) -> None:
    path = write(tmp_path / name, "doc_no,name,abstract,text\n1,T,A,x\n".replace(",", tab))
    columns = {"id": "doc_no", "title": "name", "text": "abstract"}
    assert list(read_corpus(path, columns=columns)) == [Document("1", "A", "T", {"text": "x"})]


def test_columns_name_json_fields_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"doc_no": 1, "abstract": "A", "id": "x"}')
    assert list(read_corpus(path, columns={"id": "doc_no", "text": "abstract"})) == [
        Document("1", "A", "", {"id": "x"})
    ]


def parquet(path: Path, **columns: list[Any]) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def test_parquet_with_dates_as_text(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        docid=[1, 2, 3],
        text=["one", "two", "three"],
        title=["One", None, ""],
        day=[date(2020, 1, 2), None, None],
        metadata=[{"tags": ["a"]}, {"tags": []}, {"tags": None}],
    )
    corpus = read_corpus(path)
    assert [(document, corpus.line) for document in corpus] == [
        (Document("1", "one", "One", {"day": "2020-01-02", "tags": ["a"]}), 1),
        (Document("2", "two", "", {"day": None, "tags": []}), 2),
        (Document("3", "three", "", {"day": None, "tags": None}), 3),
    ]
    assert corpus.bytes_read == corpus.bytes_total == path.stat().st_size


def test_folder_of_text_files(tmp_path: Path) -> None:
    write(tmp_path / "notes" / "b.md", "\ufeffIntro\n```sh\n# no heading\n```\n## The *Heading* ##\r\nText\r\n")
    write(tmp_path / "a.v1.txt", "# text")
    write(tmp_path / "c.txt.gz", gzip.compress(b"packed"))
    write(tmp_path / ".hidden" / "x.txt", "x")
    write(tmp_path / "picture.png", b"\x89")
    corpus = read_corpus(tmp_path)
    found = [(document, corpus.path, corpus.line) for document in corpus]
    paths = [tmp_path / "a.v1.txt", tmp_path / "c.txt.gz", tmp_path / "notes" / "b.md"]
    text = "Intro\n```sh\n# no heading\n```\n## The *Heading* ##\nText\n"
    assert found == [
        (Document("a.v1.txt", "# text", "a.v1", {"path": str(paths[0])}), paths[0], None),
        (Document("c.txt.gz", "packed", "c", {"path": str(paths[1])}), paths[1], None),
        (Document("notes/b.md", text, "The *Heading*", {"path": str(paths[2])}), paths[2], None),
    ]


class IrDocument(NamedTuple):
    doc_id: str
    title: str
    body: str
    year: int
    links: tuple[str, ...]

    def default_text(self) -> str:
        return f"{self.title} {self.body}"


class IrPlain(NamedTuple):
    doc_id: str
    code: str
    func_name: str
    url: str


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """An ir_datasets that holds what the test puts in."""
    ir_datasets = pytest.importorskip("ir_datasets")
    held: dict[str, list[Any]] = {}

    class Dataset:
        def __init__(self, documents: list[Any]) -> None:
            self.documents = documents

        def has_docs(self) -> bool:
            return bool(self.documents)

        def docs_iter(self) -> Iterator[Any]:
            for document in self.documents:
                if isinstance(document, Exception):
                    raise document
                yield document

    monkeypatch.setattr(ir_datasets, "load", lambda name: Dataset(held[name]))
    return held


def test_ir_datasets_by_the_default_text(catalogue: dict[str, list[Any]]) -> None:
    catalogue["my/set"] = [
        IrDocument("1", "Title", "Body", 1999, ("x",)),
        IrPlain("2", "def f(): ...", "f", "https://a.org"),
    ]
    corpus = read_corpus("ir:my/set")
    assert [(document, corpus.line) for document in corpus] == [
        (Document("1", "Body", "Title", {"year": 1999}), 1),
        (Document("2", "def f(): ...\nf", "", {"code": "def f(): ...", "func_name": "f", "url": "https://a.org"}), 2),
    ]
    assert (corpus.path, corpus.bytes_total, corpus.bytes_read) == ("ir:my/set", None, None)


def test_ir_datasets_without_the_documents(catalogue: dict[str, list[Any]]) -> None:
    catalogue["queries/only"] = []
    catalogue["offline"] = [OSError("no network")]
    catalogue["half"] = [IrDocument("1", "", "\ud800", 1, ())]
    assert str(error_of("ir:queries/only")) == "ir:queries/only: has no docs: choose an id of ir_datasets that has"
    assert "ir_datasets knows no such id" in str(error_of("ir:no/such"))
    assert "ir:half:1: the lone surrogate \\ud800" in str(error_of("ir:half"))
    with pytest.raises(RetrieverError, match="ir:offline: ir_datasets cannot provide the docs: no network"):
        list(read_corpus("ir:offline"))


@pytest.mark.parametrize(
    ("module", "source", "told"),
    [
        ("pyarrow", "a.parquet", "reading Parquet needs pyarrow: pip install 'retriever-engine[data]'"),
        ("ir_datasets", "ir:a/b", "reading ir:a/b needs ir_datasets: pip install 'retriever-engine[data]'"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, told: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = source if source.startswith("ir:") else write(tmp_path / source, b"PAR1")
    with pytest.raises(MissingDependencyError) as caught:
        list(read_corpus(path))
    assert str(caught.value) == told


def test_windows_line_ends_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf\r\n" + BEIR.replace(b"\n", b"\r\n \r\n") + b"\t\n")
    assert list(read_corpus(path)) == BEIR_DOCUMENTS


def test_white_space_around_an_object_is_json_still(tmp_path: Path) -> None:
    assert list(read_corpus(write(tmp_path / "a.jsonl", ' \t{"id": "1", "text": "x"}  '))) == [Document("1", "x")]


# What becomes of the fields


@pytest.mark.parametrize(
    ("record", "document"),
    [
        ({"_id": "1", "id": "2", "text": "t", "contents": "c"}, Document("1", "t", "", {"id": "2", "contents": "c"})),
        ({"id": 7, "text": "t", "title": None}, Document("7", "t")),
        ({"id": "Geneva Durben", "text": "t"}, Document("Geneva Durben", "t")),
        ({"id": "1", "text": "", "title": "T"}, Document("1", "", "T")),
        ({"id": "1", "text": "t", "metadata": None}, Document("1", "t")),
        ({"id": "1", "text": "t", "metadata": [1]}, Document("1", "t", "", {"metadata": [1]})),
        ({"id": "1", "text": "t", "a": 1, "metadata": {"a": 1, "b": 2}}, Document("1", "t", "", {"a": 1, "b": 2})),
    ],
)
def test_fields_of_a_record(tmp_path: Path, record: dict[str, Any], document: Document) -> None:
    assert list(read_corpus(write(tmp_path / "a.jsonl", json.dumps(record)))) == [document]


characters = st.characters(exclude_categories=["Cs"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(characters),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(characters), inner, max_size=3),
    max_leaves=5,
)
taken = {"_id", "id", "docid", "pid", "title", "text", "contents", "content", "body", "passage", "metadata", "vector"}
documents = st.builds(
    Document,
    id=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(str.strip),
    text=st.text(characters).filter(str.strip),
    title=st.text(characters),
    metadata=st.dictionaries(st.text(characters).filter(lambda name: name not in taken), json_values, max_size=3),
)


@given(st.lists(documents, min_size=1, max_size=5), st.booleans(), st.sampled_from(list(COMPRESS)))
def test_any_document_comes_back_from_jsonl(
    tmp_path_factory: pytest.TempPathFactory, given_documents: list[Document], ascii_only: bool, end: str
) -> None:
    lines = [
        json.dumps(
            {"_id": each.id, "title": each.title, "text": each.text, "metadata": each.metadata}, ensure_ascii=ascii_only
        )
        for each in given_documents
    ]
    path = tmp_path_factory.mktemp("any") / f"a.jsonl{end}"
    assert list(read_corpus(write(path, COMPRESS[end]("\n".join(lines).encode())))) == given_documents


# Faults in a record


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            '{"_id": "1", "text" "t"}',
            "broken JSON at column 21: Expecting ':' delimiter; expected one JSON object per line",
        ),
        ('  {"_id": }', "broken JSON at column 11: Expecting value; expected one JSON object per line"),
        (
            '{"_id": "1", "text": "t"} x',
            "broken JSON at column 26: something follows the first value; expected one JSON object",
        ),
        ("[", "; expected one JSON object per line; jq -c '.[]' makes such lines of an array"),
        ('["a"]', "the line is an array: expected one JSON object per line"),
        ("12", "the line is the number 12: expected one JSON object per line"),
        ("null", "the line is null: expected one JSON object per line"),
        ("[" * 100_000, "JSON that cannot be used: maximum recursion depth exceeded"),
        ('{"text": "t"}', "no id: expected one of '_id', 'id', 'docid', 'pid', got 'text'"),
        ("{}", "no id: expected one of '_id', 'id', 'docid', 'pid', got no fields"),
        ('{"_id": 1.5, "text": "t"}', "the id is the number 1.5: expected a string or a whole number"),
        ('{"_id": true, "text": "t"}', "the id is a boolean: expected a string or a whole number"),
        ('{"_id": null, "text": "t"}', "the id is null: expected a string or a whole number"),
        ('{"_id": "", "text": "t"}', "empty id: every record needs one of its own"),
        ('{"_id": "  ", "text": "t"}', "empty id: every record needs one of its own"),
        (
            r'{"_id": "a\nb", "text": "t"}',
            r"the id 'a\nb' holds control characters, line breaks or surrogates: remove them",
        ),
        (r'{"_id": "a\u2028b", "text": "t"}', r"the id 'a\u2028b' holds control characters"),
        ('{"_id": "1"}', "no text: expected one of 'text', 'contents', 'content', 'body', 'passage', got no fields"),
        ('{"_id": "1", "text": null}', "the text is null: expected a string"),
        ('{"_id": "1", "text": ["t"]}', "the text is an array: expected a string"),
        ('{"_id": "1", "text": "t", "title": 5}', "the title is the number 5: expected a string"),
        ('{"_id": "1", "text": "", "title": " "}', "empty text and title in '1': fill it or leave the record out"),
        (r'{"_id": "1", "text": "\ud800"}', r"the lone surrogate \ud800 is no character and has no UTF-8: remove it"),
        (r'{"_id": "1", "text": "t", "m": [{"\uDFFF": 1}]}', r"the lone surrogate \udfff is no character"),
        ('{"_id": "1", "text": "t", "m": NaN}', "NaN is no JSON number; write null or leave the field out"),
        ('{"_id": "1", "text": "t", "m": -Infinity}', "-Infinity is no JSON number; write null or leave the field out"),
        ('{"_id": "1", "text": "t", "m": 1e999}', "the number 1e999 is too large for a double"),
        (
            '{"_id": "1", "text": "t", "a": 1, "metadata": {"a": 2}}',
            "field 'a' has one value in the record and another in its metadata: keep one",
        ),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = write(tmp_path / "corpus.jsonl", f'{{"_id": "0", "text": "good"}}\n\n{line}\n')
    error = error_of(path)
    assert (error.path, error.line) == (path, 3)
    assert told in error.message
    assert str(error).startswith(f"{path}:3: ")


def test_a_pair_of_surrogates_is_one_character(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", r'{"_id": "1", "text": "é \ud83d\ude00 \\ud800"}')
    assert list(read_corpus(path)) == [Document("1", "é 😀 \\ud800")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv"])
def test_a_line_that_is_not_utf8_and_the_lines_after_it(tmp_path: Path, name: str) -> None:
    lines = {
        "a.jsonl": b'{"id": "1", "text": "x"}\n{"id": "2", "text": "\xff"}\n{"id": "3", "text": "y"}\n',
        "a.tsv": b"1\tx\n2\t\xff\n3\ty\n",
        "a.csv": b'id,text\n1,x\n2,"\n\xff\n"\n3,y\n',
    }
    at = {"a.jsonl": (2, 22), "a.tsv": (2, 3), "a.csv": (4, 1)}[name]
    errors: list[InputError] = []
    corpus = read_corpus(write(tmp_path / name, lines[name]), on_bad=errors.append)
    assert list(corpus) == [Document("1", "x"), Document("3", "y")]
    told = f"{tmp_path / name}:{at[0]}: not UTF-8: byte {at[1]} of the line is 0xff; convert the file to UTF-8"
    assert [str(error) for error in errors] == [told]


def test_a_document_of_eight_mebibytes_is_the_longest(tmp_path: Path) -> None:
    record = {"id": "1", "title": "é", "text": "x" * (MAX_DOCUMENT_BYTES - 2)}
    assert len(list(read_corpus(write(tmp_path / "a.jsonl", json.dumps(record))))) == 1
    record["text"] += "y"
    told = "a.jsonl:1: document '1' has 8,388,609 bytes of text, the limit is 8,388,608: split it into passages"
    assert message(write(tmp_path / "a.jsonl", json.dumps(record))) == told


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.tsv.gz", "a.csv.gz"])
def test_a_line_of_ten_megabytes_is_refused_and_the_next_one_read(tmp_path: Path, name: str) -> None:
    text = "x" * 10_000_000
    content = {
        "a.jsonl.gz": f'{{"id": "1", "text": "{text}"}}\n{{"id": "2", "text": "y"}}',
        "a.tsv.gz": f"1\t{text}\n2\ty",
        "a.csv.gz": f"id,text\n1,{text}\n2,y",
    }[name]
    errors: list[InputError] = []
    path = write(tmp_path / name, gzip.compress(content.encode(), 1))
    assert list(read_corpus(path, on_bad=errors.append)) == [Document("2", "y")]
    assert ["has 10,000,000 bytes of text, the limit is 8,388,608" in str(error) for error in errors] == [True]


@pytest.mark.parametrize("after", ["", "\n", '\n{"id": "2", "text": "y"}'])
def test_a_line_too_long_to_hold_is_passed_over(tmp_path: Path, after: str) -> None:
    content = '{"id": "0", "text": "x"}\n' + " " * (MAX_LINE_BYTES + 500_000) + after
    errors: list[InputError] = []
    path = write(tmp_path / "a.jsonl.zst", COMPRESS[".zst"](content.encode()))
    corpus = read_corpus(path, on_bad=errors.append)
    assert [(document.id, corpus.line) for document in corpus] == [("0", 1), ("2", 3)][: 2 if len(after) > 1 else 1]
    told = "the line has 67,608,864 bytes, a line may have 67,108,864 and a document 8,388,608: split it into passages"
    assert [str(error) for error in errors] == [f"{path}:2: {told}"]


def test_wrong_number_of_columns(tmp_path: Path) -> None:
    told = "3 columns, expected 2: 'pid', 'text'"
    assert message(write(tmp_path / "a.tsv", "1\tone\n2\ttwo\tmore\n")) == f"a.tsv:2: {told}"
    told = "1 columns, expected 2: 'id', 'text'"
    assert message(write(tmp_path / "a.csv", 'id,text\n1,"a\nb"\n2\n')) == f"a.csv:4: {told}"


@pytest.mark.parametrize(
    ("content", "line", "fault"),
    [
        ('id,text\n1,"a" b\n2,c\n', 2, "',' expected after '\"'"),
        ('id,text\n1,a\n2,"never\nclosed\n', 3, "unexpected end of data"),
    ],
)
def test_broken_quoting_in_csv(tmp_path: Path, content: str, line: int, fault: str) -> None:
    hint = "a field that opens with a quote ends with one, and quotes inside it are doubled"
    assert message(write(tmp_path / "a.csv", content)) == f"a.csv:{line}: broken quoting: {fault}; {hint}"


def test_a_quote_that_never_closes_does_not_gather_the_file(tmp_path: Path) -> None:
    content = 'id,text\n1,"' + ("x" * 999 + "\n") * (2 * MAX_DOCUMENT_BYTES // 1000 + 1)
    assert "a.csv:2: broken quoting: field larger than field limit" in message(write(tmp_path / "a.csv", content))


def test_parquet_values_that_json_lacks(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", id=["1", "2"], text=["a", "b"], raw=[None, b"\x00"])
    assert message(path) == r"a.parquet:2: field 'raw' holds b'\x00', which JSON cannot: make it text or leave it out"
    path = parquet(tmp_path / "a.parquet", id=["1"], text=["a"], score=[float("nan")])
    assert "field 'score' holds nan" in message(path)


def test_a_text_file_that_is_not_utf8_or_empty_or_too_long(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"one\ntw\xff")
    write(tmp_path / "b.txt", " \n")
    write(tmp_path / "c.txt", b"x" * (MAX_DOCUMENT_BYTES + 1))
    write(tmp_path / "d.txt", "good")
    errors: list[InputError] = []
    assert [document.id for document in read_corpus(tmp_path, on_bad=errors.append)] == ["d.txt"]
    assert [str(error) for error in errors] == [
        f"{tmp_path}/a.txt:2: not UTF-8: byte 7 of the file is 0xff; convert the file to UTF-8",
        f"{tmp_path}/b.txt: empty text: fill the file or remove it",
        f"{tmp_path}/c.txt: document 'c.txt' has 8,388,609 bytes of text, the limit is 8,388,608: "
        "split it into passages",
    ]


# Skipping


def test_on_bad_takes_each_error_and_reading_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": "1", "text": "x"}\nbroken\n{"id": 2}\n{"id": "3", "text": "y"}\n')
    errors: list[InputError] = []
    corpus = read_corpus(path, on_bad=errors.append)
    assert [(document.id, corpus.line, corpus.skipped) for document in corpus] == [("1", 1, 0), ("3", 4, 2)]
    assert [(error.path, error.line) for error in errors] == [(path, 2), (path, 3)]
    assert len(list(corpus)) == corpus.skipped == 2


def test_a_corpus_without_documents(tmp_path: Path) -> None:
    assert message(write(tmp_path / "a.jsonl", "\n")) == "a.jsonl: holds no documents"
    assert message(write(tmp_path / "a.csv", "id,text\n")) == "a.csv: holds no documents"
    assert message(write(tmp_path / "a.tsv", "")) == "a.tsv: holds no documents"
    path = write(tmp_path / "b.jsonl", "bad\nworse\n")
    told = "b.jsonl: holds no documents; all 2 records are bad and were skipped"
    assert message(path, on_bad=lambda error: None) == told


# Faults in a file, which nothing skips


@pytest.mark.parametrize("end", [".gz", ".zst"])
@pytest.mark.parametrize("cut", [10, 400, -1])
def test_a_file_cut_short(tmp_path: Path, end: str, cut: int) -> None:
    lines = "".join(f'{{"id": {n}, "text": "{n * n}"}}\n' for n in range(1000))
    path = write(tmp_path / f"a.jsonl{end}", COMPRESS[end](lines.encode())[:cut])
    told = message(path, on_bad=lambda error: None)
    assert told.startswith(f"a.jsonl{end}: cut short or damaged after ")
    assert told.endswith("): fetch or compress it again")


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, end: str) -> None:
    assert "cut short or damaged" in message(write(tmp_path / f"a.jsonl{end}", BEIR))


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_compressed_in_several_parts(tmp_path: Path, end: str) -> None:
    first, second = BEIR.splitlines(keepends=True)
    path = write(tmp_path / f"a.jsonl{end}", COMPRESS[end](first) + COMPRESS[end](second))
    assert list(read_corpus(path)) == BEIR_DOCUMENTS


def test_headers_that_do_not_say_what_is_what(tmp_path: Path) -> None:
    told = "no column for the id: expected one of '_id', 'id', 'docid', 'pid', got 'key', 'text'; map it by columns"
    assert message(write(tmp_path / "a.csv", "key,text\n1,x\n")) == f"a.csv:1: {told}"
    told = "no column for the title: expected 'name', got 'id', 'text'; map it by columns"
    assert message(write(tmp_path / "a.csv", "id,text\n1,x\n"), columns={"title": "name"}) == f"a.csv:1: {told}"
    told = "the header names 'text' twice: rename one"
    assert message(write(tmp_path / "a.csv", "id,text,text\n1,x,y\n")) == f"a.csv:1: {told}"
    told = "no column for the text: expected 'abstract', got 'id', 'text'; map it by columns"
    path = parquet(tmp_path / "a.parquet", id=["1"], text=["x"])
    assert message(path, columns={"text": "abstract"}) == f"a.parquet: {told}"


def test_a_tsv_that_is_none_of_the_known(tmp_path: Path) -> None:
    told = (
        "3 columns and no known header: expected 2 (pid, text) or 4 (docid, url, title, body) columns, or a header "
        "with one of '_id', 'id', 'docid', 'pid' and one of 'text', 'contents', 'content', 'body', 'passage'"
    )
    assert message(write(tmp_path / "a.tsv", "\n1\t2\t3\n")) == f"a.tsv:2: {told}"


def test_parquet_that_cannot_be_read(tmp_path: Path) -> None:
    assert "a.parquet:1: no readable Parquet (" in message(write(tmp_path / "a.parquet", b"PAR1 nothing"))
    told = "Parquet is compressed inside and cannot be read from a compressed file: decompress it"
    assert message(write(tmp_path / "a.parquet.gz", b"")) == f"a.parquet.gz: {told}"


def test_sources_that_are_refused_before_reading(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or folder"):
        read_corpus(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"\.jsonl, \.json, \.csv, \.tsv, \.parquet, \.ciff, plain, \.gz or \.zst"):
        read_corpus(write(tmp_path / "a.pdf", b"%PDF"))
    with pytest.raises(
        InputError, match=r"looked for corpus\.jsonl \(BEIR\), \.json or \.jsonl files \(Pyserini\), \.txt"
    ):
        read_corpus(tmp_path)
    with pytest.raises(InputError, match="columns gives 'body' a name: expected only 'id', 'title' and 'text'"):
        read_corpus(tmp_path / "a.csv", columns={"body": "x"})
    with pytest.raises(InputError, match="columns are for JSONL, CSV, TSV and Parquet"):
        read_corpus("ir:a/b", columns={"id": "x"})
    write(tmp_path / "queries.jsonl", "")
    with pytest.raises(InputError, match=r"holds queries\.jsonl and no corpus\.jsonl"):
        read_corpus(tmp_path)


# Streaming


@pytest.mark.parametrize("end", COMPRESS)
def test_the_first_document_is_there_before_the_file_is_read(tmp_path: Path, end: str) -> None:
    good = b"".join(b'{"id": %d, "text": "%s"}\n' % (n, b"%x" % n**400) for n in range(10_000))
    path = write(tmp_path / f"a.jsonl{end}", COMPRESS[end](good + b"broken"))
    corpus = read_corpus(path)
    documents = iter(corpus)
    assert next(documents).id == "0"
    assert corpus.bytes_read is not None
    assert 0 < corpus.bytes_read < path.stat().st_size / 2
    with pytest.raises(InputError, match=":10001: broken JSON"):
        list(documents)
    assert corpus.bytes_read == corpus.bytes_total == path.stat().st_size


def test_the_place_runs_over_several_files(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, '{"id": "1", "text": "x"}\n') for name in ("a.jsonl", "b.jsonl")]
    corpus = read_corpus(tmp_path)
    assert [(corpus.path, corpus.line, corpus.bytes_read) for _ in corpus] == [(paths[0], 1, 25), (paths[1], 1, 50)]
    assert corpus.bytes_total == 50


# Real collections

COUNTS = {
    "cacm": 3204,
    "covidqa_long": 98,
    "limit_small": 46,
    "medquad": 15_809,
    "msmarco_sample": 4827,
    "nfcorpus_nostop": 3633,
    "qmsum_long": 232,
    "scifact": 5183,
    "squad_sentences": 13_447,
    "squadshifts_reddit": 2033,
    "squadshifts_wiki": 1581,
    "squadshifts_wiki_long": 48,
    "tatoeba_cmn_eng": 1000,
    "tquad_tr": 2097,
    "vaswani": 11_429,
    "xquad_ar": 240,
    "xquad_th": 240,
}


@pytest.mark.shared
@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_document_of_a_shared_collection(name: str, count: int) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is absent")
    assert sum(1 for _ in read_corpus(SHARED / name)) == count


@pytest.mark.shared
def test_cranfield_has_two_empty_documents() -> None:
    if not (SHARED / "cranfield").is_dir():
        pytest.skip(f"{SHARED / 'cranfield'} is absent")
    assert "empty text and title in '471'" in str(error_of(SHARED / "cranfield"))
    errors: list[InputError] = []
    corpus = read_corpus(SHARED / "cranfield", on_bad=errors.append)
    assert (sum(1 for _ in corpus), corpus.skipped) == (1398, 2)
    assert [error.line for error in errors] == [471, 995]
