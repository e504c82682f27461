"""A dense encoder as a whole: it learns by every loss, goes on where it was stopped, and leaves an ordinary model."""

import json
import math
from dataclasses import replace

import collections_on_disk
import numpy as np
import pytest
import tiny_models
from training_runs import log, logged, same, train_and_kill, weights

from retriever import Document, InputError, Retriever
from retriever.encoders.sentence_transformer import SentenceTransformerEncoder
from retriever.errors import RetrieverError
from retriever.training import course, encoder
from retriever.training.encoder import train_encoder
from retriever.training.settings import EncoderTraining


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return EncoderTraining(
        base=str(tiny_models.bi_encoder(folder / "base")),
        data=(str(collections_on_disk.things(folder / "things")),),
        steps=20,
        batch_size=8,
        learning_rate=5e-3,
        drop_above=0.0,
        train_length=16,
        max_length=32,
        evaluate_every=10,
        precision="float32",
    )


def test_it_learns_and_leaves_a_model_that_sentence_transformers_and_a_dense_view_load(settings, tmp_path):
    from sentence_transformers import SentenceTransformer

    dev = [f"q-{thing}-{place} d-{thing}-{place} 1" for thing in ("wing", "heat", "body") for place in ("in", "of")]
    train = [
        f"q-{thing}-{place} d-{thing}-{place} 1"
        for thing in ("lift", "drag", "flow", "shock", "plate")
        for place in collections_on_disk.PLACES
    ]
    data = str(collections_on_disk.things(tmp_path / "things", train=train, dev=dev))
    trained = train_encoder(replace(settings, data=(data,), dev=(data,), steps=30), tmp_path / "out")
    measured = [entry["eval_nDCG@10"] for entry in log(trained.out) if "eval_nDCG@10" in entry]
    best = 10 * measured.index(max(measured))
    assert trained.notes == [
        "things: 20 examples; negatives: 0 judged irrelevant, 20 by bm25, 0 at random; left out: 0 queries without a "
        "relevant document; 0 of 32 documents are longer than 16 tokens and are cut",
        f"the model is step {best}'s: nDCG@10 on dev {max(measured):.4f}, of the base {measured[0]:.4f}",
    ]
    assert logged(trained.out, "loss")[-1] < 0.7 * logged(trained.out, "loss")[0]
    assert max(measured) > measured[0] + 0.1
    assert "nDCG@10 on dev" in (trained.out / course.CURVE).read_text()
    peer = SentenceTransformer(str(trained.out), device="cpu")
    assert peer.max_seq_length == 32
    index = Retriever.create(tmp_path / "index", [f"dense('{trained.out}', precision='float32')"])
    texts = {"wing": "the wing is in a body", "plate": "the plate is of a body", "heat": "the heat is over a body"}
    index.add(Document(name, text) for name, text in texts.items())
    hits = index.search("query : in wing", k=3)
    expected = peer.similarity(peer.encode_query(["query : in wing"]), peer.encode_document(list(texts.values())))[0]
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        dict(zip(texts, expected.tolist(), strict=True)), abs=1e-5
    )


def test_a_killed_training_ends_at_the_weights_of_an_undisturbed_one(settings, tmp_path):
    given = replace(settings, drop_above=0.95, dimensions=(32, 8), loss="cached")
    whole = train_encoder(given, tmp_path / "whole").out
    train_and_kill(train_encoder, given, tmp_path / "killed", steps=14)
    assert same(weights(train_encoder(given, tmp_path / "killed").out), weights(whole))
    assert train_encoder(given, whole).notes == [f"{whole} is finished already; give another folder to train anew"]


