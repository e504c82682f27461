"""Late interaction as a reranker: every word of the query looks for its likest in the document."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retriever.encoders.batches import hidden_states, tokenize
from retriever.encoders.models import find_model
from retriever.encoders.runtime import Runtimes
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder, prompt
from retriever.errors import InputError
from retriever.rerankers.classifier import Stamp, scores_pairs, stamp
from retriever.rerankers.cross_encoder import check
from retriever.tallies import tally
from retriever.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 32
"""Texts of a batch where sentence-transformers makes the batches."""


@dataclass(frozen=True)
class MaxSimConfig:
    """model: name or path of a sentence-transformers encoder, or of a MultiVectorEncoder (ColBERT). depth: how many
    documents of each list it reads. precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    model: str
    depth: int = 100
    precision: str = "auto"

    def __post_init__(self) -> None:
        check(self.depth, self.precision)


class MaxSim:
    """ColBERT's score (Khattab and Zaharia, SIGIR 2020): the sum over the query's tokens of the largest cosine with a
    token of the document.

    A MultiVectorEncoder makes the vectors as it was trained to: its projection, prompts, query expansion, the tokens
    that it leaves out and their length (one, of a model that compares by cosine) are its own. It is run by
    sentence-transformers, in float32, and what it cuts is not known. Of any other encoder the vectors are the
    transformer's outputs, one for each token with the special ones, which no pooling or projection has seen; such a
    model was not trained for this score. What it cuts is tallied.

    Proven: the worked example, and on random weights the scores of the formula written out, and of
    `MultiVectorEncoder.similarity`. Not proven: any published effectiveness, for want of the published weights.
    """

    Config = MaxSimConfig

    def __init__(self, config: MaxSimConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        if not (self._folder / "modules.json").is_file() and scores_pairs(self._folder):
            raise InputError(
                f"{self._folder}: is a cross-encoder, whose tokens have seen no text alone; give an encoder, or write "
                "cross-encoder(MODEL)"
            )

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], each distinct text encoded once."""
        import torch

        scores = np.empty(len(pairs), dtype=np.float32)
        if not pairs:
            return scores
        encoder = _loaded(self._folder, self.config.precision, stamp(self._folder))
        asked = list(dict.fromkeys(query for query, _ in pairs))
        texts = list(dict.fromkeys(document for _, document in pairs))
        wanted: dict[str, list[int]] = defaultdict(list)
        for i, (_, document) in enumerate(pairs):
            wanted[document].append(i)
        with torch.inference_mode():
            queries = _each(encoder.batches(asked, "query", self.config.model), asked)
            for place, vectors, mask in encoder.batches(texts, "document", self.config.model):
                for query, members in _by_query(pairs, [wanted[texts[i]] for i in place]).items():
                    at = [column for column, _ in members]
                    scores[[i for _, i in members]] = maxsim(queries[query], vectors[at], mask[at]).cpu().numpy()
        return scores


def maxsim(query: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
    """float32 [n]: sum_i max_j q_i . d_j over the tokens j of each document that are there.

    query: unit vectors, float32 [tokens, d]. documents: unit vectors, float32 [n, longest, d]. mask: bool [n, longest];
    what is padding counts as -inf, for a zero would lift a document that is like nothing. A document without a token
    gets the least sum of cosines there is.
    """
    cosines = (documents @ query.T).masked_fill(~mask[:, :, None], -float("inf"))  # [n, longest, tokens]
    scores = cosines.amax(dim=1).sum(dim=1)
    return scores.masked_fill(~mask.any(dim=1), -float(len(query)))


Batches = Iterator[tuple[list[int], "Tensor", "Tensor"]]


class _Encoder(Protocol):
    def batches(self, texts: Sequence[str], kind: str, name: str) -> Batches:
        """Places among the texts, unit vectors float32 [n, longest, d], and the mask bool [n, longest]."""


class _Tokens:
    """The outputs of a sentence-transformers encoder's transformer."""

    def __init__(self, folder: Path, precision: str) -> None:
        encoder = SentenceTransformerEncoder(str(folder), precision)
        self.model = encoder.model
        if not hasattr(self.model[0], "auto_model"):
            raise InputError(f"{folder}: has no transformer, and so no vectors of tokens in their context")
        self.runtimes = Runtimes(self.model[0].auto_model, self.model.device, precision)

    def batches(self, texts: Sequence[str], kind: str, name: str) -> Batches:
        import torch

        before = prompt(self.model, kind)
        tokens = tokenize(self.model.tokenizer, [before + text for text in texts], self.model.max_seq_length)
        what = {"query": "queries", "document": "documents"}[kind]
        tally(f"{what} were longer than the {self.model.max_seq_length} tokens that {name} reads", tokens.truncated)
        for place, batch in hidden_states(tokens.ids, self.model.tokenizer, self.runtimes):
            unit = torch.nn.functional.normalize(batch["token_embeddings"].float(), dim=-1)
            yield place, unit, batch["attention_mask"].bool()


class _MultiVector:
    """A MultiVectorEncoder of sentence-transformers."""

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import MultiVectorEncoder
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            self.model = MultiVectorEncoder(str(folder), local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as problem:
            raise InputError(f"{folder}: sentence-transformers cannot load it: {problem}") from None

    def batches(self, texts: Sequence[str], kind: str, name: str) -> Batches:
        import torch

        encode = self.model.encode_query if kind == "query" else self.model.encode_document
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for first in range(0, len(order), _BATCH):
            place = order[first : first + _BATCH]
            given = encode([texts[i] for i in place], show_progress_bar=False)
            rows = [row.float() for row in given]
            lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # [n, longest, d]
            yield place, padded, torch.arange(padded.shape[1], device=lengths.device) < lengths[:, None]


@lru_cache(maxsize=2)  # each search makes its pipeline anew
def _loaded(folder: Path, precision: str, stamp: Stamp) -> _Encoder:
    return _MultiVector(folder) if _is_multi_vector(folder) else _Tokens(folder, precision)


def _is_multi_vector(folder: Path) -> bool:
    path = folder / "config_sentence_transformers.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("model_type") == "MultiVectorEncoder"


def _each(batches: Batches, texts: Sequence[str]) -> dict[str, Tensor]:
    """By text, its vectors without padding."""
    return {
        texts[i]: own[there].clone()
        for place, vectors, mask in batches
        for i, own, there in zip(place, vectors, mask, strict=True)
    }


def _by_query(pairs: Sequence[tuple[str, str]], wanted: Sequence[Sequence[int]]) -> Mapping[str, list[tuple[int, int]]]:
    """By query, the documents of a batch that it is asked about: their places in the batch, and those of the pairs."""
    members: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for column, own in enumerate(wanted):
        for i in own:
            members[pairs[i][0]].append((column, i))
    return members
