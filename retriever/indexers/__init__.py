"""Index kinds by the name they have in the text form."""

INDEXERS = {
    "bm25": "retriever.indexers.bm25:Bm25",
    "dense": "retriever.indexers.dense:Dense",
}
