"""PreTTR: the lower layers of a cross-encoder read a document once, before any query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoders.batches import by_budget
from retriever.encoders.models import find_model, sha256, weights_digest
from retriever.errors import InputError
from retriever.rerankers.bert_layers import BertLayers, bert_layers, padded
from retriever.rerankers.classifier import Stamp, check_scores_pairs, stamp
from retriever.rerankers.cross_encoder import activated, check
from retriever.rerankers.heads import beginnings
from retriever.rerankers.pairs import Frame, frame_of
from retriever.rerankers.state_store import State, StateStore, state_store
from retriever.tallies import tally
from retriever.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

_TOKENS = 65_536
"""Tokens of documents whose states are in memory at once: 100 MB where they have 384 numbers."""
_CHARACTERS = 4_000_000
"""Characters that are tokenised at once."""


@dataclass(frozen=True)
class PreTtrConfig:
    """model: name or path of a BERT-type cross-encoder. join: how many layers read query and document apart. states:
    the folder that keeps what they make of documents; without it that is made anew in each call. query_length: tokens
    that are set aside for every query, the special ones among them. depth: how many documents of each list it reads.
    precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    model: str
    join: int = 3
    states: str | None = None
    query_length: int = 32
    depth: int = 100
    precision: str = "auto"

    def __post_init__(self) -> None:
        check(self.depth, self.precision)
        if self.join < 0:
            raise ValueError("join must be at least 0")
        if self.states is not None and not self.join:
            raise ValueError("with join=0 no layer reads documents alone, so there are no states to keep")


