import re

import collections_on_disk
import pytest

from retriever import InputError
from retriever.training import data
from retriever.training.data import Judge, Search, make_examples, read_collection


def examples(collection, negatives, seed):
    with Search(collection) as search:
        return make_examples(search, negatives, seed)


@pytest.fixture
def folder(tmp_path):
    """Three documents on wings, one of them relevant; one query without any."""
    documents = {"a": "the wing", "b": "a wing in heat", "c": "wing of a body", "d": "drag"}
    queries = {"q": "wing", "r": "lift", "s": "drag"}
    judged = ["q a 1", "q b 0", "r d 0", "s d 2"]
    return collections_on_disk.write(tmp_path / "wings", documents, queries, train=judged)


def test_negatives_are_those_judged_irrelevant_then_any(folder):
    made = examples(read_collection(folder, measured=False), negatives=2, seed=0)
    first, second = made.examples
    assert (first.query, first.positive, first.negatives[0]) == ("wing", "the wing", "a wing in heat")
    assert first.negatives[1] in {"wing of a body", "drag"}
    assert (second.query, second.positive) == ("drag", "drag")
    assert "drag" not in second.negatives
    assert len({*second.negatives}) == 2
    assert (made.unanswered, made.labelled, made.drawn) == (1, 1, 3)


def test_bm25_brings_negatives_that_share_words(tmp_path):
    documents = {f"w{number}": f"wing number {number}" for number in range(10)} | {"other": "drag"}
    folder = collections_on_disk.write(tmp_path / "many", documents, {"q": "wing 7"}, train=["q w7 1"])
    made = examples(read_collection(folder, measured=False), negatives=3, seed=0)
    (example,) = made.examples
    assert (made.labelled, made.mined, made.drawn) == (0, 3, 0)
    assert all("wing" in text and text != example.positive for text in example.negatives)


def test_mined_texts_that_score_like_the_relevant_one_are_no_negatives(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SPARE", 9)
    documents = {f"w{number}": f"wing number {number}" for number in range(12)}
    folder = collections_on_disk.write(
        tmp_path / "many", documents, {"q": "wing", "r": "number"}, train=["q w7 1", "r w3 1"]
    )
    judge = Judge("in tests", lambda pairs: [0.8 if int(text.split()[-1]) < 8 else 0.7 for _, text in pairs], 0.95)
    with Search(read_collection(folder, measured=False)) as search:
        kept, judged = make_examples(search, 2, seed=0), make_examples(search, 2, seed=0, judge=judge)
    assert (kept.false, kept.judged) == (0, None)
    assert (judged.false, judged.judged) == (14, "in tests")
    assert all(text.split()[-1] in {"8", "9", "10", "11"} for each in judged.examples for text in each.negatives)
    assert (judged.mined, judged.drawn) == (4, 0)


@pytest.mark.parametrize(
    ("positive", "negative", "doubted"),
    [
        (0.8, 0.761, True),
        (0.8, 0.759, False),
        (0.8, 0.9, True),
        (-2.0, -2.05, True),
        (-2.0, -2.15, False),
        (0.0, 0.1, True),
    ],
)
def test_a_negative_is_doubted_above_a_share_of_the_relevant_texts_score(positive, negative, doubted):
    """Of cosines as in NV-Retriever: 0.95 x 0.8 = 0.76; below 0 the distance is the same share."""
    assert Judge("", list, 0.95).doubts(negative, positive) == doubted


def test_the_same_seed_gives_the_same_examples(tmp_path):
    collection = read_collection(collections_on_disk.things(tmp_path / "things"), measured=False)
    assert examples(collection, 2, seed=5) == examples(collection, 2, seed=5)
    assert examples(collection, 2, seed=5) != examples(collection, 2, seed=6)


def test_too_few_documents_for_the_negatives(folder):
    with pytest.raises(InputError, match="wings: 4 documents are too few for 4 negatives"):
        examples(read_collection(folder, measured=False), negatives=4, seed=0)


def test_a_dev_split_is_taken_as_it_is(tmp_path):
    folder = collections_on_disk.things(
        tmp_path / "things", train=["q-wing-in d-wing-in 1"], dev=["q-lift-in d-lift-in 1"]
    )
    read = read_collection(folder, measured=True)
    assert (list(read.train), list(read.dev)) == (["q-wing-in"], ["q-lift-in"])


def test_without_one_a_tenth_of_the_train_queries_is_held_out(tmp_path):
    whole = read_collection(collections_on_disk.things(tmp_path / "things"), measured=False)
    cut = read_collection(tmp_path / "things", measured=True)
    assert not whole.dev
    assert cut.dev
    assert {*cut.train} | {*cut.dev} == {*whole.train}
    assert not {*cut.train} & {*cut.dev}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q\tz\t1", "document 'z' is judged, but it is not in the document file of this folder"),
        ("z\ta\t1", "query 'z' is judged, but it is not in the query file of this folder"),
        ("q\ta\tyes", "expected a whole number as the grade, found 'yes'"),
        ("q a", "expected 3 columns (query-id corpus-id score), found 2"),
    ],
)
def test_a_bad_judgement_is_named_by_file_and_line(folder, line, message):
    path = folder / "qrels" / "train.tsv"
    path.write_text(path.read_text() + f"{line}\n")
    with pytest.raises(InputError, match=re.escape(f"{path}:6: {message}")):
        read_collection(folder, measured=False)


def test_a_bad_document_is_named_by_file_and_line(folder):
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "e", "text": 7}\n')
    with pytest.raises(InputError, match=re.escape(f"{folder / 'corpus.jsonl'}:5: the text is the number 7")):
        read_collection(folder, measured=False)


def test_a_folder_without_judgements(tmp_path):
    folder = collections_on_disk.things(tmp_path / "things", dev=["q-lift-in d-lift-in 1"])
    with pytest.raises(InputError, match="holds no judgements: expected qrels"):
        read_collection(folder, measured=False)
    assert not read_collection(folder, measured=True).train


def test_no_query_with_a_relevant_document(tmp_path):
    folder = collections_on_disk.things(tmp_path / "things", train=["q-lift-in d-lift-in 0"])
    with pytest.raises(InputError, match=r"things: no train query has a relevant document \(a grade above 0\)"):
        examples(read_collection(folder, measured=False), negatives=1, seed=0)
