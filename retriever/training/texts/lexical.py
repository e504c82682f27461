"""Lexical specialization: an encoder learns which words mean the same (Green et al., ACL 2023, BabelBERT).

Words are read alone, and a word's vector is the mean of its sub-words' last hidden states, without special tokens. The
two words of a pair are told from the other words of the batch by NT-Xent over cosines. A batch holds one pair of a
group, and so SupCon would be the same loss. How pairs are drawn: `lexicon.draw`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.encoders.batches import features, tokenize
from retriever.encoders.models import find_model
from retriever.errors import InputError
from retriever.progress import bar
from retriever.training import course
from retriever.training.course import Trained
from retriever.training.settings import LexicalTraining
from retriever.training.start import quiet
from retriever.training.texts import drawn
from retriever.training.texts.lexicon import WordPair, draw, read_words
from retriever.training.texts.masked import edges

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor


def train_lexical(settings: LexicalTraining, out: Path) -> Trained:
    """Train and save an encoder in `out`, beside its settings and its log; goes on where a kill stopped it.

    Only the transformer learns; pooling and what else the base has stay as they are. Checkpoints are kept in `out`
    until the model is finished. With `dev`, the best checkpoint is what is saved.

    Raises: InputError for bad data or settings, and where `out` holds something else.
    """
    from sentence_transformers import SentenceTransformerTrainer

    _check(settings)
    if course.is_finished(settings, out):
        return course.finished(out)
    lexicon = read_words(settings.words)
    pairs = draw(lexicon, settings.steps, settings.batch_size, settings.language_smoothing, settings.seed)
    dev = drawn.dev_parts(settings.dev, settings.seed)
    model = drawn.load_encoder(course.newest_checkpoint(out) or find_model(settings.base), settings.seed)
    collator = Words(pairs, model.tokenizer, settings.train_length)
    course.keep(settings, out)
    loss, rows = contrast(model, settings.temperature), {"pair": [*range(len(pairs))]}
    length = model.max_seq_length
    with quiet(), bar("training", "steps", total=settings.steps):
        given = (SentenceTransformerTrainer, settings, out, loss, rows, collator, dev)
        course.train(drawn.trainer(*given, warmup_steps=0), out)
    course.finish(model, length, out)
    count = sum(map(len, lexicon.words))
    note = f"{count:,} words in {len(lexicon.words):,} groups, {collator.cut:,} of those drawn cut to "
    note += f"{settings.train_length} tokens; left out: {lexicon.alone:,} groups of one word"
    return Trained(out, [note, *course.kept(out)])


def _check(settings: LexicalTraining) -> None:
    course.check(settings)
    if settings.batch_size < 2:
        raise InputError("batch_size must be at least 2, not 1: the other pairs of a batch are the negatives")
    if settings.temperature <= 0:
        raise InputError(f"temperature must be above 0, not {settings.temperature}")


class Words:
    """Rows of numbers of pairs as a batch. cut: words that are longer than `length` tokens, special ones included."""

    valid_label_columns: Sequence[str] = ()

    def __init__(self, pairs: Sequence[WordPair], tokenizer: Any, length: int) -> None:
        special = sum(map(len, edges(tokenizer)))
        if length <= special:
            raise InputError(f"train_length {length} leaves no room for a word: give more")
        self.pairs, self.tokenizer = pairs, tokenizer
        words = list(dict.fromkeys(word for pair in pairs for word in pair[1:]))
        tokens = tokenize(tokenizer, words, length)
        self.ids, self.cut = dict(zip(words, tokens.ids, strict=True)), tokens.truncated
        if empty := [word for word, ids in self.ids.items() if len(ids) <= special]:
            raise InputError(f"the word {empty[0]!r} has no token that the model knows: take it out of the file")

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """int64 [n, longest]: ids and mask of the first words and of the second."""
        pairs = [self.pairs[row["pair"]] for row in rows]
        return {
            f"{place}_{name}": tensor
            for place in ("first", "second")
            for name, tensor in features(
                [self.ids[getattr(pair, place)] for pair in pairs], self.tokenizer, "cpu"
            ).items()
        }


def contrast(model: SentenceTransformer, temperature: float) -> Any:
    """The loss, a module: of the `model`, only the transformer is used."""
    import torch

    before, behind = map(len, edges(model.tokenizer))

    class Contrast(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, texts: list[dict[str, Any]], labels: Any = None) -> Tensor:
            first, second = (
                word_vectors(self.model[0](dict(text))["token_embeddings"], text["attention_mask"], before, behind)
                for text in texts
            )
            return nt_xent(first, second, temperature)

    return Contrast()


def word_vectors(hidden: Tensor, mask: Tensor, before: int, behind: int) -> Tensor:
    """float32 [n, d]: the mean of a text's hidden states but for its first and last special tokens.

    hidden: [n, length, d]; mask: [n, length], 0 where padded, on either side. before, behind: special tokens there.
    """
    place = mask.cumsum(dim=1)  # from 1 on
    inner = mask.bool() & (place > before) & (place <= place[:, -1:] - behind)
    weights = inner.unsqueeze(-1).float()  # [n, length, 1]
    mean: Tensor = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
    return mean


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent (Chen et al., ICML 2020): each of the 2 n vectors against its partner, among all others, by cosine.

    first, second: float32 [n, d], row by row the pairs.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    both = normalize(torch.cat([first, second]), dim=1)  # [2 n, d]
    scores = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(both), device=both.device).roll(len(first))
    return cross_entropy(scores, partners)
