"""What an import costs, which way imports run, and what the package shows."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from index_tools import environment

import retriever

PACKAGE = Path(retriever.__file__).parent
HEAVY = {
    "datasets",
    "faiss",
    "ir_datasets",
    "mteb",
    "openvino",
    "peft",
    "pyarrow",
    "sentence_transformers",
    "torch",
    "transformers",
}

BASE = {"components", "errors", "jit", "progress", "ranking", "runs", "spec", "store", "tallies", "types"}
"""What everything above may stand on."""

ALLOWED = {
    "__init__": set(),  # resolves its names at their first use
    "errors": set(),
    "types": set(),
    "jit": set(),
    "progress": set(),
    "tallies": set(),
    "runs": {"errors", "types"},
    "spec": {"errors"},
    "ranking": {"types"},
    "svg": set(),
    "components": {"errors", "spec"},
    "analyzers": set(),
    "passages": {"types"},
    "corpus": {"errors", "interchange", "progress", "types"},
    "interchange": {"errors", "runs", "types"},
    "store": {"errors", "spec", "types"},
    "endpoints": {"errors"},
    "encoders": BASE | {"analyzers", "endpoints", "passages"},
    "generators": BASE | {"encoders", "endpoints"},
    "fusion": BASE,
    "expansion": BASE | {"encoders", "rerankers"},
    "indexers": BASE | {"analyzers", "encoders", "endpoints", "expansion", "passages"},
    "rerankers": BASE | {"analyzers", "encoders", "generators", "passages"},
    "query_expansion": BASE | {"encoders", "generators", "indexers"},
    "snapshot": BASE | {"indexers"},
    "pipeline": BASE | {"fusion", "indexers", "query_expansion", "rerankers", "snapshot"},
    "writer": BASE | {"indexers", "snapshot"},
    "engine": BASE | {"indexers", "pipeline", "snapshot", "writer"},
    "eval": {"errors", "jit", "runs", "types"},
    "bench": BASE
    | {
        "corpus",
        "encoders",
        "endpoints",
        "engine",
        "eval",
        "fusion",
        "indexers",
        "pipeline",
        "query_expansion",
        "rerankers",
        "svg",
    },
    "training": BASE | {"corpus", "encoders", "engine", "eval", "passages", "rerankers", "svg"},
    "cli": BASE
    | {
        "bench",
        "corpus",
        "encoders",
        "engine",
        "eval",
        "indexers",
        "query_expansion",
        "rerankers",
        "expansion",
        "interchange",
        "training",
    },
}
"""Which parts of the package each part may import, wherever in its files the import stands."""


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded once `code` has run in a fresh process."""
    tail = "; import sys; sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, env=environment()
    )
    return set(result.stderr.split())


HELP = """
import sys
from retriever.cli import main
sys.argv = ["retriever", *{arguments}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import retriever",
        "from retriever import *",
        "import retriever.pipeline, retriever.eval.measures",
        *(
            HELP.format(arguments=arguments) + "0"
            for arguments in (["--help"], ["index", "--help"], ["eval", "--help"])
        ),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    loaded = loaded_by(code)
    assert "retriever" in loaded
    assert not loaded & HEAVY


def test_import_retriever_loads_not_even_numpy():
    assert not loaded_by("import retriever") & {"numpy", "scipy", "tantivy", "rich", "typer", "ir_measures"}


def test_the_check_would_see_a_heavy_module():
    assert "faiss" in loaded_by("import retriever, faiss")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules of the package that a file imports anywhere, `if TYPE_CHECKING` left out, with their lines."""
    tree = ast.parse(path.read_text())
    types_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in types_only:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [node.module or ""]
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "retriever")


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_part_has_its_place_in_the_order():
    assert {part_of(path) for path in FILES} == ALLOWED.keys()


def test_the_order_has_no_circle():
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {part for part, below in ALLOWED.items() if part not in done and below - {part} <= done}
        assert ready, f"a circle among {ALLOWED.keys() - done}"
        done |= ready


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    part = part_of(path)
    for name, line in imports(path):
        other = name.split(".")[1] if "." in name else "__init__"
        assert other == part or other in ALLOWED[part], f"{path}:{line}: {part} imports {name}"


def test_public_names_are_few_sorted_and_there():
    names = retriever.__all__
    assert names == sorted(names)
    assert len(names) <= 12
    for name in names:
        assert getattr(retriever, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'retriever' has no attribute 'Retreiver'"):
        _ = retriever.Retreiver


@pytest.mark.parametrize(
    "table", ["INDEXERS", "RERANKERS", "ENCODERS", "FUSIONS", "DOCUMENT_EXPANSIONS", "QUERY_EXPANSIONS"]
)
def test_every_entry_of_a_table_can_be_loaded(table):
    homes = {"FUSIONS": "fusion", "DOCUMENT_EXPANSIONS": "expansion", "QUERY_EXPANSIONS": "query_expansion"}
    home = homes.get(table, table.lower())
    for name, target in getattr(import_module(f"retriever.{home}"), table).items():
        module, _, cls = target.partition(":")
        assert getattr(import_module(module), cls).__name__ == cls, name
