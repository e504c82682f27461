"""Text generators: a real local server with its failures, and tiny local models."""

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest
from tiny_models import bi_encoder, causal, seq2seq
from toy_server import Server, completion, serving

from retriever import InputError
from retriever.errors import RetrieverError
from retriever.generators import Endpoint, LocalModel, Sampling, generator

SAMPLING = Sampling(max_tokens=8, temperature=0.7, seed=3)
GREEDY = Sampling(max_tokens=8, temperature=0.0, seed=0)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as made:
        yield made


def endpoint(server: Server, timeout: float = 5.0) -> Endpoint:
    return Endpoint(f"{server.url}#tiny", SAMPLING, timeout=timeout, pause=0.01)


def test_every_sample_is_asked_with_its_own_seed(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    made = generator(f"{server.url}/#some/model", SAMPLING)
    assert made.generate(["what is lift", "drag"], 3) == [
        ["what is lift 3", "what is lift 4", "what is lift 5"],
        ["drag 3", "drag 4", "drag 5"],
    ]
    assert set(server.paths) == {"/v1/chat/completions"}
    assert {body["model"] for body in server.asked} == {"some/model"}
    assert {(body["max_tokens"], body["temperature"]) for body in server.asked} == {(8, 0.7)}
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sesame"}
    assert made.generate([], 3) == []


def test_without_a_key_none_is_sent(server):
    endpoint(server).generate(["q"], 1)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("failure", [(500, "out of memory"), (503, ""), (429, "slow down"), "hang up"])
def test_what_may_pass_is_tried_again(server, failure):
    server.script = [failure, failure, failure, " at last "]
    assert endpoint(server).generate(["q"], 1) == [["at last"]]
    assert len(server.asked) == 4


def test_a_silent_server_is_given_up_and_asked_again(server):
    server.script = ["silence", "an answer"]
    assert endpoint(server, timeout=0.2).generate(["q"], 1) == [["an answer"]]


@pytest.mark.parametrize(
    ("failure", "requests", "reason"),
    [
        ((500, "out of memory"), 4, r"status 500 Internal Server Error: out of memory \(4 attempts\)"),
        ("silence", 4, r"timed out \(4 attempts\)"),
        ("hang up", 4, r"Remote end closed connection without response \(4 attempts\)"),
        ((404, "no model tiny"), 1, "status 404 Not Found: no model tiny"),
        ((401, ""), 1, "status 401 Unauthorized: "),
        ((307, ""), 1, "status 307 Temporary Redirect: "),
        ((200, "<html>"), 1, "its answer is no chat completion: <html>"),
        ((200, '{"choices": []}'), 1, r'its answer is no chat completion: {"choices": \[\]}'),
        ((200, '{"choices": {"a": 1}}'), 1, "its answer is no chat completion: "),
        ((200, "[1, 2"), 1, r"its answer is no chat completion: \[1, 2"),
        ((200, completion("  ")), 1, "its answer holds no text"),
        ((200, completion(None)), 1, "its answer holds no text"),
    ],
)
def test_a_final_failure_names_the_server_and_the_reason(server, failure, requests, reason):
    server.script = [failure] * 4
    with pytest.raises(RetrieverError, match=f"^{server.url}: model 'tiny' generated nothing: {reason}") as caught:
        endpoint(server, timeout=0.2).generate(["q"], 1)
    assert not isinstance(caught.value, InputError)
    assert len(server.asked) == requests


def test_after_a_failure_little_more_is_asked(server):
    server.script = [(404, "")] * 200
    with pytest.raises(RetrieverError, match="status 404"):
        endpoint(server).generate([f"q{i}" for i in range(200)], 1)
    assert len(server.asked) < 100


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as gone:
        url = gone.url
    with pytest.raises(RetrieverError, match=r"/v1: model 'tiny' generated nothing: .*refused.* \(4 attempts\)"):
        Endpoint(f"{url}#tiny", SAMPLING, pause=0.01).generate(["q"], 1)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost:8000/v1", "names no model; write it behind a #, as in http://localhost:8000/v1#MODEL"),
        ("http://localhost:many/v1#m", "is no address; expected http://host:port/v1#MODEL"),
        ("http://#m", "is no address; expected http://host:port/v1#MODEL"),
    ],
)
def test_an_address_that_cannot_be_one(url, message):
    with pytest.raises(InputError) as caught:
        generator(url, SAMPLING)
    assert str(caught.value) == f"{url}: {message}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("models") / "causal")


