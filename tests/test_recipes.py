"""The long recipes in benchmarks/recipes.py are run by hand only; here their commands are at least understood."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from retriever.cli.app import app

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from recipes import RECIPES, course

COMMANDS = [
    (name, command, text)
    for name, recipe in RECIPES.items()
    for command, texts in (("train", recipe.trainings.values()), ("bench", recipe.benches))
    for text in texts
]


@pytest.mark.parametrize(("name", "command", "text"), COMMANDS)
def test_a_recipes_command_is_one_of_retrievers(name, command, text):
    """Parsed, not run: a missing option or a value of the wrong kind raises click's UsageError."""
    found, rest = get_command(app), [command, *shlex.split(text), "--out", "somewhere"]
    while hasattr(found, "commands"):
        _, found, rest = found.resolve_command(
            found.make_context("retriever", list(rest), resilient_parsing=True), rest
        )
    assert found.make_context(name, rest).params


def test_how_a_training_went(tmp_path):
    """By its log: the first and last losses, and on dev the base's value beside the best of what training brought."""
    log = tmp_path / "log.jsonl"

    def written(*entries):
        log.write_text("".join(json.dumps({"seconds": 120.0, **entry}) + "\n" for entry in entries))
        return course(tmp_path)[1:]

    measured = [{"step": 0, "eval_nDCG@10": 0.5}, {"step": 20, "eval_nDCG@10": 0.4}, {"step": 30, "eval_nDCG@10": 0.45}]
    steps = [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}, {"step": 30, "loss": 1.0}, {"step": 40, "loss": 0.5}]
    assert written(*measured, *steps) == ["40", "2", "2.000", "1.625", "0.5000", "0.4500"]
    assert written({"step": 1}) == ["1", "2", "-", "-", "-", "-"]  # too short for a loss
