"""The documentation of the running interpreter's standard library, as a BEIR corpus.

Every machine with Python has these docstrings, so the demo needs no download, and they are under a licence that the
user already has. One document per module, class, function or method that is public and has a docstring of its own.

    python examples/stdlib/corpus.py OUT    # writes OUT/corpus.jsonl
"""

import importlib
import inspect
import json
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypedDict

# Left out on every machine, so that machines differ as little as possible: programs and jokes that act on import,
# test suites, packages many builds lack, tables without prose, and build tools that Python 3.12 and 3.13 dropped.
_EXCLUDED = frozenset(
    (
        *("antigravity", "this", "rlcompleter", "idlelib", "turtledemo", "test", "tests"),
        *("tkinter", "turtle", "xxlimited", "xxlimited_35", "xxsubtype", "encodings", "pydoc_data"),
        *("ensurepip", "distutils", "lib2to3", "sre_compile", "sre_constants", "sre_parse", "nturl2path"),
    )
)

# Modules that implement another one, and the name under which the manual documents what they hold.
_DOCUMENTED_AS = {
    "posix": "os",
    "nt": "os",
    "posixpath": "os.path",
    "ntpath": "os.path",
    "genericpath": "os.path",
    "_frozen_importlib": "importlib.machinery",
    "_frozen_importlib_external": "importlib.machinery",
    "importlib._bootstrap": "importlib.machinery",
    "importlib._bootstrap_external": "importlib.machinery",
}

# `<function <lambda> at 0x7f0c...>` in the docstring of a dataclass changes from run to run.
_ADDRESS = re.compile(r"<(?:[^<>]|<[^<>]*>)* at 0x[0-9a-fA-F]+>")
# What the interpreter writes where the author wrote nothing.
_BOILERPLATE = re.compile(r"Alias for field number \d+|An enumeration\.|Structure/Union member|Initialize self\..*")
_SELF = re.compile(r"^\((?:self|cls)(?:, /)?(?:, )?")

_Rank = tuple[bool, bool, int, str, bool, bool, str]


class Metadata(TypedDict):
    """Where a document is from."""

    module: str
    kind: str


class Document(TypedDict):
    """One line of a BEIR `corpus.jsonl`."""

    _id: str
    title: str
    text: str
    metadata: Metadata


class _Entry(NamedTuple):
    """A documented object under the one name that the corpus gives it."""

    module: str
    name: str
    value: object
    kind: str

    @property
    def doc_id(self) -> str:
        if self.kind == "module":
            return self.module
        return self.name if self.module == "builtins" else f"{self.module}.{self.name}"


def documents() -> Iterator[Document]:
    """Documents of this interpreter, sorted by id; the same in every run of the same build.

    A library that patches the standard library takes away what it replaces: torch does so with `inspect.getfile`.
    """
    yield from collect()[0]


def collect() -> tuple[list[Document], list[str]]:
    """The documents, and the names of the modules that cannot be imported here."""
    # Deprecated modules warn when they are imported, and some when their attributes are read. A list and not a
    # generator: a suspended generator would leave the caller without warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules, skipped = _load()
        return _read(modules), skipped


def _load() -> tuple[dict[str, ModuleType], list[str]]:
    loaded: dict[str, ModuleType] = {}
    skipped: list[str] = []
    waiting = [name for name in sorted(sys.stdlib_module_names) if _is_walked(name)] + ["os.path"]
    while waiting:
        name = waiting.pop(0)
        module = _import(name)
        if module is None:
            skipped.append(name)
            continue
        loaded[name] = module
        children = pkgutil.iter_modules(getattr(module, "__path__", []))
        waiting += [f"{name}.{child.name}" for child in children if _is_walked(child.name)]
    return dict(sorted(loaded.items())), sorted(skipped)


def _is_walked(name: str) -> bool:
    return not name.startswith("_") and name not in _EXCLUDED and name not in _DOCUMENTED_AS


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except Exception:  # another platform's modules fail in ways of their own, not all of them ImportErrors
        return None


def _read(modules: dict[str, ModuleType]) -> list[Document]:
    named = _canonical(modules)
    entries = [_Entry(name, "", module, "module") for name, module in modules.items()] + named + _members(named)
    texts = ((entry, _docstring(entry.value)) for entry in entries)
    # By id, the last one wins: `unittest.main` is a module, and the class in it that everybody calls.
    found = {entry.doc_id: (entry, text) for entry, text in texts if text}
    functions = {(entry.module, entry.name, text) for entry, text in found.values() if entry.kind == "function"}
    return [
        _document(entry, text) for _, (entry, text) in sorted(found.items()) if not _repeats(entry, text, functions)
    ]


def _repeats(entry: _Entry, text: str, functions: set[tuple[str, str, str]]) -> bool:
    # `random.random` is the method of a hidden `random.Random`, in C, where only the docstring shows that it is.
    return entry.kind == "method" and (entry.module, entry.name.rpartition(".")[2], text) in functions


def _document(entry: _Entry, text: str) -> Document:
    metadata: Metadata = {"module": entry.module, "kind": entry.kind}
    return {"_id": entry.doc_id, "title": entry.doc_id + _signature(entry), "text": text, "metadata": metadata}