def test_a_full_disk_ends_the_training_and_the_same_command_goes_on(settings, tmp_path, monkeypatch):
    whole, out = train_encoder(settings, tmp_path / "whole").out, tmp_path / "full"

    steps = iter(range(15))

    def fill(_):
        if next(steps, None) is not None:
            return
        late = out / course.CHECKPOINTS / "checkpoint-20"
        late.mkdir(exist_ok=True)
        if not (late / "optimizer.pt").exists():
            (late / "optimizer.pt").symlink_to("/dev/full")

    with monkeypatch.context() as patch:
        patch.setattr(course, "advance", fill)
        with pytest.raises(RetrieverError, match=r"cannot be written: .* is the disk full\?") as raised:
            train_encoder(settings, out)
    assert raised.value.exit_code == 1
    assert course.newest_checkpoint(out).name == "checkpoint-10"
    assert same(weights(train_encoder(settings, out).out), weights(whole))


def test_a_training_that_makes_it_worse_is_told(tmp_path):
    course.write_log([{"step": 0, "eval_nDCG@10": 0.5}, {"step": 10, "eval_nDCG@10": 0.25}], tmp_path)
    assert course.kept(tmp_path) == [
        "the model is step 10's: nDCG@10 on dev 0.2500, of the base 0.5000; training made it no better than the base, "
        "so look before you use it"
    ]


def test_a_training_that_diverges_stops_before_its_weights_are_no_numbers(settings, tmp_path):
    from safetensors.numpy import load_file

    wild = replace(settings, learning_rate=1e38, evaluate_every=1, steps=50)
    with pytest.raises(InputError, match=r"the loss or its gradient is (nan|inf) in step \d+; the last good") as raised:
        train_encoder(wild, tmp_path / "out")
    kept = course.newest_checkpoint(tmp_path / "out")
    assert str(kept) in str(raised.value)
    assert all(np.isfinite(value).all() for value in load_file(kept / "model.safetensors").values())


@pytest.mark.parametrize("loss", ["margin-mse", "kl"])
def test_a_teacher_teaches(settings, tmp_path, loss):
    teacher = f"cross-encoder('{tiny_models.cross_encoder(tmp_path / 'teacher')}')"
    taught = replace(settings, loss=loss, teacher=teacher, negatives=3, steps=30)
    found = logged(train_encoder(taught, tmp_path / "out").out, "loss")
    assert found[-1] < 0.8 * found[0]


def test_the_cached_loss_is_the_one_in_the_batch(settings, tmp_path, monkeypatch):
    short = replace(settings, steps=4, evaluate_every=1)
    plain = logged(train_encoder(short, tmp_path / "plain").out, "loss")
    monkeypatch.setattr(encoder, "MINI_BATCH", 3)
    cached = logged(train_encoder(replace(short, loss="cached"), tmp_path / "cached").out, "loss")
    assert cached == pytest.approx(plain, rel=1e-3)
    assert plain[-1] != pytest.approx(plain[0], rel=0.1)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_losses_are_the_papers(settings, tmp_path, similarity):
    """By hand, from the vectors of two queries with two texts each: cosines times 20, or dot products."""
    import torch

    base = tiny_models.bi_encoder(tmp_path, normalize=False, similarity=similarity)
    model = encoder.load_encoder(base, settings)
    queries, good, bad = ["wing in", "heat of"], ["the wing", "a heat"], ["the drag", "a body over"]
    features = [model.preprocess(texts) for texts in (queries, good, bad)]
    q, first, second = (torch.from_numpy(model.encode(texts)) for texts in (queries, good, bad))
    if similarity == "cosine":
        q, first, second = (20**0.5 * torch.nn.functional.normalize(part) for part in (q, first, second))
    own = torch.stack([(q * first).sum(dim=1), (q * second).sum(dim=1)], dim=1)
    taught = torch.tensor([[3.0, 1.0], [-1.0, -1.5]])
    both = (q @ torch.cat([first, second]).T).log_softmax(dim=1)
    expected = {
        "in-batch": -both.diagonal().mean(),
        "margin-mse": ((own[:, 0] - own[:, 1]) - torch.tensor([2.0, 0.5])).square().mean(),
        "kl": (taught.softmax(1) * (taught.log_softmax(1) - own.log_softmax(1))).sum(1).mean(),
    }
    for name, value in expected.items():
        found = encoder._loss(replace(settings, loss=name), model)([dict(each) for each in features], taught)
        assert found.item() == pytest.approx(value.item(), rel=1e-4), name


