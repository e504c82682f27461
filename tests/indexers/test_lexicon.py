"""Terms and their numbers, on disk."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.indexers import lexicon
from retriever.indexers.lexicon import Lexicon


@settings(deadline=None)
@given(st.lists(st.lists(st.text(max_size=5).filter(lambda t: t.isprintable() or "\n" in t), unique=True), max_size=4))
def test_terms_keep_their_numbers(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("views") / "lexicon"
    kept, known = Lexicon(folder, {}), {}
    for batch in batches:
        for term, number in zip(batch, kept.add(batch).tolist(), strict=True):
            assert known.setdefault(term, number) == number
        assert sorted(known.values()) == list(range(len(known)))
        reopened = Lexicon(folder, dict(kept.files))
        assert len(reopened) == len(known)
        assert reopened.find(list(known)).tolist() == list(known.values())
        assert reopened.text(np.array(list(known.values()), dtype=np.int64)) == list(known)
        assert reopened.find(["never a term"]).tolist() == [-1]


def test_terms_with_one_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(lexicon, "_hashes", lambda terms: np.full(len(terms), 7, dtype="<u8"))
    kept = Lexicon(tmp_path / "lexicon", {})
    assert kept.add(["wing", "lift", "drag"]).tolist() == [0, 1, 2]
    assert kept.add(["lift", "flow"]).tolist() == [1, 3]
    assert kept.find(["flow", "drag", "heat"]).tolist() == [3, 2, -1]


def test_an_addition_that_was_not_committed_is_overwritten(tmp_path):
    first = Lexicon(tmp_path / "lexicon", {})
    first.add(["wing"])
    committed = dict(first.files)
    first.add(["lost"])
    again = Lexicon(tmp_path / "lexicon", committed)
    assert again.add(["kept"]).tolist() == [1]
    assert again.text(np.array([0, 1])) == ["wing", "kept"]


def test_an_empty_lexicon_knows_nothing(tmp_path):
    empty = Lexicon(tmp_path / "lexicon", {})
    assert len(empty) == 0
    assert empty.find(["wing", ""]).tolist() == [-1, -1]
    assert empty.text(np.zeros(0, dtype=np.int64)) == []
    assert pytest.approx(empty.find([])) == []
