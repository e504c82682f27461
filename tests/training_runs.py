"""What tests of trainings ask of a folder, and a kill in the middle of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from retriever.training import course


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / course.LOG).read_text().splitlines()]


def logged(out: Path, name: str) -> list[float]:
    return [entry[name] for entry in log(out) if name in entry]


def weights(out: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(out / "model.safetensors")


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all((value == second[name]).all() for name, value in first.items())


class Killed(BaseException):
    """The process, at some step."""


def train_and_kill(train: Any, settings: Any, out: Path, steps: int) -> None:
    """Run a training until so many steps are done, and a little of the next."""
    left = iter(range(steps + 1))  # the first call says how many steps are done already

    def die(_: float) -> None:
        if next(left, None) is None:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "advance", die)
        with pytest.raises(Killed):
            train(settings, out)
