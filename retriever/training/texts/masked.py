"""Masked-language modelling of a collection's texts: what is shared by whole models and by language adapters.

A text is cut into blocks of like length, each read alone, as a search encodes it. One token in seven is to be predicted
(Devlin et al., NAACL 2019: of these 80 % are shown as the mask, 10 % as another token, 10 % as they are). Which ones,
depends on the seed and on the block's place in the training alone, never on what ran before: a training that goes on
where it was killed masks the same tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.corpus import read_corpus
from retriever.errors import InputError
from retriever.training import course

if TYPE_CHECKING:
    from torch import Tensor

    from retriever.training.settings import TextTraining, Training

MEASURE = "loss"
"""The lowest on texts that are held out decides the best checkpoint."""
RATE = 0.15
HELD_OUT, MOST_HELD_OUT = 20, 512
"""One block of so many is not trained on but measured, up to a limit that can be read between steps."""


class Blocks(NamedTuple):
    """rows: token ids, special ones included. texts: how many they are of. empty: texts without a token, left out."""

    rows: list[list[int]]
    texts: int
    empty: int


class Parts(NamedTuple):
    """trained: a row for each block of each step, in the order of training. measured: those held out."""

    trained: list[dict[str, Any]]
    measured: list[dict[str, Any]]


def read_texts(sources: Iterable[str | Path]) -> list[str]:
    """The texts of collections, as `retriever index` reads them, each once; judgements are not read.

    Raises: InputError naming file and line, and where there is no text.
    """
    texts = list(dict.fromkeys(document.contents for source in sources for document in read_corpus(source)))
    if not texts:
        raise InputError("there is nothing to train on: give at least one collection with texts")
    return texts


def token_blocks(texts: Sequence[str], tokenizer: Any, length: int) -> Blocks:
    """Every text as blocks of at most `length` tokens, none much shorter than the others of its text."""
    before, behind = edges(tokenizer)
    size = length - len(before) - len(behind)
    if size < 1:
        raise InputError(f"train_length {length} leaves no room for a token of the text: give more")
    special = {*tokenizer.all_special_ids}
    rows, empty = [], 0
    for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]:
        found = [[*before, *part, *behind] for part in _even(ids, size) if not special.issuperset(part)]
        empty += not found
        rows += found
    return Blocks(rows, len(texts), empty)


def edges(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before a text and behind it."""
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    first = next(at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
    return whole[:first], whole[first + len(plain) :]


def _even(ids: Sequence[int], size: int) -> list[list[int]]:
    count = -(-len(ids) // size)
    ends = [len(ids) * number // count for number in range(count + 1)] if count else []
    return [list(ids[start:stop]) for start, stop in zip(ends, islice(ends, 1, None), strict=False)]


def parts(blocks: Blocks, steps: int, batch_size: int, seed: int) -> Parts:
    """What is trained on and what is measured, by the seed. Raises: InputError where there is too little of either."""
    if len(blocks.rows) < 2:
        raise InputError(f"the data make {len(blocks.rows)} blocks of tokens; at least 2 are needed: give more texts")
    chosen = random.Random(seed)
    order = chosen.sample(range(len(blocks.rows)), len(blocks.rows))
    held_out = min(MOST_HELD_OUT, -(-len(order) // HELD_OUT))
    measured, rest = order[:held_out], order[held_out:]
    wanted = steps * batch_size
    taken: list[int] = []
    while len(taken) < wanted:
        taken += chosen.sample(rest, len(rest))
    return Parts(
        *(
            [{"ids": blocks.rows[row], "draw": draw} for draw, row in enumerate(rows)]
            for rows in (taken[:wanted], measured)
        )
    )


def note(blocks: Blocks, given: Parts) -> str:
    """What the training takes from the texts, and what it leaves out."""
    return (
        f"{blocks.texts:,} texts in {len(blocks.rows):,} blocks of tokens, {len(given.measured):,} of them held out to "
        f"measure the loss; left out: {blocks.empty:,} texts without a token that the model knows"
    )


class Masking:
    """Rows of `Parts` as a batch with `labels`, at least one token of which is to be predicted."""

    def __init__(self, tokenizer: Any, seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed
        if tokenizer.mask_token is None:
            raise InputError("the tokenizer has no mask token, so its model cannot be trained by masking tokens")

    @cached_property
    def _mask(self) -> Any:
        from transformers import DataCollatorForLanguageModeling

        return DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=RATE)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """int64 [n, longest]: input_ids, attention_mask and labels (-100 where nothing is to be predicted)."""
        import torch

        # seeds that differ in few bits give generators that start alike, so they are mixed
        mixed = random.Random(f"{self.seed} {rows[0]['draw']}").getrandbits(63)
        self._mask.generator = torch.Generator().manual_seed(mixed)
        while True:
            batch = dict(self._mask([{"input_ids": row["ids"]} for row in rows]))
            if (batch["labels"] >= 0).any():
                return batch


def predicted(model: Any, batch: Mapping[str, Any], **more: Any) -> Any:
    """What a model of transformers makes of a batch, its own loss with it; its logits are float32 [n masked, n words].

    For a model whose vocabulary is its output embeddings, as BERT's, and whose loss takes any number of rows. The rows
    of other tokens, six in seven, would cost as much as all the layers of a small model and count for nothing.
    """
    chosen = batch["labels"] >= 0
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, given: (given[0][chosen],))
    try:
        return model(**{**batch, "labels": batch["labels"][chosen]}, **more)
    finally:
        handle.remove()


def trainer(
    model: Any,
    settings: Training | TextTraining,
    out: Path,
    tokenizer: Any,
    given: Parts,
    beside: Callable[[Tensor, Mapping[str, Any]], Tensor] | None = None,
) -> Any:
    """A trainer of transformers for the model, which computes its own loss from `labels`.

    beside: a loss that is added in training, of the last hidden states, [n, length, d], and the batch. To be run by
    `course.train`. The best checkpoint is that with the least loss of the masked words alone on the blocks held out.
    """
    from transformers import Trainer, TrainingArguments

    class Filling(Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs = predicted(model, inputs, output_hidden_states=beside is not None)
            loss = outputs.loss
            if beside and model.training:
                loss = loss + beside(outputs.hidden_states[-1], inputs)
            return (loss, outputs) if return_outputs else loss

    told = course.arguments(settings, out, measure=MEASURE)
    told.pop("multi_dataset_batch_sampler")  # is of sentence-transformers' trainers
    return Filling(
        model=model,
        args=TrainingArguments(
            **told,
            per_device_eval_batch_size=settings.batch_size,
            remove_unused_columns=False,  # the collator reads them
            train_sampling_strategy="sequential",  # `Parts` are in the order of training
            prediction_loss_only=True,
        ),
        data_collator=Masking(tokenizer, settings.seed),
        train_dataset=given.trained,
        eval_dataset=given.measured,
        processing_class=tokenizer,
        callbacks=course.callbacks(out, measured=True),
    )
