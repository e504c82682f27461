"""Systems of a comparison: pipelines whose views are written out in place, run files, encoders and endpoints by name.

| written | what |
| --- | --- |
| `bm25`, `bm25 + dense(MODEL) >> rrf` | a pipeline, with each view as `retriever index --view` has it |
| `their.module:object` | any encoder, as `dense(their.module:object)` |
| `http://host:port/v1#MODEL` | an embeddings endpoint, as a dense view |
| `PATH.trec` | a run file; {collection} in its name stands for the collection's |

Before any of these, `NAME = ` gives a name for the report.

A view is known by what it is made of, and gets a name from that: `dense-1f0c...`. What a search may set stays in the
pipeline, so `bm25(k1=0.9, b=0.4)` and `bm25(k1=1.2, b=0.75)` are one view searched in two ways; and index settings that
a view may change without encoding again (a FAISS factory) are left out of its name, so all of them share its vectors.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from retriever.components import load, load_class
from retriever.encoders.models import find_model, sha256
from retriever.endpoints import is_endpoint
from retriever.fusion import FUSIONS
from retriever.indexers import INDEXERS, indexer_class
from retriever.indexers.base import searchable
from retriever.pipeline import BY_LANGUAGE
from retriever.query_expansion import QUERY_EXPANSIONS
from retriever.rerankers import RERANKERS
from retriever.spec import Chain, Component, Node, Sum, ViewSpec, component_of, configure, parse_pipeline, suggest

_NAMED = re.compile(r"\s*([^=()>+'\"\[\]]*[^=()>+'\"\[\]\s])\s*=\s*(.+)", re.DOTALL)
_RUN = re.compile(r".+\.(trec|run)(\.gz|\.zst)?")
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_PATHS = ("expansion", "index", "tokenizer", "store")
"""Settings that may name a file or folder."""
_KINDS = {".json", ".safetensors", ".bin", ".txt", ".model", ".npy", ".py"}
_DECIDES = {"precision"}
"""Settings that an index lets change without encoding again, and that vectors depend on all the same."""
_STAGES = {**RERANKERS, **QUERY_EXPANSIONS, **FUSIONS}


@dataclass(frozen=True)
class View:
    """A view that a system needs. spec: as it is searched. base: the same with every setting that costs no encoding at
    its default, which is built first, so that encoding and indexing are timed apart. models: names of its models.
    """

    base: ViewSpec
    spec: ViewSpec
    models: tuple[str, ...]


@dataclass(frozen=True)
class System:
    """One row of a comparison. text: as written, without the name. run: a run file's path; else there is a pipeline.

    pipeline: with its views by their derived names. views: those. models: of its stages. key: SHA-256 over all of it
    that decides results.
    """

    name: str
    text: str
    run: str | None = None
    pipeline: str = ""
    views: tuple[View, ...] = ()
    models: tuple[str, ...] = ()
    key: str = field(default="", compare=False)


def parse_system(text: str) -> System:
    """The system that a text means (see the module).

    Raises: SpecError for what is no pipeline, InputError for a model that is nowhere.
    """
    named = _NAMED.fullmatch(text)
    name, rest = named.groups() if named else (text.strip(), text.strip())
    if _RUN.fullmatch(rest):
        return System(name, rest, run=rest)
    if is_endpoint(rest) or _OBJECT.fullmatch(rest):
        rest = str(Component("dense", (rest,)))
    expander = _Expander()
    node = expander.node(parse_pipeline(rest))
    views = tuple(expander.views.values())
    decides = [str(node), [str(view.spec) for view in views], expander.made_of]
    key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    return System(name, rest, None, str(node), views, tuple(dict.fromkeys(expander.models)), key)


class _Expander:
    """Puts the names of views in the place of their texts, and notes what everything is made of."""

    def __init__(self) -> None:
        self.views: dict[str, View] = {}
        self.models: list[str] = []
        self.made_of: list[Any] = []

    def node(self, node: Node) -> Node:
        if isinstance(node, Chain):
            return Chain(tuple(map(self.node, node.steps)))
        if isinstance(node, Sum):
            return Sum(tuple(map(self.node, node.parts)))
        if node.name == BY_LANGUAGE:
            routes = ((language, str(self.node(parse_pipeline(str(to))))) for language, to in node.options)
            return replace(node, options=tuple(routes))
        return self.view(node) if node.name in INDEXERS else self.stage(node)

    def stage(self, component: Component) -> Component:
        """A reranker, fusion or expansion: its models are noted, also of what stands inside; a view is expanded."""
        if component.name not in _STAGES and ":" not in component.name:
            known = {**INDEXERS, **_STAGES}
            raise component.error(f"no view or stage is called {component.name!r}; {suggest(component.name, known)}")
        kind = load(component, _STAGES, "stage")
        config = configure(getattr(kind, "Config", kind), component)
        self.made_of += made_of(config)
        self.models += _models(config)
        if isinstance(inner := getattr(config, "reranker", None), str):
            self.node(parse_pipeline(inner))
        if not isinstance(view := getattr(config, "view", None), str):
            return component
        expanded = replace(config, view=str(self.node(parse_pipeline(view))))
        return replace(component_of(component.name, expanded), at=component.at, text=component.text)

    def view(self, component: Component) -> Component:
        """The view's name with what a search may set."""
        options = dict(component.options)
        k = [("k", options.pop("k"))] if "k" in options else []
        written = replace(component, options=tuple(options.items()))
        kind = indexer_class(written)
        config = configure(kind.Config, written)
        search = {known.name for known in fields(kind.Config) if searchable(known)}
        plain = _reset(config, search)
        base = _reset(plain, set(getattr(kind, "rebuilds", ())) - _DECIDES)
        name = view_name(component.name, kind, base)
        specs = [ViewSpec(name, component_of(component.name, each)) for each in (base, plain)]
        view = View(specs[0], specs[1], _models(config))
        if self.views.setdefault(name, view) != view:
            both = f"{self.views[name].spec.component} and {view.spec.component}"
            raise component.error(f"one system cannot have both {both}: they share their vectors, and are one view")
        changed = component_of(component.name, config).options
        asked = [(key, value) for key, value in changed if key in search and value != getattr(plain, key)]
        return Component(name, (), (*k, *asked), component.at, component.text)


