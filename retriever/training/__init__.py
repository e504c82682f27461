"""Training of the models that the engine uses, on sentence-transformers' own trainers."""
