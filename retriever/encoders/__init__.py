"""Encoders. A model's name or path is loaded by sentence-transformers; "their.module:Class" is anybody's own."""

ENCODERS = {
    "sentence-transformers": "retriever.encoders.sentence_transformer:SentenceTransformerEncoder",
}
"""By the library that loads them; `encoders.base.Encoder` is the protocol."""
