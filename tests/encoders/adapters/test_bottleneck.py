"""Bottlenecks and the invertible adapter: their sizes, their arithmetic, and that they leave no trace."""

import pytest
import tiny_models

from retriever import InputError
from retriever.encoders.adapters.bottleneck import (
    attach,
    attach_invertible,
    count_parameters,
    couple,
    last_norms,
    new_adapter,
    uncouple,
)

COUNTS = {1: 14_174_208, 2: 7_091_712, 4: 3_550_464, 8: 1_779_840, 16: 894_528, 32: 451_872}
"""By reduction, of multilingual BERT: the budgets in the authors' script."""


def bert(kind="BertModel", **more):
    import torch
    import transformers

    torch.manual_seed(7)
    return getattr(transformers, kind)(tiny_models.config(initializer_range=0.5, **more)).eval()


def filled(width, layers, reduction, seed=0, *, invertible=False):
    """An adapter that changes something."""
    import torch

    torch.manual_seed(seed)
    adapter = new_adapter(width, layers, reduction, invertible=invertible)
    for value in adapter.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return adapter


def batch(types=False):
    import torch

    ids = torch.arange(5, 29).reshape(2, 12)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**given, "token_type_ids": (torch.arange(12) > 6).long().expand(2, 12)} if types else given


def hidden(model, **more):
    import torch

    with torch.inference_mode():
        return model(**batch(**more))[0]


@pytest.mark.parametrize(("reduction", "count"), COUNTS.items())
def test_the_parameters_are_as_many_as_the_authors_say(reduction, count):
    import torch
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        model = BertModel(BertConfig())
        adapter = new_adapter(768, 12, reduction, invertible=False)
        attach(model, [adapter])
    assert count_parameters(768, 12, reduction) == count
    assert sum(value.numel() for value in adapter.parameters()) == count
    attached = {name: value for name, value in model.named_parameters() if "adapter_" in name}
    assert sum(value.numel() for value in attached.values()) == count
    assert all(".output.LayerNorm." in name and ".attention." not in name for name in attached)


def test_a_languages_adapter_has_an_invertible_one_too():
    import torch

    with torch.device("meta"):
        adapter = new_adapter(768, 12, 2, invertible=True)
    assert sum(value.numel() for value in adapter["invertible"].parameters()) == 296_064
    assert sum(value.numel() for value in adapter.parameters()) == 7_387_776
    assert count_parameters(768, 12, 2, invertible=True) == 7_387_776


