"""What each kind of adapter trains in a frozen model, and the tensors that are kept of it.

A learner is made with a model of transformers whose parameters are frozen (but the head's, where it learns too). It
thaws or puts in what it trains, and has the options of adapter.json.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from retriever.encoders.adapters.bottleneck import (
    attach,
    attach_invertible,
    count_parameters,
    last_norms,
    new_adapter,
)
from retriever.encoders.adapters.files import body_of, body_parameters
from retriever.encoders.adapters.lora import check_peft, quietly
from retriever.encoders.adapters.mask import choose, difference, to_tensors
from retriever.store.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from retriever.training.settings import AdapterTraining


class Learner(Protocol):
    """options: of adapter.json. size: how many parameters the adapter has."""

    options: dict[str, Any]
    size: int

    def __init__(self, model: Any, settings: AdapterTraining) -> None: ...

    def save(self, out: Path) -> dict[str, Tensor]:
        """Write what files the kind has of its own. Returns the tensors of adapter.safetensors."""


class BottleneckLearner:
    """A language's has an invertible adapter too, where the settings say so."""

    def __init__(self, model: Any, settings: AdapterTraining) -> None:
        norms = last_norms(model)
        invertible = settings.role == "language" and settings.invertible
        width = norms[0].normalized_shape[0]
        self._adapter = new_adapter(width, len(norms), settings.reduction, invertible=invertible)
        attach(model, [self._adapter])
        if invertible:
            attach_invertible(model, self._adapter["invertible"])
        self.options = {
            "width": width,
            "layers": len(norms),
            "reduction": settings.reduction,
            "invertible": invertible,
        }
        self.size = sum(value.numel() for value in self._adapter.parameters())

    def save(self, out: Path) -> dict[str, Tensor]:
        """The weights of all bottlenecks."""
        weights: dict[str, Tensor] = self._adapter.state_dict()
        return weights


class LoraLearner:
    """On every linear layer of the body, its pooler left out; PEFT's files, as PEFT itself loads them onto the body."""

    def __init__(self, model: Any, settings: AdapterTraining) -> None:
        check_peft()
        from peft import LoraConfig, get_peft_model
        from torch.nn import Linear

        body = body_of(model)
        linear = [name for name, module in body.named_modules() if isinstance(module, Linear)]
        self._config = LoraConfig(
            r=settings.rank,
            lora_alpha=2 * settings.rank,
            target_modules=[name for name in linear if not name.startswith("pooler.")],
        )
        with quietly():
            self._model = get_peft_model(body, self._config)
        self._config.base_model_name_or_path = settings.base
        self.options = {"rank": settings.rank}
        self.size = sum(value.numel() for value in body.parameters() if value.requires_grad)

    def save(self, out: Path) -> dict[str, Tensor]:
        """Writes PEFT's two files; adapter.safetensors has nothing of it."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        state = get_peft_model_state_dict(self._model, save_embedding_layers=False)  # else it asks the hub
        with replacing(out / "adapter_model.safetensors") as temporary:
            save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary)
        self._config.inference_mode = True
        self._config.save_pretrained(str(out))
        return {}


class MaskLearner:
    """LT-SFT: all of the body but its norms learns, until `select` keeps the places that moved most and everything goes
    back to where it began; from then on only these places learn.

    As many as a bottleneck adapter of this reduction has parameters, which is how the paper sets them beside each
    other. The L1 penalty is the mean |theta - theta_start| over the body, put in as its gradient: the loss in the log
    is without it.
    """

    def __init__(self, model: Any, settings: AdapterTraining) -> None:
        import torch

        norms = {
            id(value)
            for module in model.modules()
            if isinstance(module, torch.nn.LayerNorm)
            for value in module.parameters()
        }
        self._body = {name: value for name, value in body_parameters(model).items() if id(value) not in norms}
        for value in self._body.values():
            value.requires_grad_(True)
        self._trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._start = {name: value.detach().clone() for name, value in self._trained.items()}
        self._before = {name: value.detach().clone() for name, value in self._body.items()}
        self._masks: dict[str, Tensor] = {}
        self._penalty = settings.l1 / sum(value.numel() for value in self._body.values())
        for name, value in self._body.items():
            value.register_hook(partial(self._gradient, name))
        config = model.config
        self.size = count_parameters(
            config.hidden_size,
            config.num_hidden_layers,
            settings.reduction,
            invertible=settings.role == "language" and settings.invertible,
        )
        self.options = {"count": self.size}

    def _gradient(self, name: str, gradient: Tensor) -> Tensor:
        if self._penalty:
            before = self._before[name] = self._before[name].to(gradient.device)
            gradient = gradient + self._penalty * (self._body[name].detach() - before).sign()
        if name in self._masks:
            mask = self._masks[name] = self._masks[name].to(gradient.device)
            gradient = gradient * mask
        return gradient

    def select(self, path: Path) -> None:
        """Choose the places by what training has changed, and keep them in a file."""
        from safetensors.torch import save_file

        differences = {name: value.detach().cpu() - self._before[name].cpu() for name, value in self._body.items()}
        with replacing(path) as temporary:
            save_file(choose(differences, self.size), temporary)

    def rewind(self, path: Path) -> None:
        """Go back to the start, and train the chosen places alone."""
        import torch
        from safetensors.torch import load_file

        with torch.no_grad():
            for name, value in self._trained.items():
                value.copy_(self._start[name])
        self._masks = dict(load_file(path))

    def save(self, out: Path) -> dict[str, Tensor]:
        """The sparse difference from the start: what an adapter below brought is not in it."""
        body = {name: value.detach().cpu() for name, value in self._body.items()}
        return to_tensors(difference(body, {name: value.cpu() for name, value in self._before.items()}))


LEARNERS: dict[str, type[Learner]] = {"lora": LoraLearner, "bottleneck": BottleneckLearner, "mask": MaskLearner}
