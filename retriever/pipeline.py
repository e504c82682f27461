"""Running a pipeline: from its parsed text form to ranked rows.

Everything that can be wrong with it is found before anything is searched or loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from retriever.components import load
from retriever.fusion import FUSIONS
from retriever.indexers.base import searchable
from retriever.ranking import settle
from retriever.rerankers import RERANKERS
from retriever.rerankers.base import rerank
from retriever.snapshot import Snapshot
from retriever.spec import Chain, Component, Node, Sum, configure, parse_pipeline, suggest
from retriever.types import Hits, Mask

DEPTH = 100
"""A view without k that feeds another stage retrieves so many, or k if that is more."""


@dataclass(frozen=True)
class Batch:
    """Queries with what restricts them."""

    queries: Sequence[str]
    allowed: Mask | None


Search = Callable[[Batch], Hits]


def default_pipeline(snapshot: Snapshot) -> Node:
    """All views fused by reciprocal rank; one view as it is."""
    views = list(snapshot.manifest.views)
    return parse_pipeline(views[0] if len(views) == 1 else " + ".join(views) + " >> rrf")


def compile_pipeline(node: Node, snapshot: Snapshot, k: int) -> Search:
    """A function from queries to their k best rows.

    Raises: SpecError showing the part of the text that is wrong.
    """
    search = _Compiler(snapshot, k).search(node, alone=True)

    def run(batch: Batch) -> Hits:
        hits = search(batch)
        return Hits(hits.rows[:, :k], hits.scores[:, :k])

    return run


class _Compiler:
    def __init__(self, snapshot: Snapshot, k: int) -> None:
        self.snapshot, self.k = snapshot, k
        self.ids = snapshot.documents.ids

    def search(self, node: Node, *, alone: bool = False) -> Search:
        if isinstance(node, Component):
            return self.view(node, alone=alone)
        if isinstance(node, Sum):
            raise _first(node).error("lists side by side need a stage that joins them: ... >> rrf")
        first, *rest = node.steps
        if isinstance(first, Sum):
            joining, *rest = rest
            search = self.fusion(joining, [self.search(part) for part in first.parts])
        else:
            search = self.search(first)
        for step in rest:
            search = self.staged(search, step)
        return search

    def view(self, component: Component, *, alone: bool) -> Search:
        name, options = component.name, dict(component.options)
        if name not in self.snapshot.manifest.views:
            if name in FUSIONS or name in RERANKERS:
                raise component.error(f"{name} needs results to work on: put a view before it, as in bm25 >> {name}")
            raise component.error(f"this index has no view {name!r}; {suggest(name, self.snapshot.manifest.views)}")
        depth = options.pop("k", self.k if alone else max(self.k, DEPTH))
        if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
            raise component.error(f"{name}: k must be a whole number from 1")
        view = self.snapshot.view(name)
        config = _search_config(view.config, component, options)

        def run(batch: Batch) -> Hits:
            return settle(view.search(batch.queries, depth, batch.allowed, config), depth, self.ids)

        return run

    def fusion(self, node: Node, parts: Sequence[Search]) -> Search:
        component = _component(node)
        if component.name not in FUSIONS:
            raise component.error(f"{component.name!r} does not join lists; {suggest(component.name, FUSIONS)}")
        fusion = configure(load(component, FUSIONS, "fusion"), component)
        if problem := getattr(fusion, "expects", lambda _: None)(len(parts)):
            raise component.error(f"{component.name}: {problem}")

        def run(batch: Batch) -> Hits:
            joined = fusion.fuse([part(batch) for part in parts])
            return settle(joined, max(1, joined.rows.shape[1]), self.ids)

        return run

    def staged(self, search: Search, node: Node) -> Search:
        component = _component(node)
        if component.name in self.snapshot.manifest.views or component.name in FUSIONS:
            raise component.error(f"{component.name!r} cannot follow '>>' here; rerankers can: {', '.join(RERANKERS)}")
        reranker_class = load(component, RERANKERS, "stage")
        reranker = reranker_class(configure(reranker_class.Config, component))
        fetch = self.snapshot.documents.fetch

        def run(batch: Batch) -> Hits:
            reordered = rerank(reranker, search(batch), batch.queries, fetch)
            return settle(reordered, max(1, reordered.rows.shape[1]), self.ids)

        return run


def _search_config(config: Any, component: Component, options: dict[str, Any]) -> Any:
    """The view's configuration with what the pipeline sets for this search."""
    known = [f.name for f in fields(config) if searchable(f)]
    if component.args:
        raise component.error(f"{component.name} is a view here: name its options, as in {component.name}(k=100)")
    for key in options:
        if key not in known:
            raise component.error(
                f"{component.name}: a search cannot set {key!r}; it can set: {', '.join(['k', *known])}"
            )
    given = Component(component.name, (), tuple(options.items()), component.at, component.text)
    checked = configure(type(config), replace(given, options=(*_required(config), *given.options)))
    return replace(config, **{key: getattr(checked, key) for key in options})


def _required(config: Any) -> tuple[tuple[str, Any], ...]:
    from dataclasses import MISSING

    needed = [f.name for f in fields(config) if f.default is MISSING and f.default_factory is MISSING]
    return tuple((name, getattr(config, name)) for name in needed)


def _component(node: Node) -> Component:
    if isinstance(node, Component):
        return node
    raise _first(node).error("expected one stage here, not a group")


def _first(node: Node) -> Component:
    while not isinstance(node, Component):
        node = node.steps[0] if isinstance(node, Chain) else node.parts[0]
    return node