class PreTtr:
    """PreTTR (MacAvaney et al., SIGIR 2020), without its learned compression: in the layers 1 to `join` query and
    document do not attend to each other, so what those make of a document is the same for all queries. It is kept in
    `states` as float16; then a search runs the query through the lower layers, and both through the others.

    The first token of a document has position `query_length`, however long the query is, or its states would depend on
    that. So `join=0` gives the ordinary cross-encoder's score for a query of exactly `query_length` tokens, and for a
    shorter one the score of the same model with a gap in the positions. A longer query is cut, and a document to what
    is left of the model's length; both are tallied.

    States are found by the digests of model and text: an updated document has none, and a deleted one leaves its own
    behind, which nothing reads; a new folder gets rid of them. They take 2 * d bytes a token, 768 for MiniLM. Memory
    is bounded in documents, and grows by up to `query_length` tokens for each query of a call.

    Meant for models that were trained with the split, as the paper's were. `retriever train reranker` does not train
    so; with an ordinary cross-encoder quality falls, and how far is to be measured for each model and `join`. Proven,
    on random weights: the scores are those of the model with its attention masked so, to 1e-4 without `states` and to
    float16's precision with them. Not proven: the paper's quality and its 42-fold speed, for want of its weights and
    collections.
    """

    Config = PreTtrConfig

    def __init__(self, config: PreTtrConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        check_scores_pairs(self._folder)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], through the activation that a cross-encoder's score goes through."""
        return activated(self.logits(pairs), self._model.whole)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], before any activation."""
        import torch

        values = np.zeros(len(pairs), dtype=np.float32)
        if not pairs:
            return values
        wanted: dict[str, list[int]] = defaultdict(list)
        for i, (_, document) in enumerate(pairs):
            wanted[document].append(i)
        with torch.inference_mode():
            queries = self._queries(list(dict.fromkeys(query for query, _ in pairs)))
            for texts in _groups(wanted, self._room):
                documents = self._documents(texts)
                members = [(i, queries[pairs[i][0]], documents[text]) for text in texts for i in wanted[text]]
                lengths = [len(query) + len(document) for _, query, document in members]
                for place in by_budget(lengths, self._model.budget):
                    rows = [torch.cat(members[j][1:]) for j in place]
                    values[[members[j][0] for j in place]] = self._joined(rows)
        return values

    @cached_property
    def store(self) -> StateStore | None:
        """Where states are kept; none where they are not.

        Raises: as `state_store` does.
        """
        if self.config.states is None:
            return None
        model = self._model
        identity = {
            **_identity(self._folder, stamp(self._folder)),
            "join": self.config.join,
            "query_length": self.config.query_length,
            "reads": model.max_length,
            "precision": str(model.dtype).removeprefix("torch."),
        }
        return state_store(Path(self.config.states), identity, model.width)

    @cached_property
    def _model(self) -> BertLayers:
        model = bert_layers(self._folder, self.config.precision, "prettr")
        if self.config.join >= model.count:
            raise InputError(
                f"{self._folder}: has {model.count} layers; with join={self.config.join} no layer would read query and "
                "document together: give less"
            )
        return model

    @cached_property
    def _frame(self) -> Frame:
        model, length = self._model, self.config.query_length
        frame = frame_of(model.tokenizer)
        if frame is None:
            raise InputError(f"{self._folder}: its tokenizer does not tell query from document, or cuts beginnings")
        before, between, behind = frame.special
        least, most = len(before) + len(between) + 1, model.max_length - len(behind) - 1
        if not least <= length <= most:
            raise InputError(
                f"{self._folder}: reads {model.max_length} tokens; query_length must be from {least} to {most}, not "
                f"{length}"
            )
        return frame

    @property
    def _room(self) -> int:
        """Tokens that are read of a document, the special ones behind it among them."""
        return self._model.max_length - self.config.query_length

    def _queries(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """By text, its states before the join, [tokens, d]."""
        (before, between, _), types = self._frame.special, self._frame.types
        room = self.config.query_length - len(before) - len(between)
        tokens = beginnings(self._model.tokenizer, texts, room)
        tally(
            f"queries were longer than the {self.config.query_length} tokens that prettr keeps for them, and cut",
            tokens.truncated,
        )
        ids = [[*before, *own, *between] for own in tokens.ids]
        kinds = [[*types[0], *[types[1]] * len(own), *types[2]] for own in tokens.ids]
        return dict(zip(texts, self._apart(ids, kinds, 0), strict=True))

    def _documents(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """By text, its states before the join, [tokens, d]; from the store, if there is one, and kept there."""
        import torch

        store = self.store
        found = store.get(texts) if store else {}
        missing = [text for text in texts if text not in found]
        if missing:
            made = dict(zip(missing, self._made(missing, half=store is not None), strict=True))
            found.update(made)
            if store:
                store.add(made)
        tally(
            f"documents were longer than the {self._room} tokens that {self.config.model} reads of them, and cut",
            sum(state.cut for state in found.values()),
        )
        kind = {"dtype": self._model.dtype, "device": self._model.device}
        return {text: torch.tensor(state.values, **kind) for text, state in found.items()}

    def _made(self, texts: Sequence[str], *, half: bool) -> Iterator[State]:
        """The states of texts, in their order; as float16 if they are to be kept."""
        (_, _, behind), types = self._frame.special, self._frame.types
        tokens = beginnings(self._model.tokenizer, texts, self._room - len(behind))
        ids = [[*own, *behind] for own in tokens.ids]
        kinds = [[*[types[3]] * len(own), *types[4]] for own in tokens.ids]
        for hidden, cut in zip(self._apart(ids, kinds, self.config.query_length), tokens.cut.tolist(), strict=True):
            values = hidden.float().cpu().numpy()
            yield State(values.astype(np.float16) if half else values, cut)

    def _apart(self, ids: Sequence[list[int]], types: Sequence[list[int]], start: int) -> list[Tensor]:
        """The states of texts that see only themselves, [tokens, d] each."""
        model = self._model
        rows: dict[int, Tensor] = {}
        for place in by_budget([len(row) for row in ids], model.budget):
            hidden, mask = model.embed([ids[i] for i in place], [types[i] for i in place], start)
            hidden = model.through(hidden, mask, 0, self.config.join)
            rows.update({i: row[: len(ids[i])] for i, row in zip(place, hidden, strict=True)})
        return [rows[i] for i in range(len(ids))]

    def _joined(self, rows: Sequence[Tensor]) -> Floats:
        """float32 [n]: the logits of queries with documents behind them, [tokens, d] each."""
        hidden, mask = padded(rows)
        hidden = self._model.through(hidden, mask, self.config.join, self._model.count)
        values: Floats = self._model.logits(hidden[:, 0]).cpu().numpy()
        return values


@lru_cache(maxsize=4)
def _identity(folder: Path, stamp: Stamp) -> dict[str, str]:
    """What a model is: the digests of its weights with the tokenizer, and of its configuration."""
    return {"model": weights_digest(folder), "config": sha256(folder / "config.json")}


def _groups(texts: Iterable[str], room: int) -> Iterator[list[str]]:
    """Texts of like length, longest first, as many as are in memory at once; of each at most `room` tokens are read."""
    group: list[str] = []
    tokens = characters = 0
    for text in sorted(texts, key=len, reverse=True):
        most = min(len(text) + 1, room)  # a token is a character or more
        if group and (tokens + most > _TOKENS or characters + len(text) > _CHARACTERS):
            yield group
            group, tokens, characters = [], 0, 0
        group.append(text)
        tokens, characters = tokens + most, characters + len(text)
    if group:
        yield group
