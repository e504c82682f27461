"""PARADE: a long document by the vectors of its passages, joined before anything is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from retriever.encoders.models import find_model
from retriever.encoders.token_spans import TokenSpans
from retriever.errors import InputError
from retriever.passages import Splitter, Splitting
from retriever.rerankers.aggregation import aggregation
from retriever.rerankers.base import reorder
from retriever.rerankers.classifier import Classifier, check_scores_pairs, classifier
from retriever.rerankers.cross_encoder import check
from retriever.rerankers.heads import SETTINGS, head_settings, load_weights, one_output, read_settings
from retriever.rerankers.passage_lists import Lists, PassageLists
from retriever.tallies import tally
from retriever.types import Document, Floats, Hits, Rows

if TYPE_CHECKING:
    from torch import Tensor

AGGREGATORS = ("max", "avg", "attention", "transformer")
UNTRAINED = ("max", "avg")
"""Those that need no weights of their own."""
_AT_ONCE = 16_384
"""Passages whose vectors are held at once, padding included."""


@dataclass(frozen=True)
class ParadeConfig:
    """model: name or path of a BERT cross-encoder with one or two outputs, or of a head folder. aggregator: one of
    AGGREGATORS (none: that of the folder's head, or max). window, stride, cap, middle: passages, in tokens, as in
    `passages.Splitting`. title: begin every passage with the title; without it only the first one has it. depth: how
    many documents of each list are reranked. precision: "auto" (bfloat16 where the hardware has it) or "float32".
    """

    model: str
    aggregator: str | None = None
    window: int = 225
    stride: int = 200
    cap: int = 16
    middle: str = "even"
    title: bool = True
    depth: int = 100
    precision: str = "auto"

    def __post_init__(self) -> None:
        _ = self.splitting
        check(self.depth, self.precision)
        if self.aggregator is not None:
            check_aggregator(self.aggregator)

    @property
    def splitting(self) -> Splitting:
        """How documents are split."""
        return Splitting("tokens", self.window, self.stride, self.cap, self.middle)


class Parade:
    """PARADE (Li et al., arXiv 2008.09093; TOIS 2023): each passage is read with the query, BERT's pooled [CLS] vectors
    are joined into one by a maximum (element by element), a mean, an attention or a transformer, and a linear layer
    makes the score of that. At most 16 passages of 225 tokens count, a new one every 200: first, last, and evenly
    spaced ones between, which the paper samples (middle=random).

    max and avg need no training: without a head of their own in the folder, the cross-encoder's last layer scores the
    joined vector, and a document of one passage gets the cross-encoder's logit. attention and transformer need
    `retriever train head parade`. The paper trains BERT together with them, on documents; here BERT stays as it is. Its
    CNN and its distillation are not here, nor is the position embedding, which it leaves off: so the order of
    passages changes nothing.

    The frozen model runs as `cross-encoder` does; what joins, in float32. A pair that is too long is cut and tallied.
    The paper's numbers could not be reproduced here, without its collections and models.
    """

    Config = ParadeConfig

    def __init__(self, config: ParadeConfig) -> None:
        self.config = config
        self._folder = find_model(config.model)
        check_scores_pairs(self._folder)
        self._aggregator, self._trained = _chosen(self._folder, config.aggregator)
        splitter = Splitter(config.splitting, TokenSpans(str(self._folder)))
        self._lists = PassageLists(splitter, title=config.title)

    @cached_property
    def _frozen(self) -> Frozen:
        return Frozen(self._folder, self.config.precision)

    @cached_property
    def _module(self) -> Any:
        module = self._frozen.module(self._aggregator)
        if self._trained:
            load_weights(self._folder, module)
        return module.eval()

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """float32 [n]: pairs of a query and a text that has no title of its own."""
        return self._scores(self._lists.of_pairs(pairs))

    def rerank(self, hits: Hits, queries: Sequence[str], fetch: Callable[[Rows], list[Document]]) -> Hits:
        """The first `depth` of each list in the order of their new scores; the rest follow in their old order."""
        head = hits.rows[:, : self.config.depth]
        owners, _ = np.nonzero(head >= 0)
        scores = self._scores(self._lists.of_rows(head, queries, fetch))
        return reorder(hits, [scores[owners == i] for i in range(len(head))])

    def _scores(self, lists: Lists) -> Floats:
        import torch

        scores = [np.zeros(0, dtype=np.float32)]
        for part in _parts(lists):
            module, vectors = self._module, self._frozen.vectors(part)
            with torch.inference_mode():
                scores.append(module(vectors).numpy())
        return np.concatenate(scores)


class ParadeHead:
    """What `retriever train head parade` trains: `heads.Head`. The loss is the paper's pairwise hinge loss."""

    method: ClassVar[str] = "parade"
    teacher: ClassVar[bool] = False

    def __init__(self, folder: Path, aggregator: str = "transformer") -> None:
        """Raises: InputError for an unknown aggregator, and for a model that is not built as BERT is."""
        try:
            check_aggregator(aggregator)
        except ValueError as problem:
            raise InputError(str(problem)) from None
        config = ParadeConfig(str(folder), aggregator)
        self._aggregator = aggregator
        self._frozen = Frozen(folder, config.precision)
        self._lists = PassageLists(Splitter(config.splitting, TokenSpans(str(folder))), title=config.title)
        self.module = self._frozen.module(aggregator)

    def features(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """Of each pair, float16 [passages, d]: they lie between -1 and 1."""
        vectors = self._frozen.vectors(self._lists.of_pairs(pairs))
        return [each.astype(np.float16) for each in vectors]

    def texts(self, positive: str, negatives: Sequence[str]) -> list[str]:
        """The texts as they are."""
        return [positive, *negatives]

    def loss(self, scores: Tensor, teacher: Tensor | None) -> Tensor:
        """The mean of max(0, 1 - (relevant - irrelevant))."""
        loss: Tensor = (1 - scores[0] + scores[1:]).relu().mean()
        return loss

    def settings(self) -> dict[str, Any]:
        """The aggregator."""
        return {"aggregator": self._aggregator}


class Frozen:
    """A cross-encoder that gives its pooled [CLS] vectors."""

    def __init__(self, folder: Path, precision: str) -> None:
        self._folder = folder
        self._model = _with_pooler(folder, precision)

    def vectors(self, lists: Lists) -> list[Floats]:
        """float32 [passages, d] of each query and document."""
        if not lists:
            return []
        values, cut = self._model.pooled([(query, passage) for query, passages in lists for passage in passages])
        tally(
            f"passages were longer, with the query, than the {self._model.max_length} tokens that {self._folder} "
            "reads, and cut",
            int(cut.sum()),
        )
        return np.split(values, np.cumsum([len(passages) for _, passages in lists])[:-1])

    def module(self, aggregator: str) -> Any:
        """A new aggregation, on the CPU, that scores by what the cross-encoder's last layer knows."""
        import torch

        model = self._model.model.model
        weight, bias = one_output(model.classifier, self._folder)
        linear = torch.nn.Linear(weight.shape[1], 1)
        linear.load_state_dict({"weight": weight, "bias": bias})
        start = model.get_input_embeddings().weight[self._model.tokenizer.cls_token_id].detach().cpu().float().clone()
        return aggregation(aggregator, model.config, linear, start)


def check_aggregator(name: str) -> None:
    """Raises: ValueError for one that there is not."""
    if name not in AGGREGATORS:
        raise ValueError(f"aggregator is one of {', '.join(AGGREGATORS)}, not {name!r}")


def _chosen(folder: Path, wanted: str | None) -> tuple[str, bool]:
    """The aggregator, and whether the folder's head is for it.

    Raises: InputError where it needs a head and has none.
    """
    kept = read_settings(folder) or {}
    trained = kept.get("aggregator") if kept.get("method") == ParadeHead.method else None
    aggregator = wanted or trained or UNTRAINED[0]
    if aggregator != trained and aggregator not in UNTRAINED:
        trained = head_settings(folder, ParadeHead.method)["aggregator"]
        raise InputError(
            f"holds a parade head for {trained}, not for {aggregator}; make one with: "
            f"retriever train head parade --aggregator {aggregator} ...",
            folder / SETTINGS,
        )
    return aggregator, aggregator == trained


def _with_pooler(folder: Path, precision: str) -> Classifier:
    """The model of a folder. Raises: InputError for one that has no pooler and linear layer, as BERT has."""
    from torch.nn import Linear

    found = classifier(folder, precision)
    if found.pooler is None or not isinstance(getattr(found.model.model, "classifier", None), Linear):
        kind = getattr(found.model.config, "model_type", "model of another build")
        raise InputError(f"{folder}: parade needs a BERT-type sequence classifier, such as MiniLM; this is a {kind}")
    return found


def _parts(lists: Lists) -> Iterator[Lists]:
    """The lists in parts that have, padded, at most _AT_ONCE passages."""
    part: list[tuple[str, list[str]]] = []
    longest = 0
    for each in lists:
        longest = max(longest, len(each[1]))
        if part and longest * (len(part) + 1) > _AT_ONCE:
            yield part
            part, longest = [], len(each[1])
        part.append(each)
    if part:
        yield part
