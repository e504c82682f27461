"""Files of JSON lines by document id: what is written is found again, whatever happened in between."""

import json
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever import InputError
from retriever.errors import IndexLockedError
from retriever.expansion import records
from retriever.expansion.records import Records, appending, fingerprint, write_whole

HEADER = {"expansion": "toy(n=1)", "model": {"weights": "12"}}


def line(id: str, text: str = "", *expansion: str) -> dict[str, object]:
    return {"id": id, "sha256": fingerprint(text), "expansion": list(expansion)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.jsonl"
    with appending(path, HEADER, "expansion") as append:
        append([line("d1", "one", "first"), line("d2", "two", "söcond", 'a "quote"\nand a line')])
        append([line("d3", "three")])
    return path


ids = st.text(st.sampled_from('ab"\\ü\u2028{'), min_size=1, max_size=3)


@given(st.lists(st.tuples(ids, st.sampled_from(["old text", "new text"]), st.lists(st.text(), max_size=2))))
def test_the_last_record_of_an_id_and_a_text_is_found(tmp_path_factory, given):
    path = tmp_path_factory.mktemp("records") / "file.jsonl"
    write_whole(path, HEADER, (line(id, text, *expansion) for id, text, expansion in given))
    expected = {(id, text): expansion for id, text, expansion in given}
    made = Records(path, "expansion")
    assert made.header == HEADER
    assert [record["expansion"] for record in made] == [expansion for _, _, expansion in given]
    for id, text in [*expected, ("absent", "old text")]:
        ((known, record),) = made.find([(id, fingerprint(text))])
        assert known == any(each == id for each, _ in expected)
        assert (record["expansion"] if record else None) == expected.get((id, text))


def test_ids_with_one_hash_are_told_apart(path, monkeypatch):
    monkeypatch.setattr(records, "hash", lambda _: 7, raising=False)
    found = Records(path, "expansion").find([(id, fingerprint(text)) for id, text in [("d2", "two"), ("d4", "two")]])
    assert [(known, record and record["id"]) for known, record in found] == [(True, "d2"), (False, None)]


def test_memory_is_16_bytes_a_record_however_long_the_records_are(tmp_path):
    write_whole(tmp_path / "long", HEADER, (line(f"d{i}", "", "word " * 20) for i in range(20_000)))
    tracemalloc.start()
    made = Records(tmp_path / "long", "expansion")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.find([("d19999", fingerprint(""))])[0][0]
    assert 16 * 20_000 <= held < 17 * 20_000


def test_wherever_a_kill_cuts_the_file_the_next_run_completes_it(path):
    """The file is cut at every byte; what is whole stays, what is not is written again."""
    whole = path.read_bytes()
    all_lines = [line("d1", "one", "first"), line("d2", "two", "söcond", 'a "quote"\nand a line'), line("d3", "three")]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with appending(path, HEADER, "expansion") as append:
            known = [record["id"] for record in Records(path, "expansion")]
            assert known == ["d1", "d2", "d3"][: max(0, whole[:size].count(b"\n") - 1)]
            append([record for record in all_lines if record["id"] not in known])
        assert path.read_bytes() == whole


def test_a_line_cut_short_is_not_read(path):
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError) as caught:
        Records(path, "expansion")
    assert str(caught.value) == (
        f"{path}:4: the line is damaged: it is cut short; the command that made this file completes it"
    )


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b"[1, 2]", "no JSON object with an id"),
        (b'{"expansion": []}', "no JSON object with an id"),
        (b"", "no JSON object with an id"),
        (b'{"id": "d2", "expansion": ["a"', r"Expecting ',' delimiter: line 1 column 31 \(char 30\)"),
        (b'{"id": "d2", "sha256": "00"}', "'expansion' is None, not a list of str"),
        (b'{"id": "d2", "expansion": [1]}', r"'expansion' is \[1\], not a list of str"),
    ],
)
def test_a_damaged_line_is_named(path, damaged, reason):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], damaged, *lines[3:]]))
    with pytest.raises(InputError, match=f"^{path}:3: the line is damaged: {reason}$"):
        Records(path, "expansion").find([("d2", "00")])


def test_a_record_without_a_fingerprint_counts_for_any_text(tmp_path):
    (tmp_path / "own").write_text(
        '{"expansion": "by hand"}\n{"id":  "d1","expansion": ["x"]}\n{"id": 5, "expansion": []}\n'
    )
    made = Records(tmp_path / "own", "expansion")
    assert [known for known, _ in made.find([("d1", "any"), ("5", "any"), ("6", "any")])] == [True, True, False]


def test_what_another_made_is_not_gone_on_with(path):
    before = path.read_bytes()
    with pytest.raises(InputError) as caught, appending(path, {**HEADER, "expansion": "toy(n=2)"}, "expansion"):
        pass
    assert str(caught.value) == (
        f"{path}: was made by something else: expansion 'toy(n=1)', now 'toy(n=2)'; give what made it, or move it away"
    )
    with (
        pytest.raises(InputError, match=re.escape("model {'weights': '12'}, now {'weights': '34'}")),
        appending(path, {**HEADER, "model": {"weights": "34"}}, "expansion"),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["no JSON", '{"_id": "d1", "text": "a corpus"}\n', '{"scores": "of another kind"}\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
    (tmp_path / "other").write_text(text)
    expected = 'is no expansion file: its first line is to say what made it, as {"expansion": "..."}'
    with pytest.raises(InputError) as caught, appending(tmp_path / "other", HEADER, "expansion"):
        pass
    assert str(caught.value) == f"{tmp_path / 'other'}:1: {expected}"
    with pytest.raises(InputError, match="is no expansion file"):
        Records(tmp_path / "other", "expansion")
    assert (tmp_path / "other").read_text() == text


def test_only_one_may_write(path):
    with (
        appending(path, HEADER, "expansion"),
        pytest.raises(IndexLockedError, match=f"^{path}: another process is writing to this file; try again later$"),
        appending(path, HEADER, "expansion"),
    ):
        pass


def test_a_new_file_to_which_nothing_was_added_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), appending(tmp_path / "new", HEADER, "expansion"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be opened: No such file or directory; `retriever expand CORPUS FILE`"):
        Records(tmp_path / "none", "expansion")
    with pytest.raises(InputError, match="there is no folder"), appending(tmp_path / "a/b", HEADER, "expansion"):
        pass
    with pytest.raises(InputError, match="is a folder"), appending(tmp_path, HEADER, "expansion"):
        pass


def test_a_line_is_readable_json(path):
    assert json.loads(path.read_text().splitlines()[2])["expansion"][0] == "söcond"
    assert "söcond" in path.read_text()
