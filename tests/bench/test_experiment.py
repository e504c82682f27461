"""Comparisons on small collections with toy encoders: what is measured, what is kept, what is never mixed up."""

import json
from pathlib import Path

import pytest
from collections_on_disk import PLACES, THINGS, things
from toy_encoders import LOG, HashEncoder

from retriever import InputError, Query, Retriever, writer
from retriever.bench.cache import Indexed
from retriever.bench.cost import forget_peak, parameters, peak_mb, tokens_each
from retriever.bench.experiment import Plan, compare
from retriever.bench.outcome import Experiment
from retriever.bench.sources import parse_source
from retriever.bench.systems import parse_system
from retriever.eval.measures import evaluate
from retriever.runs import Qrels, Run

TOY = "dense(toy_encoders:HashEncoder)"
JUDGED = [f"q-{thing}-{place} d-{thing}-{place} 1" for thing in THINGS for place in PLACES]


@pytest.fixture
def folder(tmp_path) -> Path:
    return things(tmp_path / "things", test=JUDGED)


@pytest.fixture
def encoded(tmp_path, monkeypatch):
    """How many documents were encoded so far."""
    log = tmp_path / "encoded"
    monkeypatch.setenv(LOG, str(log))
    return lambda: len(log.read_text().split()) if log.exists() else 0


def plan(folder: Path, *systems: str, **more) -> Plan:
    sources = [parse_source(str(folder), "test", folder.parent / "cache")]
    return Plan(sources, [parse_system(text) for text in systems], ["nDCG@10", "R@100"], more.pop("k", 10), **more)


def run(made: Plan, kept: list[Run] | None = None) -> Experiment:
    home = Path(made.sources[0].corpus).parent / "cache"
    return compare(
        made,
        "retriever bench",
        lambda source: Indexed(source, home, skip_bad=made.skip_bad),
        lambda _, found: None if kept is None else kept.append(found),
    )


def test_values_are_those_of_an_index_made_by_hand(folder, tmp_path):
    runs: list[Run] = []
    experiment = run(plan(folder, "bm25", f"both = bm25 + {TOY} >> rrf"), runs)
    index = Retriever.create(tmp_path / "index", ["bm25", TOY])
    source = parse_source(str(folder), "test", tmp_path)
    index.add(source.documents(None))
    assert [outcome.system for outcome in experiment.of("things")] == ["bm25", "both"]
    for outcome, made, pipeline in zip(experiment.outcomes, runs, ("bm25", "bm25 + dense >> rrf"), strict=True):
        expected = index.run(source.asked, k=10, pipeline=pipeline)
        assert made == expected
        assert outcome.results == evaluate(expected, Qrels.read(source.qrels), ["nDCG@10", "R@100"])
        assert outcome.found == {query: list(ranking) for query, ranking in expected.items()}


def test_costs_are_measured_and_the_report_survives_json(folder):
    experiment = run(plan(folder, "bm25", f"both = bm25 + {TOY} >> rrf"))
    for outcome in experiment.outcomes:
        cost = outcome.cost
        assert 0 < cost.p50 <= cost.p95 <= cost.p99
        assert min(cost.queries_per_second, cost.documents_per_second, cost.build_seconds, cost.peak_mb) > 0
    lexical, both = (outcome.cost for outcome in experiment.outcomes)
    assert both.bytes_per_document == pytest.approx(lexical.bytes_per_document + 32 * 4)
    assert lexical.device == "cpu"
    (collection,) = experiment.collections
    assert (collection.documents, len(collection.queries), collection.grades["q-wing-in"]) == (32, 32, {"d-wing-in": 1})
    assert collection.texts["d-wing-in"] == "the wing is in a body"
    assert Experiment.from_json(experiment.to_json()) == experiment


def test_a_second_comparison_encodes_nothing_and_searches_nothing(folder, encoded):
    first = run(plan(folder, TOY, "bm25"))
    assert encoded() == 32
    second = run(plan(folder, TOY, "bm25"))
    assert encoded() == 32
    assert [outcome.results for outcome in second.outcomes] == [outcome.results for outcome in first.outcomes]
    assert [outcome.cost for outcome in second.outcomes] == [outcome.cost for outcome in first.outcomes]
    assert "the run is the cache's, of" in second.outcomes[0].notes[-1]


def test_other_indexes_fusions_depths_and_judgements_encode_nothing(folder, encoded):
    run(plan(folder, TOY))
    systems = ("dense(toy_encoders:HashEncoder, index=HNSW8, ef_search=99)", f"bm25 + {TOY} >> rrf", TOY)
    experiment = run(plan(folder, *systems, k=7))
    assert encoded() == 32
    hnsw, _, flat = experiment.outcomes
    assert hnsw.results == flat.results
    assert hnsw.cost.build_seconds > flat.cost.build_seconds
    assert hnsw.cost.bytes_per_document > 0
    assert max(map(len, flat.found.values())) == 7


def test_an_index_that_so_few_documents_cannot_train_is_told(folder):
    outcome = run(plan(folder, "dense(toy_encoders:HashEncoder, index='IVF64,Flat')")).outcomes[0]
    assert "too few documents to train this index; they are searched exactly" in outcome.notes[0]
    assert run(plan(folder, TOY)).outcomes[0].results == outcome.results


def test_another_corpus_or_encoder_is_never_taken_for_the_known_one(folder, encoded):
    run(plan(folder, TOY))
    run(plan(folder, "dense(toy_encoders:OtherEncoder)"))
    assert encoded() == 64
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "new", "text": "query : in wing"}) + "\n")
    experiment = run(plan(folder, TOY))
    assert encoded() == 64 + 33
    assert experiment.outcomes[0].found["q-wing-in"][0] == "new"


