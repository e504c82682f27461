"""How token embeddings are computed: the small, replaceable part of an encoder.

A runtime takes batches of features (int64 tensors [n, length]: `input_ids`, `attention_mask`, and for pairs of texts
`token_type_ids`) and gives each back, in order, with `token_embeddings` (float32 [n, length, d]) added. What it added
is valid until the next is asked for.
bfloat16 is used where the processor multiplies it in hardware; elsewhere it would be slower than float32.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Features = dict[str, Any]
Run = Callable[[Iterable[Features]], Iterator[Features]]
PRECISIONS = ("auto", "float32")
INPUTS = ("input_ids", "attention_mask")
COMPILE = 20_000
"""From so many tokens on, compiling the model first (about a second) pays."""
_AGREEMENT = 0.999
"""Least cosine between a compiled model's vectors and the model's own: above it is bfloat16, below it a wrong trace."""
_AGREEMENT_OF_ONE = 0.995
"""The same where the model gives the first token alone: there is no mean to round off what bfloat16 does to it."""


@dataclass(frozen=True)
class Runtime:
    """name: for reports; token_budget: tokens of one batch, padding included (`benchmarks/encode.py` shows why)."""

    name: str
    token_budget: int
    run: Run


class Runtimes:
    """A transformer's runtimes: compiled for many tokens where that is faster, as it is for few.

    device: the torch.device it is on. precision: "auto" (bfloat16 where the hardware has it) or "float32". inputs: the
    features that it is given.
    """

    def __init__(self, transformer: Any, device: Any, precision: str, inputs: Sequence[str] = INPUTS) -> None:
        self.transformer, self.device, self.inputs = transformer, device, inputs
        self.bfloat16 = precision != "float32" and has_bfloat16(device.type)

    @cached_property
    def _compiled(self) -> Runtime | None:
        return openvino_runtime(self.transformer, self.inputs) if self.bfloat16 and self.device.type == "cpu" else None

    @cached_property
    def _plain(self) -> Runtime:
        # OpenVINO compiles the float32 weights, so they stay as they are where it is installed
        bfloat16 = self.bfloat16 and find_spec("openvino") is None
        return torch_runtime(self.transformer, self.device.type, bfloat16=bfloat16, inputs=self.inputs)

    def of(self, tokens: int) -> Runtime:
        """What computes so many tokens."""
        return (self._compiled if tokens >= COMPILE else None) or self._plain


def torch_runtime(transformer: Any, device: str, *, bfloat16: bool, inputs: Sequence[str] = INPUTS) -> Runtime:
    """The transformer as it is, or with its weights turned into bfloat16 for good, but for parts that say `exact`."""
    import torch

    if bfloat16:
        transformer.to(torch.bfloat16)
        for module in transformer.modules():
            if getattr(module, "exact", False):
                module.float()

    def run(batches: Iterable[Features]) -> Iterator[Features]:
        for batch in batches:
            hidden = transformer(**{name: batch[name] for name in inputs})[0]
            yield {**batch, "token_embeddings": hidden.float()}

    return Runtime(
        f"torch {'bfloat16' if bfloat16 else 'float32'} on {device}", 2048 if device == "cpu" else 65_536, run
    )


def openvino_runtime(transformer: Any, inputs: Sequence[str] = INPUTS) -> Runtime | None:
    """The transformer compiled by OpenVINO in bfloat16; None where the extra `fast` is not installed.

    None too, with a warning, for a model that OpenVINO cannot compile, or whose trace computes something else than the
    model does. Tracing takes seconds: worth it for many texts, not for a query.
    """
    if find_spec("openvino") is None:
        return None
    try:
        run = _in_flight(_compiled(transformer, inputs), inputs)
    except RuntimeError as problem:
        warnings.warn(f"OpenVINO cannot compile this model, torch runs it: {problem}", stacklevel=2)
        return None
    if not _agrees(run, transformer, inputs):
        warnings.warn("OpenVINO computes something else than this model does, torch runs it", stacklevel=2)
        return None
    return Runtime("openvino bfloat16 on cpu", 1024, run)


def _compiled(transformer: Any, inputs: Sequence[str]) -> Any:
    """OpenVINO's form of a transformer, traced. Raises: RuntimeError where it has none."""
    import openvino
    import torch
    from openvino.frontend import FrontEndManager  # openvino.convert_model reports its use over the network
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    class Traced(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Any:
            given = zip(inputs, (ids, mask, types), strict=False)
            return self.transformer(**dict(given))[0]

    example = torch.ones(2, 16, dtype=torch.int64)
    frontend = FrontEndManager().load_by_framework("pytorch")
    with quiet():
        traced = TorchScriptPythonDecoder(Traced().eval(), example_input=(example,) * len(inputs))
        graph = frontend.convert(frontend.load(traced))
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "THROUGHPUT"}
    return openvino.Core().compile_model(graph, "CPU", settings)


def _in_flight(compiled: Any, inputs: Sequence[str]) -> Run:
    """As many batches at once as OpenVINO has streams, a core each: what follows a batch runs beside the others."""
    import torch

    most = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    requests = [compiled.create_infer_request() for _ in range(most)]

    def run(batches: Iterable[Features]) -> Iterator[Features]:
        waiting: deque[tuple[Any, Features]] = deque()
        for number, batch in enumerate(batches):
            if len(waiting) == most:
                yield finished(*waiting.popleft())
            request = requests[number % most]
            request.start_async([batch[name].numpy() for name in inputs], share_inputs=True)
            waiting.append((request, batch))
        while waiting:
            yield finished(*waiting.popleft())

    def finished(request: Any, batch: Features) -> Features:
        request.wait()
        return {**batch, "token_embeddings": torch.from_numpy(request.get_output_tensor(0).data)}

    return run


def _agrees(run: Run, transformer: Any, inputs: Sequence[str]) -> bool:
    """Whether a traced model gives what the model does where the shape is another than the one it was traced with."""
    import torch

    words = transformer.get_input_embeddings().num_embeddings
    ids = torch.randint(words, (3, 41), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 25:] = 0
    types = (torch.arange(41) > 20).long().expand(3, 41).contiguous()
    batch = dict(zip(inputs, (ids, mask, types), strict=False))
    with torch.inference_mode():
        expected = transformer(**batch)[0]
    (given,) = run([batch])
    both = (hidden * mask[:, :, None] for hidden in (expected, given["token_embeddings"]))  # [3, 41, d]
    means = [hidden.sum(dim=1) for hidden in both]  # [3, d]
    least = _AGREEMENT if expected.shape[1] > 1 else _AGREEMENT_OF_ONE
    return bool((torch.cosine_similarity(*means) > least).all())


@contextmanager
def quiet() -> Iterator[None]:
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
