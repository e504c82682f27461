"""Expansion files as views read them."""

from pathlib import Path

import pytest

from retriever import Document, InputError
from retriever.errors import IndexMismatchError
from retriever.expansion.documents import expand
from retriever.expansion.files import (
    ExpansionFile,
    check_expansion,
    each_expanded,
    expanded,
    expansion_identity,
)

CORPUS = [Document(f"d{i}", f"word{i} of the text", title="title" if i % 2 else "") for i in range(10)]
TOY = "toy_expansions:Synonyms(n=2)"


@pytest.fixture
def path(tmp_path: Path) -> str:
    expand(CORPUS[:8], tmp_path / "file.jsonl", TOY)
    return str(tmp_path / "file.jsonl")


def test_a_text_is_its_contents_and_its_expansions(path):
    assert expanded([CORPUS[3], CORPUS[0]], path) == [
        "title word3 of the text liketitle likeword3",
        "word0 of the text likeword0 likeof",
    ]
    assert expanded([], path) == []


def test_without_a_file_a_text_is_its_contents():
    assert expanded(CORPUS[:2], None) == ["word0 of the text", "title word1 of the text"]
    assert list(each_expanded(CORPUS[:2], None)) == list(zip(CORPUS[:2], expanded(CORPUS[:2], None), strict=True))


def test_a_stream_is_read_in_the_order_of_its_documents(path):
    documents = CORPUS[7::-1] * 300  # more than are held at once
    assert list(each_expanded(iter(documents), path)) == list(zip(documents, expanded(documents, path), strict=True))


def test_a_document_that_is_not_in_the_file_is_named_with_the_command_that_brings_it(path):
    with pytest.raises(InputError) as caught:
        expanded(CORPUS, path)
    assert str(caught.value) == (
        f"{path}: holds document 'd8' not; bring it in by `retriever expand CORPUS {path} --with "
        f'"{TOY}"`, with the corpus that is indexed: what is done already is kept'
    )


def test_a_file_of_another_corpus_is_seen_by_its_texts_where_the_ids_are_the_same(path):
    other = [Document(document.id, "an entirely different text") for document in CORPUS]
    with pytest.raises(InputError, match="holds document 'd0' with another text than it has here; bring it in by"):
        expanded(other, path)


def test_a_changed_document_is_expanded_anew_and_the_old_text_keeps_its_expansion(path):
    changed = Document("d2", "new words")
    assert expand([*CORPUS[:2], changed], Path(path), TOY).expanded == 1
    assert expanded([changed, CORPUS[2]], path) == [
        "new words likenew likewords",
        "word2 of the text likeword2 likeof",
    ]


def test_a_file_that_grows_stays_the_same_file_and_another_is_refused(path, tmp_path):
    kept = expansion_identity(path)
    expand(CORPUS, Path(path), TOY)
    assert len(expanded(CORPUS, path)) == 10
    check_expansion("bm25", kept, path)
    check_expansion("bm25", None, None)

    other = str(tmp_path / "other.jsonl")
    expand(CORPUS, Path(other), "toy_expansions:Synonyms(n=2, model=second)")
    with pytest.raises(IndexMismatchError) as caught:
        check_expansion("bm25", kept, other)
    digests = [ExpansionFile(each).digest[:8] for each in (path, other)]
    assert str(caught.value) == (
        f"view 'bm25' holds the expansions of {TOY} ({digests[0]}), and {other} has those of "
        f"toy_expansions:Synonyms(n=2, model=second) ({digests[1]}). Give the file that the view was made with, or "
        "make a new index."
    )


def test_a_file_made_by_hand_needs_a_header_and_no_fingerprints(tmp_path):
    path = tmp_path / "hand.jsonl"
    path.write_text('{"expansion": "my own model, 3 queries"}\n{"id": "d1", "expansion": ["what is it", "why"]}\n')
    assert expanded([CORPUS[1]], str(path)) == ["title word1 of the text what is it why"]
    with pytest.raises(InputError, match=r"holds document 'd0' not; .* --with \"my own model, 3 queries\""):
        expanded([CORPUS[0]], str(path))
