"""IDCM's cheap model: it tells which passages of a document the dear one should read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from retriever.encoders.batches import by_budget
from retriever.encoders.models import find_model
from retriever.encoders.runtime import has_bfloat16
from retriever.encoders.token_spans import TokenSpans
from retriever.passages import Splitter, Splitting
from retriever.rerankers.classifier import Stamp, check_scores_pairs, stamp
from retriever.rerankers.cross_encoder import check
from retriever.rerankers.heads import beginnings, bert_parts, head_settings, load_weights
from retriever.rerankers.kernels import MUS, SOFT, log_counts, soft_counts
from retriever.tallies import tally
from retriever.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

WINDOW, STRIDE = 64, 50
"""Tokens of a passage, and between the beginnings of two: 50, with 7 of each neighbour."""
PASSAGES = 16
"""Of an example, that the training ranks."""
_WIDTH = 3
"""Tokens that the convolution sees at once: each and the two behind it."""
_SIGMAS = (SOFT,) * len(MUS)
_LEAST = 1e-4
_TEXTS, _TOKENS, _PAIRS = 4096, 16_384, 256
"""What is in memory at once: texts as token ids, tokens with padding as vectors, pairs as cosines."""

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CkConfig:
    """model: a folder that `retriever train head ck` made. depth: how many documents of each list it reads.
    precision: "auto" (the convolution in bfloat16 where the hardware has it) or "float32".
    """

    model: str
    depth: int = 100
    precision: str = "auto"

    def __post_init__(self) -> None:
        check(self.depth, self.precision)


class Ck:
    """The ESM of IDCM (Hofstätter et al., SIGIR 2021), a Conv-KNRM: a convolution over three tokens of the embeddings
    that BERT begins with (words, positions, normalised), as they are in the cross-encoder; ReLU; the cosines of the
    query's with the passage's; 11 kernels, all of width 0.1; log(max(count times a learned factor, 1e-4)), summed over
    the query; and a linear layer. No attention, and a text is embedded once whatever asks it, so that it costs a small
    part of a cross-encoder. The whole of IDCM, the best four of at most 40 passages read by the cross-encoder:

        long('cross-encoder(FOLDER)', unit=tokens, window=64, stride=50, cap=40, pool=weighted, select='ck(FOLDER)')

    Differs from the authors' model: it is trained on the cross-encoder's order of passages by listwise KL divergence,
    which their code offers beside the LambdaLoss that they chose; queries are without [CLS] and [SEP]; the first
    passage has no padding before it, so all begin 7 tokens later than theirs; the weights of the best scores are given
    (`weights`), not learned; and no passage is lost for a score of 0, as it is in their code. Texts that are longer
    than BERT's positions are cut, and tallied.

    Proven, on random weights: in float32 the scores of the formula written out. Not proven: the published effectiveness
    and parity with the published model, for want of its weights.
    """

    Config = CkConfig

    def __init__(self, config: CkConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        check_scores_pairs(self._folder)
        head_settings(self._folder, CkHead.method)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n], larger is better; each distinct text is embedded once."""
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        return _loaded(self._folder, self.config.precision, stamp(self._folder)).score(pairs)


