"""monoT5: pointwise reranking by a sequence-to-sequence model that answers "true" or "false"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retriever.encoders.models import find_model
from retriever.rerankers.cross_encoder import check
from retriever.rerankers.true_false import true_false
from retriever.tallies import tally
from retriever.types import Floats


@dataclass(frozen=True)
class MonoT5Config:
    """model: name or path of a T5 trained as monoT5. depth: how many documents of each list it reads. precision: "auto"
    (bfloat16 where the hardware has it) or "float32".
    """

    model: str
    depth: int = 100
    precision: str = "auto"

    def __post_init__(self) -> None:
        check(self.depth, self.precision)


class MonoT5:
    """monoT5 (Nogueira, Jiang, Pradeep and Lin, Findings of EMNLP 2020).

    The model reads "Query: q Document: d Relevant:", and the score is the logarithm of the softmax, over the tokens
    "true" and "false" alone, of "true" as its first word. The multilingual and Portuguese models of unicamp-dl answer
    with other words, which are known by the models' names (pygaggle's table). 512 tokens are read; of a longer prompt
    the document is cut, and tallied.

    Proven, on random weights: the scores are those of transformers' own forward pass to 1e-4 in float32. Not proven:
    the published effectiveness, for want of the published weights.
    """

    Config = MonoT5Config

    def __init__(self, config: MonoT5Config) -> None:
        self.config = config
        self._folder = find_model(config.model)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], at most 0."""
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        model = true_false(self._folder, self.config.model, self.config.precision)
        odds, cut = model.odds([(f"Query: {query} Document:", document, "Relevant:") for query, document in pairs])
        tally(f"documents were longer than {self.config.model} reads ({model.most} tokens), and cut", int(cut.sum()))
        scores: Floats = -np.logaddexp(0, -odds).astype(np.float32)
        return scores
