"""MTEB beside us: the same task, through its own evaluation and through ours, gives the same numbers."""

import pytest
import toy_mteb
from tiny_models import bi_encoder
from toy_mteb import mteb
from typer.testing import CliRunner

from retriever import InputError, Qrels, read_corpus, read_queries
from retriever.bench.mteb.models import EncoderModel, PipelineModel
from retriever.bench.mteb.tasks import SCORES, Task
from retriever.bench.sources import parse_source
from retriever.cli.app import app
from retriever.errors import RetrieverError

TOY = "dense(toy_encoders:HashEncoder)"


def evaluated(model, task):
    """The scores that mteb itself gives a model on its task's only subset and split."""
    (result,) = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False).task_results
    ((scores,),) = result.scores.values()
    return scores


def bench(tmp_path, *arguments, cache="cache"):
    out = tmp_path / "report"
    rest = ["--out", str(out), "--cache", str(tmp_path / cache), "--mteb"]
    result = CliRunner().invoke(app, ["bench", *map(str, arguments), *rest])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return mteb.ResultCache(out / "mteb")


def written(cache, task):
    """Model's name -> what mteb's loader reads of a task."""
    files = cache.cache_path.glob(f"results/*/*/{task}.json")
    return {file.parent.parent.name: mteb.TaskResult.from_disk(file) for file in files}


# -- its tasks ---------------------------------------------------------------------------------------------------------


def test_a_task_is_a_collection(tmp_path):
    source = parse_source("mteb:toy_mteb:Things", "ignored", tmp_path)
    data = toy_mteb.data(len("default" + "test"))
    assert source.task == Task("Things", "1", "test", "default", ("eng-Latn",))
    assert Qrels.read(source.qrels) == data["relevant_docs"]
    assert {query.id: query.text for query in read_queries(source.queries)} == dict(
        zip(data["queries"]["id"], data["queries"]["text"], strict=True)
    )
    assert [(each.id, each.title, each.text) for each in read_corpus(source.corpus)] == [
        (row["id"], row["title"], row["text"]) for row in data["corpus"]
    ]
    assert parse_source("mine=mteb:toy_mteb:Things", "ignored", tmp_path).name == "mine"


def test_a_task_of_its_own_is_fetched_once(tmp_path, monkeypatch):
    kind = type(mteb.get_task("SciFact"))
    monkeypatch.setattr(kind, "load_data", toy_mteb.Things.load_data)
    monkeypatch.setattr(kind, "part", toy_mteb.Things.part, raising=False)
    first = parse_source("mteb:SciFact", "test", tmp_path)
    assert first.task.revision == mteb.get_task("SciFact").metadata.revision
    monkeypatch.setattr(kind, "load_data", toy_mteb.Unreachable.load_data)
    assert parse_source("mteb:SciFact", "test", tmp_path).judgements == first.judgements


def test_of_several_subsets_and_splits_one_is_chosen(tmp_path):
    source = parse_source("mteb:toy_mteb:Languages/german", "dev", tmp_path)
    assert source.task == Task("Languages", "1", "dev", "german", ("deu-Latn",))
    assert source.judgements == toy_mteb.data(len("german" + "dev"))["relevant_docs"]


def test_an_instruction_stands_behind_its_query(tmp_path):
    assert parse_source("mteb:toy_mteb:Instructed", "test", tmp_path).asked[0].text.endswith(" heat of the wing")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("SciFac", "mteb:SciFac: 'SciFac' not found. Did you mean: 'SciFact'?"),
        ("STS12", "is of the type STS; expected a task of the type Retrieval or InstructionRetrieval"),
        ("toy_mteb:data", "is of the type function; expected"),
        ("SciDocsRR", "is of the type Reranking; expected"),
        ("InstructIR", "its score is robustness_at_10, of more than one ranking; use mteb itself"),
        ("toy_mteb:Languages", "choose one with mteb:toy_mteb:Languages/SUBSET, of en, german"),
        ("toy_mteb:Things/en", "choose one with mteb:toy_mteb:Things/SUBSET, of default"),
        ("toy_mteb:Languages/en", "choose one with --split SPLIT, of dev, test"),
        ("toy_mteb:Candidates", "gives each query candidates of its own; expected a task that searches its whole"),
        ("toy_mteb:Conversations", "query 'q3' is a conversation; expected a text: use mteb itself"),
    ],
)
def test_what_is_no_collection_is_told(tmp_path, task, message):
    with pytest.raises(InputError) as problem:
        parse_source(f"mteb:{task}", "train", tmp_path)
    assert message in str(problem.value)
    assert not list(tmp_path.rglob("qrels/*.tsv"))


