"""TILDE as an expansion of passages (Zhuang and Zuccon 2021, arXiv 2108.08513): the likeliest new words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from retriever.encoders.batches import hidden_states
from retriever.encoders.models import find_model, weights_digest
from retriever.encoders.pretrained import load_model, load_tokenizer
from retriever.encoders.runtime import Runtimes
from retriever.encoders.stop_words import NLTK_ENGLISH
from retriever.errors import InputError
from retriever.expansion.documents import Expanded
from retriever.types import Floats, Mask, Rows

STOP_WORDS = NLTK_ENGLISH | {"definition"}
"""What the reference leaves out."""
_PASSAGE = 1
"""The token that stands for [CLS] before a passage: [unused0] of BERT's vocabulary."""
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_CLOSE = 1e-3
"""Logits that differ by less may change places with the batch: padding moves them by 1e-5 or so."""


@dataclass(frozen=True)
class TildeConfig:
    """model: name or path of a BERT with a language-model head, trained as ielab/TILDE. n: so many of the likeliest
    tokens are looked at; those in the passage, stop words and what is no word are left out. max_length: tokens of a
    passage that are read, the two special ones among them; never more than the model has places for.
    """

    model: str
    n: int = 200
    max_length: int = 128

    def __post_init__(self) -> None:
        for name, least in {"n": 0, "max_length": 3}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")


class Tilde:
    """The words with the largest logits at the first position, in the order of the vocabulary, each once.

    As in the reference (ielab/TILDE, expansion.py), but for two things. It writes token ids and keeps all pieces of
    words but "##s"; here they are left out, because a text has words. And a passage is compared as a whole, not only
    what is read of it.

    Passages are read in batches. Where a batch could decide which words are the n likeliest (the n-th and the next are
    closer than its rounding), the passage is read again alone, so that the words depend on nothing but the passage.

    Proven (tests/expansion/test_tilde.py): words equal those of BertLMHeadModel's logits, computed as the reference
    computes them, on random weights. Not proven: published numbers, for want of the published weights.
    """

    Config = TildeConfig
    batch = 256

    def __init__(self, config: TildeConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)

    def identity(self) -> Mapping[str, Any]:
        """The model and the digest of its weights."""
        return {"model": self.config.model, "weights": weights_digest(self._folder)}

    def expand(self, texts: Sequence[str], progress: Callable[[float], None]) -> Expanded:
        """Up to `n` words for each text."""
        if not texts:
            return Expanded([], 0)
        passages: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        room = min(self.config.max_length, self._model.config.max_position_embeddings) - 2
        read = [[_PASSAGE, *ids[:room], self._tokenizer.sep_token_id] for ids in passages]
        expansions: list[list[str]] = [[]] * len(texts)
        for places, best in self._likeliest(read):
            for i, ids in zip(places, best, strict=True):
                new = np.setdiff1d(ids[self._words[ids]], passages[i])
                expansions[i] = self._tokenizer.convert_ids_to_tokens(new.tolist())
            progress(len(places))
        return Expanded(expansions, sum(len(ids) > room for ids in passages))

    @cached_property
    def _model(self) -> Any:
        from transformers import BertForMaskedLM

        return load_model(BertForMaskedLM, self._folder, "BERT with a language-model head, as TILDE is")

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._folder)

    @cached_property
    def _words(self) -> Mask:
        """Bool [vocabulary]: the tokens that are words, and no stop words."""
        tokens, known = self._tokenizer.get_vocab(), self._model.config.vocab_size
        if max(tokens.values()) >= known:
            raise InputError(f"{self._folder}: its tokenizer has {len(tokens)} tokens, its model knows {known}")
        words = np.zeros(known, dtype=np.bool_)
        for token, id in tokens.items():
            words[id] = bool(_WORD.fullmatch(token)) and token not in STOP_WORDS
        return words

    def _likeliest(self, read: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], list[Rows]]]:
        """Batches of sequences of token ids: their positions, and of each the ids of its n best logits, in no order."""
        n = min(self.config.n, self._model.config.vocab_size - 1)
        for places, batch in self._logits(read):
            best = []
            for i, logits in zip(places, batch, strict=True):
                order = np.argpartition(-logits, n)
                if len(places) > 1 and logits[order[:n]].min(initial=np.inf) - logits[order[n]] < _CLOSE:
                    ((_, alone),) = self._logits([read[i]])
                    order = np.argpartition(-alone[0], n)
                best.append(order[:n])
            yield places, best

    def _logits(self, read: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Floats]]:
        """float32 [n, vocabulary]: at the first position alone; the head's product over all would cost a third more."""
        import torch

        runtimes = Runtimes(self._model.bert, self._model.device, "float32")
        with torch.inference_mode():
            for places, batch in hidden_states(read, self._tokenizer, runtimes):
                yield places, self._model.cls(batch["token_embeddings"][:, 0]).cpu().numpy()
