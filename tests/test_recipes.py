"""The long recipes in benchmarks/recipes.py are run by hand only; here their commands are at least understood."""

import shlex
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from retriever.cli.app import app

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from recipes import RECIPES

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
