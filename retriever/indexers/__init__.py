"""Index kinds by the name they have in the text form."""

from __future__ import annotations

from typing import Any

from retriever.analyzers import LANGUAGES, WORDS
from retriever.components import load, load_class
from retriever.spec import Component

INDEXERS = {
    "bm25": "retriever.indexers.bm25:Bm25",
    "dense": "retriever.indexers.dense:Dense",
    "lucene": "retriever.indexers.lucene:Lucene",
    "splade": "retriever.indexers.learned:Splade",
    "unicoil": "retriever.indexers.learned:UniCoil",
    "deepimpact": "retriever.indexers.learned:DeepImpact",
    "tilde": "retriever.indexers.learned:Tilde",
    "deepct": "retriever.indexers.learned:DeepCt",
    "impacts": "retriever.indexers.learned:Impacts",
}
FREE_BM25 = "retriever.indexers.free_bm25:FreeBm25"
DENSE_PASSAGES = "retriever.indexers.dense_passages:DensePassages"
_FREE = {"k1", "b", "variant"}


def indexer_class(component: Component) -> Any:
    """The class behind a view. `bm25` is tantivy's as it stands, and where k1, b or a variant is named, which tantivy
    has fixed, or a language that it has no analyzer for, the term-weight index's. `dense` with a length of passages has
    a vector for each of them.

    Raises: SpecError for a name that is not in the table, or a class that cannot be imported.
    """
    options = dict(component.options)
    foreign = str(options.get("language")) in WORDS.keys() - LANGUAGES
    if component.name == "bm25" and (_FREE & options.keys() or foreign):
        return load_class(FREE_BM25, component.error)
    if component.name == "dense" and "passage" in options:
        return load_class(DENSE_PASSAGES, component.error)
    return load(component, INDEXERS, "view")
