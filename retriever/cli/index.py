"""`retriever index`: make an index of a corpus, or go on with one that was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retriever.cli.add import Columns, SkipBad, add_corpus
from retriever.indexers import INDEXERS

VIEWS = (
    'bm25, bm25(language=german), "bm25(k1=0.9, b=0.4)", "dense(MODEL, index=\'IVF256,PQ48\')", splade(MODEL), or '
    f"NAME = one of these; repeatable. Known: {', '.join(INDEXERS)}."
)


def index_command(
    corpus: Annotated[
        str,
        typer.Argument(
            help="BEIR folder or corpus.jsonl, MS MARCO collection.tsv, Pyserini JSONL (file or folder), CSV, TSV, "
            "Parquet, CIFF, a folder of .txt and .md files, or ir:DATASET; .gz and .zst too."
        ),
    ],
    index: Annotated[Path, typer.Argument(help="The index's folder; made if it is not there.")],
    view: Annotated[
        list[str] | None,
        typer.Option(
            "--view",
            help=VIEWS,
            show_default="bm25 and dense",
        ),
    ] = None,
    columns: Columns = None,
    skip_bad: SkipBad = False,
) -> None:
    """Index a corpus.

    The command can be repeated: what is in the index already is not encoded again, so it completes a build that was
    interrupted, adds what is new in the corpus, and builds views that the index has not yet.
    """
    from retriever.engine import Retriever

    new = not index.exists()
    retriever = Retriever.prepare(index, view, finish=False)
    try:
        add_corpus(retriever, corpus, columns, skip_bad=skip_bad)
    except BaseException:
        if new:
            retriever.discard_if_empty()
        raise
