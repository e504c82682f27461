"""Mamba beside a BERT of the same size: models to train from scratch, and the time of encoding by length.

`python benchmarks/mamba.py make FOLDER` makes random models and prints the commands that train them;
`python benchmarks/mamba.py time --page docs/results.md` writes that section of the page. Times do not depend on
weights, so random models are timed: one text at a time, in float32, BERT with torch's fused attention. On a GPU where
there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from results import put
from run import alternate

from retriever.encoders.models import DEFAULT_MODEL, find_model
from retriever.encoders.state_space import InSegments, is_state_space, scan_quickly

LENGTHS = (512, 1024, 2048, 4096, 8192)
STATES = {"mamba": 16, "mamba2": 64}
HEAD = 64


def settings(kind: str, hidden: int, layers: int, words: int, positions: int) -> dict[str, Any]:
    """A model's: a layer of BERT has about 12 hidden**2 weights, one of Mamba 6, so Mamba has twice as many."""
    if kind == "bert":
        more = {"num_attention_heads": hidden // HEAD, "intermediate_size": 4 * hidden}
        return {**_common(hidden, layers, words), **more, "max_position_embeddings": positions}
    heads = {"num_heads": 2 * hidden // HEAD, "head_dim": HEAD, "n_groups": 1} if kind == "mamba2" else {}
    return {**_common(hidden, 2 * layers, words), **heads, "state_size": STATES[kind], "initializer_range": 0.02}


def _common(hidden: int, layers: int, words: int) -> dict[str, Any]:
    return {"hidden_size": hidden, "num_hidden_layers": layers, "vocab_size": words}


def random_model(kind: str, hidden: int, layers: int, words: int, positions: int = 512) -> Any:
    """A transformer with random weights, always the same; Mamba's embeddings are drawn as BERT's are."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings(kind, hidden, layers, words, positions))
    model = AutoModel.from_config(config)  # BERT: with SDPA
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.02)
    return model.eval()


def make(out: Path, tokenizer: str, hidden: int, layers: int) -> None:
    """Models as sentence-transformers holds them, both with the mean of their tokens, a bag of words to begin with; at
    its text's [SEP] a random Mamba learnt nothing (docs/results.md).
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(find_model(tokenizer))
    for kind in ("mamba", "bert"):
        model = random_model(kind, hidden, layers, len(words))
        base = out / f"{kind}-transformer"
        model.save_pretrained(base)
        words.save_pretrained(base)
        parts = [Transformer(str(base)), Pooling(hidden, "mean"), Normalize()]
        made = SentenceTransformer(modules=parts, device="cpu")
        made.save(str(out / kind), create_model_card=False)
        inside = sum(weights.numel() for weights in model.parameters()) - model.get_input_embeddings().weight.numel()
        print(f"{out / kind}: {inside:,} parameters and the embeddings of {len(words):,} words. To train it:")
        print(f"    retriever train encoder --base {out / kind} --data DATA --dev DATA --out {out / kind}-trained")


def encode(model: Any, length: int, words: int) -> Callable[[], None]:
    """A function that reads one text of so many random tokens."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    ids = torch.randint(words, (1, length), generator=torch.Generator().manual_seed(0)).to(device)
    read = InSegments(model.to(device)) if is_state_space(model) else model

    def once() -> None:
        with torch.inference_mode():
            read(input_ids=ids)[0][:, -1].cpu()

    return once


def fit(lengths: Sequence[int], seconds: Sequence[float]) -> float:
    """R squared of the straight line through the times."""
    return float(np.corrcoef(lengths, seconds)[0, 1] ** 2)


def measure(lengths: Sequence[int], hidden: int, layers: int, words: int, rounds: int) -> str:
    """The table: milliseconds for one text, and how straight the line through them is."""
    models = {kind: random_model(kind, hidden, layers, words, max(lengths)) for kind in ("mamba", "mamba2", "bert")}
    for model in models.values():
        if is_state_space(model):
            scan_quickly(model)
    times = {
        length: alternate({kind: encode(model, length, words) for kind, model in models.items()}, rounds)
        for length in lengths
    }
    lines = ["| tokens | Mamba | Mamba-2 | BERT (SDPA) |", "| ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {length:,} | " + " | ".join(f"{1000 * each:,.0f}" for each in times[length].values()) + " |"
        for length in lengths
    ]
    straight = [fit(lengths, [times[length][kind] for length in lengths]) for kind in models]
    lines.append("| R² of a straight line | " + " | ".join(f"{each:.4f}" for each in straight) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make the models, or print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4, help="of BERT; Mamba has twice as many")
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("make")
    making.add_argument("out", type=Path)
    making.add_argument("--tokenizer", default=DEFAULT_MODEL, help="a model with a WordPiece tokenizer")
    timing = actions.add_parser("time")
    timing.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    timing.add_argument("--rounds", type=int, default=3)
    timing.add_argument("--page", type=Path, help="a file whose section of this title is replaced")
    options = parser.parse_args()
    if options.action == "make":
        make(options.out, options.tokenizer, options.hidden, options.layers)
        return
    about = (
        f"Milliseconds for one text in float32, random weights of hidden size {options.hidden}: {options.layers} layers"
    )
    about += f" of BERT, {2 * options.layers} of the others.\nMade with `python benchmarks/mamba.py time"
    about += f" --page docs/results.md` on {describe()}.\n"
    rows = measure(options.lengths, options.hidden, options.layers, 1000, options.rounds)
    text = "\n".join(["## Mamba: time by length", "", about, rows, ""])
    print(text)
    if options.page:
        put(options.page, text)


if __name__ == "__main__":
    main()
