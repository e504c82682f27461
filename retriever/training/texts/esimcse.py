"""ESimCSE: a sentence encoder learns from sentences alone (Wu et al., COLING 2022, arXiv 2109.04380).

A sentence and itself with some sub-words repeated are a pair. Dropout differs between the two, as in SimCSE; the
repetition keeps the encoder from telling pairs by their length. Negatives are the batch's other sentences, and the last
`queue` ones as a momentum encoder gave them. Both sides go through a small layer that is left off in the end.

What is repeated follows the paper's formula, as it is known second-hand (`repeated`); the authors' code differs. The
pooling is the base's own, the mean where it has none; theirs is the first token's state.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.encoders.batches import features
from retriever.encoders.models import find_model
from retriever.errors import InputError
from retriever.passages import sentence_spans
from retriever.progress import bar
from retriever.training import course
from retriever.training.course import Trained
from retriever.training.settings import EsimcseTraining
from retriever.training.start import quiet
from retriever.training.texts import drawn, momentum
from retriever.training.texts.masked import edges, read_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SHORTEST = 3
"""Tokens; what is shorter is a heading or a number, and no sentence."""
AT_LEAST = 2
"""The most sub-words that may be repeated is never less, however short the sentence (the paper's max(2, ...))."""


class Sentences(NamedTuple):
    """rows: token ids without special ones, each row once. cut, short: sentences that were cut, that were left out."""

    rows: list[list[int]]
    cut: int
    short: int


def train_esimcse(settings: EsimcseTraining, out: Path) -> Trained:
    """Train and save a sentence encoder in `out`, beside its settings and its log; goes on where a kill stopped it.

    Checkpoints hold the momentum encoder and its queue too, and are kept in `out` until the model is finished. With
    `dev`, the best checkpoint is what is saved.

    Raises: InputError for bad data or settings, and where `out` holds something else.
    """
    from sentence_transformers import SentenceTransformerTrainer

    _check(settings)
    if course.is_finished(settings, out):
        return course.finished(out)
    dev, checkpoint = drawn.dev_parts(settings.dev, settings.seed), course.newest_checkpoint(out)
    model = drawn.load_encoder(checkpoint or find_model(settings.base), settings.seed)
    _check_room(settings, model)
    sentences = read_sentences(read_texts(settings.texts), model.tokenizer, settings.train_length)
    rows, collator = _rows(len(sentences.rows), settings), Pairs(settings, sentences, model.tokenizer)
    loss = momentum.contrast(model, settings, checkpoint)
    course.keep(settings, out)
    kind, length = momentum.keeping(SentenceTransformerTrainer, loss), model.max_seq_length
    with quiet(), bar("training", "steps", total=settings.steps):
        course.train(drawn.trainer(kind, settings, out, loss, rows, collator, dev), out)
    course.finish(model, length, out)
    note = f"{len(sentences.rows):,} sentences, {sentences.cut:,} of them cut to {settings.train_length} tokens"
    left = f"left out: {sentences.short:,} of less than {SHORTEST} tokens"
    return Trained(out, [f"{note}; {left}", *course.kept(out)])


def _check(settings: EsimcseTraining) -> None:
    course.check(settings)
    if settings.batch_size < 2:
        raise InputError("batch_size must be at least 2, not 1: the other sentences of a batch are the negatives")
    for name in ("repetition", "momentum"):
        if not 0 <= getattr(settings, name) <= 1:
            raise InputError(f"{name} must be from 0 to 1, not {getattr(settings, name)}")
    if settings.queue < 0 or (settings.most_repeated or 0) < 0:
        raise InputError("queue and most_repeated must be at least 0")
    if settings.temperature <= 0:
        raise InputError(f"temperature must be above 0, not {settings.temperature}")


def _check_room(settings: EsimcseTraining, model: SentenceTransformer) -> None:
    """Repetitions come on top of `train_length`."""
    positions = getattr(model[0].auto_model.config, "max_position_embeddings", None)
    most = settings.train_length + max(AT_LEAST, int(settings.repetition * settings.train_length))
    if positions and most > positions:
        raise InputError(
            f"train_length {settings.train_length} may grow to {most} tokens by repetition, and the base has positions "
            f"for {positions}: lower it"
        )


def read_sentences(texts: Sequence[str], tokenizer: Any, length: int) -> Sentences:
    """The sentences of texts (`passages.sentence_spans`), cut so that they have `length` tokens with special ones."""
    size = length - sum(map(len, edges(tokenizer)))
    if size < SHORTEST:
        raise InputError(f"train_length {length} leaves no room for a sentence: give more")
    found = list(dict.fromkeys(text[start:stop] for text in texts for start, stop in sentence_spans(text).tolist()))
    whole = tokenizer(found, add_special_tokens=False, verbose=False)["input_ids"] if found else []
    kept = [row for row in whole if len(row) >= SHORTEST]
    rows = list(map(list, dict.fromkeys(tuple(row[:size]) for row in kept)))
    return Sentences(rows, sum(len(row) > size for row in kept), len(whole) - len(kept))


def repeated(ids: Sequence[int], rate: float, most: int | None, chosen: random.Random) -> list[int]:
    """A sentence's tokens, some of them twice in a row: k of N, k uniform in [0, max(2, int(rate N))], at most `most`.

    ids: without special tokens, which are never repeated. A rate of 0 repeats nothing. The authors' code has another
    k: uniform in [0, min(10, int(rate n))), n with special tokens.
    """
    limit = min(max(AT_LEAST, int(rate * len(ids))) if rate else 0, len(ids), len(ids) if most is None else most)
    places = {*chosen.sample(range(len(ids)), chosen.randint(0, limit))}
    return [token for at, token in enumerate(ids) for _ in range(1 + (at in places))]


class Pairs:
    """Rows of numbers of sentences and of draws as a batch of pairs; a draw's number alone decides what is repeated."""

    valid_label_columns: Sequence[str] = ()

    def __init__(self, settings: EsimcseTraining, sentences: Sentences, tokenizer: Any) -> None:
        self.settings, self.rows, self.tokenizer = settings, sentences.rows, tokenizer
        self.before, self.behind = edges(tokenizer)

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """int64 [n, longest]: ids and mask of the originals and of those with repetitions."""
        plain = [self.rows[row["sentence"]] for row in rows]
        told = self.settings
        draws = (random.Random(f"{told.seed} {row['draw']}") for row in rows)
        twice = [
            repeated(ids, told.repetition, told.most_repeated, draw) for ids, draw in zip(plain, draws, strict=True)
        ]
        return {
            f"{kind}_{name}": tensor
            for kind, texts in (("original", plain), ("repeated", twice))
            for name, tensor in features(
                [[*self.before, *ids, *self.behind] for ids in texts], self.tokenizer, "cpu"
            ).items()
        }


def _rows(count: int, settings: EsimcseTraining) -> dict[str, list[int]]:
    """A sentence for each place in the training: all in random order, then all in another. No batch has one twice."""
    if count < settings.batch_size:
        raise InputError(f"{count} sentences are too few for a batch of {settings.batch_size}: lower batch_size")
    chosen, taken = random.Random(settings.seed), list[int]()
    wanted = settings.steps * settings.batch_size
    while len(taken) < wanted:
        taken += chosen.sample(range(count), count - count % settings.batch_size)
    return {"sentence": taken[:wanted], "draw": list(range(wanted))}
