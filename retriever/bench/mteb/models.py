"""Our encoders and pipelines as models of MTEB, for `mteb.evaluate`.

mteb.evaluate(EncoderModel("dense(sentence-transformers/all-MiniLM-L6-v2)"), mteb.get_tasks(["SciFact", "STS12"]))
mteb.evaluate(PipelineModel("bm25 + dense >> rrf"), mteb.get_task("SciFact"))
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from retriever.bench.cache import Indexed, default_cache
from retriever.bench.mteb import import_mteb
from retriever.bench.mteb.tasks import asked, write_corpus
from retriever.bench.report import file_name
from retriever.bench.sources import Source
from retriever.bench.systems import parse_system
from retriever.errors import InputError
from retriever.indexers.dense import Dense, make_encoder
from retriever.spec import configure
from retriever.types import Floats, Query

DIGITS = 40
"""Of a SHA-256, for a revision: as many as git shows."""


def model_meta(name: str, revision: str, **more: Any) -> Any:
    """MTEB's ModelMeta of a system: `retriever/` and its name as a file's. revision: "" where there is none.

    Raises: MissingDependencyError.
    """
    import_mteb("a model of MTEB's")
    from mteb.models import ModelMeta

    return ModelMeta.create_empty({"name": f"retriever/{file_name(name)}", "revision": revision or None, **more})


class EncoderModel:
    """One of our encoders as mteb's EncoderProtocol: for retrieval, and for tasks of any other kind that embed texts.

    Texts that a task calls documents are encoded as those, all others (of symmetric tasks too) as queries.
    """

    def __init__(self, system: str) -> None:
        """system: a dense view with its model, or what `retriever bench --system` takes for one.

        Raises: InputError where it is something else.
        """
        parsed = parse_system(system)
        views = [view.spec.component for view in parsed.views]
        if [view.name for view in views] != ["dense"] or parsed.pipeline != parsed.views[0].spec.name:
            raise InputError(f"{system}: expected one dense view, as in dense(MODEL)")
        self.name, self.encoder = parsed.name, make_encoder(configure(Dense.Config, views[0]))

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: Any = None, **_: Any) -> Floats:
        """float32 [n, d] of mteb's batches of texts."""
        texts = [text for batch in inputs for text in batch["text"]]
        if prompt_type == "document":
            return self.encoder.encode_documents(texts, lambda _: None).vectors
        return self.encoder.encode_queries(texts).vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """A tensor [n, m]: inner products, or the negative Euclidean distance where the model compares by that."""
        from sentence_transformers import util

        return (util.euclidean_sim if self._euclidean else util.dot_score)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """A tensor [n], of the pairs in their order."""
        from sentence_transformers import util

        compare = util.pairwise_euclidean_sim if self._euclidean else util.pairwise_dot_score
        return compare(embeddings1, embeddings2)

    @cached_property
    def mteb_model_meta(self) -> Any:
        """MTEB's ModelMeta; the revision is of all that decides the vectors."""
        identity = json.dumps(dict(self.encoder.identity()), sort_keys=True)
        revision = hashlib.sha256(identity.encode()).hexdigest()[:DIGITS]
        return model_meta(self.name, revision, embed_dim=self.encoder.dimension)

    @property
    def _euclidean(self) -> bool:
        return self.encoder.identity().get("similarity") == "euclidean"


class PipelineModel:
    """A whole pipeline as mteb's SearchProtocol. What is indexed is kept, as `retriever bench` keeps it."""

    def __init__(self, system: str, cache: Path | None = None) -> None:
        """system: what `retriever bench --system` takes, but a run file. cache: where indexes are kept.

        Raises: InputError where it is no such thing.
        """
        self._system = parse_system(system)
        if self._system.run:
            raise InputError(f"{system}: is a run; expected a pipeline, which searches")
        self._cache = cache or default_cache()
        self._indexed: Indexed | None = None

    def index(self, corpus: Iterable[Mapping[str, Any]], *, task_metadata: Any, **_: Any) -> None:
        """Index a corpus, or take it from the cache. Documents without a text are left out, with a warning."""
        with TemporaryDirectory() as folder:
            write_corpus(Path(folder) / "corpus.jsonl", corpus)
            self._indexed = Indexed(Source(task_metadata.name, folder, "", ""), self._cache, skip_bad=True)
        if self._indexed.skipped:
            warnings.warn(f"{task_metadata.name}: {self._indexed.skipped:,} bad documents left out", stacklevel=2)
        for view in self._system.views:
            self._indexed.prepare(view)

    def search(
        self, queries: Iterable[Mapping[str, Any]], *, top_k: int, top_ranked: Any = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """Query id -> document id -> score, of the best top_k.

        Raises: InputError for a reranking task, which gives each query candidates of its own.
        """
        if top_ranked is not None:
            raise InputError("a pipeline searches a corpus; this task gives each query candidates of its own")
        if self._indexed is None:
            raise InputError("nothing is indexed yet; call index first")
        questions = [Query(row["id"], asked(row)) for row in queries]
        run = self._indexed.index.run(questions, k=top_k, pipeline=self._system.pipeline)
        return {query.id: dict(run.get(query.id, {})) for query in questions}

    @cached_property
    def mteb_model_meta(self) -> Any:
        """MTEB's ModelMeta; the revision is of the pipeline and its models."""
        return model_meta(self._system.name, self._system.key[:DIGITS])
