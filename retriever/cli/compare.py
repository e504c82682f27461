"""`retriever compare`: where two runs differ, query by query, with the documents that moved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from retriever.eval.differences import Differences, Move, QueryDifference

_MOVES = 10
"""Documents shown for a query; --json has all that moved."""

_TEXT = 120
"""Characters shown of a text; --json has all of them."""


def compare_command(  # noqa: PLR0913 - one parameter an option
    before: Annotated[Path, typer.Argument(metavar="A", help="A run file: TREC, MS MARCO or Tevatron; .gz, .zst too.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another. Differences are B - A.")],
    qrels: Annotated[Path, typer.Option(help="Judgements: BEIR, TREC or MS MARCO; .gz and .zst too.")],
    measure: Annotated[str, typer.Option("--measure", "-m", help="A measure by ir-measures' name.")] = "nDCG@10",
    corpus: Annotated[
        str | None, typer.Option(help="Show documents' texts: a BEIR folder, whose queries are shown too, or a file.")
    ] = None,
    queries: Annotated[
        str | None, typer.Option(help="Show queries' texts: queries.jsonl, queries.tsv or a BEIR folder.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=0, help="Queries to show in each direction.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, all digits.")] = False,
) -> None:
    """Show where two runs differ, query by query.

    First how many queries are better, worse and equal in B. Then the largest gains and losses, with the documents that
    moved: those among the first ten of either run, and relevant ones wherever they stand.
    """
    from retriever.eval.differences import differences
    from retriever.eval.measures import parse_measures
    from retriever.runs import Qrels, Run

    parse_measures([measure])  # a wrong name is told before any file is read
    judgements = Qrels.read(qrels)
    found = differences(Run.read(before), Run.read(after), judgements, measure, n)
    for name, results in ((before, found.before), (after, found.after)):
        for note in results.notes():
            typer.echo(f"{name}: {note}", err=True)
    texts = _texts(found, corpus, queries)
    if as_json:
        typer.echo(json.dumps(_as_json(found, (str(before), str(after)), texts), ensure_ascii=False))
    else:
        typer.echo("\n".join(_lines(found, (str(before), str(after)), texts)))


@dataclass(frozen=True)
class _Texts:
    """Of what is shown, by id; empty where no source was given."""

    queries: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)


def _texts(found: Differences, corpus: str | None, queries: str | None) -> _Texts:
    from retriever.corpus import read_queries
    from retriever.corpus.layout import compressed_or_not

    if queries is None and corpus is not None and compressed_or_not(Path(corpus), "queries.jsonl"):
        queries = corpus
    wanted = {move.document for each in (*found.gains, *found.losses) for move in each.moves}
    return _Texts(
        {query.id: query.text for query in read_queries(queries)} if queries else {},
        _documents(corpus, wanted) if corpus and wanted else {},
    )


def _documents(corpus: str, wanted: set[str]) -> dict[str, str]:
    """The texts of the wanted documents; reads no farther than to the last of them."""
    from retriever.corpus import read_corpus

    found: dict[str, str] = {}
    for document in read_corpus(corpus):
        if document.id in wanted:
            found[document.id] = f"{document.title} {document.text}".strip()
            if len(found) == len(wanted):
                return found
    missing = sorted(wanted - found.keys())
    typer.echo(
        f"{corpus}: {len(missing)} of the {len(wanted)} documents to show are not in it, such as {missing[0]!r}",
        err=True,
    )
    return found


def _lines(found: Differences, names: tuple[str, str], texts: _Texts) -> Iterator[str]:
    means = [results.means[found.measure] for results in (found.before, found.after)]
    yield f"{found.measure}\t{means[0]:.4f}\t{names[0]}"
    yield f"\t{means[1]:.4f}\t{names[1]}"
    yield f"\t{means[1] - means[0]:+.4f}\tdifference, p = {found.p:.4g} (paired t-test)"
    yield f"queries\t{found.better} better, {found.worse} worse, {found.equal} equal"
    for what, count, some in (("gains", found.better, found.gains), ("losses", found.worse, found.losses)):
        if some:
            yield f"\nThe {len(some)} largest of {count} {what}"
        for each in some:
            yield ""
            yield from _query(each, texts)


def _query(each: QueryDifference, texts: _Texts) -> Iterator[str]:
    text = _short(texts.queries.get(each.query, ""))
    yield f"{each.difference:+.4f}  {each.before:.4f} -> {each.after:.4f}  {each.query}  {text}".rstrip()
    shown = each.moves[:_MOVES]
    width = max((len(move.document) for move in shown), default=0)
    if shown:
        yield f"  {'A':>5} {'B':>5} {'grade':>6}  document"
    for move in shown:
        text = _short(texts.documents.get(move.document, ""))
        yield f"  {_move(move)}  {move.document:<{width}}  {text}".rstrip()
    if len(each.moves) > len(shown):
        yield f"  and {len(each.moves) - len(shown)} more"


def _move(move: Move) -> str:
    ranks = [f"{'-' if rank is None else rank:>5}" for rank in (move.before, move.after)]
    return f"{' '.join(ranks)} {'-' if move.grade is None else move.grade:>6}"


def _short(text: str) -> str:
    return shorten(text, _TEXT, placeholder=" ...")


def _as_json(found: Differences, names: tuple[str, str], texts: _Texts) -> dict[str, Any]:
    runs = zip(names, (found.before, found.after), strict=True)
    return {
        "measure": found.measure,
        "runs": [{"name": name, "mean": results.means[found.measure]} for name, results in runs],
        "p": found.p,
        "queries": {"better": found.better, "worse": found.worse, "equal": found.equal},
        "gains": _with_texts(found.gains, texts),
        "losses": _with_texts(found.losses, texts),
    }


def _with_texts(some: Sequence[QueryDifference], texts: _Texts) -> list[dict[str, Any]]:
    """The dataclasses' fields, with the texts where they are known."""
    return [
        {
            **asdict(each),
            "difference": each.difference,
            **_known(texts.queries, each.query),
            "moves": [{**asdict(move), **_known(texts.documents, move.document)} for move in each.moves],
        }
        for each in some
    ]


def _known(texts: Mapping[str, str], name: str) -> dict[str, str]:
    return {"text": texts[name]} if name in texts else {}
