"""CEDR: a cross-encoder that also looks where its layers see the query's words in the document."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from retriever.encoders.batches import hidden_states
from retriever.encoders.models import find_model
from retriever.encoders.runtime import INPUTS, Features, Runtimes
from retriever.rerankers.classifier import Stamp, check_scores_pairs, stamp
from retriever.rerankers.cross_encoder import check
from retriever.rerankers.heads import BertParts, beginnings, bert_parts, head_settings, load_weights
from retriever.rerankers.kernels import EXACT, MUS, SOFT, log_counts, soft_counts
from retriever.tallies import tally
from retriever.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

CHUNKS = 8
"""Chunks of a document that are read, at most."""
_SPECIAL = 3
"""[CLS] query [SEP] chunk [SEP]."""
_SIGMAS = (*[SOFT] * (len(MUS) - 1), EXACT)
_PLUS = 1e-6
_SCALE = 0.01
"""Of the sums of logarithms, as in K-NRM's code, so that they and the first token's vector are of like size."""
_AT_ONCE = 512
"""Pairs whose tokens are held at once."""


@dataclass(frozen=True)
class CedrConfig:
    """model: a folder that `retriever train head cedr` made. depth: how many documents of each list it reads.
    precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    model: str
    depth: int = 100
    precision: str = "auto"

    def __post_init__(self) -> None:
        check(self.depth, self.precision)


