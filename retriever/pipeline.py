"""Running a pipeline: from its parsed text form to ranked rows.

Everything that can be wrong with it is found before anything is searched or loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from retriever.components import load
from retriever.errors import InputError, SpecError
from retriever.fusion import FUSIONS
from retriever.indexers.base import TermView, VectorView, searchable
from retriever.query_expansion import QUERY_EXPANSIONS
from retriever.query_expansion.base import KINDS, QueryExpansion, collect
from retriever.ranking import settle
from retriever.rerankers import RERANKERS
from retriever.rerankers.base import ExploringReranker, rerank
from retriever.snapshot import Snapshot
from retriever.spec import Chain, Component, Node, Sum, configure, parse_pipeline, suggest
from retriever.types import Hits, Mask, Rows

DEPTH = 100
"""A view without k that feeds another stage retrieves so many, or k if that is more. One that feeds a query expansion
retrieves what that reads."""
BY_LANGUAGE, OTHERS = "by-language", "else"
"""A search for each language of queries, and its option for those of all others."""
_NEAR_AT_ONCE = 1024
"""Rows whose neighbours are looked up at once: bounds the documents in memory."""


@dataclass(frozen=True)
class Batch:
    """Queries with what restricts them. languages: of each query, empty where it says none. found: what each view gave
    already, for a pipeline that names it twice.
    """

    queries: Sequence[str]
    allowed: Mask | None
    languages: Sequence[str]
    found: dict[tuple[str, int], Hits] = field(default_factory=dict)


class Asked(NamedTuple):
    """A view with how a pipeline searches it: k results, with `config`."""

    view: Any
    k: int
    config: Any


Search = Callable[[Batch], Hits]


def default_pipeline(snapshot: Snapshot) -> Node:
    """All views fused by reciprocal rank; one view as it is."""
    views = list(snapshot.manifest.views)
    return parse_pipeline(views[0] if len(views) == 1 else " + ".join(views) + " >> rrf")


def compile_pipeline(node: Node, snapshot: Snapshot, k: int) -> Search:
    """A function from queries to their k best rows.

    Raises: SpecError showing the part of the text that is wrong.
    """
    search = _Compiler(snapshot, k).search(node, k)

    def run(batch: Batch) -> Hits:
        hits = search(batch)
        return Hits(hits.rows[:, :k], hits.scores[:, :k])

    return run


class _Compiler:
    """Each method is given the text of a part and how many results it gives where its views have no k of their own."""

    def __init__(self, snapshot: Snapshot, k: int) -> None:
        self.snapshot, self.k = snapshot, k
        self.ids, self.fetch = snapshot.documents.ids, snapshot.documents.fetch

    def search(self, node: Node, depth: int) -> Search:
        if isinstance(node, Component):
            routes = node.name == BY_LANGUAGE and node.name not in self.snapshot.manifest.views
            return self.routed(node, depth) if routes else self.view(node, depth)
        if isinstance(node, Sum):
            raise _first(node).error("lists side by side need a stage that joins them: ... >> rrf")
        return self.chain(node.steps, depth)

    def chain(self, steps: Sequence[Node], depth: int) -> Search:
        *before, last = steps
        if not before:
            return self.search(last, depth)
        if self.expands(before[-1]):
            return self.expanded(before[:-1], _component(before[-1]), last, depth)
        feeding = max(self.k, DEPTH, depth)
        if isinstance(before[0], Sum) and len(before) == 1:
            return self.fusion(last, [self.search(part, feeding) for part in before[0].parts])
        return self.staged(self.chain(before, feeding), _component(last))

    def view(self, component: Component, depth: int) -> Search:
        asked = self.asked(component, depth)
        key = str(component), asked.k

        def run(batch: Batch) -> Hits:
            if key not in batch.found:
                hits = asked.view.search(batch.queries, asked.k, batch.allowed, asked.config)
                batch.found[key] = settle(hits, asked.k, self.ids)
            return batch.found[key]

        return run

    def routed(self, component: Component, depth: int) -> Search:
        """Each query to the search of its language."""
        if component.args or not component.options:
            raise component.error(
                f"{BY_LANGUAGE} names a view or a quoted pipeline for each language, and one for all others, as in "
                f"{BY_LANGUAGE}(de=german, en='english >> rm3 >> english', {OTHERS}=dense)"
            )
        if wrong := [value for _, value in component.options if not isinstance(value, str)]:
            raise component.error(f"{BY_LANGUAGE}: {wrong[0]!r} is no view and no quoted pipeline")
        searches = {language: self.search(parse_pipeline(str(to)), depth) for language, to in component.options}

        def run(batch: Batch) -> Hits:
            places = _by_language(batch, searches)
            found = {language: searches[language](_part(batch, at)) for language, at in places.items()}
            shape = len(batch.queries), max((hits.rows.shape[1] for hits in found.values()), default=0)
            rows, scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
            for language, hits in found.items():
                width = hits.rows.shape[1]
                rows[places[language], :width], scores[places[language], :width] = hits
            return Hits(rows, scores)

        return run

    def asked(self, component: Component, depth: int) -> Asked:
        name, options = component.name, dict(component.options)
        if name not in self.snapshot.manifest.views:
            if expansion := self.expands(component):
                raise self.misplaced(component, expansion)
            if name in FUSIONS or name in RERANKERS:
                raise component.error(f"{name} needs results to work on: put a view before it, as in bm25 >> {name}")
            raise component.error(f"this index has no view {name!r}; {suggest(name, self.snapshot.manifest.views)}")
        k = options.pop("k", depth)
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise component.error(f"{name}: k must be a whole number from 1")
        view = self.snapshot.view(name)
        return Asked(view, k, _search_config(view.config, component, options))

    def expands(self, node: Node) -> type[QueryExpansion] | None:
        """The class of a query expansion, where it is one."""
        if not isinstance(node, Component) or node.name in self.snapshot.manifest.views:
            return None
        if node.name not in QUERY_EXPANSIONS and ":" not in node.name:
            return None
        found = load(node, QUERY_EXPANSIONS, "stage")
        return found if hasattr(found, "expand") else None

    def expanded(self, before: Sequence[Node], component: Component, last: Node, depth: int) -> Search:
        kind = self.expands(component)
        assert kind
        if kind.feedback != bool(before):
            raise self.misplaced(component, kind)
        try:
            expansion = kind(configure(kind.Config, component))
        except InputError as problem:
            raise _at(component, problem) from None
        search, first, end = None, 0, 0
        if before:
            first, end = expansion.config.docs, getattr(expansion.config, "negative", 0)
            search = self.chain(before, max(self.k, DEPTH, first + end) if end else first)
        asked = self.asked_by(component, expansion, last, depth)

        def run(batch: Batch) -> Hits:
            feedback = collect(search(batch), first, end, self.fetch) if search else []
            made = expansion.expand(asked.view, batch.queries, feedback)
            ask = asked.view.nearest if isinstance(made, np.ndarray) else asked.view.search_terms
            return settle(ask(made, asked.k, batch.allowed, asked.config), asked.k, self.ids)

        return run

    def asked_by(self, component: Component, expansion: QueryExpansion, last: Node, depth: int) -> Asked:
        """The view behind an expansion."""
        name, at = component.name, _first(last)
        if not isinstance(last, Component) or last.name not in self.snapshot.manifest.views:
            what = f"{at.name!r}" if isinstance(last, Component) else "a group"
            raise at.error(f"{name} makes a query for one view, not for {what}; {self.views_for(expansion)}")
        asked = self.asked(last, depth)
        if not isinstance(asked.view, expansion.asks):
            raise at.error(f"{name} cannot ask {at.name!r}; {self.views_for(expansion)}")
        if problem := getattr(expansion, "expects", lambda _: None)(asked.view):
            raise at.error(f"{name} cannot ask {at.name!r}: {problem}")
        if getattr(asked.config, "query_width", None) != getattr(asked.view.config, "query_width", None):
            raise at.error(f"{name} encodes queries as the view says: set query_width there, not in this pipeline")
        return asked

    def views_for(self, expansion: QueryExpansion | type[QueryExpansion]) -> str:
        kinds = " or ".join(KINDS.get(kind, kind.__name__) for kind in expansion.asks)
        return f"it needs a view of {kinds}; here: {', '.join(self.fitting(expansion)) or 'none'}"

    def fitting(self, expansion: QueryExpansion | type[QueryExpansion]) -> list[str]:
        return [name for name in self.snapshot.manifest.views if isinstance(self.snapshot.view(name), expansion.asks)]

    def misplaced(self, component: Component, kind: type[QueryExpansion]) -> SpecError:
        """An expansion that begins a chain and should not, or does not and should, or ends one."""
        name, view = component.name, (self.fitting(kind) or ["VIEW"])[0]
        if kind.feedback:
            return component.error(
                f"{name} stands between a search, which gives it feedback, and a view, which takes its query, as in "
                f"{view} >> {name} >> {view}"
            )
        return component.error(
            f"{name} takes no feedback: it begins a search, and a view takes its query, as in {name}(...) >> {view}"
        )

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

    def staged(self, search: Search, component: Component) -> Search:
        if kind := self.expands(component):
            raise self.misplaced(component, kind)
        if component.name in self.snapshot.manifest.views or component.name in FUSIONS:
            raise component.error(
                f"{component.name!r} cannot follow '>>' here; rerankers can: {', '.join(RERANKERS)}; and a view can "
                f"behind a query expansion: {', '.join(QUERY_EXPANSIONS)}"
            )
        reranker_class = load(component, {**RERANKERS, **QUERY_EXPANSIONS}, "stage")
        reranker = reranker_class(configure(reranker_class.Config, component))
        if hasattr(reranker, "explore"):
            return self.explored(search, reranker, self.asked_near(component, reranker.config))
        own = getattr(reranker, "rerank", None) or partial(rerank, reranker)

        def run(batch: Batch) -> Hits:
            reordered = own(search(batch), batch.queries, self.fetch)
            return settle(reordered, max(1, reordered.rows.shape[1]), self.ids)

        return run

    def explored(self, search: Search, reranker: ExploringReranker, asked: Asked) -> Search:
        def run(batch: Batch) -> Hits:
            near = partial(self.near, asked, batch.allowed)
            found = reranker.explore(search(batch), batch.queries, self.fetch, near)
            return settle(found, max(1, found.rows.shape[1]), self.ids)

        return run

    def asked_near(self, component: Component, config: Any) -> Asked:
        """The view whose neighbours a reranker is given."""
        view = parse_pipeline(config.view)
        if not isinstance(view, Component):
            raise component.error(f"{component.name} looks for neighbours in one view, not in {config.view!r}")
        if "k" in dict(view.options):
            raise component.error(
                f"{component.name}: neighbours={config.neighbours} says how many, so its view has no k"
            )
        asked = self.asked(view, max(1, config.neighbours))
        if not isinstance(asked.view, (VectorView, TermView)):
            raise component.error(f"{component.name} cannot ask {view.name!r}: it has neither vectors nor terms")
        return asked

    def near(self, asked: Asked, allowed: Mask | None, rows: Rows) -> Rows:
        """The k nearest of each row in a view, without itself: int64 [n, k], -1 where there are no more.

        By its vector as a query where the view has vectors, else by its terms.
        """
        nearest = np.full((len(rows), asked.k), -1, dtype=np.int64)
        for first in range(0, len(rows), _NEAR_AT_ONCE):
            own = rows[first : first + _NEAR_AT_ONCE]
            found = settle(self.like(asked, allowed, own), asked.k + 1, self.ids).rows
            other = (found >= 0) & (found != own[:, None])
            found = np.take_along_axis(np.where(other, found, -1), np.argsort(~other, axis=1, kind="stable"), axis=1)
            nearest[first : first + len(own), : found.shape[1]] = found[:, : asked.k]
        return nearest

    def like(self, asked: Asked, allowed: Mask | None, rows: Rows) -> Hits:
        """A search with documents as queries, one result more than is asked for: themselves."""
        view: VectorView | TermView = asked.view
        if isinstance(view, VectorView):
            return view.nearest(view.document_vectors(rows), asked.k + 1, allowed, asked.config)
        return view.search_terms(view.document_terms(rows, self.fetch(rows)), asked.k + 1, allowed, asked.config)


def _by_language(batch: Batch, searches: Mapping[str, Search]) -> dict[str, list[int]]:
    """The queries' places by the option that takes them. Raises: InputError for a query that none takes."""
    places: dict[str, list[int]] = {}
    for i, language in enumerate(batch.languages):
        found = language if language in searches and language != OTHERS else OTHERS
        if found not in searches:
            said = f"is in {language!r}" if language else "says no language (field `language`, or --language)"
            raise InputError(
                f"the query {batch.queries[i]!r} {said}; {BY_LANGUAGE} has {', '.join(searches)}, and {OTHERS}=VIEW "
                "would take all others"
            )
        places.setdefault(found, []).append(i)
    return places


def _part(batch: Batch, places: Sequence[int]) -> Batch:
    return Batch([batch.queries[i] for i in places], batch.allowed, [batch.languages[i] for i in places])


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


def _at(component: Component, problem: InputError) -> SpecError:
    """What is wrong with a component, shown in the text it was parsed from."""
    return problem if isinstance(problem, SpecError) else component.error(f"{component.name}: {problem}")


def _component(node: Node) -> Component:
    if isinstance(node, Component):
        return node
    raise _first(node).error("expected one stage here, not a group")


def _first(node: Node) -> Component:
    while not isinstance(node, Component):
        node = node.steps[0] if isinstance(node, Chain) else node.parts[0]
    return node
