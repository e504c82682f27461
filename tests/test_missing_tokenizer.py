"""A model that came without its tokenizer: transformers makes an empty one without a word, and texts become nothing."""

import pytest
from tiny_models import bi_encoder, causal, cross_encoder, seq2seq, sparse_encoder

from retriever import InputError
from retriever.encoders.splade import Splade
from retriever.generators import LocalModel, Sampling
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.rerankers.maxsim import MaxSim, MaxSimConfig
from retriever.rerankers.mono_t5 import MonoT5, MonoT5Config

PAIRS = [("wing", "the wing")]
USES = {
    "splade": (sparse_encoder, lambda model: Splade(model).encode_queries(["wing"])),
    "cross-encoder": (cross_encoder, lambda model: CrossEncoder(CrossEncoderConfig(model)).score(PAIRS)),
    "mono-t5": (lambda to: seq2seq(to, ["true", "false"]), lambda model: MonoT5(MonoT5Config(model)).score(PAIRS)),
    "maxsim": (bi_encoder, lambda model: MaxSim(MaxSimConfig(model)).score(PAIRS)),
    "generator": (causal, lambda model: LocalModel(model, Sampling(5, 0.0, 1)).generate(["wing"], 1)),
}


@pytest.mark.parametrize("use", USES)
def test_is_told_by_whatever_uses_it(tmp_path, use):
    make, run = USES[use]
    folder = make(tmp_path)
    for pattern in ("*token*", "vocab.*", "spiece*", "*.model"):
        for file in folder.rglob(pattern):
            file.unlink()
    with pytest.raises(InputError, match=f"{folder}.*: (has|holds) no tokenizer"):
        run(str(folder))
