"""BEIR's collections by name: fetched once, resumed where a download broke off, and checked against BEIR's own list."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from retriever.errors import InputError, RetrieverError
from retriever.progress import advance, bar
from retriever.spec import suggest

BEIR_URL = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
BEIR = {
    "arguana": "8ad3e3c2a5867cdced806d6503f29b99",
    "climate-fever": "8b66f0a9126c521bae2bde127b4dc99d",
    "cqadupstack": "4e41456d7df8ee7760a7f866133bda78",
    "dbpedia-entity": "c2a39eb420a3164af735795df012ac2c",
    "fever": "5a818580227bfb4b35bb6fa46d9b6c03",
    "fiqa": "17918ed23cd04fb15047f73e6c3bd9d9",
    "hotpotqa": "f412724f78b0d91183a0e86805e16114",
    "msmarco": "444067daf65d982533ea17ebd59501e4",
    "nfcorpus": "a89dba18a62ef92f7d323ec890a0d38d",
    "nq": "d4d3d2e48787a744b6f6e691ff534307",
    "quora": "18fb154900ba42a600f84b839c173167",
    "scidocs": "38121350fc3a4d2f48850f6aff52e4a9",
    "scifact": "5f7d1de60b170fc8027bb7898e2efca1",
    "trec-covid": "ce62140cb23feb9becf6270d0d1fe6d1",
    "webis-touche2020": "46f650ba5a527fc69e0a6521c5a23563",
}
"""The public collections and the MD5 of their archives, as the table in BEIR's README has them."""
_CHUNK = 1 << 20
_ATTEMPTS = 5
_SILENCE = 60.0
"""Seconds without a byte that are borne."""


def beir(name: str, folder: Path, url: str = BEIR_URL) -> Path:
    """The folder of a collection below `folder`, downloaded where it is not there yet.

    name: as in BEIR; one part of CQADupStack is written cqadupstack/android.

    Raises: InputError for a name that is not BEIR's, RetrieverError where the download fails.
    """
    archive, _, part = name.partition("/")
    if archive not in BEIR:
        raise InputError(f"BEIR has no public collection {name!r}; {suggest(archive, BEIR)}")
    whole = folder / archive
    if not whole.is_dir():
        zipped = fetch(f"{url}/{archive}.zip", folder / f"{archive}.zip", BEIR[archive])
        _unpack(zipped, whole)
        zipped.unlink()
    if part or not (whole / "corpus.jsonl").is_file():
        parts = sorted(path.parent.name for path in whole.glob("*/corpus.jsonl"))
        if part not in parts:
            raise InputError(f"beir:{name}: choose a part of it, as in beir:{archive}/PART: {', '.join(parts)}")
        return whole / part
    return whole


def fetch(url: str, path: Path, md5: str) -> Path:
    """Download a file to `path`, which appears when it is whole and its checksum is right.

    What arrived before a break is kept in PATH.part and resumed, here up to four times, and by the next call.

    Raises: RetrieverError where the server gives no more, or gave another file: that is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    reason = ""
    with bar(f"fetching {path.name}", "bytes"):
        for _ in range(_ATTEMPTS):
            try:
                if _receive(url, part):
                    break
                reason = "the connection ended before the file did"
            except HTTPError as problem:
                with problem:
                    raise RetrieverError(f"{url}: status {problem.code} {problem.reason}") from None
            except (OSError, HTTPException) as problem:
                reason = str(getattr(problem, "reason", "") or problem or type(problem).__name__)
        else:
            kept = part.stat().st_size if part.exists() else 0
            again = f"{kept:,} bytes are kept in {part}; the same command goes on from there"
            raise RetrieverError(f"{url}: broke off {_ATTEMPTS} times: {reason}. {again}")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        part.unlink()
        raise RetrieverError(
            f"{url}: its MD5 is {found}, expected {md5}; it was removed. Try again, or fetch it by hand"
        )
    part.replace(path)
    return path


def _receive(url: str, part: Path) -> bool:
    """Take what is missing behind what is there; says whether that was all."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(request, timeout=_SILENCE)
    except HTTPError as problem:
        if problem.code == 416:  # nothing is missing behind what is there
            problem.close()
            return True
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        length = response.headers.get("Content-Length")
        received = 0
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            received += len(chunk)
            advance(len(chunk))
    return length is None or received == int(length)


def _unpack(zipped: Path, folder: Path) -> None:
    """The archive's one folder as `folder`, whole or not at all."""
    room = folder.with_name(folder.name + ".unpacking")
    shutil.rmtree(room, ignore_errors=True)
    try:
        with zipfile.ZipFile(zipped) as archive:
            archive.extractall(room)  # it takes the way out of the folder from names that would leave it
        (inner,) = (path for path in room.iterdir() if path.is_dir() and path.name != "__MACOSX")
    except (zipfile.BadZipFile, ValueError) as problem:
        raise RetrieverError(f"{zipped}: is no archive of one collection: {problem}") from None
    inner.replace(folder)
    shutil.rmtree(room, ignore_errors=True)