def test_the_first_dimensions_learn_to_do_alone(settings, tmp_path):
    judged = [
        f"q-{thing}-{place} d-{thing}-{place} 1"
        for thing in collections_on_disk.THINGS
        for place in collections_on_disk.PLACES
    ]
    data = (str(collections_on_disk.things(tmp_path / "things", train=judged, dev=judged)),)
    given = replace(settings, data=data, dev=data, steps=30, dimensions=(32, 8, 4))
    first, *others = [
        entry["eval_nDCG@10_of_4"]
        for entry in log(train_encoder(given, tmp_path / "out").out)
        if "eval_nDCG@10_of_4" in entry
    ]
    assert max(others) > first + 0.1


def test_a_model_without_pooling_is_given_the_one_that_is_stated(settings, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import BertModel

    plain = tiny_models.bi_encoder(tmp_path).parent / "base"
    short = replace(settings, base=str(plain), pooling="cls", steps=1)
    out = train_encoder(short, tmp_path / "out").out
    peer = SentenceTransformer(str(out), device="cpu")
    assert [type(module).__name__ for module in peer] == ["Transformer", "Pooling", "Normalize"]
    assert peer[1].pooling_mode == "cls"
    assert isinstance(peer[0].auto_model, BertModel)
    ours = SentenceTransformerEncoder(str(out), "float32").encode_queries(["lift of a wing"]).vectors
    assert ours == pytest.approx(peer.encode_query(["lift of a wing"]), abs=1e-5)
    assert np.linalg.norm(ours) == pytest.approx(1.0)


def test_a_state_space_model_learns_to_end_its_texts_and_keeps_it(settings, tmp_path):
    from sentence_transformers import SentenceTransformer

    plain = tiny_models.state_space(tmp_path / "mamba")
    out = train_encoder(replace(settings, base=str(plain), pooling="eos"), tmp_path / "out").out
    assert logged(out, "loss")[-1] < 0.9 * logged(out, "loss")[0]
    peer = SentenceTransformer(str(out), device="cpu")
    assert peer.tokenizer("lift of a wing")["input_ids"][-1] == peer.tokenizer.eos_token_id
    ours = SentenceTransformerEncoder(str(out)).encode_queries(["lift of a wing", "heat"]).vectors
    assert ours == pytest.approx(peer.encode_query(["lift of a wing", "heat"]), abs=1e-5)


def test_prefixes_are_trained_with_and_kept(settings, tmp_path):
    read = collections_on_disk.things(tmp_path / "prefixed" / "things")
    bare = collections_on_disk.things(tmp_path / "bare" / "things")
    (bare / "queries.jsonl").write_text((read / "queries.jsonl").read_text().replace("query : ", ""))
    lines = [json.loads(line) for line in (read / "corpus.jsonl").read_text().splitlines()]
    (read / "corpus.jsonl").write_text(
        "".join(json.dumps({**each, "text": f"passage {each['text']}"}) + "\n" for each in lines)
    )
    short = replace(settings, steps=3, negatives=0)
    expected = train_encoder(replace(short, data=(str(read),)), tmp_path / "written").out
    prefixes = {"query_prefix": "query : ", "document_prefix": "passage "}
    out = train_encoder(replace(short, data=(str(bare),), **prefixes), tmp_path / "stated").out
    assert same(weights(out), weights(expected))
    assert SentenceTransformerEncoder(str(out)).identity()["prompts"] == {"query": "query : ", "document": "passage "}


def test_there_is_no_dropout(settings):
    import torch

    model = encoder.load_encoder(encoder.find_model(settings.base), settings).train()
    assert model[0].auto_model.config.hidden_dropout_prob > 0
    first, second = (model(model.preprocess(["lift of a wing"]))["sentence_embedding"] for _ in range(2))
    assert torch.equal(first, second)


def test_mined_texts_that_the_base_finds_relevant_are_no_negatives(settings, tmp_path):
    """The same text under another id, and nobody judged it: the base's cosine with the query is the same."""
    documents = {f"d{number}": "the wing is in a body" for number in range(6)} | {
        "e": "lift",
        "f": "the drag",
        "g": "heat",
    }
    queries = {"q": "wing in body", "r": "nothing", "s": "drag"}
    data = collections_on_disk.write(tmp_path / "twins", documents, queries, train=["q d0 1", "r f 0", "s f 1"])
    given = replace(settings, data=(str(data),), negatives=1, steps=1)
    told = train_encoder(replace(given, drop_above=0.95), tmp_path / "out").notes[0]
    assert (
        "left out: 1 queries without a relevant document, and 3 mined negatives that may be relevant (above 0.95 of "
        in told
    )
    assert "the relevant text's score by the base model)" in told
    teacher = f"cross-encoder('{tiny_models.cross_encoder(tmp_path / 'teacher')}')"
    told = train_encoder(replace(given, drop_above=0.95, teacher=teacher), tmp_path / "judged").notes[0]
    assert "and 3 mined negatives that may be relevant (above 0.95 of the relevant text's score by the teacher)" in told
    assert "may be relevant" not in train_encoder(given, tmp_path / "all").notes[0]


@pytest.mark.parametrize(
    ("judged", "message"),
    [
        (["q-wing-in nothing 1"], r"train.tsv:2: document 'nothing' is judged, but it is not in the document file"),
        (["q-wing-in d-wing-in 0"], r"things: no train query has a relevant document \(a grade above 0\)"),
    ],
)
def test_judgements_that_nothing_can_be_learnt_from(settings, tmp_path, judged, message):
    data = collections_on_disk.things(tmp_path / "things", train=judged)
    with pytest.raises(InputError, match=message):
        train_encoder(replace(settings, data=(str(data),)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_whose_judgements_are_all_for_dev(settings, tmp_path):
    data = str(collections_on_disk.things(tmp_path / "things", dev=["q-wing-in d-wing-in 1"]))
    with pytest.raises(InputError, match="things: has no train queries"):
        train_encoder(replace(settings, data=(data,), dev=(data,)), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hinge"}, "loss is one of in-batch, cached, margin-mse, kl, not 'hinge'"),
        ({"pooling": "max"}, "pooling is one of mean, cls, last, eos, not 'max'"),
        ({"loss": "kl"}, "loss kl learns from a teacher: give one"),
        ({"loss": "kl", "teacher": "cross-encoder(x)", "negatives": 0}, "negatives must be at least 1"),
        ({"teacher": "cross-encoder(x)"}, "loss in-batch reads no teacher, and there are no negatives to judge"),
        ({"batch_size": 1, "negatives": 0}, "a batch of one query without negatives teaches nothing"),
        ({"drop_above": -1.0}, "drop_above must be at least 0, not -1.0"),
        ({"dimensions": (16, 8)}, "dimensions go from its own, 32, downwards, not 16,8"),
        ({"max_length": 65}, "has positions for 64 tokens, not for max_length=65"),
        ({"base": "no/such-model"}, "model 'no/such-model' was not found"),
    ],
)
def test_settings_that_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train_encoder(replace(settings, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_compares_by_distance(settings, tmp_path):
    far = tiny_models.bi_encoder(tmp_path, similarity="euclidean")
    with pytest.raises(InputError, match="compares by euclidean distance; training needs cosine or dot"):
        train_encoder(replace(settings, base=str(far)), tmp_path / "out")


def test_the_picture_has_the_numbers_of_the_log(settings, tmp_path):
    out = train_encoder(replace(settings, dev=settings.data), tmp_path / "out").out
    drawn = (out / course.CURVE).read_text()
    assert all(f"<title>{entry['step']}: {entry['loss']:.4g}</title>" in drawn for entry in log(out) if "loss" in entry)
    assert math.isfinite(logged(out, "loss")[0])
