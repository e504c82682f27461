"""Models and tokenizers as transformers loads them, with what is wrong said in our words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retriever.errors import InputError

_FAILURES = (OSError, ValueError, KeyError, ImportError)


def load_model(kind: Any, folder: Path, what: str) -> Any:
    """A model in float32 and eval mode, on the best device there is. kind: the transformers class that loads it.

    Raises: InputError where the folder holds no such model, or not all of its weights, which would then be random.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading bars would write into pipes
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # the report of what is missing is ours
    try:
        model, report = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except _FAILURES as problem:
        reason = str(problem).partition("\nModel type should be one of")[0]  # a list of every model there is
        raise InputError(f"{folder}: is no {what} that can be loaded: {reason}") from None
    finally:
        logging.set_verbosity(level)
    if missing := report["missing_keys"]:
        raise InputError(f"{folder}: is no {what}: it has no weights for {min(missing)}")
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(folder: Path) -> Any:
    """A model's tokenizer. Raises: InputError where its folder holds none: transformers would give an empty one."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except _FAILURES as problem:
        raise InputError(f"{folder}: holds no tokenizer that can be loaded: {problem}") from None
    files = tokenizer.vocab_files_names.values()
    if files and not any((folder / name).is_file() for name in files):
        raise InputError(
            f"{folder}: holds no tokenizer: none of {', '.join(files)}; put the files of the one that the model was "
            "trained with there (for ielab/TILDE those of bert-base-uncased)"
        )
    return tokenizer
