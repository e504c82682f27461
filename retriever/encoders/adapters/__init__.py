"""Adapters: small trained changes to a transformer that are put on, weighted, stacked and taken off again."""
