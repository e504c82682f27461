"""A sparse encoder to start from: a model with a masked-language-model head, or one that is given such a head.

Bi-encoders such as all-MiniLM-L6-v2 have no head, and their hidden states have long left the word embeddings. A random
head would have to be trained first. `fit_head` instead solves for one: the transform that best maps a token's last
hidden state back to its own word embedding (ridge regression), with term biases that grow with the inverse document
frequency. The model then starts as a soft, contextual tf-idf. This start is ours; no paper proves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.encoders.models import find_model
from retriever.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder
    from torch import Tensor

START_TEXTS = 1024
"""Texts that the head of a base model without one is fitted to."""
BATCH = 32
RIDGE = 1.0
LINEAR = 4.0
"""GELU is a straight line up to 1e-3 from here on; added before it, taken off by the layer norm behind it."""
START = 3.0
"""Two standard deviations of the tokens' own logits at the start, and how far the rarest term's bias is raised."""
TERMS = 200
"""Active terms of a text at the start, on average."""
CALIBRATION = 64
"""Texts that they are counted on."""


class _Sample(NamedTuple):
    """hidden: float32 [n_tokens, d], special tokens left out; ids: int64 [n_tokens]; df: float32 [n_terms]."""

    hidden: Tensor
    ids: Tensor
    df: Tensor
    documents: int


def sparse_encoder(base: str, texts: Sequence[str], max_length: int) -> SparseEncoder:
    """The base model as a SPLADE encoder with max pooling; `texts` fit its head where it has none.

    Raises: InputError where the model is not found, cannot be loaded, or is no BERT and has no head.
    """
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    folder = find_model(base)
    with quiet():
        headless = _lacks_head(folder)
        transformer = Transformer(str(folder), transformer_task="fill-mask", max_seq_length=max_length)
    model = SparseEncoder(modules=[transformer, SpladePooling(pooling_strategy="max")], device="cpu")
    if headless:
        fit_head(model, texts)
    return model


def _lacks_head(folder: Path) -> bool:
    """Whether the model's files have no weights for a masked-language-model head."""
    from transformers import AutoModelForMaskedLM

    try:
        model, report = AutoModelForMaskedLM.from_pretrained(str(folder), output_loading_info=True)
    except (OSError, ValueError, KeyError) as problem:
        raise InputError(f"{folder}: transformers cannot load it as a masked language model: {problem}") from None
    missing = sorted(report["missing_keys"])
    if missing and model.config.model_type != "bert":
        raise InputError(f"{folder}: lacks {missing[0]}; a head can be fitted to BERT only; give a base that has one")
    return bool(missing)


def fit_head(model: SparseEncoder, texts: Sequence[str]) -> None:
    """Set the head of a BERT model in closed form, in place; the decoder stays tied to the word embeddings.

    The transform is dense, GELU, layer norm: the regression goes into the dense part, scaled to unit variance and
    shifted to where GELU is linear. The layer norm's gain brings two standard deviations of the tokens' own logits to
    START; the decoder's bias is START times the idf in [0, 1], less what leaves TERMS active.
    """
    import torch

    bert, head = model[0].auto_model.bert, model[0].auto_model.cls.predictions
    embeddings = bert.get_input_embeddings().weight
    with torch.no_grad():
        sample = _sample(model, texts)
        map_ = _ridge(sample.hidden, (embeddings - embeddings.mean(dim=0))[sample.ids])
        map_ /= (_with_one(sample.hidden) @ map_).std()
        head.transform.dense.weight.copy_(map_[:-1].T)
        head.transform.dense.bias.copy_(map_[-1] + LINEAR)
        head.transform.LayerNorm.weight.fill_(1.0)
        head.transform.LayerNorm.bias.zero_()
        own = (head.transform(sample.hidden) * embeddings[sample.ids]).sum(dim=1)  # [n_tokens]
        head.transform.LayerNorm.weight.fill_(START / (2 * own.std()))
        head.decoder.bias.copy_(START * _idf(sample))
        head.decoder.bias -= _level(model, texts[:CALIBRATION])


def _level(model: SparseEncoder, texts: Sequence[str]) -> Tensor:
    """The logit that TERMS of a text's terms exceed on average (all do, where there are no more)."""
    import torch

    best = []
    for text in texts:
        features = model.preprocess([text])
        best.append(model[0].auto_model(**features).logits[0].max(dim=0).values)  # [n_terms]
    logits = torch.cat(best)
    return logits.topk(min(TERMS * len(texts), len(logits))).values[-1]


def _sample(model: SparseEncoder, texts: Sequence[str]) -> _Sample:
    """Last hidden states of the texts' tokens, and the texts' document frequencies; special tokens are in every one."""
    import torch

    bert, special = model[0].auto_model.bert, model.tokenizer.all_special_ids
    df = torch.zeros(bert.config.vocab_size)
    states, tokens = [], []
    for start in range(0, len(texts), BATCH):
        features = model.preprocess(list(texts[start : start + BATCH]))
        ids, mask = features["input_ids"], features["attention_mask"].bool()
        keep = mask & ~torch.isin(ids, torch.tensor(special))
        states.append(bert(input_ids=ids, attention_mask=features["attention_mask"])[0][keep].float())
        tokens.append(ids[keep])
        for row, real in zip(ids, keep, strict=True):
            df[row[real].unique()] += 1
    df[special] = len(texts)
    return _Sample(torch.cat(states), torch.cat(tokens), df, len(texts))


def _with_one(hidden: Tensor) -> Tensor:
    import torch

    return torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)  # [n_tokens, d + 1]


def _ridge(hidden: Tensor, targets: Tensor) -> Tensor:
    """float32 [d + 1, d]: least squares with an intercept, its normal equations in float64."""
    import torch

    inputs = _with_one(hidden).double()
    penalty = RIDGE * torch.eye(inputs.shape[1], dtype=torch.float64)
    return torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets.double()).float()


def _idf(sample: _Sample) -> Tensor:
    """float32 [n_terms]: BM25's log(1 + (N - df + .5) / (df + .5)), divided by its greatest value."""
    idf = ((sample.documents - sample.df + 0.5) / (sample.df + 0.5)).log1p()
    scaled: Any = idf / idf.max()
    return scaled


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' loading bars and remarks: those on the head that is missing, those on its checkpoints."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
