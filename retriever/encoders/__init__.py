"""Encoders. A model's name or path is loaded by sentence-transformers, unless its folder says that it is a hierarchy;
"their.module:Class" is anybody's own.
"""

ENCODERS = {
    "sentence-transformers": "retriever.encoders.sentence_transformer:SentenceTransformerEncoder",
    "hmde": "retriever.encoders.hmde:Hmde",
}
"""By what loads them; `encoders.base.Encoder` is the protocol."""
