"""Adapters as a whole: each kind learns in each role, goes on where it was killed, and views read its folder."""

import json
from dataclasses import replace

import collections_on_disk
import numpy as np
import pytest
import tiny_models
from training_runs import train_and_kill

from retriever import InputError
from retriever.encoders.adapters.files import find_adapter
from retriever.encoders.adapters.mask import from_tensors
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.encoders.stated import Stated
from retriever.rerankers.cross_encoder import CrossEncoder, CrossEncoderConfig
from retriever.training import course
from retriever.training.adapter import FIRST_LOG, train_adapter
from retriever.training.learners import MaskLearner
from retriever.training.settings import AdapterTraining

pytest.importorskip("peft")
KINDS = ["lora", "bottleneck", "mask"]
PAIRS = [("query : in wing", "the wing is in a body"), ("query : in wing", "the plate is of a body")]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    base = tiny_models.bi_encoder(folder / "encoder")
    return AdapterTraining(
        kind="lora",
        role="encoder",
        base=str(base),
        data=(str(collections_on_disk.things(folder / "things")),),
        dev=(str(folder / "things"),),
        rank=4,
        reduction=4,
        steps=20,
        batch_size=8,
        negatives=1,
        learning_rate=1e-2,
        train_length=16,
        evaluate_every=10,
        precision="float32",
    )


@pytest.fixture(scope="module")
def language(settings, tmp_path_factory):
    """Settings of a language adapter."""
    base = tiny_models.masked_lm(tmp_path_factory.mktemp("language"), initializer_range=0.1)
    return replace(settings, role="language", base=str(base), texts=settings.data, data=(), dev=())


def entries(out, name=course.LOG):
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def losses(out, name=course.LOG):
    return [entry["loss"] for entry in entries(out, name) if "loss" in entry]


def files(out):
    from safetensors.numpy import load_file

    return {path.name: load_file(path) for path in sorted(out.glob("*.safetensors"))}


def same(one, other):
    first, second = files(one), files(other)
    assert first.keys() == second.keys()
    assert any(first.values())
    return all((value == second[name][key]).all() for name, each in first.items() for key, value in each.items())


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoders_adapter_learns_and_a_view_reads_it(settings, tmp_path, kind):
    trained = train_adapter(replace(settings, kind=kind), tmp_path / "out")
    assert trained.notes[0].startswith("things: 30 examples")
    count = find_adapter(str(trained.out)).settings.options
    assert trained.notes[-1].startswith("the adapter has ")
    assert losses(trained.out)[-1] < losses(trained.out)[0]
    assert "eval_nDCG@10" in entries(trained.out)[0]
    assert json.loads((trained.out / "training.json").read_text())["kind"] == kind
    told = json.loads((trained.out / "adapter.json").read_text())
    assert (told["kind"], told["role"], told["base"]) == (kind, "ranking", settings.base)
    assert count == told["options"]
    assert not (trained.out / "checkpoints").exists()
    assert sum(path.stat().st_size for path in trained.out.iterdir()) < 100_000
    before, after = (
        SentenceTransformerEncoder(settings.base, "float32", Stated(adapters=adapters)).encode_queries(["wing"]).vectors
        for adapters in (None, str(trained.out))
    )
    assert np.abs(before - after).max() > 1e-3
    assert train_adapter(replace(settings, kind=kind), trained.out).notes[0].endswith("to train anew")


@pytest.mark.parametrize("kind", KINDS)
def test_a_rerankers_adapter_on_a_languages_brings_its_head(settings, language, tmp_path, kind):
    under = train_adapter(replace(language, kind=kind, steps=4), tmp_path / "language").out
    ranking = replace(settings, role="reranker", kind=kind, base=language.base, under=str(under), negatives=3)
    out = train_adapter(ranking, tmp_path / "ranking").out
    assert losses(out)[-1] < losses(out)[0]
    tensors = find_adapter(str(out)).tensors()
    assert {"head.classifier.weight", "head.bert.pooler.dense.weight"} <= tensors.keys()
    stacks = [str(out), f"{under} + {out}"]
    scores = [CrossEncoder(CrossEncoderConfig(language.base, adapters=stack)).score(PAIRS) for stack in stacks]
    assert np.isfinite(scores).all()
    assert not np.allclose(*scores)
    told = json.loads((out / "adapter.json").read_text())
    assert told["options"]["under"] == str(under)
    assert told["weights"] == json.loads((under / "adapter.json").read_text())["weights"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_languages_adapter_learns_its_words(language, tmp_path, kind):
    trained = train_adapter(replace(language, kind=kind), tmp_path / "out")
    assert trained.notes[0].startswith("32 texts in 32 blocks of tokens, 2 of them held out")
    assert losses(trained.out)[-1] < losses(trained.out)[0]
    assert json.loads((trained.out / "adapter.json").read_text())["role"] == "language"
    assert any("invertible" in name for name in find_adapter(str(trained.out)).tensors()) == (kind == "bottleneck")


@pytest.mark.parametrize(
    ("kind", "role", "reached"),
    [("lora", "encoder", 6), ("bottleneck", "language", 6), ("mask", "language", 6), ("mask", "encoder", 14)],
)
def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, language, tmp_path, kind, role, reached):
    """Between the two checkpoints of a phase; a mask's second phase begins with step 9."""
    short = replace(settings if role == "encoder" else language, kind=kind, steps=8, evaluate_every=4)
    whole = train_adapter(short, tmp_path / "whole").out
    train_and_kill(train_adapter, short, tmp_path / "killed", steps=reached - 1)
    assert (tmp_path / "killed" / "checkpoints").exists()
    assert same(train_adapter(short, tmp_path / "killed").out, whole)


