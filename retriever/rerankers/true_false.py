"""monoT5 and duoT5: how likely a sequence-to-sequence model says "true" and not "false" to a prompt."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retriever.encoders.batches import hidden_states
from retriever.encoders.pretrained import load_model, load_tokenizer
from retriever.encoders.runtime import Runtimes
from retriever.errors import InputError
from retriever.rerankers.classifier import Stamp, bounded, stamp
from retriever.types import Mask

_READ = 512
"""Tokens that pygaggle's monoT5 and duoT5 read of a prompt."""
_AT_ONCE = 16_384
"""Prompts whose tokens are held at once."""
_ANSWERS = (
    ("mt5-3B-mmarco-en-pt", ("▁", "▁true")),
    ("mt5-13b-mmarco-100k", ("▁false", "▁true")),
    ("ptt5-", ("▁não", "▁sim")),
    ("mt5-", ("▁no", "▁yes")),
)
"""The tokens for not relevant and relevant, by how a model's name begins, as pygaggle has them; else false and true."""
Numbers = npt.NDArray[np.float64]


class Odds(NamedTuple):
    """values: float64 [n], logit of "true" less that of "false"; cut: bool [n], whose documents were cut."""

    values: Numbers
    cut: Mask


def true_false(folder: Path, name: str, precision: str) -> TrueFalse:
    """The model of a folder, loaded once by a process while its files stay as they are.

    Raises: InputError where there is none, or its tokenizer lacks the tokens of its answers.
    """
    return _loaded(folder, name, precision, stamp(folder))


@lru_cache(maxsize=2)  # mono and duo in one pipeline, which each search makes anew
def _loaded(folder: Path, name: str, precision: str, stamp: Stamp) -> TrueFalse:
    return TrueFalse(folder, name, precision)


class TrueFalse:
    """A sequence-to-sequence model. name: as the user gave it, which says what its answers are.

    The encoder runs as encoders do (`encoders.runtime`), the decoder's one step in float32.
    """

    def __init__(self, folder: Path, name: str, precision: str) -> None:
        from transformers import AutoModelForSeq2SeqLM

        self.folder = folder
        self.model = load_model(AutoModelForSeq2SeqLM, folder, "sequence-to-sequence model")
        self.tokenizer = load_tokenizer(folder)
        self.most = min(_READ, bounded(self.tokenizer.model_max_length) or _READ)
        self.answers = [self._token(token) for token in answers(name)]
        encoder = self.model.get_encoder()
        if precision != "float32":
            encoder = copy.deepcopy(encoder)  # it may turn into bfloat16, and shares its words with the decoder
        self._runtimes = Runtimes(encoder, self.model.device, precision)

    def odds(self, prompts: Sequence[tuple[str, ...]]) -> Odds:
        """Each prompt is its fixed parts and its documents by turns, a fixed part first and last.

        Where a prompt is too long its documents are cut, each to an equal share of the room, and never what stands
        behind them. pygaggle cuts the end of the prompt, with the question in it.
        """
        values, cut = np.empty(len(prompts), dtype=np.float64), np.zeros(len(prompts), dtype=np.bool_)
        for first in range(0, len(prompts), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            ids, cut[part] = self._tokenize(prompts[part])
            values[part] = self._differences(ids)
        return Odds(values, cut)

    def _token(self, token: str) -> int:
        known: Mapping[str, int] = self.tokenizer.get_vocab()
        if token not in known:
            raise InputError(
                f"{self.folder}: its tokenizer has no token {token!r} to answer with; give a model that was trained as "
                "monoT5 or duoT5"
            )
        return known[token]

    def _tokenize(self, prompts: Sequence[tuple[str, ...]]) -> tuple[list[list[int]], Mask]:
        """T5 splits at spaces first, so a text has the tokens of its parts."""
        distinct = list(dict.fromkeys(part for prompt in prompts for part in prompt))
        given = self.tokenizer(distinct, add_special_tokens=False, return_attention_mask=False, verbose=False)
        tokens = dict(zip(distinct, given["input_ids"], strict=True))
        ids, cut = [], np.zeros(len(prompts), dtype=np.bool_)
        for i, prompt in enumerate(prompts):
            parts = [tokens[part] for part in prompt]
            room = max(0, self.most - len(self._end) - sum(map(len, parts[::2])))
            if sum(map(len, parts[1::2])) > room:
                share = room // (len(parts) // 2)
                cut[i] = any(len(part) > share for part in parts[1::2])
                parts[1::2] = [part[:share] for part in parts[1::2]]
            whole = [token for part in parts for token in part]
            ids.append([*whole, *self._end])
        return ids, cut

    @cached_property
    def _end(self) -> list[int]:
        """The special tokens behind a prompt."""
        ids: list[int] = self.tokenizer("")["input_ids"]
        return ids

    def _differences(self, ids: Sequence[Sequence[int]]) -> Numbers:
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        values = np.empty(len(ids), dtype=np.float64)
        start = self.model.config.decoder_start_token_id
        with torch.inference_mode():
            for place, batch in hidden_states(ids, self.tokenizer, self._runtimes):
                logits = self.model(
                    encoder_outputs=BaseModelOutput(last_hidden_state=batch["token_embeddings"]),
                    attention_mask=batch["attention_mask"],
                    decoder_input_ids=torch.full((len(place), 1), start, device=self.model.device),
                ).logits[:, 0, self.answers]  # [n, 2]
                values[place] = (logits[:, 1].double() - logits[:, 0].double()).cpu().numpy()
        return values


def answers(name: str) -> tuple[str, str]:
    """The tokens for no and yes of a model, by the last part of its name."""
    last = Path(name).name
    return next((tokens for start, tokens in _ANSWERS if last.startswith(start)), ("▁false", "▁true"))
