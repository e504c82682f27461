"""Tables of components: a name, or "their.module:Class" for code from outside."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from retriever.errors import SpecError
from retriever.spec import Component, component_of, configure, parse_pipeline, suggest


def load(component: Component, table: Mapping[str, str], what: str) -> Any:
    """The class behind a component's name.

    Raises: SpecError for a name that is not in the table, or a module or class that cannot be imported.
    """
    target = table.get(component.name, component.name)
    if ":" not in target:
        raise component.error(f"no {what} is called {component.name!r}; {suggest(component.name, table)}")
    return load_class(target, component.error)


def load_class(target: str, error: Any = None) -> Any:
    """Import "module:Class"; modules in the working directory are found too.

    Raises: SpecError, made by `error` where given, when there is no such module or class.
    """
    module, _, name = target.partition(":")
    here = str(Path.cwd())
    try:
        if module.split(".")[0] != "retriever" and here not in sys.path:
            sys.path.append(here)
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as problem:
        message = f"cannot import {target!r}: {problem}"
        raise (error(message) if error else SpecError(message, target, 0)) from None


def component_from(text: str, table: Mapping[str, str], what: str) -> tuple[Component, Any]:
    """One component from its text form: its canonical text and itself.

    Raises: SpecError for a text that is not exactly one component of the table, or a wrong configuration.
    """
    component = parse_pipeline(text)
    if not isinstance(component, Component):
        raise SpecError(f"this is a pipeline; give one {what}, as in {next(iter(table))}(MODEL)", text, 0)
    kind = load(component, table, what)
    config = configure(kind.Config, component)
    return component_of(component.name, config), kind(config)
