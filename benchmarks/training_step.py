"""What dropout and the kind of attention cost a training step on a CPU: `python benchmarks/training_step.py`.

One step of all-MiniLM-L6-v2 as a cross-encoder in bfloat16 autocast: 16 pairs of 192 tokens, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable

from run import alternate, table

from retriever.encoders.models import DEFAULT_MODEL, find_model

PAIRS, TOKENS = 16, 192


def step(attention: str, dropout: float) -> Callable[[], None]:
    """A function that does one forward and backward pass."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    model = CrossEncoder(
        str(find_model(DEFAULT_MODEL)),
        num_labels=1,
        device="cpu",
        model_kwargs={"attn_implementation": attention},
        config_kwargs={"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout},
    ).train()
    ids = torch.randint(1000, 20_000, (PAIRS, TOKENS))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            scores = model.model(**batch).logits.float()
        scores.square().mean().backward()

    return once


def main() -> None:
    """Print the table."""
    kinds = {f"{name}, dropout {rate}": step(name, rate) for name in ("sdpa", "eager") for rate in (0.1, 0.0)}
    seconds = alternate(kinds, 3)
    table(f"A training step: {PAIRS} pairs of {TOKENS} tokens", "pairs", PAIRS, seconds)


if __name__ == "__main__":
    main()
