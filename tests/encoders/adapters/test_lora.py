"""PEFT's adapters: merged they are what PEFT computes beside the weights, and they are weighted and taken off."""

import copy

import pytest
import tiny_adapters
import tiny_models

from retriever import InputError
from retriever.encoders.adapters import lora
from retriever.encoders.adapters.stack import Adapters
from retriever.errors import MissingDependencyError

pytest.importorskip("peft")


@pytest.fixture
def model():
    import torch
    from transformers import BertForSequenceClassification

    torch.manual_seed(7)
    return BertForSequenceClassification(tiny_models.config(num_labels=1, initializer_range=0.5)).eval()


def logits(model):
    import torch

    ids = torch.arange(5, 29).reshape(2, 12)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("more", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_merged_it_gives_what_peft_gives(tmp_path, model, more):
    import torch
    from peft import PeftModel

    folder = tiny_adapters.lora(tmp_path / "lora", model, **more)
    beside = copy.deepcopy(model)
    with lora.quietly():
        beside.bert = PeftModel.from_pretrained(beside.bert, folder)
    before = logits(model)
    adapters = Adapters(model, "model")
    adapters.use(folder)
    torch.testing.assert_close(logits(model), logits(beside.eval()), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(model), before, atol=1e-2)
    adapters.leave()
    assert torch.equal(logits(model), before)


def test_a_weight_is_of_what_it_adds(tmp_path, model):
    import torch

    folder = tiny_adapters.lora(tmp_path / "lora", model)
    name = "bert.encoder.layer.1.attention.self.value.weight"
    values = []
    adapters = Adapters(model, "model")
    for text in (None, folder, f"0.5 * {folder}"):
        adapters.use(text)
        values.append(dict(model.named_parameters())[name].detach().clone())
    torch.testing.assert_close(values[2], (values[0] + values[1]) / 2)


def test_an_adapter_that_peft_made_of_a_whole_model(tmp_path, model):
    import torch

    folder = tiny_adapters.lora(tmp_path / "lora", model, whole=True, modules_to_save=["classifier"])
    before, names = logits(model), [name for name, _ in model.named_parameters()]
    adapters = Adapters(model, "model")
    adapters.use(folder)
    assert not torch.allclose(logits(model), before, atol=1e-2)
    adapters.leave()
    assert torch.equal(logits(model), before)
    assert [name for name, _ in model.named_parameters()] == names


def test_an_adapter_that_peft_made_of_another_model(tmp_path, model):
    from transformers import BertForSequenceClassification

    other = BertForSequenceClassification(tiny_models.config(num_hidden_layers=3))
    folder = tiny_adapters.lora(tmp_path / "lora", other.bert, whole=True)
    with pytest.raises(InputError, match="PEFT cannot put this adapter on BertForSequenceClassification"):
        Adapters(model, "model").use(folder)


def test_without_peft(tmp_path, model, monkeypatch):
    folder = tiny_adapters.lora(tmp_path / "lora", model)
    monkeypatch.setattr(lora, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"needs peft: pip install 'retriever-engine\[adapters\]'"):
        Adapters(model, "model").use(folder)