def test_a_checkpoint_holds_what_is_trained_alone(settings, tmp_path):
    train_and_kill(train_adapter, settings, tmp_path / "out", steps=10)
    (kept,) = files(tmp_path / "out" / "checkpoints" / "checkpoint-10").values()
    assert all("lora_" in name for name in kept)


def test_a_mask_has_as_many_entries_as_the_bottlenecks_parameters_and_no_norm(settings, tmp_path):
    """And beyond the entries nothing of the body has moved: its gradient is 0 there."""
    out = train_adapter(replace(settings, kind="mask", first_steps=5), tmp_path / "out").out
    budget = 2 * (2 * 32 * 8 + 8 + 32)
    changes = from_tensors(find_adapter(str(out)).tensors())
    assert 0.95 * budget < sum(len(change.values) for change in changes.values()) <= budget
    assert not any("LayerNorm" in name for name in changes)
    assert [entry["step"] for entry in entries(out, FIRST_LOG)][-1] == 5
    assert losses(out)


def test_gradients_are_masked_and_drawn_to_the_start(tmp_path):
    import torch
    from transformers import BertModel

    torch.manual_seed(0)
    model = BertModel(tiny_models.config()).requires_grad_(False)
    learner = MaskLearner(model, AdapterTraining(kind="mask", role="encoder", base="", reduction=8, l1=0.5))
    name = "encoder.layer.0.output.dense.weight"
    parameter, start = dict(model.named_parameters())[name], dict(model.named_parameters())[name].detach().clone()
    size = sum(value.numel() for value in model.parameters() if value.requires_grad)
    with torch.no_grad():
        parameter[0, :2] += torch.tensor([1.0, -1.0])
    parameter.sum().backward()
    pulled = parameter.grad[0, :3] - 1
    assert pulled.tolist() == pytest.approx([0.5 / size, -0.5 / size, 0], abs=1e-7)
    learner.select(tmp_path / "mask.safetensors")
    learner.rewind(tmp_path / "mask.safetensors")
    assert torch.equal(parameter, start)
    parameter.grad = None
    parameter.sum().backward()
    assert parameter.grad[0, :2].tolist() == [1, 1]
    assert parameter.grad.count_nonzero() == 2  # all others stood still


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "prefix"}, "an adapter is lora, bottleneck, mask, not 'prefix'"),
        ({"role": "ranking"}, "role is one of language, encoder, reranker, not 'ranking'"),
        ({"role": "language"}, "a language adapter does not read data or dev: leave it out"),
        ({"texts": ("x",)}, "a encoder adapter does not read texts: leave it out"),
        ({"rank": 0}, "rank must be at least 1, not 0"),
        ({"kind": "bottleneck", "reduction": 64}, "reduction is from 1 to 32 for this model, not 64"),
        ({"l1": -1.0}, "l1 must be at least 0"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"data": ()}, "there is nothing to train on"),
        ({"loss": "lce"}, "loss is one of in-batch"),
        ({"under": "no/such-adapter"}, "model 'no/such-adapter' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_adapter(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_below_that_is_of_another_base(settings, language, tmp_path):
    under = train_adapter(replace(language, kind="mask", steps=1), tmp_path / "language").out
    with pytest.raises(InputError, match=rf"adapter {under} was trained on {language.base} .* than {settings.base}"):
        train_adapter(replace(settings, under=str(under)), tmp_path / "out")
