"""Where each measure's value comes from: a fixed list, so that an installed extra package never changes a number.

In this order: trec_eval's code (pytrec_eval); ir-measures' `Judged`; MS MARCO's script (`RR@k`); `Compat`; and the
three below, whose only providers under ir-measures are a Perl script or packages that are not installed with it.

Named by ir-measures and not computed here, and why: `ABSENT`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import ir_measures as ir
from ir_measures import Measure, Metric, measures
from ir_measures.providers import Evaluator, FallbackProvider, Provider
from ir_measures.providers.base import NOT_PROVIDED, Choices
from ir_measures.providers.base import Any as AnyValue

from retriever.errors import InputError

_SUBTOPICS = "it needs judgements by subtopic, which the files read here do not hold"
_CWL = "only the package cwl-eval has it, which is not among the fixed providers"
ABSENT = {
    **dict.fromkeys(
        ("AP_IA", "ERR_IA", "NRBP", "P_IA", "StRecall", "alpha_DCG", "alpha_nDCG", "nERR_IA", "nNRBP"), _SUBTOPICS
    ),
    **dict.fromkeys(("BPM", "INSQ", "INST", "NERR8", "NERR9", "NERR10", "NERR11", "SDCG"), _CWL),
    "Accuracy": "ir-measures divides by zero for a query that found nothing irrelevant",
    "ERR": "it needs a cutoff, as in ERR@20",
    "RBP": "it needs the grade that counts as relevant, as in RBP(rel=1)",
}
"""Name -> why ir-measures' measure of that name, or that form of it, is not computed here."""

_ERR_HIGHEST = 4
_HIGHEST = 30


@cache
def provider() -> Any:
    """ir-measures' provider for everything that is computed here."""
    return FallbackProvider([ir.pytrec_eval, ir.judged, ir.msmarco, ir.compat, _Formulas()])


class _Formulas(Provider):  # type: ignore[misc]
    """nDCG with exponential gain, ERR and RBP."""

    NAME = "retriever"
    SUPPORTED_MEASURES = (
        measures._nDCG(
            cutoff=AnyValue(), dcg=Choices("exp-log2"), gains=Choices(NOT_PROVIDED), judged_only=Choices(False)
        ),
        measures._ERR(cutoff=AnyValue(required=True)),
        measures._RBP(cutoff=AnyValue(), p=AnyValue(), rel=AnyValue(required=True)),
    )

    def _evaluator(self, measures: Sequence[Measure], qrels: Any) -> Any:
        return _Evaluator(measures, ir.util.QrelsConverter(qrels).as_dict_of_dict())


class _Evaluator(Evaluator):  # type: ignore[misc]
    def __init__(self, measures: Sequence[Measure], qrels: Mapping[str, Mapping[str, int]]) -> None:
        super().__init__(measures, qrels.keys())
        self._qrels = qrels
        if any(measure.NAME != "RBP" for measure in measures):
            _check_grades(qrels, _ERR_HIGHEST if any(measure.NAME == "ERR" for measure in measures) else _HIGHEST)

    def _iter_calc(self, run: Any) -> Iterator[Metric]:
        for query, scores in ir.util.RunConverter(run).as_dict_of_dict().items():
            judged = self._qrels.get(query, {})
            ranking = sorted(scores, key=scores.__getitem__, reverse=True)
            for measure in self.measures:
                cutoff = measure.params.get("cutoff")
                grades = [max(0, judged.get(document, 0)) for document in islice(ranking, cutoff)]
                yield Metric(query_id=query, measure=measure, value=_value(measure, grades, judged))


def _value(measure: Measure, grades: Sequence[int], judged: Mapping[str, int]) -> float:
    if measure.NAME == "ERR":
        return err(grades)
    if measure.NAME == "RBP":
        return rbp([grade >= measure["rel"] for grade in grades], measure["p"])
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)
    best = exponential_dcg(ideal[: measure.params.get("cutoff")])
    return exponential_dcg(grades) / best if best else 0.0


def exponential_dcg(grades: Sequence[int]) -> float:
    """Discounted gain of a ranking's grades, sum over ranks r from 1 of (2 ** grade - 1) / log2(r + 1).

    C. Burges et al., "Learning to rank using gradient descent", ICML 2005, section 7; gdeval's. trec_eval's gain, and
    that of `nDCG` without `dcg='exp-log2'`, is the grade itself (Järvelin and Kekäläinen, TOIS 20 (2002)).
    """
    return math.fsum((2.0**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(grades, 1) if grade)


def err(grades: Sequence[int]) -> float:
    """Expected reciprocal rank of a ranking's grades: sum over ranks r of R_r / r times the (1 - R_i) of all i < r.

    R = (2 ** grade - 1) / 2 ** 4. O. Chapelle et al., "Expected reciprocal rank for graded relevance", CIKM 2009,
    equations 4 and 5, with the highest grade 4 for every collection, as gdeval has it.
    """
    value, reached = 0.0, 1.0
    for rank, grade in enumerate(grades, 1):
        satisfied = (2.0**grade - 1) / 2**_ERR_HIGHEST
        value += reached * satisfied / rank
        reached *= 1 - satisfied
    return value


def rbp(relevant: Sequence[bool], p: float) -> float:
    """Rank-biased precision of a ranking: (1 - p) times the sum of p ** (r - 1) over relevant documents' ranks r.

    A. Moffat and J. Zobel, "Rank-biased precision for measurement of retrieval effectiveness", TOIS 27 (2008).
    """
    return (1 - p) * math.fsum(p**place for place, one in enumerate(relevant) if one)


def _check_grades(qrels: Mapping[str, Mapping[str, int]], most: int) -> None:
    for query, row in qrels.items():
        if max(row.values()) > most:
            name = "ERR" if most == _ERR_HIGHEST else "nDCG with dcg='exp-log2'"
            raise InputError(f"query {query!r} has the grade {max(row.values())}; {name} takes none above {most}")
