"""The commands and their names. What a command needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from retriever.cli.add import add_command
from retriever.cli.bench import bench_command
from retriever.cli.compact import compact_command
from retriever.cli.compare import compare_command
from retriever.cli.delete import delete_command
from retriever.cli.doctor import doctor_command
from retriever.cli.eval import evaluate_command
from retriever.cli.expand import expand_command
from retriever.cli.export import export_command
from retriever.cli.filter_expansion import filter_expansion_command
from retriever.cli.index import index_command
from retriever.cli.info import info_command
from retriever.cli.reproduce import reproduce_command
from retriever.cli.search import search_command
from retriever.cli.train import train_app
from retriever.cli.verify import verify_command


class EndedError(Exception):
    """Ctrl-C, or the reader of our output left; `cause` says which. typer would answer both itself, with no message."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as cause:
            raise EndedError(cause) from None


app = typer.Typer(
    name="retriever",
    cls=_Commands,
    help="Index a corpus, search it lexically, by learned term weights or densely, rerank, and measure the results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "index": index_command,
    "search": search_command,
    "eval": evaluate_command,
    "bench": bench_command,
    "reproduce": reproduce_command,
    "compare": compare_command,
    "add": add_command,
    "expand": expand_command,
    "filter-expansion": filter_expansion_command,
    "export": export_command,
    "delete": delete_command,
    "info": info_command,
    "verify": verify_command,
    "compact": compact_command,
    "doctor": doctor_command,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(train_app)
