"""Query expansion by text that a language model writes from the query alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retriever.generators import Sampling, generator
from retriever.indexers.base import Terms, TermView, VectorView
from retriever.query_expansion.base import Feedback
from retriever.types import Floats

QUERY = "{query}"
"""Where a prompt takes the query."""

HYDE_PROMPT = f"Please write a passage to answer the question.\nQuestion: {QUERY}\nPassage:"
"""HyDE's prompt for web search; its authors' code has others for each collection."""

QUERY2DOC_PROMPT = f"Write a passage that answers the given query:\n\nQuery: {QUERY}\nPassage:"
"""query2doc's instruction. The paper puts four queries with their passages between it and the query."""


@dataclass(frozen=True)
class HydeConfig:
    """model: a text generator (`generators.generator`). prompt: with {query} where the query belongs. n: passages for
    each query. max_tokens: of one passage. temperature, seed: how they are drawn.
    """

    model: str
    prompt: str = HYDE_PROMPT
    n: int = 8
    max_tokens: int = 512
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.prompt, self.max_tokens, self.temperature)
        if self.n < 1:
            raise ValueError("n must be at least 1")
        if self.n > 1 and not self.temperature:
            raise ValueError(f"at temperature 0 all {self.n} passages are the same; set n=1")


class Hyde:
    """Hypothetical document embeddings (Gao et al., ACL 2023): passages that might answer the query are encoded, not
    the query alone.

    The vector is the mean of those of the n passages and of the query (their equation 8), not normalised. Passages are
    encoded as documents are, the query as queries are. The defaults are those of the authors' code. Their scores could
    not be reproduced here, where there is no such language model.
    """

    Config = HydeConfig
    asks = (VectorView,)
    feedback = False

    def __init__(self, config: HydeConfig) -> None:
        self.config = config
        self._generator = generator(config.model, Sampling(config.max_tokens, config.temperature, config.seed))

    def expand(self, view: VectorView, queries: Sequence[str], feedback: Sequence[Feedback]) -> Floats:
        """float32 [n, d].

        Raises: RetrieverError where the generator fails.
        """
        passages = self._generator.generate([_prompt(self.config.prompt, query) for query in queries], self.config.n)
        vectors = view.passage_vectors([text for texts in passages for text in texts])
        vectors = vectors.reshape(len(queries), self.config.n, -1)  # float32 [n, passages, d]
        asked = view.query_vectors(queries)[:, None]
        mean: Floats = np.concatenate([asked, vectors], axis=1).mean(axis=1)
        return mean


@dataclass(frozen=True)
class Query2DocConfig:
    """model: a text generator (`generators.generator`). prompt: with {query} where the query belongs. repeat: how often
    a view of terms reads the query beside the passage. separator: stands between them for a view of vectors; the token
    that its encoder separates texts with. max_tokens: of the passage. temperature, seed: how it is drawn.
    """

    model: str
    prompt: str = QUERY2DOC_PROMPT
    repeat: int = 5
    separator: str = "[SEP]"
    max_tokens: int = 128
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.prompt, self.max_tokens, self.temperature)
        if self.repeat < 1:
            raise ValueError("repeat must be at least 1")


class Query2Doc:
    """query2doc (Wang et al., EMNLP 2023): the query together with a passage written for it.

    A view of terms is asked with the query five times and the passage, a view of vectors with "query [SEP] passage",
    as in the paper's section 2. The default prompt has no examples; the paper's four can be given with `prompt`. Its
    scores could not be reproduced here, where there is no such language model.
    """

    Config = Query2DocConfig
    asks = (TermView, VectorView)
    feedback = False

    def __init__(self, config: Query2DocConfig) -> None:
        self.config = config
        self._generator = generator(config.model, Sampling(config.max_tokens, config.temperature, config.seed))

    def expand(
        self, view: TermView | VectorView, queries: Sequence[str], feedback: Sequence[Feedback]
    ) -> list[Terms] | Floats:
        """Terms for a view of terms, float32 [n, d] for a view of vectors.

        Raises: RetrieverError where the generator fails.
        """
        passages = self._generator.generate([_prompt(self.config.prompt, query) for query in queries], 1)
        pairs = [(query, passage) for query, (passage,) in zip(queries, passages, strict=True)]
        if isinstance(view, TermView):
            return view.query_terms([" ".join([*[query] * self.config.repeat, passage]) for query, passage in pairs])
        return view.query_vectors([f"{query} {self.config.separator} {passage}" for query, passage in pairs])


def _prompt(prompt: str, query: str) -> str:
    return prompt.replace(QUERY, query)


def _check(prompt: str, max_tokens: int, temperature: float) -> None:
    if QUERY not in prompt:
        raise ValueError(f"prompt must hold {QUERY}, where the query is put")
    if max_tokens < 1:
        raise ValueError("max_tokens must be at least 1")
    if temperature < 0:
        raise ValueError("temperature must not be negative")
