"""BM25 with free k1 and b, in the variants that Kamphuis, de Vries, Boytsov and Lin tell apart ("Which BM25 Do You
Mean?", ECIR 2020), and the length classes of Lucene.

Every variant is a sum over the query's terms of idf(df, N) * saturation(tf, |d| / avgdl):

| variant     | idf                                  | saturation, with n = k1 * (1 - b + b * |d| / avgdl)            |
| ----------- | ------------------------------------ | -------------------------------------------------------------- |
| `lucene`    | ln(1 + (N - df + 0.5) / (df + 0.5))  | tf / (tf + n)                                                  |
| `robertson` | max(0, ln((N - df + 0.5) / (df + 0.5))) | tf / (tf + n)                                               |
| `atire`     | ln(N / df)                           | (k1 + 1) tf / (tf + n)                                         |
| `bm25l`     | ln((N + 1) / (df + 0.5))             | (k1 + 1) (c + 0.5) / (k1 + c + 0.5) with c = tf * k1 / n       |
| `bm25+`     | ln((N + 1) / df)                     | 1 + (k1 + 1) tf / (tf + n)                                     |

A document's length enters as in Lucene and tantivy: in one byte, exact up to 40 terms, with a relative step of at most
1/8 above; avgdl is exact. A term that occurs more than 65,535 times counts as if it occurred so often.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from retriever.types import Floats, Rows

MOST = 65_535
"""Occurrences of a term beyond which more change nothing."""
VARIANTS = ("lucene", "robertson", "atire", "bm25l", "bm25+")
_DELTA = {"bm25l": 0.5, "bm25+": 1.0}  # Lv and Zhai 2011, both


def _class_length(code: int) -> int:
    """The length that one byte stands for: Lucene's SmallFloat.byte4ToInt, three bits of mantissa beyond 40."""
    if code < 24:
        return code
    mantissa, shift = (code - 24) & 7, ((code - 24) >> 3) - 1
    return 24 + (mantissa if shift < 0 else (mantissa | 8) << shift)


CLASS_LENGTHS = np.array([_class_length(code) for code in range(256)], dtype=np.int64)


def length_class(lengths: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """uint8 [n]: the class of each length, rounded down."""
    return (np.searchsorted(CLASS_LENGTHS, lengths, side="right") - 1).astype(np.uint8)


def idf(variant: str, df: Rows, documents: int) -> npt.NDArray[np.float64]:
    """float64 [n] from df >= 1 (a term in no document has no postings: its value is of no account)."""
    df = np.maximum(df, 1)
    values: npt.NDArray[np.float64]
    if variant == "lucene":
        values = np.log1p((documents - df + 0.5) / (df + 0.5))
    elif variant == "robertson":
        values = np.maximum(0.0, np.log(np.maximum(documents - df + 0.5, 1e-9) / (df + 0.5)))
    elif variant == "atire":
        values = np.log(documents / df)
    else:
        values = np.log((documents + 1) / (df + (0.5 if variant == "bm25l" else 0)))
    return values


def saturation(variant: str, k1: float, b: float, avgdl: float, width: int) -> Floats:
    """float32 [256, width]: what tf occurrences (column) are worth in a document of a length class (row); 0 for
    none.
    """
    tf = np.arange(width, dtype=np.float64)[None, :]
    norm = (1 - b + b * CLASS_LENGTHS / max(avgdl, 1e-9))[:, None]
    boost = 1.0 if variant in ("lucene", "robertson") else k1 + 1
    if variant == "bm25l":
        c = tf / np.maximum(norm, 1e-9) + _DELTA[variant]
        values = boost * c / (k1 + c)
    else:
        values = boost * tf / np.maximum(tf + k1 * norm, 1e-9) + _DELTA.get(variant, 0.0)
    values[:, 0] = 0.0
    table: Floats = values.astype(np.float32)
    return table