def _canonical(modules: dict[str, ModuleType]) -> list[_Entry]:
    """Classes and functions, each under the best of the names by which modules offer it."""
    best: dict[int, tuple[_Rank, _Entry]] = {}
    for module_name, module in modules.items():
        for name, value in _public(module):
            rank = _rank(module_name, module, name, value)
            if rank is None:
                continue
            entry = _Entry(module_name, name, value, "class" if isinstance(value, type) else "function")
            key = id(_function(value))
            if key not in best or rank < best[key][0]:
                best[key] = (rank, entry)
    return [entry for _, entry in best.values()]


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    # `__all__` as well as what is there already: concurrent.futures loads its executors on first access.
    for name in sorted({*getattr(module, "__all__", ()), *vars(module)}):
        if name.startswith("_"):
            continue
        value = getattr(module, name, None)
        if isinstance(value, type) or inspect.isroutine(value):
            yield name, value


def _rank(module_name: str, module: ModuleType, name: str, value: object) -> _Rank | None:
    """Order among the names of one object, lowest first; None where the module only imports it for its own use."""
    home = getattr(value, "__module__", None) or module_name
    home = _DOCUMENTED_AS.get(home, home)
    builtin = module_name == "builtins"
    related = builtin or module_name in (home, home.lstrip("_")) or home.startswith(f"{module_name}.")
    listed = name in getattr(module, "__all__", ())
    if not related and not listed:
        return None
    own_name = getattr(value, "__name__", name)
    if isinstance(value, type) and getattr(module, own_name, value) is not value:
        return None  # socket.SocketType is the hidden base of the real socket.socket
    return (not builtin, not related, module_name.count("."), module_name, not listed, name != own_name, name)


def _members(named: list[_Entry]) -> list[_Entry]:
    """Public methods and properties of the classes, each under the class that the manual lists it with."""
    classes = [(entry, entry.value) for entry in named if isinstance(entry.value, type)]
    documented = {id(cls) for _, cls in classes}
    seen = {id(_function(entry.value)) for entry in named}
    entries = []
    for entry, cls in sorted(classes, key=lambda pair: (*_generality(pair[1]), pair[0].doc_id)):
        for name, value in _own_and_private(cls, documented):
            if id(_function(value)) not in seen:
                seen.add(id(_function(value)))
                entries.append(_Entry(entry.module, f"{entry.name}.{name}", value, "method"))
    return entries


def _generality(cls: type) -> tuple[bool, int]:
    # Of the classes that share a private base's methods, io.IOBase is to have those of _IOBase; else the most basic.
    bases = inspect.getmro(cls)
    return (f"_{cls.__name__}" not in {base.__name__ for base in bases}, len(bases))


def _own_and_private(cls: type, documented: set[int]) -> Iterator[tuple[str, object]]:
    # argparse.ArgumentParser has add_argument from the private _ActionsContainer; to a reader it is the parser's.
    members: dict[str, object] = {}
    for base in inspect.getmro(cls):
        if base is cls or id(base) not in documented:
            members = {**vars(base), **members}
    for name, value in sorted(members.items()):
        if not name.startswith("_") and _is_member(value):
            yield name, value


def _is_member(value: object) -> bool:
    # A method from elsewhere was put there by somebody else: transformers adds some to logging.Logger.
    home = getattr(_function(value), "__module__", None) or "builtins"
    return home.partition(".")[0] in sys.stdlib_module_names | {"builtins"} and (
        inspect.isroutine(value) or inspect.isdatadescriptor(value)
    )


def _function(value: object) -> object:
    """What a bound method, classmethod or staticmethod wraps: `random.choice` is `random.Random.choice`."""
    return getattr(value, "__func__", value)


def _docstring(value: object) -> str:
    # Not inspect.getdoc, which falls back on the docstring of a base class.
    text = getattr(_function(value), "__doc__", None)
    if not text and isinstance(value, type):
        text = getattr(vars(value).get("__init__"), "__doc__", None)  # where ThreadPoolExecutor says what it is
    if not isinstance(text, str) or _BOILERPLATE.fullmatch(text):
        return ""
    return _ADDRESS.sub("...", inspect.cleandoc(text)).strip()


class _Elided:
    """Stands for a default value that is not a literal."""

    def __repr__(self) -> str:
        return "..."


def _signature(entry: _Entry) -> str:
    value = _function(entry.value)
    if not callable(value):
        return ""
    try:
        signature = inspect.signature(value)
        parameters = [_elide(parameter) for parameter in signature.parameters.values()]
        text = str(signature.replace(parameters=parameters))
    except Exception:  # many C functions have none, and annotations evaluate to whatever error they hold
        return ""
    return _SELF.sub("(", text) if entry.kind == "method" else text


def _elide(parameter: inspect.Parameter) -> inspect.Parameter:
    # A default that is an object shows its address, and cgi.parse's is os.environ: the user's secrets in the index.
    default = parameter.default
    literal = default is None or default is parameter.empty or isinstance(default, bool | int | float | str | bytes)
    if literal and sys.base_prefix not in str(default):
        return parameter
    return parameter.replace(default=_Elided())


def main() -> None:
    """Write the corpus to the folder named on the command line, and say what is in it."""
    if len(sys.argv) != 2:
        sys.exit(f"expected one argument, the folder to write to, got {len(sys.argv) - 1}: python corpus.py OUT")
    path = Path(sys.argv[1]) / "corpus.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    found, skipped = collect()
    path.write_text("".join(json.dumps(document) + "\n" for document in found), encoding="utf-8")
    print(f"{path}: {len(found)} documents")
    print(f"skipped, cannot be imported on this machine: {' '.join(skipped) or 'none'}")


if __name__ == "__main__":
    main()
