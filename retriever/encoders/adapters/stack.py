"""Stacks of adapters on a loaded transformer, and their text form.

    stack = term { " + " term }
    term  = [WEIGHT "*"] adapter [ "|" adapter ]

LoRA and masks are added to the weights, in any order: theta0 + w1 phi1 + w2 phi2. Bottlenecks stand one behind the
other in the order of the text, the language's first: `LANGUAGE + RANKING`. `A | B` are two bottlenecks side by side, A
for the query's tokens of a pair and B for the document's ("split" in Litschko et al., COLING 2022).

An invertible adapter serves its training alone: left out in retrieval, results are better, say those authors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from retriever.encoders.adapters.bottleneck import attach, new_adapter
from retriever.encoders.adapters.files import (
    HEAD,
    Adapter,
    body_digest,
    body_of,
    body_parameters,
    find_adapter,
)
from retriever.encoders.adapters.lora import changes
from retriever.encoders.adapters.mask import add, from_tensors, replace_with
from retriever.errors import InputError

_TERM = re.compile(r"(?:(?P<weight>[-+\d.eE]+)\s*\*\s*)?(?P<names>[^*]+)\Z")
_SPLIT = 2


class Term(NamedTuple):
    """names: of one adapter, or of two, the query's and the document's."""

    weight: float
    names: tuple[str, ...]


def parse_stack(text: str) -> list[Term]:
    """The terms of a stack. Raises: InputError."""
    return [_term(part.strip(), text) for part in re.split(r"\s\+\s", text)]


def _term(part: str, text: str) -> Term:
    match = _TERM.match(part)
    names = tuple(name.strip() for name in match["names"].split("|")) if match else ()
    try:
        weight = float(match["weight"] or 1) if match else 1.0
    except ValueError:
        names = ()
    if not all(names) or not 1 <= len(names) <= _SPLIT:
        raise InputError(f"adapters {text!r} are not understood at {part!r}; give 'A + 0.5*B', or 'A | B' for a split")
    return Term(weight, names)


def stack_identity(text: str) -> list[list[Any]]:
    """A stack as JSON values: of each term the weight, and of each adapter its name and SHA-256."""
    return [[term.weight, *([name, find_adapter(name).digest()] for name in term.names)] for term in parse_stack(text)]


def brings_head(text: str) -> bool:
    """Whether an adapter of the stack has a head for a cross-encoder."""
    names = [name for term in parse_stack(text) for name in term.names]
    return any(tensor.startswith(HEAD) for name in names for tensor in find_adapter(name).tensors())


class Adapters:
    """What puts stacks on one transformers model, in place. model: as it was loaded; name: for messages.

    A stack must be put on before the weights are turned into another type.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self._undo: list[Callable[[], None]] = []

    @cached_property
    def _digest(self) -> str:
        return body_digest(self.model)

    def use(self, text: str | None) -> None:
        """Put this stack on, in the place of another; None: the model as it was loaded, bit for bit.

        Raises: InputError for an adapter of another base or one that does not fit, and the base is back;
        MissingDependencyError for a LoRA without PEFT.
        """
        self.leave()
        terms = [
            (term.weight, [self._checked(find_adapter(name)) for name in term.names])
            for term in (parse_stack(text) if text else [])
        ]
        try:
            for weight, adapters in terms:
                self._put_on(weight, adapters)
        except InputError:
            self.leave()
            raise

    def leave(self) -> None:
        """Take everything off."""
        while self._undo:
            self._undo.pop()()

    def _checked(self, adapter: Adapter) -> Adapter:
        settings = adapter.settings
        if settings.weights is not None and settings.weights != self._digest:
            raise InputError(
                f"adapter {adapter.name} was trained on {settings.base} (weights {settings.weights[:12]}), which has "
                f"other weights than {self.name} ({self._digest[:12]}); give an adapter of this model"
            )
        return adapter

    def _put_on(self, weight: float, adapters: Sequence[Adapter]) -> None:
        kind = adapters[0].settings.kind
        tensors = [adapter.tensors() for adapter in adapters]
        if len(adapters) == _SPLIT and {adapter.settings.kind for adapter in adapters} != {"bottleneck"}:
            raise InputError(f"{' | '.join(each.name for each in adapters)}: only bottlenecks can be split")
        if kind == "bottleneck":
            made = [_bottleneck(*each) for each in zip(adapters, tensors, strict=True)]
            self._undo.append(attach(self.model, made, weight))
        elif kind == "mask":
            self._undo.append(add(body_parameters(self.model), from_tensors(tensors[0]), weight))
        else:
            # PEFT names the layers of what it was given: the body in our training, elsewhere the model
            whole = adapters[0].settings.weights is None
            model = self.model if whole else body_of(self.model)
            self._undo.append(add(dict(model.named_parameters()), changes(model, adapters[0].folder), weight))
        heads = {name.removeprefix(HEAD): each for name, each in tensors[0].items() if name.startswith(HEAD)}
        self._undo.append(replace_with(dict(self.model.named_parameters()), heads))


def _bottleneck(adapter: Adapter, tensors: dict[str, Any]) -> Any:
    """The modules of a bottleneck, filled."""
    options = adapter.settings.options
    layers = {name: value for name, value in tensors.items() if name.startswith("layers.")}
    try:
        made = new_adapter(options["width"], options["layers"], options["reduction"], invertible=False)
        made.load_state_dict(layers)
    except (KeyError, RuntimeError) as problem:
        raise InputError(f"its files do not fit each other: {problem}", adapter.folder) from None
    return made.eval().requires_grad_(False)
