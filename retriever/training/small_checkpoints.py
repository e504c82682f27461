"""Checkpoints of what is trained alone: of an adapter a few MB, where those of the libraries hold the whole model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

FILE = "trained.safetensors"


def small_checkpoints(trainer: Any) -> Any:
    """The trainer, of transformers or sentence-transformers, with checkpoints of the parameters that have a gradient.

    They are loaded into a model that was made in the same way.
    """
    trainer._save = partial(_save, trainer)
    trainer._load_from_checkpoint = partial(_load, trainer)
    trainer._load_best_model = lambda: _load(trainer, trainer.state.best_model_checkpoint)
    return trainer


def _save(trainer: Any, output_dir: str | None = None, state_dict: Any = None) -> None:
    from safetensors.torch import save_file

    folder = Path(output_dir or trainer.args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    trained = {name: each for name, each in trainer.model.named_parameters() if each.requires_grad}
    save_file({name: each.detach().cpu().contiguous() for name, each in trained.items()}, folder / FILE)


def _load(trainer: Any, checkpoint: str, model: Any = None) -> None:
    import torch
    from safetensors.torch import load_file

    parameters = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(Path(checkpoint) / FILE).items():
            parameters[name].copy_(value)
