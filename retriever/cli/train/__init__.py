"""`retriever train`: train the models that views and stages use; one file a command."""

from __future__ import annotations

import typer

from retriever.cli.train.head import train_head_command
from retriever.cli.train.reranker import train_reranker_command
from retriever.cli.train.sparse import train_sparse_command

train_app = typer.Typer(
    name="train", help="Train models on BEIR folders; all but `head` need the extra `train`.", no_args_is_help=True
)
train_app.command("sparse")(train_sparse_command)
train_app.command("reranker")(train_reranker_command)
train_app.command("head")(train_head_command)
