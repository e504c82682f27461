"""Dense, lexical and hybrid retrieval with reranking and evaluation."""