def test_greedy_text_is_the_likeliest_token_each_time(model):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, words = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    tokens = words("lift over the wing")["input_ids"]
    start = len(tokens)
    for _ in range(8):
        tokens.append(int(network(torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == words.sep_token_id:
            break
    expected = words.decode(tokens[start:], skip_special_tokens=True)
    assert LocalModel(str(model), GREEDY).generate(["lift over the wing"], 1) == [[expected]]


def test_samples_depend_on_the_seed_and_the_prompt_alone(model):
    import torch

    made = LocalModel(str(model), SAMPLING)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second = made.generate(["lift", "drag"], 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert made.generate(["drag"], 4) == [second]
    assert len(set(first)) > 1
    assert first != second
    assert LocalModel(str(model), Sampling(8, 0.7, seed=4)).generate(["lift"], 4) != [first]


def test_an_encoder_decoder_model_writes_what_its_decoder_says(tmp_path):
    folder = seq2seq(tmp_path / "t5")
    ((text,),) = LocalModel(str(folder), GREEDY).generate(["lift over the wing"], 1)
    assert text
    assert len(LocalModel(str(folder), SAMPLING).generate(["lift"], 3)[0]) == 3


def test_a_chat_template_is_applied(model, tmp_path):
    from transformers import AutoTokenizer

    chat = copytree(model, tmp_path / "chat")
    words = AutoTokenizer.from_pretrained(chat)
    words.chat_template = "{% for m in messages %}the document : {{ m['content'] }}{% endfor %}"
    words.save_pretrained(chat)
    made = LocalModel(str(chat), GREEDY).generate(["lift"], 1)
    assert made != LocalModel(str(model), GREEDY).generate(["lift"], 1)
    words.chat_template = "[CLS] {{ messages[0]['content'] }} [SEP]"  # what the tokenizer puts around a text by itself
    words.save_pretrained(tmp_path / "same")
    for path in model.iterdir():
        if not (tmp_path / "same" / path.name).exists():
            (tmp_path / "same" / path.name).symlink_to(path)
    assert LocalModel(str(tmp_path / "same"), GREEDY).generate(["lift"], 1) == LocalModel(str(model), GREEDY).generate(
        ["lift"], 1
    )


def test_a_model_that_writes_nothing_is_an_error(tmp_path):
    folder = causal(tmp_path / "mute", forced_eos_token_id=3)
    with pytest.raises(RetrieverError, match=f"{folder}: generated an empty text for the prompt 'lift'"):
        LocalModel(str(folder), Sampling(1, 0.0, 0)).generate(["lift"], 1)


def test_a_prompt_that_does_not_fit_is_an_error(model):
    with pytest.raises(
        InputError, match=rf"{model}: reads 64 tokens and the prompt '.*' has 62, with 8 to be generated"
    ):
        LocalModel(str(model), GREEDY).generate(["lift " * 60], 1)


def test_a_model_without_a_language_models_head_is_refused(model, tmp_path):
    encoder = bi_encoder(tmp_path / "encoder")
    with pytest.raises(InputError, match=r"generates no text: its config.json names no language model \(BertModel\)"):
        generator(str(encoder.parent / "base"), SAMPLING)
    config = json.loads((encoder.parent / "base" / "config.json").read_text())
    config |= {"architectures": ["BertLMHeadModel"], "is_decoder": True}
    (encoder.parent / "base" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"lacks weights, and would generate at random: cls\.predictions"):
        LocalModel(str(encoder.parent / "base"), GREEDY).generate(["lift"], 1)


def test_a_model_that_is_nowhere_or_damaged(model, tmp_path):
    with pytest.raises(InputError, match="model 'no/such' was not found"):
        generator("no/such", SAMPLING)
    damaged = copytree(model, tmp_path / "damaged")
    (damaged / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json: holds no model that transformers can load: Expecting property"):
        generator(str(damaged), SAMPLING)
