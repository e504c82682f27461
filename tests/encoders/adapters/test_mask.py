"""Sparse differences: which entries are chosen, how they are kept, and that nothing of them stays."""

import pytest

from retriever import InputError
from retriever.encoders.adapters.mask import Change, add, choose, difference, from_tensors, replace_with, to_tensors


def tensors(seed, *shapes):
    import torch

    torch.manual_seed(seed)
    return {f"t{number}": torch.randn(*shape) for number, shape in enumerate(shapes)}


def test_the_entries_that_moved_most_are_chosen():
    """delta = (.1, .5, .3, .05, .2) and K = 2: the threshold is .3."""
    import torch

    assert choose({"t": torch.tensor([0.1, -0.5, 0.3, 0.05, -0.2])}, 2)["t"].int().tolist() == [0, 1, 1, 0, 0]


def test_the_threshold_is_one_for_all_tensors_together():
    import torch

    moved = {"small": torch.tensor([[0.1, 0.2]]), "large": torch.tensor([3.0, -2.0, 1.0])}
    assert {name: mask.int().tolist() for name, mask in choose(moved, 3).items()} == {
        "small": [[0, 0]],
        "large": [1, 1, 1],
    }
    given = tensors(1, (8, 9), (40,), (3, 4, 5))
    assert sum(int(mask.sum()) for mask in choose(given, 57).values()) == 57
    assert sum(int(mask.sum()) for mask in choose(given, 10_000).values()) == 172


def test_entries_as_large_as_the_last_chosen_one_are_chosen_too():
    import torch

    assert choose({"t": torch.tensor([0.2, 0.5, -0.2, 0.1])}, 2)["t"].int().tolist() == [1, 1, 1, 0]
    assert choose({"t": torch.tensor([0.0, 0.5, 0.0])}, 2)["t"].int().tolist() == [0, 1, 0]  # but no places at rest


def test_a_difference_is_sparse_and_drops_what_is_nothing():
    import torch

    before = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    after = {"a": torch.tensor([[0, 0.5, 0], [1e-7, 0, -2e-7]]), "b": torch.zeros(4)}
    (name, change), *rest = difference(after, before).items()
    assert (name, rest) == ("a", [])
    assert change.positions.tolist() == [1, 5]
    assert change.values.tolist() == pytest.approx([0.5, -2e-7])


def test_kept_and_read_again_it_is_the_same(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    before, after = tensors(2, (5, 6), (7,)), tensors(3, (5, 6), (7,))
    changes = difference(
        {name: after[name].where(mask, before[name]) for name, mask in choose(after, 9).items()}, before
    )
    save_file(to_tensors(changes), tmp_path / "mask.safetensors")
    again = from_tensors(load_file(tmp_path / "mask.safetensors"))
    assert sum(len(change.values) for change in again.values()) == 9
    for name, change in changes.items():
        assert torch.equal(again[name].positions, change.positions)
        assert torch.equal(again[name].values, change.values)


def test_what_stood_there_comes_back_to_the_bit_where_subtracting_would_not():
    import torch

    parameters = {name: torch.nn.Parameter(value) for name, value in tensors(4, (64, 32), (100,)).items()}
    kept = {name: value.detach().clone() for name, value in parameters.items()}
    language, ranking = (difference(tensors(seed, (64, 32), (100,)), kept) for seed in (5, 6))
    undo = [add(parameters, language), add(parameters, ranking, 0.3)]
    one = {name: value.detach().clone() for name, value in parameters.items()}
    while undo:
        undo.pop()()
    assert all(torch.equal(parameters[name], value) for name, value in kept.items())
    back = one["t0"].flatten() - 0.3 * ranking["t0"].values - language["t0"].values
    assert not torch.equal(back, kept["t0"].flatten())
    for changes, weight in ((ranking, 0.3), (language, 1.0)):
        add(parameters, changes, weight)
    for name, value in one.items():  # phi_language and phi_ranking commute
        torch.testing.assert_close(parameters[name].detach(), value, atol=1e-6, rtol=0)


def test_whole_tensors_are_put_back_too():
    import torch

    parameters = {"head": torch.nn.Parameter(torch.ones(2, 3))}
    undo = replace_with(parameters, {"head": torch.zeros(2, 3)})
    assert not parameters["head"].any()
    undo()
    assert parameters["head"].detach().flatten().tolist() == [1] * 6


def test_a_change_that_does_not_fit_changes_nothing():
    import torch

    parameters = {"a": torch.nn.Parameter(torch.zeros(4)), "b": torch.nn.Parameter(torch.zeros(4))}
    good, far = (Change(torch.tensor([place]), torch.tensor([1.0])) for place in (0, 9))
    for changes in ({"a": good, "b": far}, {"a": good, "c": good}):
        with pytest.raises(InputError, match=r"an adapter changes [bc], which this model has not, or not so large"):
            add(parameters, changes)
    with pytest.raises(InputError, match="an adapter brings a, which this model has not, or not in this shape"):
        replace_with(parameters, {"a": torch.zeros(2, 2)})
    assert not parameters["a"].any()