def test_data_that_cannot_be_had_are_told(tmp_path):
    with pytest.raises(RetrieverError, match="mteb cannot provide it: ConnectionError: no route to the hub"):
        parse_source("mteb:toy_mteb:Unreachable", "test", tmp_path)
    assert not list(tmp_path.iterdir())


# -- its numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [toy_mteb.Things, toy_mteb.NotItself, toy_mteb.Instructed])
def test_a_result_that_we_write_is_what_mteb_measures_of_our_pipelines(tmp_path, task):
    systems = {"bm25": "bm25", "both": f"bm25 + {TOY} >> rrf"}
    arguments = [each for name, text in systems.items() for each in ("--system", f"{name} = {text}")]
    found = written(bench(tmp_path, f"mteb:toy_mteb:{task.__name__}", *arguments), task.__name__)
    assert found.keys() == {"retriever__bm25", "retriever__both"}
    for name, text in systems.items():
        theirs = evaluated(PipelineModel(text, tmp_path / "another cache"), task())
        (ours,) = found[f"retriever__{name}"].scores["test"]
        assert {score: ours[score] for score in SCORES} == pytest.approx(
            {score: theirs[score] for score in SCORES}, abs=1e-5
        )
        assert {name: ours[name] for name in ("main_score", "hf_subset", "languages")} == {
            name: pytest.approx(theirs[name], abs=1e-5) if name == "main_score" else theirs[name]
            for name in ("main_score", "hf_subset", "languages")
        }
        assert 0 < ours["ndcg_at_10"] < 1


def test_mteb_loads_all_that_we_write(tmp_path):
    cache = bench(tmp_path, "mteb:toy_mteb:Things", "mteb:toy_mteb:NotItself", "-s", "bm25", "-s", f"toy = {TOY}")
    loaded = cache.load_results(tasks=[toy_mteb.Things(), toy_mteb.NotItself()])
    models = {model.model_name: model for model in loaded.model_results}
    assert models.keys() == {"retriever/bm25", "retriever/toy"}
    assert {each.task_name for each in models["retriever/toy"].task_results} == {"Things", "NotItself"}


def test_subsets_and_splits_of_a_task_come_together(tmp_path):
    for subset, split in (("en", "dev"), ("german", "dev"), ("german", "test"), ("german", "dev")):
        cache = bench(tmp_path, f"mteb:toy_mteb:Languages/{subset}", "--split", split, "-s", "bm25")
    (result,) = written(cache, "Languages").values()
    held = {split: sorted(each["hf_subset"] for each in scores) for split, scores in result.scores.items()}
    assert held == {"dev": ["en", "german"], "test": ["german"]}


def test_another_collection_is_a_result_too(tmp_path):
    from collections_on_disk import things

    folder = things(tmp_path / "my things", dev=["q-wing-in d-wing-in 1"])
    (result,) = written(bench(tmp_path, folder, "-s", "bm25", "--split", "dev"), "my_things").values()
    assert (result.task_name, result.eval_splits, len(result.dataset_revision)) == ("my_things", ["dev"], 40)
    assert result.scores["dev"][0]["main_score"] > 0