class Cedr:
    """CEDR-KNRM (MacAvaney et al., SIGIR 2019): of every layer of the cross-encoder, embeddings included, the cosines
    of the query's tokens with the document's, counted by 11 kernels; log(count + 1e-6), summed over the query; these
    beside the first token's vector in a linear layer. A long document is read in equal chunks, whose counts are summed
    and whose first tokens' vectors are averaged; what is longer than 8 chunks is cut, and so is a query that leaves a
    document less than half of the model's length. Both are tallied.

    Differs from the authors' model: they train the transformer along with the linear layer, here it stays as it is;
    the first token's vector is behind the pooler, where the cross-encoder's own classifier reads it, and the linear
    layer begins as that classifier, so that untrained it is the cross-encoder (of several chunks, the mean of its
    scores); the query's vectors are those of each chunk, theirs those of the first; a query token that meets nothing
    counts as such, where their code takes it for padding.

    Proven, on random weights: the features are those of the formulas written out, neither padding nor the other pairs
    of a batch change a score, and the worked example of the kernels. Not proven: the published effectiveness, for want
    of the collections and the training.
    """

    Config = CedrConfig

    def __init__(self, config: CedrConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        check_scores_pairs(self._folder)
        head_settings(self._folder, CedrHead.method)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], without limits; larger is better."""
        import torch

        scores = np.empty(len(pairs), dtype=np.float32)
        if not pairs:
            return scores
        head = _loaded(self._folder, self.config.precision, stamp(self._folder))
        for first in range(0, len(pairs), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            with torch.inference_mode():
                scores[part] = head.module(head.features(pairs[part])).cpu().numpy()
        return scores


class CedrHead:
    """What CEDR trains. The loss is that of the paper: the mean of 1 - softmax(positive, negative)[0]."""

    method: ClassVar[str] = "cedr"
    teacher: ClassVar[bool] = False

    def __init__(self, folder: Path, precision: str = "auto") -> None:
        """folder: of a cross-encoder. Raises: InputError where it is none, or no BERT."""
        self._model = bert_parts(folder, self.method)
        self.module = _module(self._model)
        self._pooler = copy.deepcopy(self._model.bert.pooler)  # the transformer may turn into bfloat16
        typed = "token_type_ids" in self._model.tokenizer.model_input_names
        inputs = (*INPUTS, "token_type_ids") if typed else INPUTS
        self._runtimes = Runtimes(_all_layers(self._model.bert), self._model.device, precision, inputs)

    def features(self, pairs: Sequence[tuple[str, str]]) -> list[Floats]:
        """float32 [layers * 11 + d] of each pair: sums of log counts times 0.01, layer by layer, and the [CLS] mean."""
        return [
            row for first in range(0, len(pairs), _AT_ONCE) for row in self._features(pairs[first : first + _AT_ONCE])
        ]

    def texts(self, positive: str, negatives: Sequence[str]) -> list[str]:
        """The texts as they are."""
        return [positive, *negatives]

    def loss(self, scores: Tensor, teacher: Tensor | None) -> Tensor:
        """scores: float32 [texts], the positive's first."""
        import torch

        return torch.sigmoid(scores[1:] - scores[0]).mean()

    def settings(self) -> dict[str, Any]:
        """Nothing: the cross-encoder says what the module looks like."""
        return {}

    def _features(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Floats]:
        """Of some pairs, their chunks in batches of like length."""
        import torch

        chunks = self._chunks(pairs)
        counts, vectors, read = [0.0] * len(pairs), [0.0] * len(pairs), [0] * len(pairs)
        with torch.inference_mode():
            for place, batch in hidden_states(chunks.ids, self._model.tokenizer, self._runtimes, chunks.types):
                for i, own, vector in zip(place, *self._evidence(batch), strict=True):
                    pair = chunks.owners[i]
                    counts[pair] += own[:, : chunks.asked[i]]  # [layers, query, 11]
                    vectors[pair] += vector
                    read[pair] += 1
            for count, vector, n in zip(counts, vectors, read, strict=True):
                logs = log_counts(count, torch.ones(1, dtype=torch.bool), plus=_PLUS)  # [layers, 11]
                yield torch.cat([_SCALE * logs.flatten(), vector / n]).numpy()

    def _evidence(self, batch: Features) -> tuple[Tensor, Tensor]:
        """Of chunks: soft counts, float32 [n, layers, longest query, 11], and the vectors of [CLS], float32 [n, d]."""
        import torch

        hidden = batch["token_embeddings"].float()
        layers = hidden.unflatten(-1, (-1, self._model.weight.shape[1]))  # [n, longest, layers, d]
        query, text = self._masks(batch)
        width = int(query.sum(dim=1).max())
        unit = torch.nn.functional.normalize(layers, dim=-1).transpose(1, 2)  # [n, layers, longest, d]
        cosines = unit[:, :, 1 : 1 + width] @ unit.transpose(2, 3)  # [n, layers, width, longest]
        counts = soft_counts(cosines, text[:, None, None], _SIGMAS)
        return counts.cpu(), self._pooler(layers[:, :, -1]).cpu()

    def _masks(self, batch: Features) -> tuple[Tensor, Tensor]:
        """Where tokens of the query stand, and of the text: bool [n, longest]."""
        ids, types = batch["input_ids"], batch["token_type_ids"]
        special = (ids == self._model.tokenizer.cls_token_id) | (ids == self._model.tokenizer.sep_token_id)
        own = batch["attention_mask"].bool() & ~special
        return own & (types == 0), own & (types == 1)

    def _chunks(self, pairs: Sequence[tuple[str, str]]) -> Chunks:
        tokenizer, whole = self._model.tokenizer, self._model.length - _SPECIAL
        half = max(1, whole // 2)
        queries, long = _tokenized(tokenizer, [query for query, _ in pairs], half)
        tally(f"queries were longer than the {half} tokens that cedr reads of one, and cut", len(long))
        texts, long = _tokenized(tokenizer, [text for _, text in pairs], CHUNKS * whole)
        found = Chunks([], [], [], [])
        for pair, (query, text) in enumerate(pairs):
            asked, tokens = queries[query], texts[text]
            most = CHUNKS * (whole - len(asked))
            if len(tokens) > most:
                long.add(text)
            before = [tokenizer.cls_token_id, *asked, tokenizer.sep_token_id]
            for part in equal_chunks(tokens[:most], whole - len(asked)):
                found.ids.append([*before, *part, tokenizer.sep_token_id])
                found.types.append([*[0] * len(before), *[1] * (len(part) + 1)])
                found.owners.append(pair)
                found.asked.append(len(asked))
        tally(f"documents have more than {CHUNKS} chunks, and only {CHUNKS} of each were read", len(long))
        return found


class Chunks(NamedTuple):
    """Token ids and types of chunks behind their queries, the pairs they belong to, and the queries' lengths."""

    ids: list[list[int]]
    types: list[list[int]]
    owners: list[int]
    asked: list[int]


def equal_chunks(tokens: list[int], room: int) -> list[list[int]]:
    """As few as are needed, of like length; of an empty text one without a token."""
    count = max(1, -(-len(tokens) // room))
    size = max(1, -(-len(tokens) // count))
    return [tokens[i * size : (i + 1) * size] for i in range(count)]


def _tokenized(tokenizer: Any, texts: Sequence[str], most: int) -> tuple[dict[str, list[int]], set[str]]:
    """By text the first of its tokens, and the texts that have more."""
    distinct = list(dict.fromkeys(texts))
    tokens = beginnings(tokenizer, distinct, most)
    longer = {text for text, cut in zip(distinct, tokens.cut.tolist(), strict=True) if cut}
    return dict(zip(distinct, tokens.ids, strict=True)), longer


@lru_cache(maxsize=2)  # each search makes its pipeline anew
def _loaded(folder: Path, precision: str, stamp: Stamp) -> CedrHead:
    head = CedrHead(folder, precision)
    load_weights(folder, head.module)
    return head


def _module(model: BertParts) -> Any:
    """The linear layer over features, beginning as the cross-encoder's classifier."""
    import torch

    kernels = len(MUS) * (model.bert.config.num_hidden_layers + 1)

    class Combined(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.combine = torch.nn.Linear(kernels + model.weight.shape[1], 1)
            with torch.no_grad():
                self.combine.weight.zero_()
                self.combine.weight[:, kernels:] = model.weight
                self.combine.bias.copy_(model.bias)

        def forward(self, features: Sequence[Floats]) -> Any:
            stacked = torch.from_numpy(np.stack(features)).to(self.combine.weight.device)
            return self.combine(stacked)[:, 0]

    return Combined()


def _all_layers(bert: Any) -> Any:
    """BERT with the outputs of its embeddings and of all layers beside each other: float32 [n, tokens, layers * d]."""
    import torch

    class AllLayers(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def get_input_embeddings(self) -> Any:
            return self.bert.get_input_embeddings()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
            return (torch.cat(self.bert(**given, output_hidden_states=True).hidden_states, dim=-1),)

    return AllLayers().eval()
