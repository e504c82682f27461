"""Document expansion: what a corpus gets before it is indexed. Names as in `retriever expand --with "NAME(...)"`."""

DOCUMENT_EXPANSIONS = {
    "doc2query": "retriever.expansion.doc2query:Doc2Query",
    "tilde": "retriever.expansion.tilde:Tilde",
}
