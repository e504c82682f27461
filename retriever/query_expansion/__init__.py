"""Query expansions by the name they have in the text form."""

QUERY_EXPANSIONS = {
    "rm3": "retriever.query_expansion.terms:Rm3",
    "rocchio": "retriever.query_expansion.terms:Rocchio",
    "bo1": "retriever.query_expansion.terms:Bo1",
    "kl": "retriever.query_expansion.terms:Kl",
    "vector-prf": "retriever.query_expansion.vectors:VectorPrf",
    "hyde": "retriever.query_expansion.generated:Hyde",
    "query2doc": "retriever.query_expansion.generated:Query2Doc",
}
