"""How token embeddings are computed: the small, replaceable part of an encoder.

A runtime takes batches of features (`input_ids` and `attention_mask`, int64 tensors [n, length]) and gives each back,
in order, with `token_embeddings` (float32 [n, length, d]) added. What it added is valid until the next is asked for.
bfloat16 is used where the processor multiplies it in hardware; elsewhere it would be slower than float32.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

Features = dict[str, Any]
PRECISIONS = ("auto", "float32")


@dataclass(frozen=True)
class Runtime:
    """name: for reports; token_budget: tokens of one batch, padding included (`benchmarks/encode.py` shows why)."""

    name: str
    token_budget: int
    run: Callable[[Iterable[Features]], Iterator[Features]]


def torch_runtime(model: SentenceTransformer, *, bfloat16: bool) -> Runtime:
    """The model as it is, or with its transformer's weights turned into bfloat16 for good."""
    import torch

    transformer: Any = model[0].auto_model
    if bfloat16:
        transformer.to(torch.bfloat16)

    def run(batches: Iterable[Features]) -> Iterator[Features]:
        for batch in batches:
            hidden = transformer(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
            yield {**batch, "token_embeddings": hidden.float()}

    device = model.device.type
    return Runtime(
        f"torch {'bfloat16' if bfloat16 else 'float32'} on {device}", 2048 if device == "cpu" else 65_536, run
    )


def openvino_runtime(model: SentenceTransformer) -> Runtime | None:
    """The transformer compiled by OpenVINO in bfloat16; None where the extra `fast` is not installed.

    Tracing takes seconds: worth it for many texts, not for a query.
    """
    try:
        import openvino
        from openvino.frontend import FrontEndManager  # openvino.convert_model reports its use over the network
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    except ImportError:
        return None
    import torch

    class Traced(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, transformer: Any) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, ids: Tensor, mask: Tensor) -> Any:
            return self.transformer(input_ids=ids, attention_mask=mask)[0]

    example = torch.ones(2, 16, dtype=torch.int64)
    frontend = FrontEndManager().load_by_framework("pytorch")
    with _quiet():
        traced = TorchScriptPythonDecoder(Traced(model[0].auto_model).eval(), example_input=(example, example))
        graph = frontend.convert(frontend.load(traced))
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    requests = [
        compiled.create_infer_request() for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    ]

    def run(batches: Iterable[Features]) -> Iterator[Features]:
        waiting: deque[tuple[Any, Features]] = deque()  # one batch a core: what follows a batch runs beside the others
        for number, batch in enumerate(batches):
            if len(waiting) == len(requests):
                yield finished(*waiting.popleft())
            request = requests[number % len(requests)]
            request.start_async([batch["input_ids"].numpy(), batch["attention_mask"].numpy()], share_inputs=True)
            waiting.append((request, batch))
        while waiting:
            yield finished(*waiting.popleft())

    def finished(request: Any, batch: Features) -> Features:
        request.wait()
        return {**batch, "token_embeddings": torch.from_numpy(request.get_output_tensor(0).data)}

    return Runtime("openvino bfloat16 on cpu", 1024, run)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracer's warning of every constant shape it folds, and transformers' remarks on the trace."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def has_bfloat16(device: str) -> bool:
    """Whether a device ("cpu", "cuda", ...) multiplies bfloat16 in hardware."""
    import torch

    if device == "cpu":
        known = torch.cpu.get_capabilities()
        return any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return device == "cuda" and torch.cuda.is_bf16_supported()
