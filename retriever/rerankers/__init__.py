"""Rerankers by the name they have in the text form."""

RERANKERS = {
    "cross-encoder": "retriever.rerankers.cross_encoder:CrossEncoder",
    "bert-qe": "retriever.rerankers.bert_qe:BertQe",
}
