"""Stored states through kills and damage: what comes out is what went in, or nothing."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from index_tools import environment

from retriever import InputError
from retriever.rerankers.state_store import HEADER, INDEX, STATES, State, StateStore, state_store
from retriever.tallies import tallies

WIDTH = 3


def opened(folder: Path) -> StateStore:
    """As another process would: nothing remembered."""
    state_store(folder, {"model": "m"}, WIDTH)
    return StateStore(folder, '{"model": "m"}', WIDTH)


def state(text: str) -> State:
    """Other numbers for each text."""
    numbers = np.random.default_rng(list(text.encode())).standard_normal((len(text), WIDTH))
    return State(numbers.astype(np.float16), cut=len(text) % 2 == 0)


def add(store: StateStore, texts: Sequence[str]) -> None:
    store.add({text: state(text) for text in texts})


def found(store: StateStore, texts: Sequence[str]) -> list[str]:
    """Which texts have states, all of which must be right."""
    states = store.get(texts)
    for text, known in states.items():
        np.testing.assert_array_equal(known.values, state(text).values)
        assert known.cut == state(text).cut
    return list(states)


def test_what_went_in_comes_out(tmp_path):
    store = opened(tmp_path / "states")
    assert found(store, ["wing"]) == []
    add(store, ["wing", "lift"])
    add(store, ["drag", "wing"])
    for each in (store, opened(tmp_path / "states")):
        assert found(each, ["drag", "heat", "wing", "lift"]) == ["drag", "wing", "lift"]
    assert (tmp_path / "states" / STATES).stat().st_size == (4 + 4 + 4) * WIDTH * 2  # "wing" is there once


def test_others_additions_are_seen_and_not_repeated(tmp_path):
    here, there = opened(tmp_path / "states"), opened(tmp_path / "states")
    add(here, ["wing", "lift"])
    assert found(there, ["wing", "lift"]) == ["wing", "lift"]
    size = here.size
    add(there, ["lift", "drag"])
    assert found(here, ["drag"]) == ["drag"]
    assert here.size == size + 4 * WIDTH * 2 + 56


def test_a_store_is_read_once_and_anew_when_it_was_made_anew(tmp_path):
    folder = tmp_path / "states"
    first = state_store(folder, {"model": "m"}, WIDTH)
    assert state_store(folder, {"model": "m"}, WIDTH) is first
    add(first, ["wing"])
    shutil.rmtree(folder)
    assert found(state_store(folder, {"model": "m"}, WIDTH), ["wing"]) == []


def test_what_a_kill_leaves_harms_nothing(tmp_path):
    folder, torn = tmp_path / "states", tmp_path / "torn"
    add(opened(folder), ["wing", "lift over"])
    before = {name: (folder / name).read_bytes() for name in (STATES, INDEX)}
    add(opened(folder), ["drag", "heat and flow"])
    after = {name: (folder / name).read_bytes() for name in (STATES, INDEX)}
    texts = ["wing", "lift over", "drag", "heat and flow"]
    whole = len(before[INDEX])
    cuts = [(stop, whole) for stop in range(len(before[STATES]), len(after[STATES]) + 1, 5)]
    cuts += [(len(after[STATES]), stop) for stop in range(whole, len(after[INDEX]) + 1)]
    for states, records in cuts:
        shutil.rmtree(torn, ignore_errors=True)
        shutil.copytree(folder, torn)
        (torn / STATES).write_bytes(after[STATES][:states])
        (torn / INDEX).write_bytes(after[INDEX][:records])
        with tallies() as said:
            there = found(opened(torn), texts)
        assert there == texts[: records // 56]
        assert not said
        add(opened(torn), texts)
        assert found(opened(torn), texts) == texts


def test_a_flipped_byte_is_found_and_what_it_hit_is_made_anew(tmp_path):
    folder, texts = tmp_path / "states", ["wing", "lift over", "drag"]
    add(opened(folder), texts)
    intact = {name: (folder / name).read_bytes() for name in (STATES, INDEX)}
    for name in (STATES, INDEX):
        for place in range(len(intact[name])):
            damaged = bytearray(intact[name])
            damaged[place] ^= 4
            (folder / name).write_bytes(damaged)
            with tallies() as said:
                store = opened(folder)
                there = found(store, texts)
            assert len(there) == 2
            assert sum(said.values()) == 1
            add(store, texts)
            assert found(store, texts) == texts
            assert found(opened(folder), texts) == texts
            for each, data in intact.items():
                (folder / each).write_bytes(data)


def test_records_ahead_of_their_states_count_as_missing(tmp_path):
    folder = tmp_path / "states"
    add(opened(folder), ["wing", "lift"])
    (folder / STATES).write_bytes((folder / STATES).read_bytes()[:-2])  # no write order of ours leaves this
    assert found(opened(folder), ["wing", "lift"]) == ["wing"]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_state_store import add, opened
store = opened(Path(sys.argv[1]))
print("started", flush=True)
for i in range(100_000):
    add(store, [f"{sys.argv[2]} {i} {j}" for j in range(3)])
"""


def writer(folder: Path, name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(folder), name, str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    return process


def test_writers_that_are_killed_leave_whole_states(tmp_path):
    folder = tmp_path / "states"
    opened(folder)
    for turn in range(3):
        both = [writer(folder, f"{turn}{name}") for name in "ab"]
        store = opened(folder)
        while len(found(store, [f"{turn}a {i} 0" for i in range(5)])) < 5:
            assert both[0].poll() is None  # read while they write
        for process in both:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
    store = opened(folder)
    for turn in range(3):
        for name in "ab":
            texts = [f"{turn}{name} {i} {j}" for i in range(2000) for j in range(3)]
            there = found(store, texts)
            assert there == texts[: len(there)]  # in the order in which they came
    assert len(found(store, [f"{turn}a {i} {j}" for turn in range(3) for i in range(5) for j in range(3)])) == 45
    add(store, ["wing"])
    assert found(opened(folder), ["wing"]) == ["wing"]


def test_a_damaged_folder_is_refused(tmp_path):
    folder = tmp_path / "states"
    opened(folder)
    (folder / INDEX).unlink()
    with pytest.raises(InputError, match="is a damaged store of states; remove the folder"):
        opened(folder)
    (folder / HEADER).write_text("{")
    with pytest.raises(InputError, match="is a damaged store of states; remove the folder"):
        opened(folder)
