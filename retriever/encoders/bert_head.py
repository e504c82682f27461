"""BERT with a head that gives each token one number, from a checkpoint's files: nothing in it is ever random."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from retriever.encoders.batches import Tokens, hidden_states, tokenize
from retriever.encoders.models import find_model, weights_digest
from retriever.encoders.runtime import Runtimes
from retriever.errors import InputError
from retriever.types import Floats

_FILES = ("model.safetensors", "pytorch_model.bin")
_WORDS = "embeddings.word_embeddings.weight"


class BertHead:
    """A folder with config.json, a tokenizer, and model.safetensors or pytorch_model.bin.

    head: the name of the head's parameters. layers: makes the head for a width of d; its last layer has one output.
    limit: tokens that the method's reference reads at most, where it reads fewer than the model could.
    BERT's own parameters may stand under any prefix ("bert.", "model.", none). A file may hold the parameters
    themselves or a training checkpoint with them under "model_state_dict".
    """

    def __init__(self, name: str, precision: str, head: str, layers: Callable[[int], Any], limit: int | None) -> None:
        self.name, self.precision, self.head, self.layers, self.limit = name, precision, head, layers, limit
        self.folder = find_model(name)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's own. Raises: InputError where it has none: transformers would give an empty one."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        from transformers import AutoTokenizer

        missing = InputError(
            f"{self.folder}: holds no tokenizer; put the files of the one it was trained with there (for the published "
            "models those of bert-base-uncased)"
        )
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError):
            raise missing from None
        if not any((self.folder / file).is_file() for file in tokenizer.vocab_files_names.values()):
            raise missing
        return tokenizer

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json."""
        path = self.folder / "config.json"
        if not path.is_file():
            raise InputError(f"{self.folder}: has no config.json; for the published models that of bert-base-uncased")
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (kind := config.get("model_type", "bert")) != "bert":
            raise InputError(f"{self.folder}: is of type {kind!r}; expected 'bert'")
        return config

    @cached_property
    def max_length(self) -> int:
        """Tokens that are read of a text, special ones included."""
        places = self.config.get("max_position_embeddings", 512)
        return int(min(self.limit or places, places, self.tokenizer.model_max_length))

    @cached_property
    def weights(self) -> str:
        """SHA-256 over the checkpoint's weight files and tokenizer."""
        return weights_digest(self.folder)

    def identity(self) -> dict[str, Any]:
        """What decides the numbers, but for the method that uses them."""
        return {"model": self.name, "weights": self.weights, "head": self.head, "max_length": self.max_length}

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """With [CLS] and [SEP]."""
        return tokenize(self.tokenizer, list(texts), self.max_length)

    def numbers(self, ids: Sequence[Sequence[int]], progress: Callable[[float], None]) -> list[Floats]:
        """float32 [tokens] for each text, its special tokens included; `progress` is told how many each batch held."""
        import torch

        runtimes, head = self._parts
        numbers: list[Any] = [None] * len(ids)
        with torch.inference_mode():
            for place, features in hidden_states(ids, self.tokenizer, runtimes):
                mask = features["attention_mask"].bool()
                flat = head(features["token_embeddings"][mask]).squeeze(-1).cpu().numpy()  # [tokens of the batch]
                ends = np.cumsum([len(ids[i]) for i in place])
                for i, own in zip(place, np.split(flat, ends[:-1]), strict=True):
                    numbers[i] = own
                progress(len(place))
        return numbers

    @cached_property
    def _parts(self) -> tuple[Runtimes, Any]:
        """BERT's runtimes and the head."""
        import torch
        from transformers import BertConfig, BertModel

        config = BertConfig(**self.config)
        bert, head = BertModel(config, add_pooling_layer=False), self.layers(config.hidden_size)
        parameters = self._parameters()
        self._fill(bert, "BERT", _below(parameters, _prefix(parameters)), partly=True)
        self._fill(head, self.head, _below(parameters, self.head + "."))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return Runtimes(bert.eval().to(device), device, self.precision), head.eval().to(device)

    def _parameters(self) -> dict[str, Any]:
        """All of the checkpoint's, float32."""
        import torch
        from safetensors.torch import load_file

        path = next((self.folder / name for name in _FILES if (self.folder / name).is_file()), None)
        if path is None:
            raise InputError(f"{self.folder}: has neither {' nor '.join(_FILES)}")
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
        parameters: dict[str, Any] = held.get("model_state_dict", held)
        return parameters

    def _fill(self, module: Any, what: str, parameters: Mapping[str, Any], *, partly: bool = False) -> None:
        """Give a module its parameters: all of them, and the right ones.

        partly: there may be other ones too, but not of more layers.
        """
        expected = module.state_dict()
        given = {name: tensor for name, tensor in parameters.items() if name in expected or not _other(name, partly)}
        for problem, names in {"lacks": expected.keys() - given, "has too many:": given.keys() - expected}.items():
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise InputError(
                    f"{self.folder}: of the parameters of {what} it {problem} {min(names)}{more}; expected a "
                    f"checkpoint with those of BERT and of {self.head}"
                )
        try:
            module.load_state_dict(given)
        except RuntimeError as problem:
            raise InputError(f"{self.folder}: config.json does not fit the weights of {what}: {problem}") from None


def _other(name: str, partly: bool) -> bool:
    """Whether a parameter may stand beside those of BERT: another head's, the pooler's, the positions' numbers."""
    return partly and (not name.startswith(("embeddings.", "encoder.")) or name.endswith("position_ids"))


def _prefix(parameters: Mapping[str, Any]) -> str:
    return next((name.removesuffix(_WORDS) for name in parameters if name.endswith(_WORDS)), "")


def _below(parameters: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in parameters.items() if name.startswith(prefix)}
