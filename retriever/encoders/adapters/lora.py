"""LoRA (Hu et al., ICLR 2022) and its family (DoRA, LoHa, LoKr, ...): all that PEFT can merge into the weights.

PEFT reads the adapter and merges it; the difference to the weights before is then what is weighted, stacked and taken
off again, as a mask's. So an adapted model costs what the base costs.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retriever.encoders.adapters.mask import Change
from retriever.errors import InputError, MissingDependencyError


def changes(model: Any, folder: Path) -> dict[str, Change]:
    """What an adapter in PEFT's files adds to the parameters of a model, by name. The model itself is not touched.

    Raises: MissingDependencyError without PEFT; InputError where it cannot be loaded, or changes nothing here.
    """
    import torch

    check_peft()
    from peft import PeftModel

    try:
        with quietly():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted = PeftModel.from_pretrained(copy.deepcopy(model), str(folder), torch_device=str(model.device))
            merged = adapted.merge_and_unload()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, UserWarning) as problem:
        raise InputError(f"PEFT cannot put this adapter on {type(model).__name__}: {problem}", folder) from None
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    found = {
        name: Change(None, (value.detach() - parameters[name]).flatten())
        for name, value in merged.named_parameters()
        if not torch.equal(value, parameters[name])
    }
    if not found:
        raise InputError("changes no weight of this model: it was made for another, or never trained", folder)
    return found


@contextmanager
def quietly() -> Iterator[None]:
    """Without PEFT's remarks on what it calls in transformers, and on how an adapter could be loaded otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_peft() -> None:
    """Raises: MissingDependencyError without PEFT."""
    if find_spec("peft") is None:
        raise MissingDependencyError("a LoRA adapter", "peft", "adapters")
