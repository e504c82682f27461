"""Measuring: runs against judgements, runs against each other. Knows nothing of the engine that made the runs."""