def _reset(config: Any, names: set[str]) -> Any:
    """A configuration with these fields at their defaults."""
    return replace(config, **{known.name: known.default for known in fields(config) if known.name in names})


def _models(config: Any) -> tuple[str, ...]:
    model = getattr(config, "model", None)
    return (model,) if isinstance(model, str) else ()


def view_name(kind: str, indexer: Any, base: Any) -> str:
    """A name for a view by what it holds: the component's, and the beginning of a SHA-256."""
    free = set(getattr(indexer, "rebuilds", ())) - _DECIDES
    held = {name: value for name, value in asdict(base).items() if name not in free}
    text = json.dumps([f"{indexer.__module__}:{indexer.__qualname__}", held, made_of(base)], sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def made_of(config: Any) -> list[Any]:
    """What the texts of a configuration refer to, as JSON: the content of models and files, the identity of objects.

    Raises: InputError for a model that is nowhere.
    """
    values = vars(config).items() if hasattr(config, "__dict__") else ()
    return [made for name, value in values if isinstance(value, str) and (made := _made_of(name, value))]


def _made_of(name: str, value: str) -> Any:
    if is_endpoint(value):
        return value
    if _OBJECT.fullmatch(value):
        return _identity(value)
    if name == "model":
        return _files(find_model(value))
    if name in _PATHS and Path(value).exists():
        return _files(Path(value))
    return None


def _identity(target: str) -> list[Any]:
    """Of an object: what it says of itself, and its module's code."""
    found = load_class(target)
    made = found() if isinstance(found, type) else found
    code = inspect.getsourcefile(type(made))
    said = dict(made.identity()) if hasattr(made, "identity") else None
    return [target, said, sha256(Path(code)) if code and Path(code).is_file() else None]


def _files(path: Path) -> Mapping[str, str]:
    """The SHA-256 of a file, or of each file of a folder that decides what a model computes."""
    if path.is_file():
        return {path.name: sha256(path)}
    found = (inner for inner in sorted(path.rglob("*")) if inner.is_file() and inner.suffix in _KINDS)
    return {inner.relative_to(path).as_posix(): sha256(inner) for inner in found}
