"""Pairs in several languages, each scored with the adapters of its own: for Python; a pipeline has one stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retriever.encoders.adapters.languages import AdapterSet
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.types import Floats


def score_by_language(
    config: CrossEncoderConfig,
    adapters: AdapterSet,
    pairs: Sequence[tuple[str, str]],
    languages: Sequence[tuple[str, str]],
) -> Floats:
    """float32 [n], in the order of the pairs. languages: of each pair the query's and the document's.

    config: of the cross-encoder; its own `adapters` are not read. Pairs of one stack are scored together, and the
    models of the last four stacks stay loaded.
    """
    stacks = [adapters.stack(*each) for each in languages]
    scores = np.empty(len(pairs), dtype=np.float32)
    for stack in dict.fromkeys(stacks):
        rows = [i for i, other in enumerate(stacks) if other == stack]
        reranker = CrossEncoder(CrossEncoderConfig(config.model, config.depth, config.precision, stack))
        scores[rows] = reranker.score([pairs[i] for i in rows])
    return scores
