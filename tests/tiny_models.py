"""Small transformers with random weights, made on the spot: everything about them is real except what they know."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WORDS = [
    *("the", "a", "of", "in", "over", "under", "is", "not", "query", "document", "passage", ":"),
    *("wing", "lift", "drag", "flow", "heat", "shock", "plate", "body"),
]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789")]


def tokenizer(max_length: int) -> Any:
    """A WordPiece tokenizer: whole words from WORDS, all others letter by letter."""
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS]
    return BertTokenizerFast(
        vocab={word: i for i, word in enumerate(dict.fromkeys(words))},
        model_max_length=max_length,
    )


def config(**more: Any) -> Any:
    from transformers import BertConfig

    settings = {
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    return BertConfig(**{**settings, **more})


def cross_encoder(folder: Path, labels: int = 1, **more: Any) -> Path:
    import torch
    from transformers import BertForSequenceClassification

    torch.manual_seed(7)
    settings = config(num_labels=labels, initializer_range=0.5, **more)
    BertForSequenceClassification(settings).save_pretrained(folder)
    tokenizer(64).save_pretrained(folder)
    return folder


def bi_encoder(
    folder: Path,
    pooling: str = "mean",
    prompts: Mapping[str, str] | None = None,
    include_prompt: bool = True,
    normalize: bool = True,
    similarity: str = "cosine",
    max_length: int = 32,
) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertModel

    torch.manual_seed(7)
    BertModel(config(initializer_range=0.5)).save_pretrained(folder / "base")
    tokenizer(max_length).save_pretrained(folder / "base")
    transformer = Transformer(str(folder / "base"), max_seq_length=max_length)
    modules: Sequence[Any] = [transformer, Pooling(32, pooling, include_prompt=include_prompt)]
    model = SentenceTransformer(
        modules=[*modules, Normalize()] if normalize else modules,
        prompts=dict(prompts or {}),
        similarity_fn_name=similarity,
        device="cpu",
    )
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def seq2seq(folder: Path, more: Sequence[str] = (), **generation: Any) -> Path:
    """A T5 that reads and writes WORDS and `more`; `generation`: what its generation_config.json says."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    words = [(f"▁{word}", -2.0) for word in [*WORDS, *more] if word.isalpha()]
    letters = [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789:"]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces = T5Tokenizer(vocab=[*special, *words, *letters], extra_ids=0)
    torch.manual_seed(7)
    settings = T5Config(
        vocab_size=len(pieces),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(settings)
    with torch.no_grad():
        model.shared.weight[:3] *= 0.1  # special tokens are less likely so; else it would end at once
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    pieces.save_pretrained(folder)
    return folder


def masked_lm(folder: Path, **more: Any) -> Path:
    """A BERT with a language-model head over the tokenizer's vocabulary."""
    import torch
    from transformers import BertForMaskedLM

    torch.manual_seed(7)
    BertForMaskedLM(config(**{"initializer_range": 0.5, **more})).save_pretrained(folder)
    tokenizer(64).save_pretrained(folder)
    return folder


def causal(folder: Path, **generation: Any) -> Path:
    """A GPT-2 over the tokenizer's vocabulary that reads 64 tokens; `generation`: for its generation_config.json."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(7)
    settings = GPT2Config(
        vocab_size=128,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.5,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = GPT2LMHeadModel(settings)
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    tokenizer(64).save_pretrained(folder)
    return folder


def sparse_encoder(
    folder: Path,
    pooling: str = "max",
    activation: str = "relu",
    language_model: Any = None,
    table: Sequence[float] | None = None,
    **settings: Any,
) -> Path:
    """SPLADE. language_model: another than BERT; table: weights by token id of queries that no transformer reads."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import (
        Router,
        SparseStaticEmbedding,
        SpladePooling,
        Transformer,
    )
    from transformers import BertForMaskedLM

    torch.manual_seed(7)
    (language_model or BertForMaskedLM(config(initializer_range=0.5))).save_pretrained(folder / "base")
    tokenizer(32).save_pretrained(folder / "base")
    modules: list[Any] = [
        Transformer(str(folder / "base"), transformer_task="fill-mask"),
        SpladePooling(pooling, activation_function=activation),
    ]
    if table is not None:
        static = SparseStaticEmbedding(tokenizer(16), torch.tensor(table, dtype=torch.float32))
        modules = [Router.for_query_document([static], modules)]
    SparseEncoder(modules=modules, device="cpu", **settings).save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def bert_with_head(folder: Path, head: Any, prefix: str = "bert.", wrapped: bool = False) -> Path:
    """BERT with more layers of its own. head: a module whose children are named as in the checkpoint; wrapped: in a
    file as training leaves it, with an optimizer's state.
    """
    import torch
    from transformers import BertModel

    torch.manual_seed(7)
    settings = config(initializer_range=0.5)
    settings.save_pretrained(folder)
    tokenizer(64).save_pretrained(folder)
    parameters = {prefix + name: tensor for name, tensor in BertModel(settings).state_dict().items()}
    parameters |= head.state_dict()
    held = {"model_state_dict": parameters, "optimizer_state_dict": {"state": {}}} if wrapped else parameters
    torch.save(held, folder / "pytorch_model.bin")
    return folder


def state_space(folder: Path, kind: str = "mamba", **more: Any) -> Path:
    """Mamba, Mamba-2 ("mamba2") or FalconMamba ("falcon_mamba"), whose tokenizer has an end, [SEP], and no padding."""
    import torch
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    torch.manual_seed(7)
    heads = {"num_heads": 8, "head_dim": 8, "n_groups": 2} if kind == "mamba2" else {}
    given = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "vocab_size": 128, **heads, **more}
    model = AutoModel.from_config(AutoConfig.for_model(kind, **given))
    for name, weights in model.named_parameters():
        if weights.ndim > 1 and not name.endswith("A_log"):
            torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)
    plain = tokenizer(64).backend_tokenizer
    plain.post_processor = None
    PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", eos_token="[SEP]").save_pretrained(folder)
    return folder
