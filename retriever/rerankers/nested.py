"""A reranker that is given to another one as its text form: `long('cross-encoder(MODEL)')`."""

from __future__ import annotations

from typing import cast

from retriever.components import component_from
from retriever.encoders.token_spans import TokenSpans
from retriever.errors import InputError, SpecError
from retriever.rerankers import RERANKERS
from retriever.rerankers.base import Reranker
from retriever.spec import Component


def scorer(text: str) -> tuple[Component, Reranker]:
    """A reranker that scores pairs, from its text form: its canonical text and itself.

    Raises: SpecError for a text that is no reranker, or one that orders whole lists.
    """
    component, reranker = component_from(text, RERANKERS, "reranker")
    if not hasattr(reranker, "score"):
        raise SpecError(
            f"{component.name} orders lists; give a reranker that scores pairs: cross-encoder(MODEL)", text, 0
        )
    return component, cast(Reranker, reranker)


def pointwise(text: str) -> Reranker:
    """`scorer` for a stage around it.

    Raises: SpecError as it does, and for a reranker with a depth of its own.
    """
    component, reranker = scorer(text)
    if "depth" in dict(component.options):
        raise SpecError(
            f"depth belongs to the stage that {component.name} stands in: it scores what it is given", text, 0
        )
    return reranker


def tokens_of(reranker: Reranker, tokenizer: str | None) -> TokenSpans:
    """The tokens that a reranker's model reads, or those of another tokenizer.

    Raises: InputError where neither is known.
    """
    model = tokenizer or getattr(reranker.config, "model", None)
    if model is None:
        name = type(reranker).__name__
        raise InputError(f"{name} names no model whose tokens could be counted; give tokenizer=MODEL")
    return TokenSpans(model)
