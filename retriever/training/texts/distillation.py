"""MiniLM: deep self-attention distillation (Wang et al., NeurIPS 2020, arXiv 2002.10957), of the last layer alone.

    L_AT = 1 / (A_h |x|) sum over heads a and tokens t of KL(A^T[a, t] || A^S[a, t]),  A = softmax(Q K^T / sqrt(d_k))
    L_VR = the same for the value relation,                                          VR = softmax(V V^T / sqrt(d_k))

Both are distributions over a text's tokens, so teacher and student need the same number of heads and nothing else in
common; padding is neither a row nor a column of them. The loss of a batch is the mean over its texts. The paper's
numbers, after 400,000 steps of 1,024 texts, could not be reproduced here.

No loss of the paper reaches what stands behind the last layer's attention, so its students encode nothing before they
are trained further. For students that are to encode texts there is a third one: one less the cosine of the student's
vector with the teacher's (EmbedDistill, Kim et al., arXiv 2301.12005, has their distance).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.encoders.matformer import feed_forward_layers
from retriever.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor


class Relations(NamedTuple):
    """Logarithms of distributions over tokens, float32 [n, heads, length, length]."""

    attention: Tensor
    values: Tensor


class LastAttention:
    """The attention of an encoder's last layer, which keeps what it made of the newest batch. heads: their number."""

    def __init__(self, model: SentenceTransformer, name: str) -> None:
        layers = feed_forward_layers(getattr(model[0], "auto_model", None), name)
        attention = getattr(layers[-1].attention, "self", None)
        if not all(hasattr(attention, part) for part in ("query", "key", "value")):
            raise InputError(f"{name}: its attention cannot be taken apart; expected a BERT or RoBERTa")
        self.heads = int(model[0].auto_model.config.num_attention_heads)
        self._states: dict[str, Tensor] = {}
        for part in ("query", "key", "value"):
            getattr(attention, part).register_forward_hook(partial(self._keep, part))

    def _keep(self, part: str, _module: Any, _given: Any, states: Tensor) -> None:
        self._states[part] = states

    def relations(self, mask: Tensor) -> Relations:
        """Of the newest batch. mask: bool [n, length], where there is a token."""
        query, key, value = (self._states[part].float() for part in ("query", "key", "value"))  # [n, length, d]
        return Relations(
            log_relation(query, key, mask, self.heads),
            log_relation(value, value, mask, self.heads),
        )


def log_relation(left: Tensor, right: Tensor, mask: Tensor, heads: int) -> Tensor:
    """The logarithm of softmax(left right^T / sqrt(d_k)) in each head, over the tokens: [n, heads, length, length].

    left, right: [n, length, heads * d_k]. mask: bool [n, length].
    """
    import torch

    first, second = (states.unflatten(-1, (heads, -1)).transpose(1, 2) for states in (left, right))
    scores = first @ second.transpose(-1, -2) / math.sqrt(first.shape[-1])  # [n, heads, length, length]
    return scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min).log_softmax(dim=-1)


def divergence(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student), averaged over heads and a text's tokens, then over texts.

    teacher, student: logarithms, [n, heads, length, length]. mask: bool [n, length].
    """
    rows = (teacher.exp() * (teacher - student)).sum(dim=-1).mean(dim=1)  # [n, length]
    averages: Tensor = (rows * mask).sum(dim=1) / mask.sum(dim=1)
    return averages.mean()


def distillation_loss(student: SentenceTransformer, teacher: SentenceTransformer, embedding: float) -> Any:
    """A loss of texts for sentence-transformers' trainer. embedding: weight of the cosine distance to the teacher's
    vectors.

    Raises: InputError where the two cannot be compared.
    """
    import torch

    taught, own = LastAttention(teacher, "the teacher"), LastAttention(student, "the student")
    if taught.heads != own.heads:
        raise InputError(
            f"the teacher has {taught.heads} attention heads and the student {own.heads}; they are compared head by "
            "head: expected as many"
        )
    sizes = [model.get_embedding_dimension() for model in (teacher, student)]
    if embedding and sizes[0] != sizes[1]:
        raise InputError(
            f"the teacher's vectors have {sizes[0]} dimensions and the student's {sizes[1]}, so they cannot be alike: "
            "give embedding 0, and train the student further"
        )

    class Distillation(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = student  # what a trainer trains is what its loss holds, so the teacher is not held

        def forward(self, columns: list[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
            (features,) = columns
            mask = features["attention_mask"].bool()
            with torch.no_grad():
                wanted = teacher(dict(features))["sentence_embedding"]
            made = self.model(dict(features))["sentence_embedding"]
            with torch.autocast(made.device.type, enabled=False):
                pairs = zip(taught.relations(mask), own.relations(mask), strict=True)
                attention, values = (divergence(of_teacher, of_student, mask) for of_teacher, of_student in pairs)
                losses = {"attention": attention, "values": values}
                if embedding:
                    likeness = torch.nn.functional.cosine_similarity(made.float(), wanted.float())  # [n]
                    losses["embedding"] = embedding * (1 - likeness).mean()
            return losses

    return Distillation()
