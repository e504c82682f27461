"""State-space models (transformers' Mamba, Mamba-2 and FalconMamba layouts) as encoders.

Loaded as any other model; a view states what Mamba Retriever (Zhang et al., CIKM 2024, arXiv 2408.08066) does with one:
`dense(MODEL, pooling=eos)`, the hidden state of an end-of-sequence token behind the text, compared by cosine. What is
ours is the arithmetic between a layer's weights: transformers computes Mamba's recurrence token by token on states that
it holds for the whole text, and its Mamba and FalconMamba forget the state where a second part of a text is read. On a
GPU with mamba-ssm's kernels transformers runs those; no such GPU was there to try.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import MethodType
from typing import TYPE_CHECKING, Any

from retriever.encoders.selective_scan import dual_scan, selective_scan

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

SEGMENT, GPU_SEGMENT = 2048, 65_536
"""Tokens of a text that go through the layers at once: as many as a batch has (`runtime.torch_runtime`)."""


def is_state_space(transformer: Any) -> bool:
    """Whether a loaded transformer is of a layout that is known here."""
    return getattr(getattr(transformer, "config", None), "model_type", None) in _MIXERS


def prepare(model: SentenceTransformer) -> None:
    """Change a model that was just loaded, in place; one that is no state-space model stays as it is.

    Its texts are padded on the right, where a causal model cannot see it; on the left padding would reach the state. A
    tokenizer without a padding token pads with its end-of-sequence token: which token is the last one is read off the
    lengths, never off the ids. The weights stay what they are.
    """
    transformer = getattr(model[0], "auto_model", None)
    if not is_state_space(transformer):
        return
    scan_quickly(transformer)
    model.tokenizer.padding_side = "right"
    if model.tokenizer.pad_token is None and model.tokenizer.eos_token is not None:
        model.tokenizer.pad_token = model.tokenizer.eos_token


def scan_quickly(transformer: Any) -> None:
    """Let each layer of a state-space transformer compute as here, to the same hidden states and gradients."""
    forward = _MIXERS[transformer.config.model_type]
    for module in transformer.modules():
        if hasattr(module, "A_log"):
            module.forward = MethodType(forward, module)


def end_with_eos(tokenizer: Any) -> None:
    """Let a fast tokenizer put its end-of-sequence token behind every text by itself, after cutting.

    A model that is saved with it then needs no statement of it anywhere, sentence-transformers included.
    """
    from tokenizers.processors import Sequence, TemplateProcessing

    name, number = tokenizer.eos_token, tokenizer.eos_token_id
    if tokenizer("a")["input_ids"][-1:] == [number]:
        return
    backend = tokenizer.backend_tokenizer
    ending = TemplateProcessing(single=f"$A {name}", pair=f"$A {name} $B {name}", special_tokens=[(name, number)])
    backend.post_processor = Sequence([backend.post_processor, ending]) if backend.post_processor else ending


class InSegments:
    """A state-space transformer that reads a longer text in segments of `tokens` tokens, its states carried on.

    Memory for the layers is that of a segment; only the last layer's hidden states are held for the whole text.
    """

    def __init__(self, transformer: Any, tokens: int | None = None) -> None:
        self.transformer, self.tokens = transformer, tokens

    def __call__(self, input_ids: Tensor, **_: Any) -> tuple[Tensor]:
        """Hidden states, [n, length, d], of ids, int64 [n, length], padded on the right: so no mask is needed."""
        import torch

        most = self.tokens or (GPU_SEGMENT if input_ids.is_cuda else SEGMENT)
        if input_ids.shape[1] <= most:
            return (self.transformer(input_ids=input_ids, use_cache=False)[0],)
        parts, states = [], None
        for segment in input_ids.split(most, dim=1):
            output = self.transformer(input_ids=segment, cache_params=states, use_cache=True)
            states = output.cache_params
            parts.append(output.last_hidden_state)
        return (torch.cat(parts, dim=1),)


def _mamba(
    mixer: Any, hidden_states: Tensor, cache_params: Any = None, attention_mask: Tensor | None = None, **_: Any
) -> Tensor:
    """The layer of Mamba and FalconMamba: float [n, length, hidden], as the caller in transformers names it."""
    from torch.nn.functional import softplus

    state = None if cache_params is None else cache_params.get_recurrent_state(mixer.layer_idx)
    if state is None and _has_kernels(hidden_states):
        fused: Tensor = type(mixer).forward(mixer, hidden_states, cache_params, attention_mask)
        return fused
    x, gate = mixer.in_proj(_masked(hidden_states, attention_mask)).chunk(2, dim=-1)  # [n, length, d] each
    x = _masked(_convolved(mixer, x, cache_params), attention_mask)
    dt, b, c = mixer.x_proj(x).split([mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size], dim=-1)
    if hasattr(mixer, "dt_layernorm"):  # FalconMamba
        dt, b, c = mixer.dt_layernorm(dt), mixer.b_layernorm(b), mixer.c_layernorm(c)
    y, state = selective_scan(x, softplus(mixer.dt_proj(dt)), -mixer.A_log.exp(), b, c, state)
    if cache_params is not None:
        cache_params.update_recurrent_state(state, mixer.layer_idx)
    return _gated(mixer, y + x * mixer.D, gate, hidden_states)


def _mamba2(
    mixer: Any, hidden_states: Tensor, cache_params: Any = None, attention_mask: Tensor | None = None, **more: Any
) -> Tensor:
    """The layer of Mamba-2: float [n, length, hidden], as the caller in transformers names it."""
    from torch.nn.functional import softplus

    if _has_kernels(hidden_states):
        fused: Tensor = type(mixer).forward(mixer, hidden_states, cache_params, attention_mask, **more)
        return fused
    sizes = [mixer.intermediate_size, mixer.conv_dim, mixer.num_heads]
    gate, mixed, dt = mixer.in_proj(_masked(hidden_states, attention_mask)).split(sizes, dim=-1)
    state = None if cache_params is None else cache_params.get_recurrent_state(mixer.layer_idx)
    mixed = _masked(_convolved(mixer, mixed, cache_params), attention_mask)
    each = mixer.n_groups * mixer.ssm_state_size
    x, b, c = mixed.split([mixer.intermediate_size, each, each], dim=-1)
    x = x.unflatten(2, (mixer.num_heads, mixer.head_dim))
    b, c = (keys.unflatten(2, (mixer.n_groups, mixer.ssm_state_size)) for keys in (b, c))
    dt = softplus(dt + mixer.dt_bias).clamp(*mixer.time_step_limit)
    y, state = dual_scan(x, dt, -mixer.A_log.exp(), b, c, state)
    if cache_params is not None:
        cache_params.update_recurrent_state(state, mixer.layer_idx)
    return _gated(mixer, (y + x * mixer.D[:, None]).flatten(2), gate, hidden_states)


def _convolved(mixer: Any, x: Tensor, cache: Any) -> Tensor:
    """The causal convolution along the tokens, [n, length, channels], behind what the cache holds of those before."""
    length = x.shape[1]
    given = x.transpose(1, 2)
    if cache is not None:
        given = cache.update_conv_state(given, mixer.layer_idx, conv_kernel_size=mixer.conv_kernel_size)
    convolved = mixer.conv1d(given)[..., : given.shape[-1]]  # it pads both sides
    activated: Tensor = mixer.act(convolved[..., -length:]).transpose(1, 2)
    return activated


def _masked(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else states * mask[:, :, None].to(states.dtype)


def _gated(mixer: Any, y: Tensor, gate: Tensor, like: Tensor) -> Tensor:
    from torch.nn.functional import silu

    gated = mixer.norm(y, gate) if hasattr(mixer, "norm") else y * silu(gate)  # Mamba-2 has a norm
    out: Tensor = mixer.out_proj(gated.to(like.dtype))
    return out


def _has_kernels(states: Tensor) -> bool:
    return bool(states.is_cuda) and find_spec("mamba_ssm") is not None


_MIXERS: dict[str, Callable[..., Tensor]] = {"mamba": _mamba, "falcon_mamba": _mamba, "mamba2": _mamba2}
"""By the `model_type` of a config.json."""