def test_runs_must_be_as_deep_as_mteb_measures(tmp_path):
    with pytest.raises(InputError, match="MTEB measures to rank 1000, and these runs hold 100 results; give -k 1000"):
        bench(tmp_path, "mteb:toy_mteb:Things", "-s", "bm25", "-k", 100)


# -- our models --------------------------------------------------------------------------------------------------------


def test_models_are_what_mteb_takes_them_for(tmp_path):
    encoder, pipeline = EncoderModel(TOY), PipelineModel(f"{TOY} + bm25 >> rrf", tmp_path)
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert not isinstance(encoder, mteb.SearchProtocol)
    assert isinstance(pipeline, mteb.SearchProtocol)
    assert not isinstance(pipeline, mteb.EncoderProtocol)
    assert encoder.mteb_model_meta.revision != EncoderModel("toy_encoders:OtherEncoder").mteb_model_meta.revision


@pytest.mark.parametrize("name", ["HashEncoder", "EuclideanEncoder"])
def test_an_encoder_ranks_as_its_dense_view_does(tmp_path, name):
    alone = evaluated(EncoderModel(f"toy_encoders:{name}"), toy_mteb.Things())
    searched = evaluated(PipelineModel(f"toy_encoders:{name}", tmp_path), toy_mteb.Things())
    assert {score: alone[score] for score in SCORES} == {score: searched[score] for score in SCORES}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of mteb's own calls
def test_an_encoder_is_what_sentence_transformers_makes_of_it(tmp_path):
    """mteb has a wrapper of its own for that library; prompts and pooling come from the model's files in both."""
    from sentence_transformers import SentenceTransformer

    folder = bi_encoder(tmp_path, prompts={"query": "wing : ", "document": "plate : "})
    ours = evaluated(EncoderModel(f"dense({folder}, precision=float32)"), toy_mteb.Things())
    theirs = evaluated(SentenceTransformer(str(folder), device="cpu"), toy_mteb.Things())
    assert {score: ours[score] for score in SCORES} == pytest.approx({score: theirs[score] for score in SCORES})


def test_texts_of_symmetric_tasks_are_encoded_as_queries(tmp_path):
    model = EncoderModel(f"dense({bi_encoder(tmp_path, prompts={'query': 'wing : '})}, precision=float32)")
    texts = ["the wing", "heat of a body"]
    batches = [{"text": texts[:1]}, {"text": texts[1:]}]
    assert model.encode(batches).tolist() == model.encoder.encode_queries(texts).vectors.tolist()
    as_documents = model.encode(batches, prompt_type=mteb.types.PromptType.document)
    assert as_documents.tolist() == model.encoder.encode_documents(texts, lambda _: None).vectors.tolist()
    assert as_documents.tolist() != model.encode(batches).tolist()
    assert evaluated(model, mteb.mocks.mock_tasks.MockSTSTask())["hf_subset"] == "default"


def test_documents_without_a_text_are_left_out_and_told(tmp_path):
    model = PipelineModel("bm25", tmp_path)
    with pytest.warns(UserWarning, match="Things: 1 bad documents left out"):
        model.index([{"id": "d", "text": ""}, {"id": "e", "text": "wing"}], task_metadata=toy_mteb.Things.metadata)
    assert model.search([{"id": "q", "text": "wing"}, {"id": "r", "text": "heat"}], top_k=5)["q"].keys() == {"e"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EncoderModel("bm25"), r"bm25: expected one dense view, as in dense\(MODEL\)"),
        (lambda: EncoderModel(f"{TOY} >> rrf"), "expected one dense view"),
        (lambda: PipelineModel("a.trec"), "a.trec: is a run; expected a pipeline, which searches"),
        (lambda: PipelineModel("bm25").search([], top_k=5), "nothing is indexed yet; call index first"),
        (lambda: PipelineModel("bm25").search([], top_k=5, top_ranked={}), "gives each query candidates of its own"),
    ],
)
def test_what_cannot_be_a_model_is_told(make, message):
    with pytest.raises(InputError, match=message):
        make()
