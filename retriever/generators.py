"""Text generators: a local transformers model, or a server that speaks OpenAI's protocol.

Where one gives no text, a search fails with the reason: a query that was not expanded is never passed off as one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from retriever.encoders.models import check_tokenizer, find_model
from retriever.endpoints import EndpointError, address, ask, is_endpoint
from retriever.errors import InputError, RetrieverError

_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_AT_ONCE = 8
"""Requests that a server is given at a time."""


@dataclass(frozen=True)
class Sampling:
    """max_tokens: of one text. temperature: 0 takes the likeliest token each time. seed: of the samples."""

    max_tokens: int
    temperature: float
    seed: int


class Generator(Protocol):
    """Prompts to texts."""

    def generate(self, prompts: Sequence[str], n: int) -> list[list[str]]:
        """For each prompt `n` texts, none of them empty.

        Raises: RetrieverError naming the model and the reason.
        """


def generator(name: str, sampling: Sampling) -> Generator:
    """The model of a name: "http://host:port/v1#model" is asked over HTTP, all else is found as encoders are.

    Raises: InputError for a name that is nowhere, or a model that generates no text.
    """
    if is_endpoint(name):
        return Endpoint(name, sampling)
    return LocalModel(name, sampling)


class LocalModel:
    """A causal or encoder-decoder model of transformers, by name or path, on the GPU where there is one.

    Samples are drawn from the whole distribution at the temperature, with a seed made from the given one and the
    prompt: a query gets the same texts whatever else is asked. A prompt goes through the tokenizer's chat template if
    there is one.
    """

    def __init__(self, name: str, sampling: Sampling) -> None:
        self.sampling, self._folder = sampling, find_model(name)
        config = _config(self._folder)
        self._seq2seq = bool(config.get("is_encoder_decoder"))
        if not any(head.endswith(_HEADS) for head in config.get("architectures") or []):
            raise InputError(
                f"{self._folder}: generates no text: its config.json names no language model "
                f"({', '.join(config.get('architectures') or ['no architecture'])}); give a causal or an "
                "encoder-decoder model"
            )

    def generate(self, prompts: Sequence[str], n: int) -> list[list[str]]:
        """One prompt after the other, its n samples together."""
        return [self._samples(prompt, n) for prompt in prompts]

    def _samples(self, prompt: str, n: int) -> list[str]:
        import torch

        model, tokenizer = _loaded(self._folder, self._seq2seq)
        inputs = self._inputs(model, tokenizer, prompt)
        settings: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        if self.sampling.temperature:
            settings |= {"do_sample": True, "temperature": self.sampling.temperature, "top_k": 0, "top_p": 1.0}
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []), torch.inference_mode():
            torch.manual_seed(_seed(self.sampling.seed, prompt))
            made = model.generate(
                **inputs,
                num_return_sequences=n,
                min_new_tokens=1,  # the likeliest text of some models is none
                max_new_tokens=self.sampling.max_tokens,
                **settings,
            )
        start = 0 if self._seq2seq else inputs["input_ids"].shape[1]
        texts = [text.strip() for text in tokenizer.batch_decode(made[:, start:], skip_special_tokens=True)]
        if not all(texts):
            raise RetrieverError(f"{self._folder}: generated an empty text for the prompt {prompt[-100:]!r}")
        return texts

    def _inputs(self, model: Any, tokenizer: Any, prompt: str) -> Any:
        chat = bool(tokenizer.chat_template)
        if chat:
            turn = [{"role": "user", "content": prompt}]
            prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=not chat, return_token_type_ids=False)
        length, limit = inputs["input_ids"].shape[1], _limit(model)
        needed = length if self._seq2seq else length + self.sampling.max_tokens
        if limit and needed > limit:
            raise InputError(
                f"{self._folder}: reads {limit} tokens and the prompt {prompt[-100:]!r} has {length}, with "
                f"{self.sampling.max_tokens} to be generated; shorten the prompt or lower max_tokens"
            )
        return inputs.to(model.device)


class Endpoint:
    """A model behind OpenAI's chat completions protocol, as OpenAI, vLLM, llama.cpp and Ollama speak it.

    url: "http://host:port/v1#model"; timeout, pause: `endpoints.ask`. Each sample is a request of its own, with the
    next seed, because servers that ignore `n` are common.
    """

    def __init__(self, url: str, sampling: Sampling, timeout: float = 300.0, pause: float = 1.0) -> None:
        self.url, self.model = address(url)
        self.sampling, self.timeout, self.pause = sampling, timeout, pause

    def generate(self, prompts: Sequence[str], n: int) -> list[list[str]]:
        """All samples of all prompts, a few at a time."""
        jobs = [(prompt, self.sampling.seed + i) for prompt in prompts for i in range(n)]
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            texts = list(pool.map(self._text, *zip(*jobs, strict=True))) if jobs else []
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure nothing more is asked
        return [texts[i : i + n] for i in range(0, len(texts), n)]

    def _text(self, prompt: str, seed: int) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.sampling.max_tokens,
            "temperature": self.sampling.temperature,
            "seed": seed,
        }
        try:
            return self._content(ask(f"{self.url.rstrip('/')}/chat/completions", body, self.timeout, self.pause))
        except EndpointError as problem:
            raise self._failure(str(problem)) from None

    def _content(self, answer: bytes) -> str:
        try:
            text = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            said = answer[:300].decode(errors="replace")
            raise self._failure(f"its answer is no chat completion: {said}") from None
        if not isinstance(text, str) or not text.strip():
            raise self._failure("its answer holds no text")
        return text.strip()

    def _failure(self, reason: str) -> RetrieverError:
        return RetrieverError(f"{self.url}: model {self.model!r} generated nothing: {reason}")


def _seed(seed: int, prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()[:8], "little")


def _limit(model: Any) -> int | None:
    """How many tokens it has positions for; none where positions are relative or there are none."""
    limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"holds no model that transformers can load: {problem}", path) from None
    return config if isinstance(config, dict) else {}


@lru_cache(maxsize=1)  # each search makes its pipeline anew, and must not load a model that takes gigabytes again
def _loaded(folder: Path, seq2seq: bool) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, report = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, KeyError) as problem:
        raise InputError(f"{folder}: transformers cannot load it: {problem}") from None
    check_tokenizer(folder)
    if missing := report["missing_keys"]:
        raise InputError(f"{folder}: lacks weights, and would generate at random: {', '.join(sorted(missing)[:5])}")
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