def test_an_interrupted_comparison_goes_on(folder, encoded, monkeypatch):
    """The documents are in, and of the view some commits, when the process ends."""
    monkeypatch.setattr(writer, "ENCODED_SEGMENT", 8)
    with monkeypatch.context() as patch:
        patch.setattr(HashEncoder, "_document", stops_after(20, encoded))
        with pytest.raises(KeyboardInterrupt):
            run(plan(folder, TOY))
    assert encoded() == 20
    outcome = run(plan(folder, TOY)).outcomes[0]
    assert encoded() == 20 + 32 - 16  # the third commit of eight is made again
    assert "16 documents were encoded before an interruption" in outcome.notes[0]
    assert outcome.results == run(plan(folder, f"again = {TOY}", again=True)).outcomes[0].results


def stops_after(count, encoded):
    document = HashEncoder._document

    def _document(self, text):
        if encoded() >= count:
            raise KeyboardInterrupt
        return document(self, text)

    return _document


def test_a_run_file_is_a_system(folder, tmp_path):
    runs: list[Run] = []
    run(plan(folder, "bm25"), runs)
    runs[0].write(tmp_path / "things.trec")
    experiment = run(plan(folder, "bm25", f"theirs = {tmp_path}/{{collection}}.trec", k=5))
    ours, theirs = experiment.outcomes
    assert ours.results == theirs.results
    assert theirs.cost.p50 is None
    assert theirs.notes[1].startswith("cut to 5 results a query; the file has up to ")


def test_bad_records_stop_it_or_are_left_out_and_told(folder):
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "empty", "text": ""}\n')
    with pytest.raises(InputError, match=r"corpus\.jsonl:33: "):
        run(plan(folder, "bm25"))
    experiment = run(plan(folder, "bm25", skip_bad=True))
    assert "bad records of the corpus left out: 1" in experiment.outcomes[0].notes
    with pytest.raises(InputError, match=r"corpus\.jsonl:33: .*\(1 bad records; --skip-bad leaves them out\)"):
        run(plan(folder, "bm25"))


def test_judgements_of_another_corpus_are_told_with_examples(tmp_path):
    folder = things(tmp_path / "things", test=["q-wing-in x1 1", "q-wing-of x2 1"])
    with pytest.raises(InputError, match=r"no relevant document .* judged are 'x1', 'x2'; the corpus has 'd-wing-in'"):
        run(plan(folder, "bm25"))


def test_a_run_of_another_collection_is_told_with_examples(folder, tmp_path):
    Run({"x1": {"y": 1.0}}).write(tmp_path / "other.trec")
    message = (
        "^things: theirs: the run and the judgements share no query: the run has 'x1'; the judgements have 'q-wing"
    )
    with pytest.raises(InputError, match=message):
        run(plan(folder, "bm25", f"theirs = {tmp_path}/other.trec"))
    Run({"q-wing-in": {"y": 1.0}}).write(tmp_path / "other.trec")
    outcome = run(plan(folder, f"theirs = {tmp_path}/other.trec")).outcomes[0]
    assert list(outcome.results.notes())[-1].startswith("no judged document was found for any query: ")


def test_names_must_differ_and_a_run_is_of_one_collection(folder):
    with pytest.raises(InputError, match="two systems are called 'bm25'"):
        plan(folder, "bm25", "bm25")
    other = things(folder.parent / "others", test=JUDGED)
    sources = [parse_source(str(each), "test", folder.parent) for each in (folder, other)]
    with pytest.raises(InputError, match=r"a run is of one collection, and there are 2; write \{collection\}"):
        Plan(sources, [parse_system("a.trec")], ["nDCG@10"], 10)


def test_published_numbers_stand_beside_ours(folder):
    named = folder.rename(folder.with_name("scifact"))
    outcome = run(plan(named, "bm25(k1=0.9, b=0.4)")).outcomes[0]
    beside = outcome.published["nDCG@10"]
    assert (beside.value, beside.tolerance, beside.within) == (0.6789, 0.005, False)
    assert "Pyserini" in beside.source
    assert run(plan(named, "bm25")).outcomes[0].published == {}


# -- the parts of a cost -----------------------------------------------------------------------------------------------


def test_peak_memory_begins_anew():
    if not forget_peak():
        pytest.skip("this system cannot forget the peak of a process's memory")
    before = peak_mb()
    filled = b"x" * (64 << 20)
    assert peak_mb() > before + 32
    del filled
    forget_peak()
    assert peak_mb() < before + 32


def test_parameters_and_tokens_of_a_model(tmp_path):
    from tiny_models import bi_encoder
    from transformers import AutoModel

    model = bi_encoder(tmp_path)
    assert parameters([str(model)]) == sum(each.numel() for each in AutoModel.from_pretrained(model).parameters())
    assert parameters([]) is None
    assert parameters(["toy_encoders:HashEncoder"]) is None
    assert tokens_each(str(model), ["the wing", "the " * 50], 10) == (4 + 10) / 2


def test_the_key_of_a_run_covers_its_queries_and_depth(folder, tmp_path):
    source = parse_source(str(folder), "test", tmp_path)
    kept, system = Indexed(source, tmp_path / "cache", skip_bad=False), parse_system("bm25")
    keys = {kept.key(system, queries, k) for queries in (source.asked, [Query("q", "x")]) for k in (5, 10)}
    assert len(keys) == 4
