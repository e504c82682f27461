"""What it costs to put adapters on all-MiniLM-L6-v2 and to take them off: `python benchmarks/adapter_switch.py`.

Beside it, loading the model anew. The first stack on a model costs its digest too; here that is done before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from run import alternate, table

from retriever.encoders.adapters.bottleneck import count_parameters
from retriever.encoders.adapters.files import AdapterSettings, body_digest, body_parameters, save_adapter
from retriever.encoders.adapters.mask import Change, to_tensors
from retriever.encoders.adapters.stack import Adapters
from retriever.encoders.models import DEFAULT_MODEL
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.training.learners import BottleneckLearner, LoraLearner
from retriever.training.settings import AdapterTraining

REDUCTION, RANK = 16, 8


def made(kind: str, model: Any, digest: str, folder: Path) -> str:
    """A folder with an adapter of this kind, its weights random."""
    import torch

    out = folder / kind
    out.mkdir()
    settings = AdapterTraining(kind=kind, role="encoder", base=DEFAULT_MODEL, reduction=REDUCTION, rank=RANK)
    if kind == "mask":
        parameters = body_parameters(model)
        share = count_parameters(384, 6, REDUCTION) / sum(value.numel() for value in parameters.values())
        counts = {name: max(1, round(share * value.numel())) for name, value in parameters.items()}
        changes = {
            name: Change(torch.randperm(parameters[name].numel())[:count], 0.01 * torch.randn(count))
            for name, count in counts.items()
        }
        options, tensors = {"count": sum(counts.values())}, to_tensors(changes)
    else:
        changed = copy.deepcopy(model).requires_grad_(False)
        learner = (LoraLearner if kind == "lora" else BottleneckLearner)(changed, settings)
        for value in changed.parameters():
            if value.requires_grad:
                torch.nn.init.normal_(value, std=0.01)
        options, tensors = learner.options, learner.save(out)
    save_adapter(out, AdapterSettings(kind, "ranking", DEFAULT_MODEL, digest, options), tensors)
    return str(out)


def main() -> None:
    """Print the table."""
    model = SentenceTransformerEncoder(DEFAULT_MODEL).model[0].auto_model
    digest = body_digest(model)
    adapters = Adapters(model, DEFAULT_MODEL)
    with TemporaryDirectory() as folder:
        kinds = {kind: made(kind, model, digest, Path(folder)) for kind in ("lora", "bottleneck", "mask")}
        stacks = {**kinds, "mask + bottleneck": f"{kinds['mask']} + {kinds['bottleneck']}", "none": None}
        adapters.use(kinds["mask"])
        switch: dict[str, Callable[[], Any]] = {name: partial(adapters.use, stack) for name, stack in stacks.items()}
        switch["the model, loaded anew"] = lambda: SentenceTransformerEncoder(DEFAULT_MODEL).model
        table("Switching to a stack", "switches", 1, alternate(switch, 5))
    adapters.use(None)
    print("the base is back bit for bit:", body_digest(model) == digest)


if __name__ == "__main__":
    main()