@pytest.mark.parametrize("kind", ["BertModel", "RobertaModel", "XLMRobertaModel", "ElectraModel", "DistilBertModel"])
def test_a_new_adapter_is_the_identity_to_the_bit(kind):
    import torch
    import transformers

    torch.manual_seed(7)
    settings = getattr(transformers, kind.replace("Model", "Config"))
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64} if kind.startswith("Distil") else {}
    more = sizes or {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = getattr(transformers, kind)(settings(vocab_size=128, max_position_embeddings=64, **more)).eval()
    before = hidden(model)
    attach(model, [new_adapter(32, 2, 4, invertible=False)])
    assert torch.equal(hidden(model), before)
    attach(model, [filled(32, 2, 4)])
    assert not torch.allclose(hidden(model), before, atol=1e-2)


def test_a_layer_is_pfeiffers():
    """LN(h + up(relu(down(LN(h + x)))) + x), and of a stack the same again with what came out in the place of h."""
    import torch

    model = bert()
    layer, given = model.encoder.layer[0], torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    first, second = filled(32, 2, 4, seed=1), filled(32, 2, 4, seed=2)
    attach(model, [first])
    attach(model, [second], weight=0.5)
    norm, h, x = layer.output.LayerNorm.forward, layer.output.dense(given_inner := torch.randn(2, 5, 64)), given
    with torch.inference_mode():
        expected = h
        for adapter, weight in ((first, 1.0), (second, 0.5)):
            down, relu, up = adapter["layers"][0]
            expected = expected + weight * up(relu(down(norm(expected + x))))
        torch.testing.assert_close(layer.output(given_inner, x), norm(expected + x))


def test_taken_off_the_model_is_what_it_was():
    import torch

    model = bert()
    before, names = hidden(model), list(model.state_dict())
    undo = [attach(model, [filled(32, 2, 4, seed=seed)]) for seed in range(2)]
    assert len(list(model.state_dict())) > len(names)
    undo[0]()  # in any order
    only = hidden(model)
    undo[1]()
    assert torch.equal(hidden(model), before)
    assert list(model.state_dict()) == names
    attach(model, [filled(32, 2, 4, seed=1)])
    assert torch.equal(hidden(model), only)


def test_the_bottlenecks_follow_their_model_into_another_type():
    import torch

    model = bert()
    attach(model, [filled(32, 2, 4)])
    model.to(torch.bfloat16)
    assert hidden(model).dtype == torch.bfloat16


def test_of_a_pair_each_text_has_its_own_adapter():
    import torch

    model, query, document = bert(), filled(32, 2, 4, seed=1), filled(32, 2, 4, seed=2)
    undo = attach(model, [query, query])
    twice = hidden(model, types=True)
    undo()
    undo = attach(model, [query])
    assert torch.allclose(hidden(model, types=True), twice, atol=1e-6)
    undo()
    seen = []
    attach(model, [query, document])
    last_norms(model)[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    hidden(model, types=True)
    split, plain = seen.pop(), bert()
    last_norms(plain)[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for adapter, tokens in ((query, slice(0, 7)), (document, slice(7, 12))):
        seen.clear()
        hidden(plain, types=True)
        with torch.inference_mode():
            added = adapter["layers"][0](last_norms(plain)[0].forward(seen[0]))
        torch.testing.assert_close(split[:, tokens], (seen[0] + added)[:, tokens])


def test_where_there_are_no_token_types_the_first_text_ends_with_its_separator():
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    from retriever.encoders.adapters.bottleneck import _Side

    model = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=50,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            type_vocab_size=1,
        )
    ).eval()
    side = _Side(model)
    ids = torch.tensor([[0, 9, 8, 2, 2, 7, 2, 1], [0, 9, 2, 2, 7, 7, 7, 2]])
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=(ids != 1).long())
    assert side.query.int().tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]]


def test_the_coupling_is_undone_exactly():
    import torch

    functions = filled(32, 2, 4, invertible=True)["invertible"]
    given = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        there = couple(functions, given)
        torch.testing.assert_close(uncouple(functions, there), given, atol=1e-6, rtol=0)
        first, second = given[..., :16], given[..., 16:]
        y1 = first + functions[0](second)
        torch.testing.assert_close(there, torch.cat([y1, second + functions[1](y1)], dim=-1))
    assert not torch.allclose(there, given, atol=0.1)


def test_an_invertible_adapter_stands_around_a_language_models_layers():
    import torch

    model = bert("BertForMaskedLM")
    functions = filled(32, 2, 4, invertible=True)["invertible"]
    before, seen = hidden(model), []
    undo = attach_invertible(model, functions)
    model.bert.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.cls.predictions.decoder.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    model.cls.predictions.transform.register_forward_hook(lambda _, given, made: seen.append(made))
    assert not torch.allclose(hidden(model), before)
    with torch.inference_mode():
        embedded, transformed, (decoded, _) = seen
        torch.testing.assert_close(uncouple(functions, embedded), model.bert.embeddings.forward(batch()["input_ids"]))
        torch.testing.assert_close(decoded, uncouple(functions, transformed))
    undo()
    assert torch.equal(hidden(model), before)


def test_models_that_it_does_not_fit():
    from transformers import GPT2Config, GPT2Model

    with pytest.raises(InputError, match=r"a bottleneck needs layers that end with a norm.*GPT2Model has none"):
        last_norms(GPT2Model(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1)))
    with pytest.raises(InputError, match="an adapter for 3 layers does not fit a model of 2"):
        attach(bert(), [new_adapter(32, 3, 4, invertible=False)])
    with pytest.raises(InputError, match="reduction is from 1 to 16 for this model, not 32"):
        new_adapter(32, 2, 32, invertible=True)
