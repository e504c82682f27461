"""Training of a small student of a sentence encoder, on texts alone (MiniLM; its losses: `texts.distillation`).

A student is the teacher with some of its layers, or smaller and with random weights. It keeps the teacher's tokenizer,
attention heads, pooling and prefixes. Where it is much smaller, the paper puts an assistant between the two, of the
teacher's depth and half its width: that is this training twice, the second time with the first student as the teacher.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retriever.encoders.batches import features, tokenize
from retriever.encoders.matformer import feed_forward_layers
from retriever.encoders.models import find_model
from retriever.encoders.sentence_transformer import prompt
from retriever.errors import InputError
from retriever.progress import bar
from retriever.training import course
from retriever.training.course import Trained
from retriever.training.settings import StudentTraining
from retriever.training.start import quiet
from retriever.training.texts import drawn
from retriever.training.texts.distillation import distillation_loss
from retriever.training.texts.masked import read_texts

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer


def train_student(settings: StudentTraining, out: Path) -> Trained:
    """Train and save a student in `out`, beside its settings and its log; goes on where a kill stopped it.

    Checkpoints are kept in `out` until the model is finished. With `dev`, the best checkpoint is what is saved.

    Raises: InputError for bad data or settings, a teacher that is no BERT or RoBERTa, and where `out` holds something
    else.
    """
    from sentence_transformers import SentenceTransformerTrainer

    course.check(settings)
    if course.is_finished(settings, out):
        return course.finished(out)
    dev, checkpoint = drawn.dev_parts(settings.dev, settings.seed), course.newest_checkpoint(out)
    teacher = drawn.load_encoder(find_model(settings.base))
    student = drawn.load_encoder(checkpoint) if checkpoint else make_student(teacher, settings)
    for model in (teacher, student):
        course.steady(model, model[0].auto_model, settings.train_length)
    loss = distillation_loss(student, _placed(teacher), settings.embedding)
    texts = read_texts(settings.texts)
    collator = Texts(texts, prompt(teacher, "document"), teacher.tokenizer, settings.train_length)
    course.keep(settings, out)
    with quiet(), bar("training", "steps", total=settings.steps):
        rows = {"text": _order(len(texts), settings)}
        course.train(drawn.trainer(SentenceTransformerTrainer, settings, out, loss, rows, collator, dev), out)
    course.finish(student, teacher.max_seq_length, out)
    note = f"{len(texts):,} texts, {collator.cut:,} of them cut to {settings.train_length} tokens"
    return Trained(out, [note, *course.kept(out)])


def make_student(teacher: SentenceTransformer, settings: StudentTraining) -> SentenceTransformer:
    """A student before its training: with layers of the teacher, or smaller and with random weights by the seed.

    Raises: InputError for a teacher that cannot be cut so, or more layers than it has.
    """
    layers = feed_forward_layers(teacher[0].auto_model, settings.base)
    student = copy.deepcopy(teacher)
    if settings.hidden is None:
        _cut(student[0].auto_model, _taken(settings, len(layers)))
    else:
        _begin_anew(student, settings, settings.hidden)
    return student


def _taken(settings: StudentTraining, count: int) -> Sequence[int]:
    """The teacher's layers, counted from 1, that the student's begin as."""
    wanted = settings.depth
    if not 1 <= wanted <= count:
        raise InputError(f"depth must be from 1 to the teacher's {count}, not {wanted}")
    taken = settings.taken or tuple(round(count * number / wanted) for number in range(1, wanted + 1))
    if len(taken) != wanted or not all(1 <= layer <= count for layer in taken):
        told = ", ".join(map(str, taken))
        raise InputError(f"taken names the teacher's layers, from 1 to {count}, for each of {wanted}; not {told}")
    return taken


def _cut(transformer: Any, taken: Sequence[int]) -> None:
    import torch

    layers = transformer.encoder.layer
    transformer.encoder.layer = torch.nn.ModuleList([copy.deepcopy(layers[number - 1]) for number in taken])
    transformer.config.num_hidden_layers = len(taken)


def _begin_anew(student: SentenceTransformer, settings: StudentTraining, hidden: int) -> None:
    """Put a random transformer of other sizes, and a pooling for it, in the places of the teacher's."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    config = copy.deepcopy(student[0].auto_model.config)
    if settings.depth < 1 or hidden < 1 or hidden % config.num_attention_heads or settings.taken:
        raise InputError(
            f"a student of depth={settings.depth} and hidden={hidden} cannot be made: expected at least one layer, a "
            f"multiple of the teacher's {config.num_attention_heads} heads, and taken=() for weights that are random"
        )
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = settings.depth, hidden, 4 * hidden
    torch.manual_seed(settings.seed)
    student[0].model = type(student[0].auto_model)(config)
    for name, module in list(student.named_children())[1:]:
        if isinstance(module, Pooling):
            setattr(student, name, Pooling(**{**module.get_config_dict(), "embedding_dimension": hidden}))
        elif not isinstance(module, Normalize):
            raise InputError(f"{settings.base}: has a {type(module).__name__} behind its pooling: leave hidden out")


def _placed(teacher: SentenceTransformer) -> SentenceTransformer:
    """The teacher as it stays: where the trainer will put the student, and without gradients."""
    import torch

    teacher.requires_grad_(requires_grad=False)
    return teacher.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _order(count: int, settings: StudentTraining) -> list[int]:
    """A text for each place in the training: all in random order, then all in another."""
    if not count:
        raise InputError("the texts are none: give collections with documents")
    chosen, taken = random.Random(settings.seed), list[int]()
    while len(taken) < settings.steps * settings.batch_size:
        taken += chosen.sample(range(count), count)
    return taken[: settings.steps * settings.batch_size]


class Texts:
    """Rows of numbers of texts as a batch. cut: texts of more than `length` tokens, special ones included."""

    valid_label_columns: Sequence[str] = ()

    def __init__(self, texts: Sequence[str], before: str, tokenizer: Any, length: int) -> None:
        tokens = tokenize(tokenizer, [before + text for text in texts], length)
        self.ids, self.cut, self.tokenizer = tokens.ids, tokens.truncated, tokenizer

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """int64 [n, longest]: ids and mask."""
        batch = features([self.ids[row["text"]] for row in rows], self.tokenizer, "cpu")
        return {f"text_{name}": tensor for name, tensor in batch.items()}
