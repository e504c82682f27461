"""Rerankers by the name they have in the text form."""

RERANKERS = {
    "cross-encoder": "retriever.rerankers.cross_encoder:CrossEncoder",
    "mono-t5": "retriever.rerankers.mono_t5:MonoT5",
    "duo": "retriever.rerankers.duo:Duo",
    "listwise": "retriever.rerankers.listwise:Listwise",
    "maxsim": "retriever.rerankers.maxsim:MaxSim",
    "bert-qe": "retriever.rerankers.bert_qe:BertQe",
    "long": "retriever.rerankers.long:Long",
    "keyb": "retriever.rerankers.keyb:Keyb",
    "parade": "retriever.rerankers.parade:Parade",
    "budget": "retriever.rerankers.budget:Budget",
    "gar": "retriever.rerankers.gar:Gar",
    "cedr": "retriever.rerankers.cedr:Cedr",
    "ck": "retriever.rerankers.conv_knrm:Ck",
    "prettr": "retriever.rerankers.prettr:PreTtr",
    "early-exit": "retriever.rerankers.early_exit:EarlyExit",
}