class CkHead:
    """What IDCM's selector trains: to rank passages as the cross-encoder does."""

    method: ClassVar[str] = "ck"
    teacher: ClassVar[bool] = True

    def __init__(self, folder: Path, precision: str = "auto") -> None:
        """folder: of a cross-encoder. Raises: InputError where it is none, or no BERT."""
        model = bert_parts(folder, self.method)
        self._tokenizer, self._length, self._device = model.tokenizer, model.length, model.device.type
        self._bfloat16 = precision != "float32" and has_bfloat16(self._device)
        self.module = _module(model.bert.embeddings, model.weight.shape[1]).to(model.device)
        self._splitter = Splitter(Splitting("tokens", WINDOW, STRIDE, cap=PASSAGES), TokenSpans(str(folder)))

    def features(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Ids, Ids]]:
        """The token ids of query and text, int32 [tokens] each."""
        queries, texts = (self._ids([pair[side] for pair in pairs], ("queries", "texts")[side]) for side in (0, 1))
        return list(zip(queries, texts, strict=True))

    def texts(self, positive: str, negatives: Sequence[str]) -> list[str]:
        """Passages: those of the positive, and of one negative after the other until there are 16."""
        found = [passage for text in (positive, *negatives) for passage in self._splitter.split(text).texts]
        return list(dict.fromkeys(found))[:PASSAGES]

    def loss(self, scores: Tensor, teacher: Tensor | None) -> Tensor:
        """KL divergence of softmax(scores) from softmax(teacher). Both float32 [texts]."""
        import torch

        assert teacher is not None
        expected, given = (torch.log_softmax(values, dim=0) for values in (teacher, scores))
        return (expected.exp() * (expected - given)).sum()

    def settings(self) -> dict[str, Any]:
        """Nothing: the cross-encoder says what the module looks like."""
        return {}

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n]."""
        import torch

        scores = np.empty(len(pairs), dtype=np.float32)
        texts = list(dict.fromkeys(text for _, text in pairs))
        wanted: dict[str, list[int]] = defaultdict(list)
        for i, (_, text) in enumerate(pairs):
            wanted[text].append(i)
        with torch.inference_mode():
            queries = self._queries([query for query, _ in pairs])
            for place, vectors, there in self._vectors(texts, "texts"):
                asked = [(column, i) for column, text in enumerate(place) for i in wanted[texts[text]]]
                for start in range(0, len(asked), _PAIRS):
                    columns, places = map(list, zip(*asked[start : start + _PAIRS], strict=True))
                    own, whole = _padded([queries[pairs[i][0]] for i in places])
                    given = self.module.compare(own, whole, vectors[columns], there[columns])
                    scores[places] = given.cpu().numpy()
        return scores

    def _queries(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Their vectors, float32 [tokens, d]."""
        distinct = list(dict.fromkeys(texts))
        return {
            distinct[i]: own[whole].clone()
            for place, vectors, there in self._vectors(distinct, "queries")
            for i, own, whole in zip(place, vectors, there, strict=True)
        }

    def _vectors(self, texts: Sequence[str], what: str) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Places among the texts, unit vectors float32 [n, longest, d], and where they are: bool [n, longest]."""
        import torch

        for first in range(0, len(texts), _TEXTS):
            ids = self._ids(texts[first : first + _TEXTS], what)
            for place in by_budget([len(row) for row in ids], _TOKENS):
                with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._bfloat16):
                    vectors, there = self.module.vectors([ids[i] for i in place])
                yield [first + i for i in place], vectors, there

    def _ids(self, texts: Sequence[str], what: str) -> list[Ids]:
        tokens = beginnings(self._tokenizer, texts, self._length)
        tally(f"{what} were longer than the {self._length} tokens that ck reads of one, and cut", tokens.truncated)
        return [np.array(ids, dtype=np.int32) for ids in tokens.ids]


@lru_cache(maxsize=2)  # each search makes its pipeline anew
def _loaded(folder: Path, precision: str, stamp: Stamp) -> CkHead:
    head = CkHead(folder, precision)
    load_weights(folder, head.module)
    return head


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows [tokens, ...] as one tensor [n, longest, ...], longest at least 1, and where they are: bool [n, longest]."""
    import torch

    longest = max(1, *map(len, rows))
    made = rows[0].new_zeros((len(rows), longest, *rows[0].shape[1:]))
    for i, row in enumerate(rows):
        made[i, : len(row)] = row
    lengths = torch.tensor([len(row) for row in rows], device=made.device)
    return made, torch.arange(longest, device=made.device) < lengths[:, None]


def _module(embeddings: Any, size: int) -> Any:
    """What is trained. embeddings: of a BERT, which stay as they are; size: of a vector."""
    import torch

    for parameter in embeddings.parameters():
        parameter.requires_grad_(False)

    class ConvKnrm(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv1d(size, size, _WIDTH)
            self.factors = torch.nn.Parameter(torch.ones(len(MUS)))
            self.combine = torch.nn.Linear(len(MUS), 1)
            torch.nn.init.uniform_(self.combine.weight, -0.01, 0.01)

        def forward(self, features: Sequence[tuple[Ids, Ids]]) -> Any:
            queries, texts = zip(*features, strict=True)
            return self.compare(*self.vectors(queries), *self.vectors(texts))

        def vectors(self, ids: Sequence[Ids]) -> tuple[Any, Any]:
            tokens, there = _padded([torch.from_numpy(row).long().to(self.factors.device) for row in ids])
            embedded = embeddings(input_ids=tokens) * there[:, :, None]  # [n, longest, d]
            behind = torch.nn.functional.pad(embedded, (0, 0, 0, _WIDTH - 1))
            seen = self.convolution(behind.transpose(1, 2)).relu().transpose(1, 2)  # [n, longest, d]
            return torch.nn.functional.normalize(seen.float(), dim=-1), there

        def compare(self, query: Any, asked: Any, text: Any, there: Any) -> Any:
            counts = soft_counts(query @ text.transpose(1, 2), there[:, None], _SIGMAS)  # [n, query, 11]
            return self.combine(log_counts(counts * self.factors, asked, least=_LEAST))[:, 0]

    return ConvKnrm()
